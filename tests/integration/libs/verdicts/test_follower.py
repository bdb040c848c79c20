"""Shows that verdicts of a running abuse service are followed: by the stream, without it, and after a restart."""

import asyncio
import io
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from gatefold.abuse.v1 import verdict_pb2, verdict_pb2_grpc
from gatefold.activity.v1 import activity_pb2

from infra.local.valkey import ValkeyServer
from libs.caller import CallerSigner, CallerVerifier
from libs.clock import FixedClock, SystemClock
from libs.config import Secret
from libs.grpc_client import Channels, GrpcConfig
from libs.grpc_server import GrpcServer
from libs.ids import IdMaker
from libs.kill_points import KillPoints
from libs.redis_client import RedisConfig, Store, connect
from libs.telemetry import Telemetry
from libs.verdicts.follower import Follower, Forget, Obey
from libs.verdicts.held import HeldVerdicts, in_force_until
from libs.verdicts.source import FIELD, STREAM, VerdictSource
from services.abuse.domain.case import Judgement
from services.abuse.domain.finding import Scope
from services.billing.usecases.holds import ACTIONS, SCOPES
from tests.conftest import ServiceDb
from tests.support.abuse import Desk, running
from tests.support.activities import hashed
from tests.support.neighbours import pair_secrets
from tests.support.stores import ServiceDatabase
from tests.support.verdicts import verdict
from tests.support.waiting import PATIENCE_SECONDS, until

pytestmark = pytest.mark.case("edge-15")

ELSEWHERE = 9
"""A database of Valkey's that the abuse service tells nothing."""


class Listener:
    """A service that follows verdicts, and what it says of it."""

    def __init__(self, database: ServiceDatabase, telemetry: Telemetry, log: io.StringIO) -> None:
        self.database = database
        self.telemetry = telemetry
        self.log = log

    async def holds(self, account: UUID, name: str) -> bool:
        async with self.database.app.tenant(account, "look", read_only=True) as conn:
            now = SystemClock().wall()
            return await in_force_until(conn, account, [("actor", hashed("actor", name))], now) is not None

    def followed_at(self) -> float:
        return self.telemetry.registry.get_sample_value("gatefold_verdicts_followed_timestamp_seconds") or 0.0


@pytest.fixture
async def desk(service_db: ServiceDb, redis: Store, clock: FixedClock, ids: IdMaker) -> Desk:
    """Where verdicts are made; the service that tells of them runs on the same database."""
    clock.set(SystemClock().wall())
    made = Desk(await service_db("abuse"), redis, clock, ids)
    await made.hold()
    return made


@asynccontextmanager
async def following(
    redis_url: Secret, socket: str, telemetry: Telemetry, obey: Obey, forget: Forget, **bounds: int
) -> AsyncIterator[None]:
    """Follows until it is left, as a service does that starts with nothing in memory."""
    clock = SystemClock()
    channels = Channels(
        "billing",
        GrpcConfig(peers=f'{{"abuse": "{socket}"}}'),
        CallerSigner("billing", pair_secrets(), clock),
        telemetry=telemetry,
        kill_points=KillPoints("billing"),
    )
    store = connect(RedisConfig(redis_url), blocking_seconds=1, most_connections=1)
    source = VerdictSource("billing", store, channels)
    stop = asyncio.Event()
    follower = Follower(source, obey, forget, clock=clock, telemetry=telemetry, **bounds)
    running_on = asyncio.create_task(follower.run(stop))
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await running_on
        await channels.close()
        await store.aclose()


@asynccontextmanager
async def listening(database: ServiceDatabase, redis_url: Secret, socket: str) -> AsyncIterator[Listener]:
    """Follows, and keeps what it hears in billing's database."""
    log = io.StringIO()
    telemetry = Telemetry("billing", stream=log)
    held = HeldVerdicts(database.app, database.jobs, SCOPES, ACTIONS, clock=SystemClock(), telemetry=telemetry)
    async with following(redis_url, socket, telemetry, held.obey, held.forget):
        yield Listener(database, telemetry, log)


class Endless(verdict_pb2_grpc.VerdictServiceServicer):
    """An abuse service that always has another page of one verdict."""

    def __init__(self) -> None:
        self.cursors: list[str] = []

    async def ListVerdicts(
        self, request: verdict_pb2.ListVerdictsRequest, context: object
    ) -> verdict_pb2.ListVerdictsResponse:
        self.cursors.append(request.cursor)
        told = verdict("actor", hashed("actor", "any"), None, SystemClock().wall())
        return verdict_pb2.ListVerdictsResponse(verdicts=[told], next_cursor=str(len(self.cursors)))


@asynccontextmanager
async def endless(socket: str) -> AsyncIterator[Endless]:
    verifier = CallerVerifier("abuse", pair_secrets(), SystemClock())
    server = GrpcServer("abuse", socket, verifier=verifier, telemetry=Telemetry("abuse", stream=io.StringIO()))
    made = Endless()
    server.add(verdict_pb2_grpc.add_VerdictServiceServicer_to_server, made)
    await server.start()
    try:
        yield made
    finally:
        await server.drain(0)


async def test_verdicts_are_followed_with_and_without_the_stream_and_after_a_restart(
    desk: Desk,
    service_db: ServiceDb,
    keys_dsn: Secret,
    valkey_server: ValkeyServer,
    key_file: Path,
    run_directory: Path,
    tmp_path: Path,
) -> None:
    account, folder = desk.ids.new(), run_directory / "following"
    database, url = await service_db("billing"), valkey_server.url()
    socket = f"unix:{folder}/abuse.sock"
    args = (desk.database, keys_dsn.reveal(), url.reveal(), key_file, folder, tmp_path / "objects")
    async with running(*args) as abuse:
        async with listening(database, url, socket) as listener:
            case = await desk.case_of(account, "told", scope=Scope.ACTOR)
            await until(lambda: listener.holds(account, "told"))
        # While nobody listens one is lifted and another made; and the stream is lost.
        await desk.cases.decide(desk.who(account), case, Judgement.LEGIT, 0.9, "")
        await desk.store(desk.decision(account, "missed", scope=Scope.ACTOR))
        await desk.store(desk.decision(account, "shadow", scope=Scope.ACTOR, shadow=True))
        async with listening(database, valkey_server.url(database=ELSEWHERE), socket) as listener:
            await until(lambda: listener.holds(account, "missed"))

            async def lifted() -> bool:
                return not await listener.holds(account, "told")

            await until(lifted)
            assert not await listener.holds(account, "shadow")
            assert not await listener.holds(desk.ids.new(), "missed")
        assert abuse.count("background_failures", task="verdicts") == 0
    # The service is away: what was kept still holds, and the stream goes on alone.
    async with listening(database, url, socket) as listener:
        assert await listener.holds(account, "missed")
        began = listener.followed_at()
        await desk.store(desk.decision(account, "by the stream", scope=Scope.ACTOR))
        await desk.verdicts.announce()
        await until(lambda: listener.holds(account, "by the stream"))
        await until(lambda: listener.followed_at() > began)


async def test_whoever_hears_nothing_is_seen_to_be_stale(service_db: ServiceDb, run_directory: Path) -> None:
    database = await service_db("billing")
    nowhere = Secret(f"unix://{run_directory}/nobody.sock")
    began = SystemClock().wall() - timedelta(seconds=1)
    async with listening(database, nowhere, f"unix:{run_directory}/nobody-abuse.sock") as listener:
        await until(listener.followed_at)
        first = listener.followed_at()
        assert first >= began.timestamp()
        # Both ways failed by now, each more than once.
        await until(lambda: listener.log.getvalue().count("verdicts cannot be followed") > 4)
        assert listener.followed_at() == first


async def test_more_than_can_be_asked_for_at_once_is_asked_for_later_and_the_stream_is_heard_in_between(
    redis: Store, valkey_server: ValkeyServer, run_directory: Path
) -> None:
    socket, log, heard = f"unix:{run_directory}/endless.sock", io.StringIO(), set[bytes]()
    asked: list[int] = []
    telemetry = Telemetry("billing", stream=log)

    async def obey(told: Sequence[activity_pb2.Verdict]) -> None:
        heard.update(one.entity_hash for one in told)

    async def forget() -> None:
        asked.append(len(abuse.cursors))

    async with endless(socket) as abuse, following(valkey_server.url(), socket, telemetry, obey, forget, pages=3):
        await until(lambda: abuse.cursors)
        told = verdict("actor", hashed("actor", "by the stream"), None, SystemClock().wall())
        await redis.xadd(STREAM, {FIELD: activity_pb2.VerdictBatch(verdicts=[told]).SerializeToString()})
        await until(lambda: told.entity_hash in heard)
        await until(lambda: asked)
        assert asked[0] == 3
        assert "more verdicts have changed than are asked for at once" in log.getvalue()
    nowhere = Secret(f"unix://{run_directory}/nobody.sock")
    async with endless(socket) as abuse, following(nowhere, socket, telemetry, obey, forget, pages=3):
        # Without the stream it is asked for often, each time from where the last ended.
        await until(lambda: len(abuse.cursors) >= 6)
        assert abuse.cursors[:6] == ["", "1", "2", "3", "4", "5"]
