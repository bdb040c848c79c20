"""Owns password hashes of other systems: which are read, how much work each is, and which are too much."""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from libs import errors

BCRYPT = "bcrypt"
PHPASS = "phpass"
PBKDF2 = {"sha1": "pbkdf2-sha1", "sha256": "pbkdf2-sha256", "sha512": "pbkdf2-sha512"}
ARGON2ID = "argon2id"
SCHEMES = frozenset({BCRYPT, PHPASS, *PBKDF2.values(), ARGON2ID})

LONGEST = 500
_STEP = 16
"""The least work that bcrypt can add, cost 4: what another scheme does is counted in whole steps."""
MOST_BCRYPT_COST = 14
_PHPASS_ROUNDS = range(7, 16)
"""Powers of two. Its loop is Python's own and holds the interpreter: 2^15 is about 50 ms."""
_MOST_ITERATIONS = 2_000_000
_MOST_MEMORY_KIB = 65_536
"""64 MiB (RFC 9106, section 4) for each core at once."""
_MOST_PASSES = 16
_MOST_LANES = 4

# How much one unit of work (2^-12 of a bcrypt run of cost 12) buys, measured beside it on x86 with SHA extensions.
_ITERATIONS_OF_A_UNIT = {"sha1": 175, "sha256": 250, "sha512": 85}
_MD5_OF_A_UNIT = 72
_KIB_OF_A_UNIT = 60

_BCRYPT = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_PHPASS = re.compile(r"\$[PH]\$([./0-9A-Za-z])([./0-9A-Za-z]{8})[./0-9A-Za-z]{22}")
_DJANGO = re.compile(r"pbkdf2_(sha1|sha256|sha512)\$(\d{1,9})\$([^$]{1,100})\$([A-Za-z0-9+/]{16,100}={0,2})")
_MODULAR = re.compile(
    r"\$pbkdf2(?:-(sha1|sha256|sha512))?\$(?:i=)?(\d{1,9})(?:,l=\d{1,3})?\$([./+A-Za-z0-9]{1,100})\$([./+A-Za-z0-9]{16,100})"
)
_ARGON2 = re.compile(
    r"\$argon2id\$v=19\$m=(\d{1,7}),t=(\d{1,3}),p=(\d{1,3})\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,86})"
)
PHPASS_DIGITS = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, repr=False)
class ForeignHash:
    """A hash that was read. A secret: never shown."""

    scheme: str
    params: str
    """What it costs, to be shown: `cost=10`, `rounds=13`, `i=600000`, `m=65536,t=3,p=4`."""
    text: str
    """In the one spelling that its verifier reads."""
    units: int
    """Its work, at least, in units of bcrypt's; a multiple of 16."""
    rounds: int = 0
    salt: bytes = b""
    digest: bytes = b""
    algorithm: str = ""


def parse(text: str) -> ForeignHash:
    """Reads a hash of bcrypt, phpass, PBKDF2 (Django's and the modular crypt format) or argon2id.

    Raises `invalid("hash_unknown")` for any other, and `invalid("hash_too_costly")` for one whose parameters ask for
    more work or memory than a sign-in may take, whoever wrote them.
    """
    bare = text.removeprefix("argon2") if text.startswith("argon2$") else text
    for pattern, read in ((_BCRYPT, _bcrypt), (_PHPASS, _phpass), (_DJANGO, _django), (_MODULAR, _modular)):
        match = pattern.fullmatch(bare)
        if match:
            return read(match)
    match = _ARGON2.fullmatch(bare)
    if match is None or len(text) > LONGEST:
        raise unknown()
    return _argon2(match)


def unknown() -> errors.GatefoldError:
    """Returns the error of a hash that is none of these."""
    return errors.invalid("hash_unknown", "This is no hash of bcrypt, phpass, PBKDF2 or argon2id.", field="hash")


def too_costly() -> errors.GatefoldError:
    """Returns the error of a hash that would take too long."""
    return errors.invalid("hash_too_costly", "This hash takes more work than a sign-in may.", field="hash")


def remaining(units: int, target: int) -> list[int]:
    """Returns the costs of bcrypt runs that raise work of `units` to exactly `target`: one for each bit of the rest."""
    left = target - units
    return [bit for bit in range(left.bit_length()) if left >> bit & 1] if left > 0 else []


def _bcrypt(match: re.Match[str]) -> ForeignHash:
    cost = int(match[1])
    if not 4 <= cost <= 31:
        raise unknown()
    if cost > MOST_BCRYPT_COST:
        raise too_costly()
    return ForeignHash(BCRYPT, f"cost={cost}", match[0], 1 << cost)


def _phpass(match: re.Match[str]) -> ForeignHash:
    rounds = PHPASS_DIGITS.index(match[1])
    if rounds >= _PHPASS_ROUNDS.stop:
        raise too_costly()
    if rounds not in _PHPASS_ROUNDS:
        raise unknown()
    salt, units = match[2].encode(), _stepped((1 << rounds) / _MD5_OF_A_UNIT)
    return ForeignHash(PHPASS, f"rounds={rounds}", match[0], units, 1 << rounds, salt)


def _django(match: re.Match[str]) -> ForeignHash:
    return _pbkdf2(match[0], match[1], int(match[2]), match[3].encode(), _decoded(match[4].rstrip("=")))


def _modular(match: re.Match[str]) -> ForeignHash:
    salt, digest = (_decoded(part.replace(".", "+")) for part in (match[3], match[4]))
    return _pbkdf2(match[0], match[1] or "sha1", int(match[2]), salt, digest)


def _pbkdf2(text: str, algorithm: str, iterations: int, salt: bytes, digest: bytes) -> ForeignHash:
    # More than one block of output would be more runs than the iterations say.
    if not 16 <= len(digest) <= hashlib.new(algorithm, usedforsecurity=False).digest_size or iterations < 1:
        raise unknown()
    if iterations > _MOST_ITERATIONS:
        raise too_costly()
    units = _stepped(iterations / _ITERATIONS_OF_A_UNIT[algorithm])
    return ForeignHash(PBKDF2[algorithm], f"i={iterations}", text, units, iterations, salt, digest, algorithm)


def _argon2(match: re.Match[str]) -> ForeignHash:
    memory, passes, lanes = int(match[1]), int(match[2]), int(match[3])
    salt, digest = _decoded(match[4]), _decoded(match[5])
    # RFC 9106, section 3.1.
    if passes < 1 or lanes < 1 or memory < 8 * lanes or len(salt) < 8 or len(digest) < 16:
        raise unknown()
    if memory > _MOST_MEMORY_KIB or passes > _MOST_PASSES or lanes > _MOST_LANES:
        raise too_costly()
    units = _stepped(memory * passes / _KIB_OF_A_UNIT)
    return ForeignHash(ARGON2ID, f"m={memory},t={passes},p={lanes}", match[0], units)


def _stepped(units: float) -> int:
    return max(_STEP, round(units / _STEP) * _STEP)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise unknown() from None
