"""Owns API keys: their form, checksum and fingerprint, and which scopes each kind may hold."""

import hmac
import ipaddress
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from libs import errors
from services.auth.domain import roles

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_BYTES = 32
_SECRET_DIGITS = 43
_CHECK_DIGITS = 6
_SHOWN_DIGITS = 4
_FORM = re.compile(r"(gf(?:sk|pk|sc)_(?:live|test)_)([0-9A-Za-z]{43})([0-9A-Za-z]{6})")

SECRET = "secret"  # noqa: S105 — the name of a kind
PUBLISHABLE = "publishable"
SCIM = "scim"
"""For a staff directory; it holds no scopes, and reaches the team alone."""
LEAK_PLACES = frozenset({"browser", "url", "referer"})
LONGEST_OVERLAP = timedelta(days=30)
USE_NOTED_EVERY = timedelta(minutes=1)
"""How exactly it is known when a key was last used: one write a minute at the most."""

_MARKS = {SECRET: "gfsk", PUBLISHABLE: "gfpk", SCIM: "gfsc"}


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
    expires_at: datetime | None = None
    networks: tuple[str, ...] = ()
    last_used_at: datetime | None = None
    replaced_by: UUID | None = None
    leaked_at: datetime | None = None
    leaked_in: str = ""

    def works_at(self, now: datetime) -> bool:
        """Tells whether the key has not ended."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def checked_networks(networks: tuple[str, ...]) -> tuple[str, ...]:
    """Returns networks in their one spelling; raises `invalid("network_invalid")`, also where host bits are set."""
    checked = []
    for text in networks:
        try:
            checked.append(str(ipaddress.ip_network(text)))
        except ValueError:
            raise errors.invalid(
                "network_invalid", "A network is written as CIDR, for example 203.0.113.0/24.", field="networks"
            ) from None
    return tuple(checked)


def checked_expiry(expires_at: datetime | None, now: datetime) -> datetime | None:
    """Returns when a new key ends; raises `invalid("expiry_invalid")` for a time that is over."""
    if expires_at is not None and expires_at <= now:
        raise errors.invalid("expiry_invalid", "A key ends in the future.", field="expires_at")
    return expires_at


def rotated_until(key: ApiKey, now: datetime, overlap: timedelta) -> datetime:
    """Returns when a key ends that has a successor; never later than it would have."""
    ends = now + overlap
    return ends if key.expires_at is None else min(ends, key.expires_at)


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
    if kind == SCIM:
        # It makes members and gives roles, so that whoever may not do that may not make it either.
        if "team:write" not in held:
            raise errors.forbidden("scope_not_held", "Your role does not hold team:write, so your keys may not either.")
        if asked:
            raise errors.invalid("scope_not_for_kind", "A directory's key holds no scopes.", field="scopes")
        return ()
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
