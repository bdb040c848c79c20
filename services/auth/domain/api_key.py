"""Owns API keys: their form, checksum and fingerprint, and which scopes each kind may hold."""

import hmac
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from libs import errors
from services.auth.domain import roles

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_BYTES = 32
_SECRET_DIGITS = 43
_CHECK_DIGITS = 6
_SHOWN_DIGITS = 4
_FORM = re.compile(r"(gf[sp]k_(?:live|test)_)([0-9A-Za-z]{43})([0-9A-Za-z]{6})")

SECRET = "secret"  # noqa: S105 — the name of a kind
PUBLISHABLE = "publishable"
_MARKS = {SECRET: "gfsk", PUBLISHABLE: "gfpk"}


@dataclass(frozen=True)
class ApiKey:
    """A key's record; the key itself is stored nowhere."""

    id: UUID
    kind: str
    live: bool
    name: str
    prefix: str
    last_four: str
    scopes: tuple[str, ...]
    created_at: datetime
    revoked_at: datetime | None = None


def mint(kind: str, live: bool, randomness: Callable[[int], bytes]) -> str:
    """Returns a new key: mark, mode, 256 random bits in base 62, checksum.

    For example `gfsk_live_` + 43 characters + 6 characters, which scanners can tell from other text.
    """
    secret = _digits(int.from_bytes(randomness(_SECRET_BYTES)), _SECRET_DIGITS)
    body = f"{_MARKS[kind]}_{'live' if live else 'test'}_{secret}"
    return body + _checksum(body)


def well_formed(key: str) -> bool:
    """Tells whether the text has the form of a key and its checksum holds; says nothing about its existence."""
    match = _FORM.fullmatch(key)
    return match is not None and hmac.compare_digest(_checksum(match[1] + match[2]), match[3])


def fingerprint(key: str, pepper: bytes) -> bytes:
    """Returns what is stored of a key: HMAC-SHA-256 under the key pepper. High entropy needs no slow hash."""
    return hmac.digest(pepper, key.encode(), "sha256")


def shown_parts(key: str) -> tuple[str, str]:
    """Returns the first characters and the last four, to recognise a key by."""
    start = key.rindex("_") + 1 + _SHOWN_DIGITS
    return key[:start], key[-4:]


def checked_scopes(kind: str, asked: tuple[str, ...], held: frozenset[str]) -> tuple[str, ...]:
    """Returns the scopes of a new key in order; none asked for means all that the kind may hold and the maker holds.

    Raises `invalid("scope_unknown")`, `invalid("scope_not_for_kind")`, and `forbidden("scope_not_held")` for more than
    whoever makes the key may do: nobody raises their own rights by a key.
    """
    allowed = roles.KEY_SCOPES if kind == SECRET else roles.PUBLISHABLE_KEY_SCOPES
    if not asked:
        return tuple(sorted(allowed & held))
    for scope in asked:
        if scope not in roles.SCOPES:
            raise errors.invalid("scope_unknown", f"There is no scope {scope[:60]}.", field="scopes")
        if scope not in allowed:
            raise errors.invalid("scope_not_for_kind", f"Keys of this kind may not hold {scope}.", field="scopes")
        if scope not in held:
            raise errors.forbidden("scope_not_held", f"Your role does not hold {scope}, so your keys may not either.")
    return tuple(sorted(set(asked)))


def _digits(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def _checksum(body: str) -> str:
    return _digits(zlib.crc32(body.encode()), _CHECK_DIGITS)
