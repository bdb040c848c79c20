"""Owns the keys that tokens are derived with: one for each use, from one configured secret."""

import hmac
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


@dataclass(frozen=True, repr=False)
class TokenSecrets:
    """The derived keys; never shown."""

    challenge: bytes
    refresh: bytes
    request: bytes
    sign_in: bytes
    attempt: bytes
    device: bytes
    federation: bytes
    passkey: bytes
    oauth: bytes

    @classmethod
    def derive(cls, secret: str) -> "TokenSecrets":
        """Derives the keys (HKDF, RFC 5869)."""
        uses = ("challenge", "refresh", "request", "sign_in", "attempt", "device", "federation", "passkey", "oauth")
        return cls(*(_derive(secret, use.encode()) for use in uses))


def _derive(secret: str, use: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"gatefold/auth/" + use).derive(secret.encode())


def blinded(key: bytes, text: str) -> str:
    """Returns what may be compared of a text but not guessed from without the key."""
    return hmac.digest(key, text.encode(), "sha256").hex()
