"""Owns holding a request against its limits."""

from typing import Protocol

from libs import errors
from libs.caller import Caller
from services.gateway.http.contracts import RATE_CLASSES, Endpoint
from services.gateway.http.exchange import Exchange
from services.gateway.http.limits.decision import Decision
from services.gateway.http.limits.quotas import Limit, Quotas

_FAILED_AUTHENTICATION = "strict"
_ENDED_CREDENTIAL = "read"
_ENDED = frozenset({"access_token_expired", "session_ended"})
_PREFLIGHT = "read"


class Decider(Protocol):
    """Whatever decides on limits."""

    async def decide(self, limits: list[Limit], cost: int) -> Decision: ...


class Limits:
    """Lets a request through or refuses it, and says so in its headers."""

    def __init__(self, quotas: Quotas, store: Decider) -> None:
        self._quotas = quotas
        self._store = store

    async def admit(self, exchange: Exchange, caller: Caller, endpoint: Endpoint) -> None:
        """Counts a request of a known caller; raises `too_many("rate_limited")`."""
        message = endpoint.policy.message
        classes = dict.fromkeys((RATE_CLASSES[message.rate], *exchange.rates))
        limits = [limit for rate in classes for limit in self._quotas.of(rate, caller, exchange.address)]
        await self._count(exchange, limits, (message.cost or 1) * exchange.cost_factor)

    async def count_failed_authentication(self, exchange: Exchange, reason: str) -> None:
        """Counts a credential that was no good against its sender's address; raises `too_many("rate_limited")`.

        A token that has ended was good once, so that it is no guess: readers who share an address and come back with
        theirs must be told to refresh.
        """
        rate = _ENDED_CREDENTIAL if reason in _ENDED else _FAILED_AUTHENTICATION
        await self._count(exchange, [self._quotas.of_address(rate, exchange.address)], 1)

    async def count_preflight(self, exchange: Exchange) -> None:
        """Counts a preflight, which makes origins be looked up; raises `too_many("rate_limited")`."""
        await self._count(exchange, [self._quotas.of_address(_PREFLIGHT, exchange.address)], 1)

    async def _count(self, exchange: Exchange, limits: list[Limit], cost: int) -> None:
        # A request that costs more than a whole quota takes the whole quota.
        decision = await self._store.decide(limits, min(cost, *(limit.amount for limit in limits)))
        exchange.headers.update(decision.headers())
        if not decision.admitted:
            raise errors.too_many("rate_limited", "This was asked too often.", max(1, decision.retry_after_seconds))
