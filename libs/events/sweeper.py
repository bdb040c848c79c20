"""Owns sweeping: pulls from each producer, by cursor, what the stream may have lost."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from gatefold.events.v1 import envelope_pb2, event_pb2, event_pb2_grpc

from libs import caller
from libs.errors import GatefoldError, Kind
from libs.events import inbox
from libs.events.pause import pause
from libs.grpc_client import Channels
from libs.postgres import Database
from libs.telemetry import Telemetry

PAGE_EVENTS = 500
_PAGES_AHEAD = 64
_PULL_SECONDS = 5.0

Deliver = Callable[[str, Sequence[envelope_pb2.Envelope], Callable[[], None]], Awaitable[int]]
"""Delivers what of a producer's events is not applied yet, calls back when all is settled, returns how many it was."""


class Sweeper:
    """Goes through one producer's events in the order they became visible and delivers those that were missed.

    The stored cursor only passes events that are settled; what is read beyond it is read again after a crash.
    """

    def __init__(
        self,
        service: str,
        producer: str,
        db: Database,
        channels: Channels,
        deliver: Deliver,
        *,
        telemetry: Telemetry,
        every_seconds: float = 5.0,
    ) -> None:
        self._service = service
        self._producer = producer
        self._db = db
        self._channels = channels
        self._deliver = deliver
        self._log = telemetry.logger("libs.events")
        self._failures = telemetry.counter("events_sweep_failures", "Sweeps that failed, by producer.", ["producer"])
        self._swept = telemetry.counter("events_missed", "Unapplied events that a sweep found.", ["producer"])
        self._every_seconds = every_seconds
        self._hurry = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._reached: str | None = None
        self._pages: deque[_Page] = deque()

    def hurry(self) -> None:
        """Sweeps at once: the stream was lost."""
        self._hurry.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Sweeps at once and then every five seconds, until `stop` is set."""
        while not stop.is_set():
            self._hurry.clear()
            try:
                await self.sweep()
            except GatefoldError as error:
                # The producer or the database may be away; what is wrong for good shows in the count.
                self._failures.labels(self._producer).inc()
                level = self._log.warning if error.kind in (Kind.UNAVAILABLE, Kind.TIMEOUT) else self._log.error
                level("sweep failed", extra={"producer": self._producer, "reason": error.reason})
            await pause(stop, self._every_seconds, self._hurry)

    async def sweep(self) -> None:
        """Reads to the producer's newest event and delivers what was missed; raises what the producer raises."""
        async with self._one_at_a_time:
            if self._reached is None:
                async with self._db.transaction("read_cursor", read_only=True) as conn:
                    self._reached = await inbox.cursor(conn, self._producer)
            while len(self._pages) < _PAGES_AHEAD:
                response = await self._list(self._reached)
                if not response.envelopes:
                    break
                page = _Page(response.next_cursor)
                missed = await self._deliver(self._producer, response.envelopes, page.settle)
                self._pages.append(page)
                self._swept.labels(self._producer).inc(missed)
                self._reached = response.next_cursor
            await self._store()

    async def _store(self) -> None:
        settled: str | None = None
        while self._pages and self._pages[0].settled:
            settled = self._pages.popleft().cursor
        if settled is not None:
            async with self._db.transaction("store_cursor") as conn:
                await inbox.set_cursor(conn, self._producer, settled)

    async def _list(self, cursor: str) -> event_pb2.ListEventsResponse:
        stub = event_pb2_grpc.EventServiceStub(self._channels.channel(self._producer))
        with caller.acting(caller.service_caller(self._service, None, request_id=f"sweep-{self._producer}")):
            return await stub.ListEvents(
                event_pb2.ListEventsRequest(cursor=cursor, limit=PAGE_EVENTS), timeout=_PULL_SECONDS
            )


class _Page:
    """A page of events and whether all of them are settled."""

    def __init__(self, cursor: str) -> None:
        self.cursor = cursor
        self.settled = False

    def settle(self) -> None:
        self.settled = True
