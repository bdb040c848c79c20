"""Owns taking deliveries together: those of one kind that wait for their turn have it at once."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence

from libs.events.application import NotTakenError
from libs.events.lanes import Delivery

Kind = tuple[str, str, str]

Apply = Callable[[Sequence[Delivery]], Awaitable[Collection[str]]]
"""Applies deliveries of one kind, no two of one aggregate; returns the events that are done with.

Raises NotTakenError.
"""


class Groups:
    """Gathers deliveries of one producer, account and type while all `slots` are taken; a group needs one slot.

    Nothing waits for others to come: a delivery that finds a free slot goes alone.
    """

    def __init__(
        self, tasks: asyncio.TaskGroup, apply: Apply, slots: asyncio.Semaphore, stop: asyncio.Event, *, most: int
    ) -> None:
        self._tasks = tasks
        self._apply = apply
        self._slots = slots
        self._stop = stop
        self._most = most
        self._waiting: dict[Kind, deque[tuple[Delivery, asyncio.Future[bool]]]] = {}

    async def take(self, delivery: Delivery) -> bool:
        """Returns whether the delivery was applied; False when it is to be tried by itself, or the run ends.

        Raises NotTakenError when the delivery itself is what could not be applied.
        """
        kind = (delivery.producer, delivery.envelope.account_id, delivery.envelope.type)
        taken: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.get(kind)
        if waiting is None:
            self._waiting[kind] = deque(((delivery, taken),))
            self._tasks.create_task(self._run(kind))
        else:
            waiting.append((delivery, taken))
        return await taken

    async def _run(self, kind: Kind) -> None:
        async with self._slots:
            waiting = self._waiting[kind]
            group = [waiting.popleft() for _ in range(min(len(waiting), self._most))]
            if waiting:
                self._tasks.create_task(self._run(kind))
            else:
                del self._waiting[kind]
            done: Collection[str] = ()
            guilty: NotTakenError | None = None
            if not self._stop.is_set():
                try:
                    done = await self._apply([delivery for delivery, _ in group])
                except NotTakenError as error:
                    guilty = error
        for delivery, taken in group:
            if taken.done():
                continue  # whoever waited for it was cancelled
            if guilty is not None and (len(group) == 1 or guilty.envelope is delivery.envelope):
                taken.set_exception(guilty)
            else:
                taken.set_result(delivery.envelope.id in done)
