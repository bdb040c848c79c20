"""Tests of libs/activity on a real Valkey: what arrives, in which order, and what is said of losses."""

import asyncio
import io

import pytest
from gatefold.activity.v1 import activity_pb2

from infra.local.valkey import ValkeyServer
from libs import activity
from libs.activity import FIELD, SHARDS, ActivityStream, shard_of, stream_of
from libs.config import Secret
from libs.redis_client import RedisConfig, Store, connect
from libs.telemetry import Telemetry
from tests.support.waiting import until


def told(account: str, number: int) -> activity_pb2.Activity:
    return activity_pb2.Activity(account_id=account, request_id=str(number))


async def batches(store: Store, shard: int) -> list[activity_pb2.ActivityBatch]:
    return [activity_pb2.ActivityBatch.FromString(entry[FIELD]) for _, entry in await store.xrange(stream_of(shard))]


async def test_all_arrive_in_the_order_they_ended_packed_many_to_an_entry(redis: Store) -> None:
    stream = ActivityStream(redis, Telemetry("tests", stream=io.StringIO()))
    accounts = [f"acct_{number}" for number in range(20)]
    for number in range(100):
        for account in accounts:
            stream.record(told(account, number))
    await stream.close()
    entries = 0
    arrived: dict[str, list[str]] = {account: [] for account in accounts}
    for shard in range(SHARDS):
        for batch in await batches(redis, shard):
            entries += 1
            for one in batch.activities:
                assert shard_of(one) == shard
                arrived[one.account_id].append(one.request_id)
    assert all(numbers == [str(number) for number in range(100)] for numbers in arrived.values())
    assert entries <= SHARDS * (2000 // activity.MOST_IN_BATCH + 1)


async def test_what_was_recorded_is_sent_while_it_runs_and_what_is_left_at_the_end(redis: Store) -> None:
    stream, stop = ActivityStream(redis, Telemetry("tests", stream=io.StringIO())), asyncio.Event()
    running = asyncio.create_task(stream.run(stop))
    stream.record(told("acct_1", 1))
    shard = shard_of(told("acct_1", 1))

    async def sent() -> bool:
        return len(await batches(redis, shard)) == 1

    await until(sent)
    stream.record(told("acct_1", 2))
    stop.set()
    await running
    stream.record(told("acct_1", 3))
    await stream.close()
    assert [one.request_id for batch in await batches(redis, shard) for one in batch.activities] == ["1", "2", "3"]


async def test_the_next_batch_says_how_many_were_lost_while_the_store_was_away(
    redis: Store, valkey_server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    telemetry = Telemetry("tests", stream=io.StringIO())
    store = connect(RedisConfig(valkey_server.url()))
    stream = ActivityStream(store, telemetry)
    away = connect(RedisConfig(Secret("redis://127.0.0.1:1/0")))
    shard = shard_of(told("acct_1", 0))
    monkeypatch.setattr(store, "pipeline", away.pipeline)
    for number in range(7):
        stream.record(told("acct_1", number))
    assert not await stream.flush()
    monkeypatch.undo()
    stream.record(told("acct_1", 7))
    assert await stream.flush()
    stream.record(told("acct_1", 8))
    assert await stream.flush()
    assert [(batch.lost, len(batch.activities)) for batch in await batches(redis, shard)] == [(7, 1), (0, 1)]
    assert telemetry.registry.get_sample_value("gatefold_activities_lost_total") == 7
    await store.aclose()
    await away.aclose()


async def test_a_shard_that_cannot_be_written_to_takes_nothing_from_the_others(redis: Store) -> None:
    telemetry = Telemetry("tests", stream=io.StringIO())
    stream = ActivityStream(redis, telemetry)
    accounts = {shard_of(told(f"acct_{number}", 0)): f"acct_{number}" for number in range(100)}
    await redis.set(stream_of(0), "no stream")
    for shard in (0, 1):
        stream.record(told(accounts[shard], shard))
    assert not await stream.flush()
    assert [one.request_id for batch in await batches(redis, 1) for one in batch.activities] == ["1"]
    await redis.delete(stream_of(0))
    stream.record(told(accounts[0], 2))
    assert await stream.flush()
    assert [batch.lost for batch in await batches(redis, 0)] == [1]


async def test_a_shard_is_trimmed_so_that_a_reader_who_is_away_costs_no_memory(
    redis: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activity, "LONGEST_STREAM", 10)
    stream = ActivityStream(redis, Telemetry("tests", stream=io.StringIO()))
    for number in range(500):
        stream.record(told("acct_1", number))
        assert await stream.flush()
    # Trimming is approximate: whole nodes of 100 entries go.
    assert await redis.xlen(stream_of(shard_of(told("acct_1", 0)))) <= 200
