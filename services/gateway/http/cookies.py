"""Owns sessions by cookie, for pages on the gateway's own origin: setting it, taking it, and refusing forged requests.

A cookie is sent by the browser whoever made it send a request, so a request that changes something must show that it
comes from a page of this origin: by Origin or Sec-Fetch-Site, by a token that only such a page can read, and by a body
that no form can send (OWASP ASVS 5.0, 3.5.1 to 3.5.3).
"""

import base64
import hashlib
import hmac
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from google.protobuf.message import Message
from multidict import istr

from libs import errors
from libs.caller import Caller
from libs.clock import WallClock
from libs.errors import GatefoldError, Kind
from services.gateway.http.caches import Cache, Monotonic
from services.gateway.http.contracts import Endpoint
from services.gateway.http.exchange import Exchange
from services.gateway.http.tokens import Tokens

SESSION = "__Host-gatefold_session"
CSRF = "__Host-gatefold_csrf"
"""Read by the page's script, which sends it back as `X-CSRF-Token`."""
CSRF_HEADER = "X-CSRF-Token"
MODE_HEADER = "Gatefold-Session"
MODE = "cookie"
CACHE_SECONDS = 0.9
"""How long a cookie is believed after auth was asked: one whose session has ended works for less than a second more."""

_MODE = istr(MODE_HEADER)
_MOST_COOKIES = 10_000
_LONGEST = 200
_TOKENS = "gatefold.auth.v1.Tokens"
_SIGNED_OUT = "gatefold.auth.v1.SignOutResponse"
_SAFE = frozenset({"GET", "HEAD"})
# What a form of another site can send without asking first (Fetch standard, CORS-safelisted request headers).
_FORM_TYPES = frozenset({"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"})
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_DEFAULT_PORTS = {"https": 443, "http": 80}

Open = Callable[[str, str], Awaitable[tuple[str, datetime]]]
"""Gives the cookie of a refresh token's session and its end; the second argument is a request id."""
Use = Callable[[str, str], Awaitable[str]]
"""Gives an access token for a cookie."""


class Cookies:
    """Sessions of pages."""

    def __init__(self, open_: Open, use: Use, tokens: Tokens, *, clock: WallClock, monotonic: Monotonic) -> None:
        self._open = open_
        self._use = use
        self._tokens = tokens
        self._clock = clock
        self._known: Cache[bytes, Caller] = Cache(seconds=CACHE_SECONDS, most=_MOST_COOKIES, monotonic=monotonic)

    def admit(self, exchange: Exchange, endpoint: Endpoint) -> None:
        """Refuses a request for a cookie that no page of this origin sent; raises `forbidden("csrf_refused")`.

        Signing somebody in as another is forgery as well, so what asks for a cookie is held to the same rules.
        """
        if _MODE in exchange.request.headers and exchange.header(_MODE).strip().lower() == MODE:
            exchange.wants_cookie = True
            _same_origin(exchange, endpoint)

    def sent(self, exchange: Exchange) -> bool:
        """Tells whether a request brings a session's cookie."""
        return bool(_values(exchange, SESSION))

    async def caller(self, exchange: Exchange, endpoint: Endpoint) -> Caller:
        """Returns whom a request's cookie stands for.

        Raises `forbidden("csrf_refused")`, and `unauthenticated` with reason `session_cookie_invalid` or
        `session_ended`, which takes the cookie back.
        """
        values = _values(exchange, SESSION)
        exchange.by_cookie = True
        if len(values) != 1 or not 0 < len(values[0]) <= _LONGEST or not values[0].isascii():
            self._take_back(exchange)
            raise _invalid()
        (cookie,) = values
        _same_origin(exchange, endpoint)
        if endpoint.verb not in _SAFE and not hmac.compare_digest(
            exchange.header(CSRF_HEADER).encode(), csrf_token(cookie).encode()
        ):
            raise _forged(f"Send the cookie {CSRF} back as {CSRF_HEADER}.")

        async def ask() -> Caller:
            token = await self._use(cookie, exchange.request_id)
            return await self._tokens.fresh(token, exchange.request_id)

        try:
            return await self._known.get(_digest(cookie), ask)
        except GatefoldError as error:
            if error.kind is Kind.UNAUTHENTICATED:
                self._take_back(exchange)
                if error.reason != "session_ended":
                    raise _invalid() from None
            raise

    async def answer(self, exchange: Exchange, message: Message) -> Message:
        """Returns an answer as a page may see it: what tokens it has go into the cookie, and none into the body."""
        if message.DESCRIPTOR.full_name == _SIGNED_OUT:
            self._forget(exchange)
            self._take_back(exchange)
        shown = type(message)()
        shown.CopyFrom(message)
        for tokens in _tokens_in(shown):
            # Step-up leaves the session and its cookie as they are, but what was known of it is known better now.
            self._forget(exchange)
            if tokens.refresh_token:
                await self._set(exchange, tokens.refresh_token)
            for field in ("access_token", "refresh_token", "token_type", "expires_in"):
                tokens.ClearField(field)
        return shown

    async def _set(self, exchange: Exchange, refresh_token: str) -> None:
        cookie, ends = await self._open(refresh_token, exchange.request_id)
        seconds = max(0, int((ends.astimezone(UTC) - self._clock.wall()).total_seconds()))
        exchange.cookies = [
            f"{SESSION}={cookie}; Max-Age={seconds}; Path=/; Secure; HttpOnly; SameSite=Lax",
            f"{CSRF}={csrf_token(cookie)}; Max-Age={seconds}; Path=/; Secure; SameSite=Lax",
        ]

    def _forget(self, exchange: Exchange) -> None:
        for value in _values(exchange, SESSION):
            self._known.forget(_digest(value))

    def _take_back(self, exchange: Exchange) -> None:
        exchange.cookies = [
            f"{SESSION}=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Lax",
            f"{CSRF}=; Max-Age=0; Path=/; Secure; SameSite=Lax",
        ]


def csrf_token(cookie: str) -> str:
    """Returns the token bound to a session's cookie, which does not tell the cookie."""
    mac = hmac.digest(cookie.encode(), b"gatefold csrf", "sha256")
    return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


def _tokens_in(message: Any) -> list[Any]:
    """Returns the token pairs of an answer: itself, or those in its fields."""
    if message.DESCRIPTOR.full_name == _TOKENS:
        return [message]
    return [
        getattr(message, field.name)
        for field, _ in message.ListFields()
        if field.message_type is not None and field.message_type.full_name == _TOKENS
    ]


def _same_origin(exchange: Exchange, endpoint: Endpoint) -> None:
    """Returns when nothing says that a page of another origin sent this; raises `forbidden("csrf_refused")`."""
    if exchange.origin is not None and not _own(exchange.origin, exchange.header("Host")):
        raise _forged("Pages of another site may not do this.")
    if endpoint.verb in _SAFE:
        return
    site = exchange.header("Sec-Fetch-Site")
    if site not in ("", "same-origin") or (not site and exchange.origin is None):
        raise _forged("Pages of another site may not do this.")
    media_type = exchange.header("Content-Type").partition(";")[0].strip().lower()
    if media_type in _FORM_TYPES and (media_type or exchange.request.body_exists):
        raise _forged("Send JSON: this kind of body can come from a form of another site.")


def _own(origin: str, host: str) -> bool:
    """Tells whether an origin is the one that the request was sent to; plain HTTP counts on this machine alone."""
    try:
        parts, own = urlsplit(origin), urlsplit(f"//{host}")
        default = _DEFAULT_PORTS.get(parts.scheme)
        ports = parts.port or default, own.port or default
    except ValueError:
        return False
    secure = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    return secure and parts.hostname is not None and parts.hostname == own.hostname and ports[0] == ports[1]


def _values(exchange: Exchange, name: str) -> list[str]:
    pairs = [pair.partition("=") for sent in exchange.request.headers.getall("Cookie", []) for pair in sent.split(";")]
    return [value.strip() for found, _, value in pairs if found.strip() == name]


def _digest(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode("utf-8", "replace")).digest()


def _invalid() -> GatefoldError:
    return errors.unauthenticated("session_cookie_invalid", "The session's cookie is not valid; sign in again.")


def _forged(detail: str) -> GatefoldError:
    return errors.forbidden("csrf_refused", detail)
