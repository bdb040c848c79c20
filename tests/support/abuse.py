"""Owns abuse as tests run it: its use cases on real stores, and the whole process object."""

import io
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import UUID

from gatefold.abuse.v1 import appeal_pb2_grpc, case_pb2_grpc, detector_pb2_grpc, otlp_pb2_grpc, verdict_pb2_grpc
from gatefold.activity.v1 import activity_pb2

from libs import ids
from libs.activity import FIELD, shard_of, stream_of
from libs.caller import Caller, CallerKind, acting, service_caller
from libs.clock import FixedClock, SystemClock
from libs.grpc_client import Channels, GrpcConfig
from libs.ids import IdMaker
from libs.kill_points import KillPoints
from libs.postgres import PLATFORM
from libs.process import Process, ProcessConfig
from libs.redis_client import Store
from libs.telemetry import Telemetry
from services.abuse.__main__ import compose
from services.abuse.clients.verdict_feed import FIELD as TOLD_FIELD
from services.abuse.clients.verdict_feed import STREAM, VerdictFeed
from services.abuse.domain.detector import Action
from services.abuse.domain.finding import Measure, Scope
from services.abuse.domain.judge import Decision
from services.abuse.engine.catalogue import Catalogue
from services.abuse.repository import shards
from services.abuse.usecases.appeals import Appeals
from services.abuse.usecases.case_actions import CaseActions
from services.abuse.usecases.case_book import CaseBook
from services.abuse.usecases.cases import Cases
from services.abuse.usecases.detectors import Detectors
from services.abuse.usecases.facts import Facts
from services.abuse.usecases.reviewer import Reviewer
from services.abuse.usecases.verdicts import Verdicts
from services.abuse.usecases.watch import Decided, Sample, Sighting
from tests.support.activities import BEGIN, hashed
from tests.support.living import living
from tests.support.neighbours import Vouching, pair_keys
from tests.support.stores import ServiceDatabase, role_dsn

PEPPER = "key-pepper-of-tests-".ljust(40, "x")
SHARD = 3


class ShiftedClock(SystemClock):
    """The machine's clock, which a test can set forward."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = timedelta()

    def wall(self) -> datetime:
        """Returns the machine's time and the shift."""
        return super().wall() + self.shift

    def seconds(self) -> float:
        """Returns the same in seconds of the epoch."""
        return super().seconds() + self.shift.total_seconds()


@dataclass
class Desk:
    """The use cases of abuse over a database and a store, with a clock that stands still."""

    database: ServiceDatabase
    redis: Store
    clock: FixedClock
    ids: IdMaker
    feed: VerdictFeed = field(init=False)

    def __post_init__(self) -> None:
        self.feed = VerdictFeed(self.redis)
        self.book = CaseBook(self.clock, self.ids, Facts(self.clock, self.ids, dict))
        self.verdicts = self.verdicts_with(KillPoints("abuse"))
        self.cases = Cases(self.database.app, self.book, self.clock)
        self.actions = CaseActions(self.database.app, self.book, self.clock, self.ids)
        self.appeals = Appeals(self.database.app, self.book, self.clock)
        self.detectors = Detectors(
            self.database.app, self.database.jobs, self.clock, lambda overrides: Catalogue.load(overrides=overrides)
        )
        self.replica = self.ids.new()

    def verdicts_with(self, kill_points: KillPoints) -> Verdicts:
        """Returns the use case of verdicts with other kill points."""
        return Verdicts(self.database.app, self.database.jobs, self.feed, self.book, self.clock, self.ids, kill_points)

    async def hold(self, replica: UUID | None = None) -> UUID:
        """Gives all shards to a replica."""
        owner = replica or self.replica
        async with self.database.app.transaction("hold_all") as conn:
            await conn.execute("UPDATE shard SET holder = NULL, leased_until = NULL")
            await shards.claim(conn, owner, 8, self.clock.wall(), self.clock.wall() + timedelta(days=365))
        return owner

    def decision(
        self,
        account: UUID | None,
        name: str,
        *,
        scope: Scope = Scope.ADDRESS,
        action: Action = Action.BLOCK,
        detector: str = "stuffing-address",
        seconds: int = 3600,
        after: float = 0.0,
        seen: Mapping[str, str] = MappingProxyType({}),
        **changes: Any,
    ) -> Decided:
        """Returns a decision about something by its name."""
        made = Decision(
            **{
                "scope": scope,
                "entity": hashed(scope.value, name),
                "account": ids.encode("acct", account) if account else None,
                "action": action,
                "seconds": seconds,
                "reasons": ("credential_stuffing", "targets"),
                "confidence": 0.99,
                "evidence": {f"{detector}.targets": Measure(12.0, 8.0, 6.5)},
                "rule_version": f"{detector}@0123456789ab",
                "shadow": False,
                "at": self.clock.wall() + timedelta(seconds=after),
                "strikes": 0,
                "request_id": f"req-{name}",
                **changes,
            }
        )
        linked = {scope: hashed(scope.value, name), **{Scope(kind): hashed(kind, told) for kind, told in seen.items()}}
        return Decided(made, linked)

    async def store(self, *decided: Decided, samples: Sequence[Sample] = (), **more: Any) -> list[Any]:
        """Writes decisions as the holder of a shard."""
        sighting = Sighting(list(decided), samples=list(samples), **more)
        return await self.verdicts.store(self.replica, SHARD, sighting)

    async def case_of(self, account: UUID | None, name: str, **changes: Any) -> UUID:
        """Stores a grave decision and returns the case that it opened."""
        made = await self.store(self.decision(account, name, **changes))
        assert len(made) == 1
        page = await self.cases.list_cases(self.who(account))
        return ids.decode("case", page.data[0].id)

    def who(self, account: UUID | None, name: str = "ada") -> Reviewer:
        """Returns a reviewer by a name."""
        return Reviewer(account or PLATFORM, person(name))

    async def told(self) -> list[activity_pb2.Verdict]:
        """Returns all that the stream of verdicts tells."""
        return await told(self.redis)


def person(name: str) -> str:
    """Returns a person's identifier by a name."""
    return ids.encode("per", UUID(bytes=hashed("person", name)))


async def told(redis: Store) -> list[activity_pb2.Verdict]:
    """Returns all verdicts of the stream."""
    found = []
    for _, fields in await redis.xrange(STREAM):
        found += activity_pb2.VerdictBatch.FromString(fields[TOLD_FIELD.encode()]).verdicts
    return found


def at_present(events: Sequence[activity_pb2.Activity]) -> list[activity_pb2.Activity]:
    """Returns events of a story moved so that the last happens now."""
    last = max(event.time.seconds for event in events)
    ends = int(datetime.now(UTC).timestamp())
    for event in events:
        event.time.seconds += ends - last
    return list(events)


async def send(redis: Store, events: Sequence[activity_pb2.Activity], size: int = 512) -> None:
    """Puts events into the streams of their shards."""
    sharded: dict[int, list[activity_pb2.Activity]] = {}
    for event in events:
        sharded.setdefault(shard_of(event), []).append(event)
    for shard, held in sharded.items():
        for start in range(0, len(held), size):
            batch = activity_pb2.ActivityBatch(activities=held[start : start + size])
            await redis.xadd(stream_of(shard), {FIELD: batch.SerializeToString()})


def environment(
    database: ServiceDatabase, keys_dsn: str, redis_url: str, key_file: Path, folder: Path, objects: Path
) -> dict[str, str]:
    """Returns what abuse reads from its environment."""
    return {
        "GATEFOLD_LISTEN": f"unix:{folder}/abuse.sock",
        "GATEFOLD_METRICS_LISTEN": f"unix:{folder}/metrics.sock",
        "GATEFOLD_READY_FILE": str(folder / "ready"),
        "GATEFOLD_POSTGRES_APP_DSN": role_dsn(database.owner_dsn, "abuse_app").reveal(),
        "GATEFOLD_POSTGRES_JOBS_DSN": role_dsn(database.owner_dsn, "abuse_jobs").reveal(),
        "GATEFOLD_REDIS_URL": redis_url,
        "GATEFOLD_CALLER_KEYS": json.dumps(pair_keys()),
        "GATEFOLD_PEERS": json.dumps({"abuse": f"unix:{folder}/abuse.sock"}),
        "GATEFOLD_KEYS_DSN": keys_dsn,
        "GATEFOLD_KEY_FILE": str(key_file),
        "GATEFOLD_OBJECT_STORE_URL": objects.as_uri(),
        "GATEFOLD_KEY_PEPPER": PEPPER,
    }


class AbuseHouse:
    """A running abuse service and callers that the edge would vouch for."""

    def __init__(self, channels: Channels, process: Process, clock: ShiftedClock, log: io.StringIO) -> None:
        channel = channels.channel("abuse")
        self.process = process
        self.telemetry = process.telemetry
        self.clock = clock
        self.log = log
        self.verdicts: Any = verdict_pb2_grpc.VerdictServiceStub(channel)
        self.cases: Any = case_pb2_grpc.CaseServiceStub(channel)
        self.platform: Any = case_pb2_grpc.PlatformCaseServiceStub(channel)
        self.detectors: Any = detector_pb2_grpc.DetectorServiceStub(channel)
        self.appeals: Any = appeal_pb2_grpc.AppealServiceStub(channel)
        self.logs: Any = otlp_pb2_grpc.TelemetryServiceStub(channel)

    async def call(self, who: Caller, method: Callable[..., Awaitable[Any]], request: Any) -> Any:
        """Calls as somebody."""
        with acting(who):
            return await method(request, timeout=20)

    def count(self, name: str, **labels: str) -> float:
        """Returns the value of a metric."""
        return self.telemetry.registry.get_sample_value(f"gatefold_{name}", labels) or 0.0


def staff(account: UUID, name: str = "ada", *scopes: str) -> Caller:
    """Returns a member of a publisher's team."""
    who = UUID(bytes=hashed("person", name))
    held = frozenset(scopes or ("abuse:read", "abuse:write"))
    return Caller(
        CallerKind.STAFF,
        ids.encode("per", who),
        account,
        scopes=held,
        person=who,
        acr="aal2",
        auth_time=datetime.now(UTC),
        request_id="r",
    )


def secret_key(account: UUID, *scopes: str) -> Caller:
    """Returns a publisher's server."""
    return Caller(CallerKind.SECRET_KEY, ids.encode("key", account), account, scopes=frozenset(scopes), request_id="r")


def operator(name: str = "olga") -> Caller:
    """Returns an operator of the platform, who has just proven two factors."""
    who = UUID(bytes=hashed("person", name))
    now = datetime.now(UTC)
    return Caller(
        CallerKind.PLATFORM_OPERATOR, ids.encode("per", who), person=who, acr="aal2", auth_time=now, request_id="r"
    )


def anonymous() -> Caller:
    """Returns anybody."""
    return Caller(CallerKind.ANONYMOUS, "anonymous", request_id="r", address="192.0.2.1")


def peer(name: str) -> Caller:
    """Returns another service."""
    return service_caller(name, None, request_id="r")


@asynccontextmanager
async def running(
    database: ServiceDatabase, keys_dsn: str, redis_url: str, key_file: Path, folder: Path, objects: Path
) -> AsyncIterator[AbuseHouse]:
    """Runs abuse with its background work."""
    folder.mkdir(exist_ok=True)
    clock = ShiftedClock()
    environ = environment(database, keys_dsn, redis_url, key_file, folder, objects)
    log = io.StringIO()
    process = Process(
        "abuse",
        ProcessConfig(
            listen=environ["GATEFOLD_LISTEN"],
            metrics_listen=environ["GATEFOLD_METRICS_LISTEN"],
            ready_file=folder / "ready",
            drain_seconds=15,
        ),
        Telemetry("abuse", stream=log),
    )
    process.clock = clock
    process.ids = IdMaker(clock, os.urandom)
    channels = Channels(
        "gateway",
        GrpcConfig(peers=environ["GATEFOLD_PEERS"]),
        Vouching(clock),
        telemetry=Telemetry("tests", stream=io.StringIO()),
        kill_points=KillPoints("gateway"),
    )
    async with living(process, compose(process, environ), log):
        try:
            yield AbuseHouse(channels, process, clock, log)
        finally:
            await channels.close()


BEGINNING = datetime.fromtimestamp(BEGIN, UTC)
