"""Owns a producer and a consumer of events around real stores, for tests: telling, relaying, consuming, looking."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
from gatefold.events.v1.event_pb2_grpc import add_EventServiceServicer_to_server
from gatefold.money.v1 import money_pb2

from libs import outbox
from libs.caller import CallerSigner, CallerVerifier
from libs.clock import FixedClock
from libs.events import Consumer, Event, EventServicer
from libs.events.stream import FIELD, pack, stream_key
from libs.grpc_client import Channels, GrpcConfig
from libs.grpc_server import GrpcServer
from libs.ids import IdMaker
from libs.kill_points import KillPoints
from libs.migrate import Component
from libs.migrate.files import shared_components
from libs.postgres import Connection
from libs.redis_client import Store
from libs.telemetry import Telemetry
from tests.support.stores import ServiceDatabase
from tests.support.waiting import until

PRODUCER, CONSUMER = "billing", "notify"
KEYS = {f"{CONSUMER}>{PRODUCER}": (b"pair key of the tests, 32 bytes..",)}

SEEN = """-- kind: expand
-- min_compatible_code: 1
CREATE TABLE seen (
    account_id uuid NOT NULL, id uuid NOT NULL, aggregate_id uuid NOT NULL, sequence bigint NOT NULL,
    place bigint GENERATED ALWAYS AS IDENTITY, PRIMARY KEY (account_id, id));
SELECT gatefold_tenant_table('seen');
SELECT gatefold_marks('seen', '{"account_id": "none", "id": "none", "aggregate_id": "none", "sequence": "none",
    "place": "none"}'::jsonb);
"""


def consumer_components(folder: Path) -> Sequence[Component]:
    """Returns the migrations of a consumer with a table of what its handler saw, written into `folder`."""
    (folder / "0001_create_seen.sql").write_text(SEEN)
    return (*shared_components(), Component("listener", folder))


async def note(conn: Connection, event: Event) -> None:
    """The plainest handler: writes that it saw the event; seeing one twice breaks the primary key."""
    await conn.execute(
        "INSERT INTO seen (account_id, id, aggregate_id, sequence) VALUES ($1, $2, $3, $4)",
        event.account,
        event.id,
        event.aggregate[1],
        event.sequence,
    )


@dataclass
class Events:
    """A producer with its gRPC port, and what consumes it."""

    told_to: ServiceDatabase
    heard_by: ServiceDatabase
    redis: Store
    clock: FixedClock
    ids: IdMaker
    telemetry: Telemetry
    peers: str

    def event(
        self, account: UUID, aggregate: UUID, sequence: int, *, type_: str = "invoice.paid", subject: UUID | None = None
    ) -> Event:
        """Returns an event of an invoice."""
        return Event(
            id=self.ids.new(),
            type=type_,
            account=account,
            aggregate=("invoice", aggregate),
            sequence=sequence,
            occurred_at=self.clock.now(account),
            recorded_at=self.clock.wall(),
            actor=f"service:{PRODUCER}",
            subjects=(subject,) if subject else (),
            data=money_pb2.Money(amount_minor=sequence, currency="EUR"),
        )

    async def tell(self, *events: Event) -> None:
        """Writes events into the producer's outbox in one transaction."""
        async with self.told_to.app.tenant(events[0].account, "tell") as conn:
            await outbox.append_all(conn, events=events)

    async def tell_many(self, account: UUID, aggregate: UUID, count: int, first: int = 1) -> list[Event]:
        """Writes that many consecutive events of an aggregate and returns them."""
        events = [self.event(account, aggregate, sequence) for sequence in range(first, first + count)]
        await self.tell(*events)
        return events

    def relay(self, redis: Store | None = None, **options: Any) -> outbox.Relay:
        """Returns the producer's relay."""
        return outbox.Relay(
            self.told_to.jobs,
            redis or self.redis,
            PRODUCER,
            clock=self.clock,
            kill_points=KillPoints(PRODUCER),
            telemetry=self.telemetry,
            **options,
        )

    async def put(self, *events: Event) -> None:
        """Puts events straight into the stream, as one entry."""
        await self.redis.xadd(
            stream_key(PRODUCER), {FIELD: pack([event.to_envelope().SerializeToString() for event in events])}
        )

    def channels(self) -> Channels:
        """Returns the consumer's channels."""
        return Channels(
            CONSUMER,
            GrpcConfig(peers=self.peers),
            CallerSigner(CONSUMER, KEYS, self.clock),
            telemetry=self.telemetry,
            kill_points=KillPoints(CONSUMER),
        )

    @asynccontextmanager
    async def consuming(
        self, handler: Callable[[Connection, Event], Awaitable[None]] = note, redis: Store | None = None, **options: Any
    ) -> AsyncIterator[Consumer]:
        """Runs a consumer that sweeps only at its start and when it notices that the stream was lost."""
        channels = self.channels()
        settings: dict[str, Any] = {
            "sweep_seconds": 3600.0,
            "back_off": lambda failures: 0.01,
            "kill_points": KillPoints(CONSUMER),
            **options,
        }
        consumer = Consumer(
            CONSUMER,
            (PRODUCER,),
            self.heard_by.app,
            redis or self.redis,
            channels,
            handler,
            clock=self.clock,
            telemetry=self.telemetry,
            **settings,
        )
        stop = asyncio.Event()
        try:
            # A consumer that fails ends the test at once.
            async with asyncio.TaskGroup() as group:
                group.create_task(consumer.run(stop))
                try:
                    yield consumer
                finally:
                    stop.set()
        finally:
            await channels.close()

    async def seen(self, account: UUID) -> list[tuple[UUID, int]]:
        """Returns the aggregates and sequences that the handler saw, in that order."""
        async with self.heard_by.app.tenant(account, "look", read_only=True) as conn:
            rows = await conn.fetch("SELECT aggregate_id, sequence FROM seen ORDER BY place")
        return [(row["aggregate_id"], row["sequence"]) for row in rows]

    async def sees(self, account: UUID, count: int) -> None:
        """Returns when the handler has seen that many events of the account."""

        async def enough() -> bool:
            return len(await self.seen(account)) >= count

        await until(enough)

    async def pending(self) -> int:
        """Returns how many stream entries were read and not acknowledged."""
        summary: dict[str, Any] = await self.redis.xpending(stream_key(PRODUCER), CONSUMER)
        return int(summary["pending"])

    async def acknowledged(self) -> None:
        """Returns when every entry that was read is acknowledged."""

        async def none() -> bool:
            return await self.pending() == 0

        await until(none)

    def count(self, name: str, **labels: str) -> float:
        """Returns the value of a counter."""
        return self.telemetry.registry.get_sample_value(f"gatefold_{name}_total", labels) or 0.0


@asynccontextmanager
async def between(
    told_to: ServiceDatabase, heard_by: ServiceDatabase, redis: Store, clock: FixedClock, ids: IdMaker
) -> AsyncIterator[Events]:
    """Serves the producer's EventService and yields the pair."""
    telemetry = Telemetry(CONSUMER)
    server = GrpcServer(
        PRODUCER, "127.0.0.1:0", verifier=CallerVerifier(PRODUCER, KEYS, clock), telemetry=Telemetry(PRODUCER)
    )
    server.add(add_EventServiceServicer_to_server, EventServicer(told_to.jobs))
    await server.start()
    peers = orjson.dumps({PRODUCER: f"127.0.0.1:{server.port}"}).decode()
    # Past what a test before this one left in the producer's outbox.
    clock.advance(timedelta(seconds=1))
    yield Events(told_to, heard_by, redis, clock, ids, telemetry, peers)
    await server.drain(1)
