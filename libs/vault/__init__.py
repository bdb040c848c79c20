"""Encrypts personal data field by field: provider key → account key → subject key → field."""

from libs.vault.cipher import Cipher, DamagedError, KeyDestroyed
from libs.vault.provider import FileKeyProvider, KeyProvider, ProviderError, create_key_file
from libs.vault.vault import PURPOSES, BlindIndexer, Vault, VaultConfig

SubjectCipher = Cipher

__all__ = [
    "PURPOSES",
    "BlindIndexer",
    "Cipher",
    "DamagedError",
    "FileKeyProvider",
    "KeyDestroyed",
    "KeyProvider",
    "ProviderError",
    "SubjectCipher",
    "Vault",
    "VaultConfig",
    "create_key_file",
]
