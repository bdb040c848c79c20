"""Owns holding a request against its limits."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol

from prometheus_client import Counter

from libs import errors
from libs.caller import Caller
from libs.clock import WallClock
from libs.telemetry import Telemetry
from services.gateway.domain.bundle import Override, Quota
from services.gateway.http.caches import Monotonic
from services.gateway.http.contracts import Endpoint
from services.gateway.http.exchange import Exchange
from services.gateway.http.limits.decision import Decision
from services.gateway.http.limits.held import Held
from services.gateway.http.limits.in_flight import InFlight, Places
from services.gateway.http.limits.limit import Limit
from services.gateway.http.limits.quotas import Quotas
from services.gateway.http.limits.refusal import Refusal

SHADOW_LOG_SECONDS = 60.0
"""How often a quota in shadow is logged at most; the metric counts every request."""

_FAILED_AUTHENTICATION = "strict"
_ENDED_CREDENTIAL = "read"
_ENDED = frozenset({"access_token_expired", "session_ended"})
_PREFLIGHT = "read"


class Decider(Protocol):
    """Whatever decides on limits."""

    async def decide(self, limits: Sequence[Limit], cost: int) -> Decision: ...

    def bind(self, held: Held) -> None: ...

    def forget(self) -> None: ...


class Limits:
    """Lets a request through or refuses it, and says so in its headers."""

    def __init__(
        self,
        quotas: Quotas,
        store: Decider,
        *,
        clock: WallClock,
        monotonic: Monotonic,
        telemetry: Telemetry,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`changed` is called when other quotas hold."""
        self._changed = changed
        self._quotas = quotas
        self._store = store
        self._in_flight = InFlight()
        self._replaced: tuple[tuple[Quota, ...], tuple[Override, ...]] = ((), ())
        self._clock = clock
        self._monotonic = monotonic
        self._log = telemetry.logger("rate_limit")
        self._counters: dict[tuple[str, str], Counter] = {}
        self._shadow_said: dict[str, float] = {}
        self._refused = telemetry.counter(
            "gateway_rate_limited", "Requests beyond a quota, by the quota and whether it counts", ("quota", "mode")
        )

    def replace(self, quotas: Iterable[Quota], overrides: Iterable[Override]) -> None:
        """Takes what replaces the configured quotas, at once and whole; raises ValueError and keeps the old ones.

        Overrides hold until they expire, by the wall clock as it is now: a step of it afterwards changes nothing.
        """
        given = tuple(quotas), tuple(overrides)
        if given == self._replaced:
            return
        wall, now = self._clock.wall(), self._monotonic()
        ending = [
            (one, now + (one.expires_at - wall).total_seconds() if one.expires_at else float("inf")) for one in given[1]
        ]
        self._quotas = self._quotas.replaced(given[0], [(one, until) for one, until in ending if until > now])
        self._store.forget()
        self._replaced = given
        self._changed()

    def enter(self, exchange: Exchange, caller: Caller, endpoint: Endpoint) -> Places | None:
        """Counts a request of a known caller where that takes no waiting; it is under way until it leaves its places.

        None, and nothing is counted, where `admit` has to do so. Raises `too_many("rate_limited")` for what was told
        so before.
        """
        held = self._quotas.of(endpoint.rate, caller, exchange.address, endpoint.rpc, exchange.rates)
        cost = endpoint.cost * exchange.cost_factor
        if held.refusal is not None:
            self._repeat(exchange, held, cost)
        places = held.places or self._places(held)
        if not places.take():
            return None
        headers = held.spend(cost, round(self._monotonic() * 1_000_000))
        if headers is None:
            places.leave()
            return None
        exchange.headers.update(headers)
        exchange.recount = partial(self._recount, held, cost)
        return places

    async def admit(self, exchange: Exchange, caller: Caller, endpoint: Endpoint) -> Places:
        """Counts a request of a known caller, which is under way until it leaves its places.

        Raises `too_many("too_many_in_flight")`, `too_many("rate_limited")` and `unavailable("rate_limits_away")`.
        """
        held = self._quotas.of(endpoint.rate, caller, exchange.address, endpoint.rpc, exchange.rates)
        cost = endpoint.cost * exchange.cost_factor
        self._repeat(exchange, held, cost)
        places = self._entered(held)
        try:
            await self._count(exchange, held, cost)
        except BaseException:
            places.leave()
            raise
        exchange.recount = partial(self._recount, held, cost)
        return places

    async def count_failed_authentication(self, exchange: Exchange, reason: str) -> None:
        """Counts a credential that was no good against its sender's address; raises as `admit` does.

        A token that has ended was good once, so that it is no guess: readers who share an address and come back with
        theirs must be told to refresh.
        """
        rate = _ENDED_CREDENTIAL if reason in _ENDED else _FAILED_AUTHENTICATION
        await self._count_address(exchange, rate)

    async def count_preflight(self, exchange: Exchange) -> None:
        """Counts a preflight, which makes origins be looked up; raises as `admit` does."""
        await self._count_address(exchange, _PREFLIGHT)

    def _places(self, held: Held) -> Places:
        places = held.places
        if places is None:
            places = held.places = self._in_flight.places(held.in_flight)
        return places

    def _entered(self, held: Held) -> Places:
        places = self._places(held)
        if full := places.full():
            self._shadowed([limit for limit in full if limit.shadow])
            if violated := [limit for limit in full if not limit.shadow]:
                raise errors.too_many(
                    "too_many_in_flight",
                    "Too many requests are under way at one time; wait for one to end.",
                    1,
                    metadata=self._violations(violated),
                )
        places.squeeze()
        return places

    async def _count_address(self, exchange: Exchange, rate: str) -> None:
        held = self._quotas.of_address(rate, exchange.address)
        self._repeat(exchange, held, 1)
        await self._count(exchange, held, 1)

    def _repeat(self, exchange: Exchange, held: Held, cost: int) -> None:
        refusal = held.refusal
        if refusal is None or refusal.cost != cost:
            return
        now = self._now()
        if now >= refusal.until:
            held.refusal = None
            return
        exchange.headers.update(refusal.headers(now))
        exchange.refusal = refusal
        for name in refusal.names:
            count = self._counter(name, "enforce").inc
            count()
            exchange.counts.append(count)
        raise errors.too_many(
            "rate_limited", "This was asked too often.", refusal.retry_after_seconds(now), metadata=refusal.violations
        )

    def _recount(self, held: Held, cost: int) -> Mapping[str, str] | None:
        return held.spend(cost, self._now())

    async def _count(self, exchange: Exchange, held: Held, cost: int) -> None:
        if not held.limits:
            return
        # A request that costs more than a whole quota takes the whole quota.
        decision = await self._store.decide(held.limits, cost)
        self._store.bind(held)
        exchange.headers.update(decision.headers())
        if decision.unavailable:
            raise errors.unavailable(
                "rate_limits_away", "This cannot be counted for a moment, and is refused uncounted."
            )
        if violated := decision.violated:
            if decision.refused_until:
                held.refusal = Refusal(decision, cost, self._now())
            seconds = max(1, decision.retry_after_seconds)
            raise errors.too_many(
                "rate_limited", "This was asked too often.", seconds, metadata=self._violations(violated)
            )
        self._shadowed(decision.shadowed)

    def _now(self) -> int:
        return round(self._monotonic() * 1_000_000)

    def _violations(self, violated: Sequence[Limit]) -> dict[str, str]:
        for limit in violated:
            self._counter(limit.name, "enforce").inc()
        return {"violated_policies": ",".join(limit.name for limit in violated)}

    def _counter(self, quota: str, mode: str) -> Counter:
        # As many as there are quotas; prometheus-client's own look-up takes a microsecond of each refusal.
        found = self._counters.get((quota, mode))
        if found is None:
            found = self._counters[quota, mode] = self._refused.labels(quota, mode)
        return found

    def _shadowed(self, limits: Sequence[Limit]) -> None:
        for limit in limits:
            self._counter(limit.name, "shadow").inc()
            now = self._monotonic()
            if now >= self._shadow_said.get(limit.name, now):
                # As many entries as there are quotas in shadow.
                self._shadow_said[limit.name] = now + SHADOW_LOG_SECONDS
                self._log.info("a quota in shadow would have refused a request", extra={"quota": limit.name})
