"""Owns the way of security events to the abuse service: batches on a Redis stream that nothing ever waits for."""

import asyncio
from collections import deque

from gatefold.activity.v1 import activity_pb2
from redis.exceptions import RedisError

from libs.errors import GatefoldError
from libs.events.pause import pause
from libs.redis_client import Store
from libs.telemetry import Telemetry

STREAM = "gatefold:activity"
FIELD = b"batch"
MOST_HELD = 2_000
MOST_IN_BATCH = 200
LONGEST_STREAM = 10_000
EVERY_SECONDS = 0.5


class ActivityStream:
    """Holds what is to be sent, up to a bound; what does not fit, and what the store did not take, is counted."""

    def __init__(self, store: Store, telemetry: Telemetry) -> None:
        self._store = store
        self._held: deque[activity_pb2.Activity] = deque()
        self._lost = 0
        self._lost_total = telemetry.counter("activities_lost", "Security events that the abuse service never sees.")

    def record(self, activity: activity_pb2.Activity) -> None:
        """Takes an event to be sent; returns at once."""
        if len(self._held) >= MOST_HELD:
            self._lose(1)
        else:
            self._held.append(activity)

    async def flush(self) -> None:
        """Sends one batch; one that the store does not take is lost, and the next says how many were."""
        if not self._held:
            return
        packed = [self._held.popleft() for _ in range(min(len(self._held), MOST_IN_BATCH))]
        lost, self._lost = self._lost, 0
        batch = activity_pb2.ActivityBatch(activities=packed, lost=lost)
        try:
            await self._store.xadd(STREAM, {FIELD: batch.SerializeToString()}, maxlen=LONGEST_STREAM, approximate=True)
        except (GatefoldError, RedisError, OSError):
            self._lost += lost
            self._lose(len(packed))

    async def run(self, stop: asyncio.Event) -> None:
        """Sends until `stop` is set, and then what is left."""
        while not stop.is_set():
            await self.flush()
            if len(self._held) < MOST_IN_BATCH:
                await pause(stop, EVERY_SECONDS)
        await self.flush()

    def _lose(self, number: int) -> None:
        self._lost += number
        self._lost_total.inc(number)
