"""Owns the rate limiter in Valkey: the checks of one tick of the event loop go to it in one script call."""

import asyncio
import contextlib
import importlib.resources
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from redis.exceptions import RedisError

from libs.errors import GatefoldError
from libs.telemetry import Telemetry
from services.gateway.http.caches import Monotonic
from services.gateway.http.limits.decision import UNKNOWN, Decision
from services.gateway.http.limits.held import Held
from services.gateway.http.limits.holdings import Asking, Holdings
from services.gateway.http.limits.limit import Away, Limit
from services.gateway.http.limits.local import LocalLimiter

BATCH = 64
"""Requests that one script call decides."""
FAILURES_TO_OPEN = 3
OPEN_SECONDS = 1.0
CLOSE_SECONDS = 1.0
LEASE_SECONDS = 5.0

_ANY = 10**15  # a tolerance in microseconds that refuses nothing


class Script(Protocol):
    """A script that the store holds."""

    async def __call__(self, keys: Sequence[str], args: Sequence[int]) -> Any: ...


class Scripting(Protocol):
    """A store that holds scripts; what libs.redis_client connects to."""

    def register_script(self, script: str) -> Any: ...


class _Waiting(NamedTuple):
    asking: Asking
    cost: int
    decided: "asyncio.Future[Decision]"


class RateStore:
    """Decides from what is leased or known to be used up, else in the store, and without it while it is away.

    After three failures in a row the store is left alone for a second, then tried with the next batch; nobody waits
    for it longer than `seconds`, or twice that when this process was too busy to look for the answer. What then holds
    is for each limit to say. `lease_seconds` of 0 leases nothing: every decision is the store's.
    """

    def __init__(
        self,
        store: Scripting,
        local: LocalLimiter,
        *,
        seconds: float,
        monotonic: Monotonic,
        telemetry: Telemetry,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        source = importlib.resources.files(__package__).joinpath("gcra.lua").read_text(encoding="utf-8")
        self._script: Script = store.register_script(source)
        self._local = local
        self._seconds = seconds
        self._monotonic = monotonic
        self._holdings = Holdings(int(lease_seconds * 1_000_000))
        self._pending: list[_Waiting] = []
        self._running: set[asyncio.Task[None]] = set()
        self._asking: set[asyncio.Future[Any]] = set()
        self._failures = 0
        self._closed_until = float("-inf")
        self._away_said = False
        self._log = telemetry.logger("rate_limit")
        self._calls = telemetry.counter("gateway_rate_store_calls", "Script calls that decided on rate limits")
        self._away = telemetry.counter("gateway_rate_store_failures", "Rate limit checks the store did not answer")

    async def warm(self) -> None:
        """Connects and hands the script over, so that the first request finds both; a store that is away is no fault.

        Takes no longer than the client's own time-outs.
        """
        try:
            await self._script(keys=["gatefold:gcra:warm"], args=[1, 1, 1, 1, 0, 0])
        except (GatefoldError, RedisError, OSError) as error:
            self._log.warning("the rate limit store does not answer yet", extra={"why": type(error).__name__})

    def forget(self) -> None:
        """Forgets what is leased and what is used up: quotas have changed."""
        self._holdings.forget()

    async def close(self) -> None:
        """Gives back what was leased, as far as the store takes it within a second."""
        backs = self._holdings.unspent(self._now())
        with contextlib.suppress(GatefoldError, RedisError, OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                for at in range(0, len(backs), BATCH):
                    batch = backs[at : at + BATCH]
                    arguments = [figure for _, emission, back in batch for figure in (1, emission, _ANY, -back, 0, 0)]
                    await self._script(keys=[key for key, _, _ in batch], args=arguments)

    async def decide(self, limits: Sequence[Limit], cost: int) -> Decision:
        """Decides on one request: all its limits let it through and are moved, or none is."""
        asking = self._holdings.decide(limits, cost, self._now())
        if isinstance(asking, Decision):
            return asking
        if self._monotonic() < self._closed_until:
            return self._alone(asking, cost)
        loop = asyncio.get_running_loop()
        decided: asyncio.Future[Decision] = loop.create_future()
        self._pending.append(_Waiting(asking, cost, decided))
        if len(self._pending) == 1:
            loop.call_soon(self._flush)
        return await decided

    def bind(self, held: Held) -> None:
        """Makes what is leased of a caller's limits be found there."""
        self._holdings.bind(held)

    def _now(self) -> int:
        return round(self._monotonic() * 1_000_000)

    def _flush(self) -> None:
        while self._pending:
            batch, self._pending = self._pending[:BATCH], self._pending[BATCH:]
            task = asyncio.ensure_future(self._decide(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _decide(self, batch: list[_Waiting]) -> None:
        keys: list[str] = []
        arguments: list[int] = []
        for asking, _, _ in batch:
            arguments.append(len(asking.missing))
            for index, units, want, _ in asking.missing:
                limit = asking.limits[index]
                keys.append(limit.key)
                arguments += (limit.emission, limit.tolerance, units * limit.emission, want, int(limit.shadow))
        try:
            answer = await self._asked(keys, arguments)
        except Exception as error:  # noqa: BLE001 — a client that breaks in a way of its own must leave nobody waiting
            self._failed(error)
            for asking, cost, decided in batch:
                _settle(decided, self._alone(asking, cost))
            return
        self._failures = 0
        if self._away_said:
            self._away_said = False
            self._log.info("rate limits are counted in the store again")
        at, now = 0, self._now()
        for asking, _, decided in batch:
            figures = 3 * len(asking.missing)
            _settle(decided, asking.answered(answer[at : at + figures], now))
            at += figures

    def _alone(self, asking: Asking, cost: int) -> Decision:
        """Decides without the store, as each limit's class says."""
        limits = [asking.limits[missing.place] for missing in asking.missing]
        if any(limit.away is Away.CLOSED and not limit.shadow for limit in limits):
            return asking.unanswered(Decision(limits, [UNKNOWN] * len(limits), unavailable=True))
        counted = [limit for limit in limits if limit.away is Away.LOCAL]
        local = self._local.decide(counted, cost)
        found = {limit.key: (limit, state) for limit, state in zip(local.limits, local.states, strict=True)}
        both = [found.get(limit.key, (limit, UNKNOWN)) for limit in limits]
        return asking.unanswered(Decision([limit for limit, _ in both], [state for _, state in both]))

    async def _asked(self, keys: list[str], arguments: list[int]) -> Any:
        """Returns the script's answer; raises TimeoutError when it takes too long.

        What takes too long is not cut off: that would cost the connection, and the next check the time to make another.
        """
        self._calls.inc()
        asking = asyncio.ensure_future(self._script(keys=keys, args=arguments))
        self._asking.add(asking)
        asking.add_done_callback(self._answered)
        began = self._monotonic()
        done, _ = await asyncio.wait((asking,), timeout=self._seconds)
        if not done and self._monotonic() - began > 2 * self._seconds:
            # The loop itself was late, and the answer may lie in the socket unread.
            done, _ = await asyncio.wait((asking,), timeout=self._seconds)
        if not done:
            raise TimeoutError
        return asking.result()

    def _answered(self, asking: "asyncio.Future[Any]") -> None:
        self._asking.discard(asking)
        if not asking.cancelled():
            asking.exception()  # whoever still waited has seen it; nobody else is to be told

    def _failed(self, error: Exception) -> None:
        self._away.inc()
        self._failures += 1
        if self._failures >= FAILURES_TO_OPEN:
            self._closed_until = self._monotonic() + OPEN_SECONDS
            if self._away_said:
                return
            self._away_said = True
            self._log.warning("rate limits are counted in this process", extra={"why": type(error).__name__})


def _settle(decided: "asyncio.Future[Decision]", decision: Decision) -> None:
    # Whoever asked may have been cancelled meanwhile.
    if not decided.done():
        decided.set_result(decision)
