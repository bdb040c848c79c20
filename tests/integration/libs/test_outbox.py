"""The relay on real stores: what it publishes, marks, deletes and takes over."""

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from libs import outbox
from libs.events.stream import FIELD, stream_key, unpack
from libs.ids import IdMaker
from libs.outbox import outbox_waiting
from libs.postgres import violated
from tests.support.events import PRODUCER, Events


async def test_the_relay_polls_is_woken_and_stops(events: Events, ids: IdMaker) -> None:
    account, stop = ids.new(), asyncio.Event()
    relay = events.relay(poll_seconds=3600.0)
    running = asyncio.create_task(relay.run(stop))
    async with events.consuming():
        await events.tell_many(account, ids.new(), 1)
        relay.wake()
        await events.sees(account, 1)
    stop.set()
    await running


async def test_a_batch_is_packed_into_few_entries(events: Events, ids: IdMaker) -> None:
    await events.tell_many(ids.new(), ids.new(), 600)
    relay = events.relay()
    assert [await relay.publish() for _ in range(3)] == [512, 88, 0]
    assert await events.redis.xlen(stream_key(PRODUCER)) == 3


async def test_old_rows_are_deleted_only_when_they_are_published(events: Events, ids: IdMaker) -> None:
    account = ids.new()
    relay = events.relay()
    await events.tell_many(account, ids.new(), 2)
    await relay.publish()
    await events.tell_many(account, ids.new(), 3)
    events.clock.advance(timedelta(days=7))
    assert await relay.delete_old() == 0
    events.clock.advance(timedelta(seconds=1))
    assert await relay.delete_old() == 2
    assert await outbox_waiting(events.told_to.jobs, account) == 3


async def test_rows_of_another_clusters_history_are_found_after_a_restore(events: Events, ids: IdMaker) -> None:
    account: UUID = ids.new()
    await events.tell_many(account, ids.new(), 1)
    async with events.told_to.jobs.transaction("restore") as conn:
        # As a logical restore leaves them: numbers that this cluster has not come to yet.
        await conn.execute("UPDATE outbox SET xid = '900000000000'")
    async with events.heard_by.app.transaction("restore") as conn:
        await conn.execute("INSERT INTO consumer_cursor (producer, cursor) VALUES ($1, '900000000000.7')", PRODUCER)
    await events.relay().adopt_restored()
    async with events.consuming():
        await events.sees(account, 1)


async def test_events_of_a_transaction_that_rolls_back_were_never_told(events: Events, ids: IdMaker) -> None:
    account = ids.new()

    async def fail() -> None:
        async with events.told_to.app.tenant(account, "tell") as conn:
            await outbox.append(conn, event=events.event(account, ids.new(), 1))
            raise ValueError

    with pytest.raises(ValueError):
        await fail()
    assert await events.relay().publish() == 0


async def test_an_aggregate_tells_each_sequence_once(events: Events, ids: IdMaker) -> None:
    account, aggregate = ids.new(), ids.new()
    await events.tell_many(account, aggregate, 1)
    with pytest.raises(Exception) as refused:
        await events.tell_many(account, aggregate, 1)
    assert violated(refused.value) == "outbox_sequence_key"


async def test_the_app_can_add_to_the_outbox_and_no_more(events: Events, ids: IdMaker) -> None:
    account = ids.new()
    await events.tell_many(account, ids.new(), 1)
    for statement in ("SELECT count(*) FROM outbox", "DELETE FROM outbox", "UPDATE outbox SET type = 'x'"):
        with pytest.raises(Exception, match="permission denied"):
            async with events.told_to.app.tenant(account, "attack") as conn:
                await conn.execute(statement)


async def test_two_relays_publish_each_event_once(events: Events, ids: IdMaker) -> None:
    account = ids.new()
    for _ in range(4):
        await events.tell_many(account, ids.new(), 512)
    published = await asyncio.gather(*(events.relay().publish() for _ in range(4)))
    while taken := await events.relay().publish():
        published.append(taken)
    assert sum(published) == 2_048
    assert await outbox_waiting(events.told_to.jobs, account) == 0
    entries = await events.redis.xrange(stream_key(PRODUCER))
    told = [envelope.id for _, fields in entries for envelope in unpack(fields[FIELD])]
    assert len(told) == len(set(told)) == 2_048
