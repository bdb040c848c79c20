"""From the streams to verdicts: read once or twice, by one replica or the next, poisoned or not."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from gatefold.abuse.v1 import verdict_pb2

from infra.local.valkey import ValkeyServer
from libs.activity import FIELD, stream_of
from libs.clock import SystemClock
from libs.config import Secret
from libs.ids import IdMaker, encode
from libs.redis_client import Store
from services.abuse.clients.activity_log import GROUP, ActivityLog
from tests.conftest import ServiceDb
from tests.support.abuse import AbuseHouse, at_present, peer, running, send, told
from tests.support.activities import Story, hashed
from tests.support.stores import ServiceDatabase
from tests.support.waiting import until

pytestmark = pytest.mark.case("edge-15")

PATIENT = "patient"
"""Neither four people nor five whose passwords it tries are enough; nine are, and none of these are taken for one."""

Start = Callable[[], Awaitable[AbuseHouse]]


def stuffing(name: str, account: UUID, first: int = 0, number: int = 20) -> Story:
    story = Story()
    for index in range(first, first + number):
        story.sign_in(
            index, f"{name} {index}", account=encode("acct", account), address=name, request_id=f"{name}-{index}"
        )
    return story


@pytest.fixture(scope="module")
async def database(service_db: ServiceDb) -> ServiceDatabase:
    return await service_db("abuse")


@asynccontextmanager
async def house(
    database: ServiceDatabase, keys_dsn: Secret, valkey_server: ValkeyServer, key_file: Path, folder: Path, name: str
) -> AsyncIterator[AbuseHouse]:
    url = valkey_server.url().reveal()
    objects = folder / "objects"
    async with running(database, keys_dsn.reveal(), url, key_file, folder / name, objects) as found:
        yield found


@pytest.fixture
async def replicas(
    database: ServiceDatabase,
    keys_dsn: Secret,
    valkey_server: ValkeyServer,
    key_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
    redis: Store,
) -> AsyncIterator[tuple[Start, Path]]:
    """`await start()` runs one more replica, all end with the test; and the folder of their snapshots."""
    folder = tmp_path_factory.mktemp("a")
    started = 0
    async with AsyncExitStack() as stack:

        async def start() -> AbuseHouse:
            nonlocal started
            started += 1
            return await stack.enter_async_context(
                house(database, keys_dsn, valkey_server, key_file, folder, str(started))
            )

        yield start, folder / "objects"


async def shards_held(database: ServiceDatabase) -> dict[UUID, int]:
    async with database.app.transaction("look", read_only=True) as conn:
        rows = await conn.fetch(
            "SELECT holder, count(*) AS held FROM shard WHERE holder IS NOT NULL AND leased_until > to_timestamp(0)"
            " GROUP BY holder"
        )
    return {row["holder"]: row["held"] for row in rows}


async def accused(redis: Store, name: str) -> bool:
    return any(verdict.entity_hash == hashed("address", name) for verdict in await told(redis))


async def pending(redis: Store) -> int:
    counted = 0
    for shard in range(8):
        if await redis.exists(stream_of(shard)):
            summary = await redis.xpending(stream_of(shard), GROUP)
            counted += int(summary["pending"])
    return counted


async def test_an_attack_in_the_stream_becomes_a_verdict_that_everybody_is_told(
    replicas: tuple[Start, Path], redis: Store, database: ServiceDatabase, ids: IdMaker
) -> None:
    start, _ = replicas
    running_house = await start()
    await send(redis, at_present(stuffing("attacker", ids.new()).events))
    await until(lambda: accused(redis, "attacker"))
    answer = await running_house.call(
        peer("gateway"), running_house.verdicts.ListVerdicts, verdict_pb2.ListVerdictsRequest()
    )
    assert hashed("address", "attacker") in {verdict.entity_hash for verdict in answer.verdicts}
    await until(lambda: pending_is_none(redis))
    assert sum((await shards_held(database)).values()) == 8


async def pending_is_none(redis: Store) -> bool:
    return await pending(redis) == 0


async def test_poison_is_dropped_and_counted_and_stops_nothing(
    replicas: tuple[Start, Path], redis: Store, ids: IdMaker
) -> None:
    start, _ = replicas
    for shard in range(8):
        await redis.xadd(stream_of(shard), {"other": b"field"})
        await redis.xadd(stream_of(shard), {FIELD: b"\xff" * 100})
    huge = stuffing("huge", ids.new(), number=1).events
    huge[0].http_route = "x" * 100_000
    await send(redis, huge)
    running_house = await start()
    await send(redis, at_present(stuffing("behind it", ids.new()).events))
    await until(lambda: accused(redis, "behind it"))
    await until(lambda: running_house.count("abuse_activities_dropped_total") == 17)
    await until(lambda: pending_is_none(redis))


async def test_a_second_replica_gets_its_share_and_all_when_the_first_ends(
    replicas: tuple[Start, Path], database: ServiceDatabase, redis: Store, ids: IdMaker
) -> None:
    start, _ = replicas

    async def fair() -> bool:
        return sorted((await shards_held(database)).values()) == [4, 4]

    first = await start()
    second = await start()
    await until(fair)
    # Half of an attack is read by whoever holds its shard, and the rest by whoever takes over.
    account = ids.new()
    await send(redis, at_present(stuffing("carried on", account, 0, 4).events))
    await until(lambda: first.count("abuse_shards_held") + second.count("abuse_shards_held") == 8)
    await until(lambda: read_all(redis))
    first.process.stop()

    async def all_here() -> bool:
        return second.count("abuse_shards_held") == 8

    await until(all_here)
    await send(redis, at_present(stuffing("carried on", account, 4, 8).events))
    await until(lambda: accused(redis, "carried on"))


async def read_all(redis: Store) -> bool:
    for shard in range(8):
        if await redis.exists(stream_of(shard)):
            groups = await redis.xinfo_groups(stream_of(shard))
            if not groups or groups[0]["pending"] or groups[0]["lag"]:
                return False
    return True


async def test_what_was_counted_outlives_the_process(replicas: tuple[Start, Path], redis: Store, ids: IdMaker) -> None:
    start, _ = replicas
    account = ids.new()
    first = await start()
    await send(redis, at_present(stuffing(PATIENT, account, 0, 4).events))
    await until(lambda: first.count("abuse_shards_held") == 8)
    await until(lambda: read_all(redis))
    assert not await accused(redis, PATIENT)
    first.process.stop()
    await until(lambda: "stopped" in first.log.getvalue())
    # The stream is gone: only the snapshot knows the first four.
    await redis.flushall()
    await start()
    await send(redis, at_present(stuffing(PATIENT, account, 4, 5).events))
    await until(lambda: accused(redis, PATIENT))


async def test_without_a_snapshot_the_stream_tells_again_what_was_read(
    replicas: tuple[Start, Path], redis: Store, ids: IdMaker
) -> None:
    start, snapshots = replicas
    account = ids.new()
    first = await start()
    await send(redis, at_present(stuffing(PATIENT, account, 0, 4).events))
    await until(lambda: first.count("abuse_shards_held") == 8)
    await until(lambda: read_all(redis))
    first.process.stop()
    await until(lambda: "stopped" in first.log.getvalue())
    kept = list(snapshots.rglob("*.snapshot"))
    assert kept
    for snapshot in kept:
        snapshot.write_bytes(snapshot.read_bytes()[:-1])
    await start()
    await send(redis, at_present(stuffing(PATIENT, account, 4, 5).events))
    await until(lambda: accused(redis, PATIENT))


async def test_a_replica_that_dies_is_replaced_and_its_unfinished_entries_are_read(
    replicas: tuple[Start, Path], database: ServiceDatabase, redis: Store, ids: IdMaker
) -> None:
    """Somebody read entries, held the shards, and is heard of no more."""
    start, _ = replicas
    dead = ids.new()
    events = at_present(stuffing("unfinished", ids.new()).events)
    await send(redis, events)
    log = ActivityLog(redis, redis, dead.hex)
    read = 0
    for shard in range(8):
        await log.read(shard)  # makes the group
        read += len(await log.read(shard))
    assert read == 1
    async with database.app.transaction("hold") as conn:
        await conn.execute(
            "UPDATE shard SET holder = $1, leased_until = $2", dead, SystemClock().wall() + timedelta(seconds=3)
        )
    await start()
    await until(lambda: accused(redis, "unfinished"))
    await until(lambda: pending_is_none(redis))


async def test_a_flood_of_one_account_leaves_the_others_shards_alone(
    replicas: tuple[Start, Path], redis: Store, ids: IdMaker
) -> None:
    start, _ = replicas
    flood = Story()
    account = ids.new()
    for index in range(5_000):
        flood.read(index / 1000, f"page {index}", account=encode("acct", account), address=f"bot {index}")
    await send(redis, at_present(flood.events))
    for _ in range(9):
        await send(redis, flood.events)
    running_house = await start()
    victim = ids.new()
    await send(redis, at_present(stuffing("elsewhere", victim).events))
    await until(lambda: accused(redis, "elsewhere"))
    await until(lambda: read_all(redis))
    assert running_house.count("abuse_activities_dropped_total") == 0


async def test_an_emptied_store_is_read_again_from_its_new_beginning(
    replicas: tuple[Start, Path], redis: Store, ids: IdMaker
) -> None:
    start, _ = replicas
    running_house = await start()
    await until(lambda: running_house.count("abuse_shards_held") == 8)
    await asyncio.gather(*(redis.flushall() for _ in range(3)))
    await send(redis, at_present(stuffing("after the flood", ids.new()).events))
    await until(lambda: accused(redis, "after the flood"))
