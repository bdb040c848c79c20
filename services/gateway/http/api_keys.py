"""Owns API keys at the edge: their form, their checksum, and whose they are."""

import hashlib
import hmac
import ipaddress
import re
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gatefold.auth.v1 import api_key_pb2

from libs import errors, ids
from libs.caller import Caller, CallerKind
from libs.config import Secret
from services.gateway.http.caches import Cache, Monotonic

CACHE_SECONDS = 0.9
"""How long a key is believed after it was looked up: an ended key works for less than a second more."""

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FORM = re.compile(r"gf(?:sk|pk|sc)_(?:live|test)_[0-9A-Za-z]{49}")
_CHECKSUM_LENGTH = 6
_MOST_KEYS = 10_000

_KINDS = {
    api_key_pb2.API_KEY_KIND_SECRET: CallerKind.SECRET_KEY,
    api_key_pb2.API_KEY_KIND_PUBLISHABLE: CallerKind.PUBLISHABLE_KEY,
    api_key_pb2.API_KEY_KIND_SCIM: CallerKind.SCIM,
}
_MARKS = {"gfsk_": CallerKind.SECRET_KEY, "gfpk_": CallerKind.PUBLISHABLE_KEY, "gfsc_": CallerKind.SCIM}
MARKS = tuple(_MARKS)
"""How keys begin."""

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class _Known:
    """Whom a key stands for, and where it may be used from."""

    caller: Caller
    networks: tuple[_Network, ...]


Resolve = Callable[[bytes, str], Awaitable[api_key_pb2.ResolveApiKeyResponse | None]]


class ApiKeys:
    """Tells whose an API key is."""

    def __init__(self, resolve: Resolve, pepper: Secret, *, monotonic: Monotonic) -> None:
        self._resolve = resolve
        self._pepper = pepper.reveal().encode()
        self._known: Cache[bytes, _Known | None] = Cache(seconds=CACHE_SECONDS, most=_MOST_KEYS, monotonic=monotonic)

    def known(self, key: str) -> Caller | None:
        """Returns whom a key stands for that was looked up a moment ago and may be sent from anywhere; None for others.

        What is to be said of the others, `caller` says.
        """
        known = self._known.known(_digest(key))
        return None if known is None or known.networks else known.caller

    async def caller(self, key: str, address: str, request_id: str) -> Caller:
        """Returns whom a key stands for.

        Raises `unauthenticated("api_key_invalid")`, and `forbidden("network_not_allowed")` for a key that is sent from
        elsewhere than it may be. A key with a wrong form or checksum is refused without asking anybody.
        """
        if not well_formed(key):
            raise _invalid()

        async def ask() -> _Known | None:
            found = await self._resolve(self.fingerprint(key), request_id)
            caller = None if found is None else _caller(found, key)
            if found is None or caller is None:
                return None
            return _Known(caller, tuple(ipaddress.ip_network(network) for network in found.api_key.networks))

        known = await self._known.get(_digest(key), ask)
        if known is None:
            raise _invalid()
        if known.networks and not _within(address, known.networks):
            raise errors.forbidden("network_not_allowed", "This key may not be used from this address.")
        return known.caller

    def fingerprint(self, key: str) -> bytes:
        """Returns what auth knows a key by."""
        return hmac.digest(self._pepper, key.encode(), "sha256")


def _digest(key: str) -> bytes:
    """Returns what a key is known by here: keys themselves are not kept, and auth's name for one takes longer."""
    return hashlib.sha256(key.encode()).digest()


def well_formed(key: str) -> bool:
    """Tells whether a text has the form of a key and its checksum holds."""
    return _FORM.fullmatch(key) is not None and checksum(key[:-_CHECKSUM_LENGTH]) == key[-_CHECKSUM_LENGTH:]


def _within(address: str, networks: tuple[_Network, ...]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed.version == network.version and parsed in network for network in networks)


def checksum(text: str) -> str:
    """Returns the six characters that end a key: CRC-32 of what stands before them, in base 62, padded with zeros."""
    number = zlib.crc32(text.encode())
    digits = ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, 62)
        digits = _ALPHABET[digit] + digits
    return digits


def _caller(found: api_key_pb2.ResolveApiKeyResponse, key: str) -> Caller | None:
    kind = _KINDS.get(found.api_key.kind)
    written = _MARKS[key[:5]]
    # What a key says of itself must be what it was made as: the checks before this went by what it says.
    if kind is not written or found.api_key.live != key[5:].startswith("live_"):
        return None
    return Caller(
        kind=kind,
        actor=found.api_key.id,
        account=ids.decode("acct", found.account_id),
        live=found.api_key.live,
        scopes=frozenset(found.api_key.scopes),
    )


def _invalid() -> errors.GatefoldError:
    return errors.unauthenticated("api_key_invalid", "This is no valid API key.", metadata={"error": "invalid_token"})
