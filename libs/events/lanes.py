"""Owns the order of deliveries in a consumer: one after the other within an aggregate, side by side across them."""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gatefold.events.v1 import envelope_pb2

Key = tuple[str, str, str, str]


class Batch:
    """Events that came together; `done` is called when the last of them is settled."""

    def __init__(self, size: int, done: Callable[[], None]) -> None:
        self._left = size
        self._done = done
        if size == 0:
            done()

    def settle(self) -> None:
        """One event was taken, skipped, dropped or buried."""
        self._left -= 1
        if self._left == 0:
            self._done()


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to the handler."""

    producer: str
    envelope: envelope_pb2.Envelope
    batch: Batch

    @property
    def key(self) -> Key:
        """The aggregate: account, producer, type, id."""
        envelope = self.envelope
        return envelope.account_id, self.producer, envelope.aggregate_type, envelope.aggregate_id


class Lanes:
    """Queues of deliveries, one for each aggregate that has any, `capacity` deliveries in all."""

    def __init__(self, group: asyncio.TaskGroup, work: Callable[[Delivery], Awaitable[None]], *, capacity: int) -> None:
        self._group = group
        self._work = work
        self._capacity = capacity
        self._lanes: dict[Key, deque[Delivery]] = {}
        self._held = 0
        self._held_by_account: Counter[str] = Counter()
        self._room = asyncio.Event()
        self._room.set()

    async def room(self) -> None:
        """Returns when there are fewer deliveries than `capacity`; one batch may then go beyond it."""
        await self._room.wait()

    def put(self, delivery: Delivery) -> None:
        """Queues a delivery behind those of its aggregate."""
        self._count(delivery, 1)
        lane = self._lanes.get(delivery.key)
        if lane is None:
            self._lanes[delivery.key] = deque((delivery,))
            self._group.create_task(self._run(delivery.key))
        else:
            lane.append(delivery)

    def held(self, account_id: str | None = None) -> int:
        """Returns how many deliveries of the account, or of all, are not worked off."""
        return self._held if account_id is None else self._held_by_account[account_id]

    async def _run(self, key: Key) -> None:
        lane = self._lanes[key]
        while lane:
            delivery = lane[0]
            await self._work(delivery)
            lane.popleft()
            self._count(delivery, -1)
        del self._lanes[key]

    def _count(self, delivery: Delivery, step: int) -> None:
        self._held += step
        account_id = delivery.envelope.account_id
        self._held_by_account[account_id] += step
        if not self._held_by_account[account_id]:
            del self._held_by_account[account_id]
        if self._held < self._capacity:
            self._room.set()
        else:
            self._room.clear()
