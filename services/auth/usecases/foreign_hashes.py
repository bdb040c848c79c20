"""Owns verifying passwords against hashes of other systems: one small function a scheme."""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from types import MappingProxyType

import argon2.exceptions
import argon2.low_level
import bcrypt

from services.auth.domain import foreign_hash as rules
from services.auth.domain.foreign_hash import ForeignHash

_BCRYPT_BYTES = 72
_LONGEST_BYTES = 512
"""phpass's loop takes as long as the password is: a longer one is right nowhere, at the work of this."""


def matches(password: str, stored: ForeignHash) -> bool:
    """Tells whether a password is the one that was hashed elsewhere: as it is typed, in UTF-8.

    Runs for as long as the scheme takes; none but argon2id uses memory worth speaking of.
    """
    raw = password.encode()
    # PBKDF2 takes a NUL at the end for none, bcrypt takes none at all: with one, no password is right.
    cut = raw.partition(b"\0")[0][:_LONGEST_BYTES]
    return _VERIFIERS[stored.scheme](cut, stored) and cut == raw


def _bcrypt(password: bytes, stored: ForeignHash) -> bool:
    # As those who hashed it did: the rest was never part of it.
    return bcrypt.checkpw(password[:_BCRYPT_BYTES], stored.text.encode())


def _phpass(password: bytes, stored: ForeignHash) -> bool:
    digest = hashlib.md5(stored.salt + password, usedforsecurity=False).digest()
    for _ in range(stored.rounds):
        digest = hashlib.md5(digest + password, usedforsecurity=False).digest()
    return hmac.compare_digest(_phpass_text(digest).encode(), stored.text[-22:].encode())


def _phpass_text(digest: bytes) -> str:
    """Returns 16 bytes in phpass's own base 64: little-endian groups of three bytes, the low six bits first."""
    groups = [digest[start : start + 3] for start in range(0, len(digest), 3)]
    return "".join(
        rules.PHPASS_DIGITS[int.from_bytes(group, "little") >> 6 * place & 0x3F]
        for group in groups
        for place in range(len(group) + 1)
    )


def _pbkdf2(password: bytes, stored: ForeignHash) -> bool:
    found = hashlib.pbkdf2_hmac(stored.algorithm, password, stored.salt, stored.rounds, len(stored.digest))
    return hmac.compare_digest(found, stored.digest)


def _argon2(password: bytes, stored: ForeignHash) -> bool:
    try:
        return argon2.low_level.verify_secret(stored.text.encode(), password, argon2.low_level.Type.ID)
    except argon2.exceptions.VerifyMismatchError:
        return False


_VERIFIERS: Mapping[str, Callable[[bytes, ForeignHash], bool]] = MappingProxyType(
    {
        rules.BCRYPT: _bcrypt,
        rules.PHPASS: _phpass,
        **dict.fromkeys(rules.PBKDF2.values(), _pbkdf2),
        rules.ARGON2ID: _argon2,
    }
)
