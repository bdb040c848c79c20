"""Owns the rate limiter in Valkey: the checks of one tick of the event loop go to it in one script call."""

import asyncio
import importlib.resources
from collections.abc import Sequence
from typing import Any, Protocol

from redis.exceptions import RedisError

from libs.errors import GatefoldError
from libs.telemetry import Telemetry
from services.gateway.http.caches import Monotonic
from services.gateway.http.limits.decision import Decision, State
from services.gateway.http.limits.local import LocalLimiter
from services.gateway.http.limits.quotas import Limit

BATCH = 64
"""Requests that one script call decides."""
FAILURES_TO_OPEN = 3
OPEN_SECONDS = 1.0


class Script(Protocol):
    """A script that the store holds."""

    async def __call__(self, keys: Sequence[str], args: Sequence[int]) -> Any: ...


class Scripting(Protocol):
    """A store that holds scripts; what libs.redis_client connects to."""

    def register_script(self, script: str) -> Any: ...


class RateStore:
    """Decides in the store, and in this process while the store is away.

    After three failures in a row the store is left alone for a second, then tried with the next batch; nobody waits
    for it longer than `seconds`, or twice that when this process was too busy to look for the answer.
    """

    def __init__(
        self, store: Scripting, local: LocalLimiter, *, seconds: float, monotonic: Monotonic, telemetry: Telemetry
    ) -> None:
        source = importlib.resources.files(__package__).joinpath("gcra.lua").read_text(encoding="utf-8")
        self._script: Script = store.register_script(source)
        self._local = local
        self._seconds = seconds
        self._monotonic = monotonic
        self._pending: list[tuple[Sequence[Limit], int, asyncio.Future[Decision]]] = []
        self._running: set[asyncio.Task[None]] = set()
        self._asking: set[asyncio.Future[Any]] = set()
        self._failures = 0
        self._closed_until = float("-inf")
        self._away_said = False
        self._log = telemetry.logger("rate_limit")
        self._away = telemetry.counter("gateway_rate_store_failures", "Rate limit checks the store did not answer")

    async def warm(self) -> None:
        """Connects and hands the script over, so that the first request finds both; a store that is away is no fault.

        Takes no longer than the client's own time-outs.
        """
        try:
            await self._script(keys=["gatefold:rate:warm"], args=[1, 0, 1, 1])
        except (GatefoldError, RedisError, OSError) as error:
            self._log.warning("the rate limit store does not answer yet", extra={"why": type(error).__name__})

    async def decide(self, limits: Sequence[Limit], cost: int) -> Decision:
        """Decides on one request: all its limits let it through and are moved, or none is."""
        if self._monotonic() < self._closed_until:
            return self._local.decide(limits, cost)
        loop = asyncio.get_running_loop()
        decided: asyncio.Future[Decision] = loop.create_future()
        self._pending.append((limits, cost, decided))
        if len(self._pending) == 1:
            loop.call_soon(self._flush)
        return await decided

    def _flush(self) -> None:
        while self._pending:
            batch, self._pending = self._pending[:BATCH], self._pending[BATCH:]
            task = asyncio.ensure_future(self._decide(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _decide(self, batch: list[tuple[Sequence[Limit], int, "asyncio.Future[Decision]"]]) -> None:
        keys: list[str] = []
        arguments: list[int] = []
        for limits, cost, _ in batch:
            arguments += [len(limits), cost]
            for limit in limits:
                keys.append(limit.key)
                arguments += [limit.emission, limit.tolerance]
        try:
            answer = await self._asked(keys, arguments)
        except Exception as error:  # noqa: BLE001 — a client that breaks in a way of its own must leave nobody waiting
            self._failed(error)
            for limits, cost, decided in batch:
                _settle(decided, self._local.decide(limits, cost))
            return
        self._failures = 0
        if self._away_said:
            self._away_said = False
            self._log.info("rate limits are counted in the store again")
        at = 0
        for limits, _, decided in batch:
            states = [State(answer[at + 2 * index], answer[at + 2 * index + 1]) for index in range(len(limits))]
            at += 2 * len(limits)
            _settle(decided, Decision(limits, states))

    async def _asked(self, keys: list[str], arguments: list[int]) -> Any:
        """Returns the script's answer; raises TimeoutError when it takes too long.

        What takes too long is not cut off: that would cost the connection, and the next check the time to make another.
        """
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
