"""Owns access tokens at the edge: their signature, claims and time (RFC 9068, RFC 8725)."""

import asyncio
import base64
import functools
import hashlib
import json
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import jwt
from jwt.algorithms import ECAlgorithm

from libs import errors, ids
from libs.caller import Caller, CallerKind
from libs.clock import WallClock
from libs.errors import GatefoldError
from services.gateway.http.caches import Monotonic
from services.gateway.http.session_ends import SessionEnds

ALGORITHM = "ES256"
AUDIENCE = "gatefold"
KEY_SET_SECONDS = 300.0
"""How long a key set is used before it is fetched anew."""
REFETCH_SECONDS = 5.0
"""How often at most an unknown key id makes the key set be fetched."""
CLIENTS_PATH = "/oauth2/userinfo"
"""What access tokens of the OpenID provider's clients are for: their one audience is the issuer and this."""

_LONGEST_TOKEN = 4096
_MOST_HEADERS = 64
# What many tokens have in common is read and kept once.
_MOST_SHARED = 1_000
_MOST_TOKENS = 10_000
_FUTURE_SECONDS = 60
_JWS = jwt.PyJWS()
_ALGORITHMS = [ALGORITHM]
# A header that points at keys or extensions of its own is refused whole (RFC 8725 section 3.10).
_HEADERS = frozenset({"alg", "kid", "typ"})
_KINDS = {
    "STAFF": (CallerKind.STAFF, "per"),
    "SUBSCRIBER": (CallerKind.SUBSCRIBER, "subj"),
    "PLATFORM_OPERATOR": (CallerKind.PLATFORM_OPERATOR, "per"),
}

FetchKeySet = Callable[[str], Awaitable[list[dict[str, str]]]]


class KeySet:
    """The public keys of auth, fetched when they are old or a token names one that is not known."""

    def __init__(self, fetch: FetchKeySet, *, monotonic: Monotonic) -> None:
        self._fetch = fetch
        self._monotonic = monotonic
        self._documents: dict[str, dict[str, str]] = {}
        self._keys: dict[str, Any] = {}
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._refreshing: asyncio.Task[None] | None = None

    async def find(self, kid: str, request_id: str) -> Any | None:
        """Returns the key with an id; None when there is none. Raises `unavailable` only while no key set is known."""
        if self._due(kid):
            await asyncio.shield(self._fetching(request_id))
        return self._keys.get(kid)

    def holds(self, kid: str, key: Any) -> bool:
        """Tells whether a key with an id is the one that is known now, and no key set is due to be fetched."""
        return self._keys.get(kid) is key and self._monotonic() - self._fetched_at <= KEY_SET_SECONDS

    def peek(self, kid: str, request_id: str) -> Any | None:
        """Returns the key with an id as far as it is known now; a key set that is old is fetched meanwhile."""
        if self._due(kid):
            self._fetching(request_id)
        return self._keys.get(kid)

    async def loaded(self) -> None:
        """Returns once a key set is known, fetching it if need be; raises what keeps it away. For readiness."""
        if not self._keys:
            await asyncio.shield(self._fetching("readiness"))

    def _due(self, kid: str) -> bool:
        now = self._monotonic()
        wanted = kid not in self._keys or now - self._fetched_at > KEY_SET_SECONDS
        return wanted and (not self._keys or self._refreshing is not None or now - self._tried_at >= REFETCH_SECONDS)

    def _fetching(self, request_id: str) -> "asyncio.Task[None]":
        """Returns the one fetch of the key set that all who want it at the same time share."""
        if self._refreshing is None:
            self._tried_at = self._monotonic()
            self._refreshing = asyncio.ensure_future(self._refresh(request_id))
            self._refreshing.add_done_callback(self._done)
        return self._refreshing

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._refreshing = None
        if not task.cancelled():
            task.exception()

    async def _refresh(self, request_id: str) -> None:
        try:
            fetched = await self._fetch(request_id)
        except GatefoldError:
            if not self._keys:
                raise
            # Tokens signed with known keys stay good while auth is away.
            return
        documents = {document["kid"]: document for document in fetched if _usable(document)}
        if documents != self._documents:
            self._keys = {kid: _public_key(document) for kid, document in documents.items()}
            self._documents = documents
        self._fetched_at = self._monotonic()


@dataclass(frozen=True, slots=True)
class _Verified:
    """A token that was verified, and by which key."""

    caller: Caller
    expires: float
    kid: str
    key: Any
    grant: UUID | None
    """The authorization that a client's token came of: its end is told as a session's."""


class Tokens:
    """Tells whose an access token is; a token that was verified is remembered until it or its key ends."""

    def __init__(self, keys: KeySet, ends: SessionEnds, *, issuer: str, clock: WallClock) -> None:
        self._keys = keys
        self._ends = ends
        self._issuer = issuer
        self._clients = issuer.rstrip("/") + CLIENTS_PATH
        self._clock = clock
        self._known: OrderedDict[bytes, _Verified] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def known(self, token: str, now: float) -> Caller | None:
        """Returns whom a token stands for that was verified before and still holds; None for all others.

        `now` is in seconds of the epoch. What is to be said of the others, `caller` says.
        """
        known = self._known.get(_digest(token))
        if known is None or known.expires <= now or not self._keys.holds(known.kid, known.key):
            return None
        goes_on = self._ends.goes_on
        if not goes_on(known.caller.session) or (known.grant is not None and not goes_on(known.grant)):
            return None
        return known.caller

    async def caller(self, token: str, request_id: str) -> Caller:
        """Returns whom a token stands for.

        Raises `unauthenticated` with reason `access_token_invalid`, `access_token_expired` or `session_ended`.
        """
        now = self._clock.seconds()
        digest = _digest(token)
        known = self._known.get(digest)
        if known is None or self._keys.peek(known.kid, request_id) is not known.key:
            known = await self._verify(token, now, request_id)
            self._known[digest] = known
            if len(self._known) > _MOST_TOKENS:
                self._known.popitem(last=False)
        if known.expires <= now:
            self._known.pop(digest, None)
            raise _expired()
        await self._ends.check(known.caller.session)
        if known.grant is not None:
            await self._ends.check(known.grant)
        return known.caller

    async def fresh(self, token: str, request_id: str) -> Caller:
        """Returns whom a token stands for that auth has just made, and that nobody will show again."""
        now = self._clock.seconds()
        found = await self._verify(token, now, request_id)
        if found.expires <= now:
            raise _expired()
        await self._ends.check(found.caller.session)
        return found.caller

    async def _verify(self, token: str, now: float, request_id: str) -> _Verified:
        if len(token) > _LONGEST_TOKEN:
            raise _invalid()
        kid = _kid(token.partition(".")[0])
        key = await self._keys.find(kid, request_id)
        if key is None:
            raise _invalid()
        try:
            claims = json.loads(_JWS.decode_complete(token, key, algorithms=_ALGORITHMS)["payload"])
            # The audience says which kind of token it is: neither passes for the other.
            clients = claims["aud"] == self._clients
            if claims["iss"] != self._issuer or not (clients or _meant_for_us(claims["aud"])):
                raise _invalid()
            expires, issued = _number(claims["exp"]), _number(claims["iat"])
            not_before = _number(claims.get("nbf", issued))
            caller = _client(claims) if clients else _caller(claims)
            grant = ids.decode("grant", _text(claims["grant"])) if clients else None
        except (jwt.InvalidTokenError, GatefoldError, KeyError, TypeError, ValueError, OverflowError, RecursionError):
            raise _invalid() from None
        if max(issued, not_before) > now + _FUTURE_SECONDS:
            raise _invalid()
        return _Verified(caller, expires, kid, key, grant)


def _digest(token: str) -> bytes:
    """Returns what a token is known by: tokens themselves are not kept."""
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


@functools.lru_cache(maxsize=_MOST_HEADERS)
def _kid(text: str) -> str:
    """Returns the key that a token's header names, when all else in the header is as it must be.

    PyJWT's own function reads the whole token for it, at the cost of verifying it (make bench CASE=token-check); it
    does so afterwards in any case, by the same JSON parser. Tokens of one key have the same header, so few are read.
    """
    try:
        header = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, RecursionError):
        raise _invalid() from None
    if not isinstance(header, dict) or not header.keys() <= _HEADERS:
        raise _invalid()
    kid = header.get("kid")
    if header.get("alg") != ALGORITHM or header.get("typ") != "at+jwt" or not isinstance(kid, str):
        raise _invalid()
    return kid


def _caller(claims: Mapping[str, Any]) -> Caller:
    """Returns the caller of verified claims; raises KeyError, TypeError, ValueError or GatefoldError for odd ones."""
    kind, prefix = _KINDS[claims["kind"]]
    subject = ids.decode(prefix, _text(claims["sub"]))
    account = _account(_text(claims["account"])) if claims.get("account") is not None else None
    if (account is None) != (kind is CallerKind.PLATFORM_OPERATOR):
        raise ValueError("an account belongs to all but the operator")
    auth_time = claims.get("auth_time")
    live = claims["live"] if account else claims.get("live", True)
    if not isinstance(live, bool):
        raise TypeError("live is a bool")
    return Caller(
        kind=kind,
        actor=claims["sub"],
        account=account,
        live=live,
        scopes=_scopes(_text(claims.get("scope", ""))),
        role=claims.get("role") and _text(claims["role"]),
        subject=subject if kind is CallerKind.SUBSCRIBER else None,
        person=None if kind is CallerKind.SUBSCRIBER else subject,
        session=ids.decode("ses", _text(claims["sid"])) if "sid" in claims else None,
        acr=claims.get("acr") and _text(claims["acr"]),
        auth_time=None if auth_time is None else datetime.fromtimestamp(_number(auth_time), UTC),
        # Anything but a plain no counts as yes: what it says takes rights away.
        federated=claims.get("federated", False) is not False,
    )


def _client(claims: Mapping[str, Any]) -> Caller:
    """Returns the caller of the claims of a client's token; raises as `_caller`."""
    if "kind" in claims or not isinstance(claims["live"], bool):
        raise ValueError("a client's token says whether its account is live, and no kind")
    ids.decode("cli", _text(claims["client_id"]))
    return Caller(
        kind=CallerKind.OAUTH_CLIENT,
        actor=claims["client_id"],
        account=_account(_text(claims["account"])),
        live=claims["live"],
        scopes=_scopes(_text(claims["scope"])),
        subject=ids.decode("subj", _text(claims["sub"])),
        session=ids.decode("ses", _text(claims["sid"])),
        acr=_text(claims["acr"]),
        auth_time=datetime.fromtimestamp(_number(claims["auth_time"]), UTC),
    )


@functools.lru_cache(maxsize=_MOST_SHARED)
def _account(text: str) -> UUID:
    return ids.decode("acct", text)


@functools.lru_cache(maxsize=_MOST_SHARED)
def _scopes(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _meant_for_us(audience: object) -> bool:
    """Tells whether tokens for an audience, or several (RFC 7519, 4.1.3), are for us."""
    return audience == AUDIENCE or (isinstance(audience, list) and AUDIENCE in audience)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is expected")
    return value


def _number(value: object) -> float:
    # NaN, which the parser takes, would never be over.
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError("a number is expected")
    return float(value)


def _usable(document: Mapping[str, str]) -> bool:
    return (
        document.get("kty") == "EC"
        and document.get("crv") == "P-256"
        and document.get("use", "sig") in ("", "sig")
        and document.get("alg", ALGORITHM) in ("", ALGORITHM)
        and bool(document.get("kid"))
    )


def _public_key(document: Mapping[str, str]) -> Any:
    return ECAlgorithm.from_jwk({name: document[name] for name in ("kty", "crv", "x", "y")})


def _invalid() -> GatefoldError:
    return errors.unauthenticated(
        "access_token_invalid", "The access token is not valid here.", metadata={"error": "invalid_token"}
    )


def _expired() -> GatefoldError:
    return errors.unauthenticated(
        "access_token_expired",
        "The access token has ended; refresh it.",
        metadata={"error": "invalid_token", "error_description": "The access token expired"},
    )
