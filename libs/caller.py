"""Owns the Caller: who acts, for whom, with which rights; and the signed token that carries it between services."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from libs import errors
from libs.config import Secret

if TYPE_CHECKING:
    from libs.clock import WallClock

LIFETIME_SECONDS = 30
LEAST_KEY_BYTES = 32
MOST_KEY_BYTES = hashlib.blake2b.MAX_KEY_SIZE

Keys = Mapping[str, tuple[bytes, ...]]
"""Pair keys by "issuer>audience"; the first of a pair signs, all verify, so that a key can be replaced in use."""


class CallerKind(Enum):
    """The kinds of gatefold.edge.v1.CallerKind, with its numbers."""

    SECRET_KEY = 1
    PUBLISHABLE_KEY = 2
    STAFF = 3
    SUBSCRIBER = 4
    PLATFORM_OPERATOR = 5
    OAUTH_CLIENT = 6
    SCIM = 7
    ANONYMOUS = 8
    SERVICE = 9

    # Each is there once, and is looked for in a set many times a request: by its name that takes ten times as long.
    __hash__ = object.__hash__


@dataclass(frozen=True)
class Caller:
    """Who a call is made by and for. Holds personal data (address, user agent): never logged as a whole."""

    kind: CallerKind
    actor: str
    """`key_…`, `per_…`, `subj_…`, `service:billing` or `anonymous`."""
    account: UUID | None = None
    live: bool = True
    scopes: frozenset[str] = frozenset()
    role: str | None = None
    subject: UUID | None = None
    person: UUID | None = None
    session: UUID | None = None
    acr: str | None = None
    auth_time: datetime | None = None
    federated: bool = False
    """Another provider said who this is: the account's own, where it is staff."""
    on_behalf_of: str | None = None
    """The actor whose request a service is working on."""
    request_id: str = ""
    idempotency_key: str | None = None
    address: str | None = None
    user_agent: str | None = None
    origin: str | None = None

    @cached_property
    def lasting_claims(self) -> bytes:
        """The claims that are the same in all requests of this caller, as a JSON object."""
        return orjson.dumps(_lasting(self))

    def require_account(self) -> UUID:
        """Returns the account; raises `unauthenticated("account_required")` without one."""
        if self.account is None:
            raise errors.unauthenticated("account_required", "This needs a credential of an account.")
        return self.account

    def require_subject(self) -> UUID:
        """Returns the reader's subject; raises `forbidden("subject_required")` for anyone else."""
        if self.subject is None:
            raise errors.forbidden("subject_required", "Only a signed-in reader may do this.")
        return self.subject

    def with_particulars(
        self,
        *,
        request_id: str,
        idempotency_key: str | None,
        address: str | None,
        user_agent: str | None,
        origin: str | None,
    ) -> "Caller":
        """Returns this caller with one request's particulars.

        Done once a request: dataclasses.replace sets each of the fields anew, at five times the cost. What signing
        them has worked out of the rest goes along.
        """
        _ = self.lasting_claims
        made = object.__new__(Caller)
        known = made.__dict__
        known.update(self.__dict__)
        known["request_id"] = request_id
        known["idempotency_key"] = idempotency_key
        known["address"] = address
        known["user_agent"] = user_agent
        known["origin"] = origin
        return made


@dataclass(frozen=True)
class CallerConfig:
    """Where the pair keys come from: JSON `{"gateway>billing": "base64"}`, or a list of keys per pair."""

    caller_keys: Secret = field(repr=False)

    def keys(self) -> Keys:
        """Returns the pair keys; raises ValueError, never with a key in it, for anything else than such JSON."""
        try:
            document = orjson.loads(self.caller_keys.reveal())
        except orjson.JSONDecodeError:
            document = None
        if not isinstance(document, dict):
            raise ValueError("caller keys must be a JSON object")  # noqa: TRY004 — a rule of the value's, as the others
        return {pair: tuple(_key(pair, text) for text in _listed(value)) for pair, value in document.items()}


class CallerSigner:
    """Signs callers as one service, for one audience at a time."""

    def __init__(self, service: str, keys: Keys, clock: "WallClock") -> None:
        self._service = service
        self._keys = keys
        self._clock = clock

    def sign(self, caller: Caller, audience: str) -> str:
        """Returns the value of the `gatefold-caller` metadata: base64(MAC, particulars, newline, lasting claims).

        Both are JSON objects; the MAC is keyed BLAKE2b (RFC 7693). Raises `internal("caller_key_missing")` when the two
        services share no key.
        """
        keys = self._keys.get(f"{self._service}>{audience}")
        if not keys:
            raise errors.internal("caller_key_missing", f"{self._service} has no key for calling {audience}.")
        claims = {
            "iss": self._service,
            "aud": audience,
            "exp": int(self._clock.seconds()) + LIFETIME_SECONDS,
            "request_id": caller.request_id,
            "idempotency_key": caller.idempotency_key,
            "address": caller.address,
            "user_agent": caller.user_agent,
            "origin": caller.origin,
        }
        document = orjson.dumps(claims, option=orjson.OPT_APPEND_NEWLINE) + caller.lasting_claims
        return binascii.b2a_base64(_mac(keys[0], document) + document, newline=False).decode()


class CallerVerifier:
    """Verifies callers that were signed for one service."""

    def __init__(self, service: str, keys: Keys, clock: "WallClock") -> None:
        self._service = service
        self._clock = clock
        self._keys = {
            issuer: values
            for issuer, _, audience in (pair.partition(">") for pair in keys)
            if audience == service and (values := keys[f"{issuer}>{audience}"])
        }
        # Of what was signed alone, so that nobody else can fill it.
        self._caller = lru_cache(_MOST_KEPT)(_caller)

    def verify(self, token: str) -> tuple[str, Caller]:
        """Returns the issuing service and the caller.

        Raises `unauthenticated("caller_invalid")` for a token of an unknown issuer, for another audience, tampered
        with or unreadable, `unauthenticated("caller_expired")` for one older than 30 seconds.
        """
        mac, document = _opened(token)
        own, _, lasting = document.partition(b"\n")
        claims = _decode(own)
        if claims is None:
            raise _invalid()
        issuer = claims.get("iss")
        # Nothing but the issuer's name is used before the signature holds; an unknown one costs the same work.
        keys = self._keys.get(issuer, ()) if isinstance(issuer, str) else ()
        matches = [hmac.compare_digest(_mac(key, document), mac) for key in keys or (b"\0" * LEAST_KEY_BYTES,)]
        if not keys or not any(matches) or claims.get("aud") != self._service:
            raise _invalid()
        expires = claims.get("exp")
        if not isinstance(expires, int) or expires <= self._clock.seconds():
            raise errors.unauthenticated("caller_expired", "The caller's signature has expired.")
        try:
            lasts = self._caller(lasting)
        except (KeyError, TypeError, ValueError):
            raise _invalid() from None
        return str(issuer), lasts.with_particulars(
            request_id=claims.get("request_id", ""),
            idempotency_key=claims.get("idempotency_key"),
            address=claims.get("address"),
            user_agent=claims.get("user_agent"),
            origin=claims.get("origin"),
        )


_current: ContextVar[Caller] = ContextVar("gatefold_caller")
_acting: ContextVar[Caller] = ContextVar("gatefold_acting")


def current() -> Caller:
    """Returns the caller of the request being served; raises `internal("caller_missing")` outside of one."""
    try:
        return _current.get()
    except LookupError:
        raise errors.internal("caller_missing", "There is no caller here.") from None


def current_or_none() -> Caller | None:
    """Returns the caller of the request being served, if one is."""
    return _current.get(None)


def enter(caller: Caller) -> Token[Caller]:
    """Sets the caller of the request being served; for the server interceptor and for tests."""
    return _current.set(caller)


def leave(token: Token[Caller]) -> None:
    """Undoes `enter`."""
    _current.reset(token)


@contextmanager
def serving(caller: Caller) -> Iterator[None]:
    """Serves a request of this caller within the block."""
    token = _current.set(caller)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def acting(caller: Caller) -> Iterator[None]:
    """Makes calls to other services as this caller within the block."""
    token = _acting.set(caller)
    try:
        yield
    finally:
        _acting.reset(token)


def outgoing(service: str) -> Caller:
    """Returns whom a call to another service is made as.

    That is who `acting` says, and otherwise this service on behalf of the caller being served. Raises
    `internal("caller_missing")` where neither is known.
    """
    chosen = _acting.get(None)
    if chosen is not None:
        return chosen
    served = current()
    return service_caller(
        service,
        served.account,
        live=served.live,
        request_id=served.request_id,
        on_behalf_of=served.on_behalf_of or served.actor,
    )


def service_caller(
    service: str,
    account: UUID | None,
    *,
    live: bool = True,
    request_id: str,
    on_behalf_of: str | None = None,
    idempotency_key: str | None = None,
) -> Caller:
    """Returns the caller for work that a service does by itself."""
    return Caller(
        kind=CallerKind.SERVICE,
        actor=f"service:{service}",
        account=account,
        live=live,
        request_id=request_id,
        on_behalf_of=on_behalf_of,
        idempotency_key=idempotency_key,
    )


_MAC_BYTES = 32
_MOST_KEPT = 4_096


def _mac(key: bytes, document: bytes) -> bytes:
    keyed = _keyed(key).copy()
    keyed.update(document)
    return keyed.digest()


@lru_cache(64)
def _keyed(key: bytes) -> hashlib.blake2b:
    return hashlib.blake2b(key=key, digest_size=_MAC_BYTES, person=b"gatefold caller")


def _key(pair: str, text: object) -> bytes:
    try:
        key = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except binascii.Error:
        raise ValueError(f"the caller key {pair} must be base64") from None
    if ">" not in pair or not LEAST_KEY_BYTES <= len(key) <= MOST_KEY_BYTES:
        bounds = f"{LEAST_KEY_BYTES} to {MOST_KEY_BYTES} bytes"
        raise ValueError(f"the caller key {pair} must be named issuer>audience and have {bounds}")
    return key


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _invalid() -> errors.GatefoldError:
    return errors.unauthenticated("caller_invalid", "The caller's signature does not hold.")


def _opened(token: str) -> tuple[bytes, bytes]:
    """Returns the MAC and the document of a token."""
    text = token.encode("utf-8", "surrogatepass")
    try:
        raw = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        raise _invalid() from None
    # Base64 has bits that mean nothing: a document is written in one way only.
    if binascii.b2a_base64(raw, newline=False) != text:
        raise _invalid()
    return raw[:_MAC_BYTES], raw[_MAC_BYTES:]


def _decode(document: bytes) -> dict[str, Any] | None:
    try:
        claims = orjson.loads(document)
    except orjson.JSONDecodeError:
        return None
    return claims if isinstance(claims, dict) else None


_LASTING_TEXTS = ("role", "acr", "on_behalf_of")
_UUIDS = ("account", "subject", "person", "session")


def _lasting(caller: Caller) -> dict[str, Any]:
    claims: dict[str, Any] = {"kind": caller.kind.value, "actor": caller.actor, "live": caller.live}
    for name in _UUIDS:
        if (value := getattr(caller, name)) is not None:
            claims[name] = value.hex
    for name in _LASTING_TEXTS:
        if (value := getattr(caller, name)) is not None:
            claims[name] = value
    if caller.federated:
        claims["federated"] = True
    if caller.scopes:
        claims["scopes"] = sorted(caller.scopes)
    if caller.auth_time is not None:
        claims["auth_time"] = caller.auth_time.isoformat()
    return claims


def _caller(lasting: bytes) -> Caller:
    """Returns the caller that lasting claims are of; raises KeyError, TypeError or ValueError for others."""
    claims: Mapping[str, Any] = orjson.loads(lasting)
    values: dict[str, Any] = {name: claims[name] for name in _LASTING_TEXTS if name in claims}
    values.update({name: UUID(str(claims[name])) for name in _UUIDS if name in claims})
    if "auth_time" in claims:
        values["auth_time"] = datetime.fromisoformat(claims["auth_time"])
    return Caller(
        kind=CallerKind(claims["kind"]),
        actor=claims["actor"],
        live=claims["live"],
        federated=claims.get("federated", False),
        scopes=frozenset(claims.get("scopes", ())),
        **values,
    )
