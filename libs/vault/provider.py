"""Owns the top of the key hierarchy: the port to whatever wraps account keys, and its file implementation."""

import hashlib
import os
import stat
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from libs.vault.cipher import NONCE_BYTES, Randomness

KEY_BYTES = 32


class ProviderError(Exception):
    """The key provider is set up wrongly, or does not hold the key that a wrapped key names."""


class KeyProvider(Protocol):
    """Wraps account keys; called once an account and cache period, never once a row."""

    name: str
    key_id: str
    """Names the provider key that `wrap` uses now; stored beside what it wrapped."""

    async def wrap(self, key: bytes, context: bytes) -> bytes:
        """Returns the wrapped key, bound to `context`."""
        ...

    async def unwrap(self, wrapped: bytes, context: bytes, key_id: str) -> bytes:
        """Returns the key; raises ProviderError when the provider key, the context or the bytes do not fit."""
        ...


class FileKeyProvider:
    """Wraps account keys under 32 bytes in a file that only its owner can read."""

    name = "file"

    def __init__(self, path: Path, randomness: Randomness = os.urandom) -> None:
        key = _read(path)
        self.key_id = hashlib.sha256(b"gatefold key id\0" + key).hexdigest()[:16]
        self._key = AESGCM(key)
        self._randomness = randomness

    async def wrap(self, key: bytes, context: bytes) -> bytes:
        """Returns nonce, ciphertext and tag."""
        nonce = self._randomness(NONCE_BYTES)
        return nonce + self._key.encrypt(nonce, key, context)

    async def unwrap(self, wrapped: bytes, context: bytes, key_id: str) -> bytes:
        """Returns the key; raises ProviderError."""
        if key_id != self.key_id:
            raise ProviderError(f"account key is wrapped under provider key {key_id}, the key file holds {self.key_id}")
        try:
            return self._key.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], context)
        except InvalidTag:
            raise ProviderError("a wrapped account key was changed or belongs to another account") from None


def create_key_file(path: Path, randomness: Randomness = os.urandom) -> None:
    """Writes a fresh provider key to a file of mode 0600; leaves one that is there alone."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "wb") as file:
        file.write(randomness(KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())


def provider(name: str, key_file: Path | None, randomness: Randomness = os.urandom) -> KeyProvider:
    """Returns the named provider; raises ProviderError for a name that is not known."""
    if name == "file":
        if key_file is None:
            raise ProviderError("key provider 'file' needs GATEFOLD_KEY_FILE")
        return FileKeyProvider(key_file, randomness)
    raise ProviderError(f"unknown key provider {name!r}; this version knows: file")


def _read(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise ProviderError(f"key file {path} cannot be read: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        # Asked of the open file, so that nobody can change it between the check and the reading.
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ProviderError(f"key file {path} is not a regular file")
        if status.st_mode & 0o077:
            raise ProviderError(f"key file {path} is open to group or others; run chmod 600 on it")
        key = file.read(KEY_BYTES + 1)
    if len(key) != KEY_BYTES:
        raise ProviderError(f"key file {path} must hold exactly {KEY_BYTES} bytes")
    return key
