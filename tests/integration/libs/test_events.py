"""Events between two services on real stores: nothing lost, nothing doubled, whatever happens to the stream."""

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from infra.local.valkey import ValkeyServer
from libs import errors, outbox
from libs.errors import GatefoldError
from libs.events import Event
from libs.events.stream import FIELD, pack, stream_key
from libs.ids import IdMaker
from libs.outbox import outbox_waiting
from libs.postgres import Connection
from libs.redis_client import Store
from tests.support.events import CONSUMER, PRODUCER, Events, note
from tests.support.waiting import until


async def test_told_events_are_seen_once_and_in_order(events: Events, ids: IdMaker) -> None:
    account, first, second = ids.new(), ids.new(), ids.new()
    async with events.consuming():
        await events.tell_many(account, first, 300)
        await events.tell_many(account, second, 5)
        assert await events.relay().publish() == 305
        await events.sees(account, 305)
        await events.acknowledged()
    seen = await events.seen(account)
    assert [sequence for aggregate, sequence in seen if aggregate == first] == list(range(1, 301))
    assert [sequence for aggregate, sequence in seen if aggregate == second] == [1, 2, 3, 4, 5]


async def test_flushing_the_store_in_mid_stream_loses_nothing(events: Events, ids: IdMaker) -> None:
    account, aggregate = ids.new(), ids.new()
    relay = events.relay()
    async with events.consuming():
        await events.tell_many(account, aggregate, 10)
        await relay.publish()
        await events.sees(account, 10)
        # Published, and flushed before anybody can have read all of it.
        await events.tell_many(account, aggregate, 500, first=11)
        await relay.publish()
        await events.redis.flushall()
        await events.tell_many(account, aggregate, 3, first=511)
        await events.redis.flushall()
        await relay.publish()
        await events.redis.flushall()
        await events.sees(account, 513)
    assert [sequence for _, sequence in await events.seen(account)] == list(range(1, 514))


async def test_duplicates_and_reordering_are_harmless(events: Events, ids: IdMaker) -> None:
    account = ids.new()
    aggregates = [ids.new() for _ in range(4)]
    told = [event for aggregate in aggregates for event in await events.tell_many(account, aggregate, 20)]
    shuffled = random.Random(7)
    async with events.consuming():
        for _ in range(3):
            shuffled.shuffle(told)
            for start in range(0, len(told), 9):
                await events.put(*told[start : start + 9])
        await events.sees(account, 80)
        await events.acknowledged()
    seen = await events.seen(account)
    assert len(seen) == 80
    for aggregate in aggregates:
        assert [sequence for of, sequence in seen if of == aggregate] == list(range(1, 21))


async def test_a_gap_is_pulled_from_the_producer(events: Events, ids: IdMaker) -> None:
    account, aggregate = ids.new(), ids.new()
    async with events.consuming():
        await events.tell_many(account, ids.new(), 1)
        await events.relay().publish()
        await events.sees(account, 1)
        told = await events.tell_many(account, aggregate, 620)
        await events.put(told[-1])
        await events.sees(account, 621)
    assert [sequence for of, sequence in await events.seen(account) if of == aggregate] == list(range(1, 621))
    assert events.count("events_consumed", outcome="pulled") == 619


async def test_what_the_producer_has_deleted_is_counted_and_the_rest_goes_on(events: Events, ids: IdMaker) -> None:
    account, aggregate = ids.new(), ids.new()
    told = await events.tell_many(account, aggregate, 4)
    async with events.told_to.jobs.transaction("forget") as conn:
        await conn.execute("DELETE FROM outbox WHERE sequence <= 2 AND account_id = $1", account)
    async with events.consuming():
        await events.put(told[3])
        await events.sees(account, 2)
    assert [sequence for _, sequence in await events.seen(account)] == [3, 4]
    assert events.count("events_lost") == 2


async def test_an_event_that_the_handler_cannot_take_is_buried_and_blocks_nobody(events: Events, ids: IdMaker) -> None:
    account, sick, well = ids.new(), ids.new(), ids.new()
    tries = []

    async def choke(conn: Connection, event: Event) -> None:
        await note(conn, event)
        if event.aggregate[1] == sick and event.sequence == 2:
            tries.append(event.id)
            raise ValueError("reader@example.com")

    async with events.consuming(choke, attempts=3) as consumer:
        told = await events.tell_many(account, sick, 3)
        await events.tell_many(account, well, 3)
        await events.relay().publish()
        await events.sees(account, 5)
        await events.acknowledged()
        buried = await consumer.dead_letters(account)
    assert tries == [told[1].id] * 3
    assert {(of, sequence) for of, sequence in await events.seen(account)} == {
        (sick, 1),
        (sick, 3),
        (well, 1),
        (well, 2),
        (well, 3),
    }
    assert [(letter.id, letter.producer, letter.error, letter.attempts) for letter in buried] == [
        (told[1].id, PRODUCER, "builtins.ValueError", 3)
    ]
    assert events.count("events_consumed", outcome="buried") == 1


async def test_a_buried_event_can_be_replayed_once(events: Events, ids: IdMaker) -> None:
    account = ids.new()
    broken = True

    async def choke(conn: Connection, event: Event) -> None:
        if broken:
            raise ValueError
        await note(conn, event)

    async with events.consuming(choke, attempts=1) as consumer:
        (told,) = await events.tell_many(account, ids.new(), 1)
        await events.relay().publish()

        async def buried() -> bool:
            return bool(await consumer.dead_letters(account))

        await until(buried)
        with pytest.raises(ValueError):
            await consumer.replay(account, told.id)
        assert await buried()
        broken = False
        assert not await consumer.replay(ids.new(), told.id), "another account's"
        assert await consumer.replay(account, told.id)
        assert not await consumer.replay(account, told.id)
        assert not await buried()
    assert len(await events.seen(account)) == 1


async def test_a_poisoned_event_inside_a_gap_is_the_one_that_is_buried(events: Events, ids: IdMaker) -> None:
    account, aggregate = ids.new(), ids.new()

    async def choke(conn: Connection, event: Event) -> None:
        if event.sequence == 2:
            raise ValueError
        await note(conn, event)

    async with events.consuming(choke, attempts=2) as consumer:
        await events.tell_many(ids.new(), ids.new(), 1)
        told = await events.tell_many(account, aggregate, 4)
        await events.put(told[3])
        await events.sees(account, 3)
        buried = await consumer.dead_letters(account)
    assert [letter.id for letter in buried] == [told[1].id]
    assert [sequence for _, sequence in await events.seen(account)] == [1, 3, 4]


async def test_what_is_unavailable_is_tried_until_it_works_and_stays_pending(events: Events, ids: IdMaker) -> None:
    account, tries = ids.new(), []
    back = asyncio.Event()

    async def depend(conn: Connection, event: Event) -> None:
        tries.append(event.id)
        if not back.is_set():
            raise errors.unavailable("mail_away", "The mail server is away.")
        await note(conn, event)

    async with events.consuming(depend, attempts=2) as consumer:
        await events.tell_many(account, ids.new(), 1)
        await events.relay().publish()

        async def tried_often() -> bool:
            return len(tries) > 10

        await until(tried_often)
        assert await events.pending() == 1
        assert await events.seen(account) == []
        back.set()
        await events.sees(account, 1)
        await events.acknowledged()
        assert await consumer.dead_letters(account) == []


async def test_an_event_about_somebody_erased_is_dropped_and_counted(events: Events, ids: IdMaker) -> None:
    account, aggregate, subject = ids.new(), ids.new(), ids.new()
    async with events.heard_by.app.tenant(account, "erase") as conn:
        await conn.execute(
            "INSERT INTO erased_subject (account_id, subject_id, erased_at) VALUES ($1, $2, $3)",
            account,
            subject,
            events.clock.wall(),
        )
    await events.tell(events.event(account, aggregate, 1, subject=subject), events.event(account, aggregate, 2))
    async with events.consuming():
        await events.relay().publish()
        await events.sees(account, 1)
    assert await events.seen(account) == [(aggregate, 2)]
    assert events.count("events_consumed", outcome="dropped") == 1


async def test_types_that_are_not_asked_for_are_passed_over(events: Events, ids: IdMaker) -> None:
    account, aggregate = ids.new(), ids.new()
    await events.tell(events.event(account, aggregate, 1, type_="invoice.opened"), events.event(account, aggregate, 2))
    async with events.consuming(types=["invoice.paid"]):
        await events.relay().publish()
        await events.sees(account, 1)
    assert await events.seen(account) == [(aggregate, 2)]
    assert events.count("events_consumed", outcome="passed") == 1


async def test_two_replicas_share_the_work_and_double_nothing(events: Events, ids: IdMaker) -> None:
    account = ids.new()
    aggregates = [ids.new() for _ in range(10)]
    relay = events.relay()
    async with events.consuming(name="one"), events.consuming(name="two"):
        for first in range(1, 41, 4):
            for aggregate in aggregates:
                await events.tell_many(account, aggregate, 4, first=first)
            await relay.publish()
        await events.sees(account, 400)
        await events.acknowledged()
    seen = await events.seen(account)
    assert len(seen) == 400
    for aggregate in aggregates:
        assert [sequence for of, sequence in seen if of == aggregate] == list(range(1, 41))


async def test_entries_that_a_dead_replica_read_are_taken_over(events: Events, ids: IdMaker) -> None:
    account = ids.new()
    key = stream_key(PRODUCER)
    await events.redis.xgroup_create(key, CONSUMER, id="0", mkstream=True)
    told = [events.event(account, ids.new(), 1) for _ in range(3)]
    # Not in the outbox, so that no sweep can find them.
    await events.put(*told)
    await events.redis.xreadgroup(CONSUMER, "dead", {key: ">"})
    async with events.consuming(name="alive", claim_seconds=0.01, idle_seconds=0.0):
        await events.sees(account, 3)
        await events.acknowledged()


async def test_what_is_settled_while_another_acknowledgement_is_under_way_is_acknowledged_too(
    events: Events, ids: IdMaker, valkey_server: ValkeyServer
) -> None:
    class SlowStore(Store):
        """A store that takes its time to answer an acknowledgement."""

        asked, answer = asyncio.Event(), asyncio.Event()

        async def xack(self, *arguments: Any) -> Any:
            self.asked.set()
            await self.answer.wait()
            return await super().xack(*arguments)

    account = ids.new()
    slow = SlowStore.from_url(valkey_server.url().reveal(), socket_timeout=3, protocol=2)
    async with events.consuming(redis=slow):
        await events.put(events.event(account, ids.new(), 1))
        await slow.asked.wait()
        await events.put(events.event(account, ids.new(), 1))
        await events.sees(account, 2)
        slow.answer.set()
        await events.acknowledged()
    await slow.aclose()


async def test_entries_and_events_that_cannot_be_read_do_not_stop_the_others(events: Events, ids: IdMaker) -> None:
    account = ids.new()
    key = stream_key(PRODUCER)
    nameless = events.event(account, ids.new(), 1).to_envelope()
    nameless.account_id = "acct_nobody"
    async with events.consuming():
        await events.redis.xadd(key, {FIELD: b"\xff\xff"})
        await events.redis.xadd(key, {b"other": b"field"})
        await events.redis.xadd(key, {FIELD: pack([nameless.SerializeToString()])})
        await events.put(events.event(account, ids.new(), 1))
        await events.sees(account, 1)
        await events.acknowledged()
    assert events.count("events_unreadable") == 3


async def test_without_the_store_events_come_by_the_sweep_and_none_is_lost(
    events: Events, ids: IdMaker, tmp_path: Path
) -> None:
    account, aggregate = ids.new(), ids.new()
    away = Store.from_url(f"unix://{tmp_path}/nobody-listens.sock")
    relay = events.relay(away, poll_seconds=0.01)
    stop = asyncio.Event()
    running = asyncio.create_task(relay.run(stop))
    async with events.consuming(redis=away, sweep_seconds=0.05):
        await events.tell_many(account, aggregate, 3)
        await events.sees(account, 3)
    stop.set()
    await running
    assert events.count("outbox_failures") > 0
    assert await outbox_waiting(events.told_to.jobs, account) == 3, "they wait for the store"
    assert await events.relay().publish() == 3
    async with events.consuming():
        await events.tell_many(account, aggregate, 1, first=4)
        await events.relay().publish()
        await events.sees(account, 4)
    await away.aclose()


async def test_what_commits_late_is_not_passed_by(events: Events, ids: IdMaker) -> None:
    account, early, late = ids.new(), ids.new(), ids.new()
    async with events.consuming(sweep_seconds=0.02) as consumer:
        async with events.told_to.app.tenant(account, "late") as conn:
            # This transaction takes its number and position first and commits last.
            await outbox.append(conn, event=events.event(account, late, 1))
            await events.tell_many(account, early, 1)
            assert await outbox_waiting(events.told_to.jobs, account) == 1
            # A sweep in between, which must not put its cursor behind what is still to come.
            await consumer.lag(account)
        # Nothing was published: both come by the sweep alone.
        await events.sees(account, 2)
    assert set(await events.seen(account)) == {(early, 1), (late, 1)}


async def test_an_account_is_drained_when_nothing_waits_and_nothing_lags(events: Events, ids: IdMaker) -> None:
    account, other = ids.new(), ids.new()
    gate = asyncio.Event()

    async def wait(conn: Connection, event: Event) -> None:
        await gate.wait()
        await note(conn, event)

    async with events.consuming(wait) as consumer:
        await events.tell_many(account, ids.new(), 2)
        assert await outbox_waiting(events.told_to.jobs, account) == 2
        assert await outbox_waiting(events.told_to.jobs, other) == 0
        await events.relay().publish()
        await events.redis.flushall()
        assert await consumer.lag(account) >= 2
        assert await consumer.lag(other) == 0
        gate.set()

        async def drained() -> bool:
            return await consumer.lag(account) + await outbox_waiting(events.told_to.jobs, account) == 0

        await until(drained)
        assert len(await events.seen(account)) == 2
    with pytest.raises(GatefoldError) as stopped:
        await consumer.lag(account)
    assert stopped.value.reason == "consumer_stopped"


async def test_a_restart_sweeps_on_from_what_is_settled(events: Events, ids: IdMaker) -> None:
    account, aggregate = ids.new(), ids.new()
    reached: list[str] = []

    async def stuck(conn: Connection, event: Event) -> None:
        if event.sequence == 2:
            raise errors.unavailable("away", "Away.")
        await note(conn, event)

    async def cursor() -> str | None:
        async with events.heard_by.app.transaction("look", read_only=True) as conn:
            stored: str | None = await conn.fetchval("SELECT cursor FROM consumer_cursor WHERE producer = $1", PRODUCER)
        return stored

    await events.tell_many(account, aggregate, 2)
    async with events.consuming(stuck, sweep_seconds=0.01):
        await events.sees(account, 1)
    assert await cursor() is None, "an unsettled event holds the cursor back"
    async with events.consuming(sweep_seconds=0.01):
        await events.sees(account, 2)

        async def settled() -> bool:
            return await cursor() is not None

        await until(settled)
    reached.append(await cursor() or "")
    assert reached[0].count(".") == 1


async def test_events_that_wait_for_their_turn_share_a_transaction(events: Events, ids: IdMaker) -> None:
    account, sizes = ids.new(), []

    async def count(conn: Connection, event: Event) -> None:
        await note(conn, event)
        sizes.append(await conn.fetchval("SELECT pg_current_xact_id()::text"))

    async with events.consuming(count, parallel=1, together=16):
        told = [events.event(account, ids.new(), 1) for _ in range(100)]
        await events.tell(*told)
        await events.relay().publish()
        await events.sees(account, 100)
        await events.acknowledged()
    shared = Counter(sizes)
    assert max(shared.values()) == 16, "no more than are allowed"
    assert len(shared) == 7
    assert {aggregate for aggregate, _ in await events.seen(account)} == {event.aggregate[1] for event in told}
    assert events.count("events_consumed", outcome="applied") == 100


async def test_a_poisoned_event_among_others_is_buried_alone_and_they_are_taken_without_it(
    events: Events, ids: IdMaker
) -> None:
    account, sick = ids.new(), ids.new()
    tries = []

    async def choke(conn: Connection, event: Event) -> None:
        await note(conn, event)
        if event.aggregate[1] == sick:
            tries.append(event.id)
            raise ValueError("reader@example.com")

    told = [events.event(account, ids.new(), 1) for _ in range(20)]
    poison = events.event(account, sick, 1)
    async with events.consuming(choke, parallel=1, attempts=3) as consumer:
        await events.tell(*told[:10], poison, *told[10:])
        await events.relay().publish()
        await events.sees(account, 20)
        await events.acknowledged()
        buried = await consumer.dead_letters(account)
    assert tries == [poison.id] * 3, "the try among the others counts"
    assert [letter.id for letter in buried] == [poison.id]
    assert sorted(await events.seen(account)) == sorted((event.aggregate[1], 1) for event in told)
    assert events.count("events_consumed", outcome="applied") == 20


async def test_gaps_duplicates_and_the_erased_among_others_are_what_they_are_alone(
    events: Events, ids: IdMaker
) -> None:
    account, gapped, known, erased = ids.new(), ids.new(), ids.new(), ids.new()
    subject = ids.new()
    async with events.heard_by.app.tenant(account, "erase") as conn:
        await conn.execute(
            "INSERT INTO erased_subject (account_id, subject_id, erased_at) VALUES ($1, $2, $3)",
            account,
            subject,
            events.clock.wall(),
        )
    async with events.consuming(parallel=1):
        first = events.event(account, known, 1)
        await events.tell(first)
        await events.put(first)
        await events.sees(account, 1)
    missing = await events.tell_many(account, gapped, 4)
    late = events.event(account, erased, 1, subject=subject)
    others = [events.event(account, ids.new(), 1) for _ in range(10)]
    second = events.event(account, known, 2)
    # Another consumer, so that it has to ask the database what was taken.
    async with events.consuming(parallel=1):
        await events.put(*others[:5], missing[3], first, late, *others[5:], second)
        await events.sees(account, 1 + 10 + 4 + 1)
        await events.acknowledged()
    seen = await events.seen(account)
    assert [sequence for aggregate, sequence in seen if aggregate == gapped] == [1, 2, 3, 4]
    assert [sequence for aggregate, sequence in seen if aggregate == known] == [1, 2]
    assert len(seen) == 16
    assert events.count("events_consumed", outcome="dropped") == 1


async def test_a_consumer_that_is_stopped_ends_what_it_is_at_and_leaves_the_rest_pending(
    events: Events, ids: IdMaker
) -> None:
    account = ids.new()
    begun, gate = asyncio.Event(), asyncio.Event()

    async def wait(conn: Connection, event: Event) -> None:
        begun.set()
        await gate.wait()
        await note(conn, event)

    told = [events.event(account, ids.new(), 1) for _ in range(2_000)]
    async with events.consuming(wait, parallel=2, together=8):
        for start in range(0, len(told), 100):
            await events.put(*told[start : start + 100])
        await begun.wait()
        asyncio.get_running_loop().call_later(0.05, gate.set)
    taken = len(await events.seen(account))
    assert 8 <= taken <= 16, "the transactions that were open, and no other"
    assert await events.pending() > 0
    async with events.consuming(claim_seconds=0.01, idle_seconds=0.0):
        await events.sees(account, 2_000)
        await events.acknowledged()
    assert len(await events.seen(account)) == 2_000


async def test_a_consumer_that_is_cut_short_undoes_the_open_transaction_and_acknowledges_nothing_of_it(
    events: Events, ids: IdMaker
) -> None:
    account = ids.new()
    handled = 0
    half_way = asyncio.Event()

    async def stick(conn: Connection, event: Event) -> None:
        nonlocal handled
        await note(conn, event)
        handled += 1
        # Eight share the first transaction; this is in the middle of the second.
        if handled == 12:
            half_way.set()
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup):
        async with events.consuming(stick, parallel=1, together=8):
            await events.put(*[events.event(account, ids.new(), 1) for _ in range(20)])
            await half_way.wait()
            raise TimeoutError
    assert len(await events.seen(account)) == 8
    assert await events.pending() == 1
    async with events.consuming(claim_seconds=0.01, idle_seconds=0.0):
        await events.sees(account, 20)
        await events.acknowledged()
    assert len(await events.seen(account)) == 20
