"""The lanes: order within an aggregate, independence between them, a bound on all."""

import asyncio

from gatefold.events.v1 import envelope_pb2

from libs.events.lanes import Batch, Delivery, Lanes


def a_delivery(aggregate: str, sequence: int, batch: Batch | None = None) -> Delivery:
    envelope = envelope_pb2.Envelope(
        account_id=f"acct_of_{aggregate}", aggregate_type="invoice", aggregate_id=aggregate, sequence=sequence
    )
    return Delivery("billing", envelope, batch or Batch(1, lambda: None))


async def test_deliveries_of_an_aggregate_keep_their_order_and_do_not_hold_up_others() -> None:
    done: list[tuple[str, int]] = []
    gate = asyncio.Event()

    async def work(delivery: Delivery) -> None:
        if delivery.envelope.aggregate_id == "slow":
            await gate.wait()
        done.append((delivery.envelope.aggregate_id, delivery.envelope.sequence))
        if len(done) == 3:
            gate.set()

    async with asyncio.TaskGroup() as group:
        lanes = Lanes(group, work, capacity=100)
        for sequence in (1, 2, 3):
            lanes.put(a_delivery("slow", sequence))
            lanes.put(a_delivery("fast", sequence))
    assert done == [("fast", 1), ("fast", 2), ("fast", 3), ("slow", 1), ("slow", 2), ("slow", 3)]
    assert lanes.held() == 0


async def test_there_is_no_room_beyond_the_capacity_until_something_is_worked_off() -> None:
    gate = asyncio.Event()

    async def work(_: Delivery) -> None:
        await gate.wait()

    async with asyncio.TaskGroup() as group:
        lanes = Lanes(group, work, capacity=2)
        await lanes.room()
        lanes.put(a_delivery("a", 1))
        await lanes.room()
        lanes.put(a_delivery("b", 1))
        room = asyncio.ensure_future(lanes.room())
        await asyncio.sleep(0)
        assert not room.done()
        assert (lanes.held(), lanes.held("acct_of_a"), lanes.held("acct_of_c")) == (2, 1, 0)
        gate.set()
        await room


def test_a_batch_is_done_with_its_last_event_and_an_empty_one_at_once() -> None:
    done: list[str] = []
    batch = Batch(2, lambda: done.append("two"))
    batch.settle()
    assert done == []
    batch.settle()
    Batch(0, lambda: done.append("none"))
    assert done == ["two", "none"]
