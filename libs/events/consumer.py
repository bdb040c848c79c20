"""Owns consuming: feeds a service's handler from streams and sweeps, in order, retried, each event taken once."""

import asyncio
import os
import platform
import random
from collections.abc import Callable, Collection, Iterable, Sequence
from uuid import UUID

import redis.asyncio
from gatefold.events.v1 import envelope_pb2

from libs import errors
from libs.clock import WallClock
from libs.errors import GatefoldError, Kind
from libs.events import inbox
from libs.events.application import Application, Handler, NotTakenError, describe
from libs.events.event import readable
from libs.events.groups import Groups
from libs.events.lanes import Batch, Delivery, Lanes
from libs.events.pause import pause
from libs.events.reader import StreamReader
from libs.events.sweeper import Sweeper
from libs.grpc_client import Channels
from libs.ids import encode
from libs.kill_points import KillPoints
from libs.postgres import Database
from libs.telemetry import Telemetry


def back_off_seconds(failures: int) -> float:
    """Returns how long to wait after that many failures: 0.1 s doubling to 10 s, spread by half."""
    return float(min(0.1 * 2 ** min(failures - 1, 10), 10.0) * random.uniform(0.5, 1))  # noqa: S311


class Consumer:
    """Feeds one service's handler with the events of other services, in order within each aggregate.

    The handler runs in the event's tenant transaction and makes no calls to other services. When many events wait, up
    to `together` of one account and type share a transaction; if one of them fails, the others are applied without it,
    so the handler may see an event again whose transaction was rolled back. Raising UNAVAILABLE makes the event wait
    and be tried again for as long as it takes; after any other error it is tried `attempts` times, then goes to the
    dead letters, and the aggregate's later events go on. `types` are the event types that are handled (all without it);
    others are passed over. Nothing is lost with the stream: gaps are pulled from the producer, and every
    `sweep_seconds` a sweep goes by the producers' own tables.
    """

    def __init__(
        self,
        service: str,
        producers: Iterable[str],
        db: Database,
        redis: redis.asyncio.Redis,
        channels: Channels,
        handler: Handler,
        kill_points: KillPoints,
        *,
        clock: WallClock,
        telemetry: Telemetry,
        types: Iterable[str] | None = None,
        name: str | None = None,
        parallel: int = 2,
        together: int = 64,
        attempts: int = 5,
        capacity: int = 4_096,
        back_off: Callable[[int], float] = back_off_seconds,
        sweep_seconds: float = 5.0,
        claim_seconds: float = 30.0,
        idle_seconds: float = 60.0,
    ) -> None:
        self._producers = tuple(producers)
        self._application = Application(
            service,
            db,
            channels,
            handler,
            types=frozenset(types) if types is not None else None,
            clock=clock,
            telemetry=telemetry,
        )
        self._parallel = asyncio.Semaphore(parallel)
        self._together = together
        self._attempts = attempts
        self._capacity = capacity
        self._back_off = back_off
        self._log = telemetry.logger("libs.events")
        self._unreadable = telemetry.counter("events_unreadable", "Entries and envelopes that could not be read.")
        self._retried = telemetry.counter("events_retried", "Attempts to apply an event that failed.", ["reason"])

        # Made anew for each run, since what a run holds in memory ends with it.
        def sweeper(producer: str) -> Sweeper:
            return Sweeper(
                service, producer, db, channels, self._deliver_missed, telemetry=telemetry, every_seconds=sweep_seconds
            )

        def reader() -> StreamReader:
            return StreamReader(
                redis,
                service,
                name or f"{platform.node()}-{os.getpid()}",
                self._producers,
                self._deliver,
                lost=self._hurry,
                back_off=back_off,
                kill_points=kill_points,
                telemetry=telemetry,
                claim_seconds=claim_seconds,
                idle_seconds=idle_seconds,
            )

        self._make_sweeper = sweeper
        self._make_reader = reader
        self._sweepers: list[Sweeper] = []
        self._lanes: Lanes | None = None
        self._groups: Groups | None = None
        self._stop = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Consumes until `stop` is set; what is under way then ends first."""
        self._stop = stop
        reader = self._make_reader()
        self._sweepers = [self._make_sweeper(producer) for producer in self._producers]
        try:
            async with asyncio.TaskGroup() as group:
                self._groups = Groups(group, self._apply, self._parallel, stop, most=self._together)
                self._lanes = Lanes(group, self._work, capacity=self._capacity)
                loops = [reader.read(stop), reader.claim(stop), reader.acknowledge(stop)]
                tasks = [group.create_task(loop) for loop in loops]
                tasks += [group.create_task(sweeper.run(stop)) for sweeper in self._sweepers]
                await stop.wait()
                for task in tasks:
                    task.cancel()
        finally:
            self._lanes = None
        try:
            await reader.acknowledge_settled()
        except GatefoldError as error:
            # They are delivered again and skipped.
            self._log.warning("the last events were not acknowledged", extra={"reason": error.reason})

    async def lag(self, account: UUID) -> int:
        """Sweeps all producers to their newest event; returns how many deliveries of the account are not worked off.

        The same event delivered twice counts twice. Raises unavailable when a producer is away or the consumer does
        not run.
        """
        lanes = self._lanes
        if lanes is None:
            raise errors.unavailable("consumer_stopped", "Events are not being consumed at the moment.")
        for sweeper in self._sweepers:
            await sweeper.sweep()
        return lanes.held(encode("acct", account))

    async def dead_letters(self, account: UUID, limit: int = 100) -> list[inbox.DeadLetter]:
        """Returns the account's events that the handler could not take and that wait for a replay, oldest first."""
        return await self._application.dead_letters(account, limit)

    async def replay(self, account: UUID, event_id: UUID) -> bool:
        """Gives a dead letter to the handler once more; False when none waits. What the handler raises passes on."""
        return await self._application.replay(account, event_id)

    def _hurry(self) -> None:
        for sweeper in self._sweepers:
            sweeper.hurry()

    async def _deliver(
        self, producer: str, envelopes: Sequence[envelope_pb2.Envelope], done: Callable[[], None]
    ) -> None:
        """Queues events that came together."""
        lanes = self._lanes
        if lanes is None:
            return
        await lanes.room()
        batch = Batch(len(envelopes), done)
        for envelope in envelopes:
            if readable(envelope):
                lanes.put(Delivery(producer, envelope, batch))
            else:
                self._unreadable.inc()
                self._log.error("an event cannot be read", extra={"producer": producer, "type": envelope.type})
                batch.settle()

    async def _deliver_missed(
        self, producer: str, envelopes: Sequence[envelope_pb2.Envelope], done: Callable[[], None]
    ) -> int:
        """Queues those events that are not applied yet; returns how many."""
        missed = await self._application.missed(producer, [one for one in envelopes if readable(one)])
        await self._deliver(producer, missed, done)
        return len(missed)

    async def _work(self, delivery: Delivery) -> None:
        """Applies one event, trying again as long as that makes sense; leaves it unsettled when the run ends."""
        failures = 0
        poisoned: dict[str, int] = {}
        groups = self._groups
        while not self._stop.is_set():
            try:
                if groups is None:
                    async with self._parallel:
                        if self._stop.is_set():
                            return  # it waited behind others, and nothing of it has begun
                        await self._application.apply(delivery.producer, delivery.envelope)
                    taken = True
                else:
                    # Once: what did not go well with others is tried by itself.
                    together, groups = groups, None
                    taken = await together.take(delivery)
            except NotTakenError as not_taken:
                failures += 1
                if await self._bear(delivery.producer, not_taken, poisoned):
                    continue
            else:
                if taken:
                    delivery.batch.settle()
                    return
                continue
            await pause(self._stop, self._back_off(failures))

    async def _apply(self, deliveries: Sequence[Delivery]) -> Collection[str]:
        """Applies what has its turn at once; returns the events that are done with."""
        producer = deliveries[0].producer
        if len(deliveries) == 1:
            await self._application.apply(producer, deliveries[0].envelope)
            return {deliveries[0].envelope.id}
        return await self._application.apply_together(producer, [delivery.envelope for delivery in deliveries])

    async def _bear(self, producer: str, failure: NotTakenError, poisoned: dict[str, int]) -> bool:
        """Counts a failure; once it is the event's own and the last allowed one, buries the event and answers True."""
        envelope, cause = failure.envelope, failure.__cause__
        assert cause is not None
        self._retried.labels(describe(cause)).inc()
        if failure.transient:
            return False
        poisoned[envelope.id] = poisoned.get(envelope.id, 0) + 1
        fields = {"producer": producer, "type": envelope.type, "event": envelope.id, "attempts": poisoned[envelope.id]}
        self._log.error("an event could not be applied", exc_info=cause, extra=fields)
        if poisoned[envelope.id] < self._attempts:
            return False
        try:
            async with self._parallel:
                await self._application.bury(producer, envelope, cause, poisoned[envelope.id])
        except GatefoldError as error:
            if error.kind not in (Kind.UNAVAILABLE, Kind.TIMEOUT, Kind.CONFLICT):
                raise
            return False
        return True
