"""Owns browsers' cross-origin requests (Fetch standard, CORS): which origins may call, and read what."""

import re
from collections.abc import Awaitable, Callable
from uuid import UUID

from libs import errors
from libs.caller import Caller, CallerKind
from services.gateway.http.answer import Answer
from services.gateway.http.caches import Cache, Monotonic
from services.gateway.http.exchange import Exchange
from services.gateway.http.routes import Match

CACHE_SECONDS = 30.0
PREFLIGHT_SECONDS = 600

_MOST_ORIGINS = 10_000
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?")
_SENT = "Authorization, Content-Type, Gatefold-Clearance, Gatefold-Version, Idempotency-Key, X-Request-Id"
_READ = "Gatefold-Version, RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate, X-Request-Id"
_BROWSERS = frozenset({CallerKind.PUBLISHABLE_KEY, CallerKind.SUBSCRIBER})

Resolve = Callable[[str, str], Awaitable[frozenset[UUID]]]


class Cors:
    """Decides by the sites that accounts have."""

    def __init__(self, resolve: Resolve, *, monotonic: Monotonic) -> None:
        self._resolve = resolve
        self._known: Cache[str, frozenset[UUID]] = Cache(seconds=CACHE_SECONDS, most=_MOST_ORIGINS, monotonic=monotonic)

    async def preflight(self, exchange: Exchange, match: Match) -> Answer:
        """Returns the answer to an OPTIONS request; raises `forbidden("origin_not_allowed")`.

        Which account is asking is not known yet, so that any account's site will do; `admit` looks closer.
        """
        exchange.headers["Allow"] = match.allow
        if exchange.origin is None:
            return Answer(204)
        if not (_open(match, exchange) or await self._accounts(exchange)):
            raise _not_allowed()
        self._readable(exchange)
        exchange.headers["Access-Control-Allow-Methods"] = match.allow
        exchange.headers["Access-Control-Allow-Headers"] = _SENT
        exchange.headers["Access-Control-Max-Age"] = str(PREFLIGHT_SECONDS)
        exchange.headers["Vary"] = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
        return Answer(204)

    async def admit(self, exchange: Exchange, caller: Caller) -> None:
        """Lets a request of a browser through when its origin is a site of the caller's account.

        Raises `forbidden("origin_not_allowed")` for a key or token that is used on somebody else's site. Other
        credentials are not bound to sites; their answers can be read only from a known one.
        """
        if exchange.origin is None:
            return
        if exchange.endpoint is not None and exchange.endpoint.for_any_origin:
            self._readable(exchange)
            return
        accounts = await self._accounts(exchange)
        if caller.kind in _BROWSERS and caller.account not in accounts:
            raise _not_allowed()
        if accounts:
            self._readable(exchange)

    def reveal(self, exchange: Exchange) -> None:
        """Lets a browser on a known site read a refusal that came before `admit`.

        Nobody is asked: a refused request must not cost a look-up. The preflight that came before has asked.
        """
        public = exchange.endpoint is not None and exchange.endpoint.for_any_origin
        if exchange.origin is not None and (public or self._known.peek(exchange.origin)):
            self._readable(exchange)

    async def _accounts(self, exchange: Exchange) -> frozenset[UUID]:
        origin = exchange.origin or ""
        if _ORIGIN.fullmatch(origin) is None:
            return frozenset()
        return await self._known.get(origin, lambda: self._resolve(origin, exchange.request_id))

    def _readable(self, exchange: Exchange) -> None:
        exchange.headers["Access-Control-Allow-Origin"] = exchange.origin or ""
        exchange.headers["Access-Control-Expose-Headers"] = _READ


def _open(match: Match, exchange: Exchange) -> bool:
    """Tells whether pages of any site may send what is asked about, or all that there is at the path."""
    wanted = match.endpoints.get(exchange.header("Access-Control-Request-Method"))
    return wanted is not None and wanted.for_any_origin


def _not_allowed() -> errors.GatefoldError:
    return errors.forbidden("origin_not_allowed", "This site is not one of the account's.")
