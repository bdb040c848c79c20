"""Owns refusals that hold for a moment: who sends the same again meanwhile is told the same, and not looked at anew."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

from libs.clock import WallClock
from libs.durations import Durations
from libs.events.pause import pause
from services.gateway.http.activity import Still
from services.gateway.http.answer import Answer
from services.gateway.http.caches import Monotonic
from services.gateway.http.exchange import Exchange, RequestIds, request_id_of
from services.gateway.http.limits.refusal import Refusal
from services.gateway.http.request import Request

KEPT_SECONDS = 1.0
"""How long at most: whatever else changes counts after that."""
MOST_KEPT = 2_048
LONGEST_KEPT = 2_000
"""Bytes of a request's head."""

_UNCOUNTED = frozenset({"challenge_required", "firewall_blocked", "rate_limited", "route_unknown"})
"""Refusals that move no counter of what is still allowed."""
_COUNTED = frozenset({"caller_kind_not_allowed", "credential_required", "plane_not_allowed", "scope_missing"})
"""Refusals of what was counted against quotas first, and will be again."""
_MOVING = frozenset({"X-Request-Id", "RateLimit", "RateLimit-Policy", "Retry-After"})
"""Headers that say something else each time, where they are there."""
REASONS = _UNCOUNTED | _COUNTED
"""Refusals that hold for all who send the same bytes."""


class _Said:
    """What was said to a request, and what is counted when it is said again."""

    __slots__ = (
        "activity", "answer", "counts", "limit", "observe", "parts", "recount", "remember", "request_id", "standard",
        "status", "until",
    )  # fmt: skip

    def __init__(
        self,
        exchange: Exchange,
        answer: Answer,
        activity: Still,
        seconds: Durations,
        remember: Callable[[], None],
        until: float,
    ) -> None:
        self.status = answer.status
        self.answer = answer
        self.request_id = exchange.request_id
        # Written once it is said again: of a flood of requests that differ nothing is.
        self.parts: list[bytes] = []
        self.standard = ""
        self.activity = activity
        self.counts: Sequence[Callable[[], object]] = exchange.counts
        self.limit: Refusal | None = exchange.refusal
        self.recount = exchange.recount
        self.observe: Callable[[float], None] = seconds.observe
        self.remember = remember
        self.until = until if self.limit is None else min(until, self.limit.until / 1_000_000)

    def write(self) -> None:
        """Writes what is the same each time."""
        still = [f"\r\n{name}: {value}" for name, value in self.answer.headers.items() if name not in _MOVING]
        self.standard = self.answer.standard + "".join(still)
        self.parts = self.answer.body.split(self.request_id.encode())


class Repeats(Protocol):
    """What takes activities again; http/activity.Activities."""

    def repeat(self, former: Still, request_id: str, at: float, seconds: float) -> None: ...


class Refusals:
    """Refusals by the bytes of the requests they answered.

    A flood of one and the same request costs little more than reading it. Heads are held no longer than the refusals,
    since credentials are in them.
    """

    def __init__(self, ids: RequestIds, activities: Repeats, *, clock: WallClock, monotonic: Monotonic) -> None:
        self._ids = ids
        self._activities = activities
        self._clock = clock
        self._monotonic = monotonic
        # In the order they were said; taking the first out of a dict takes longer the more were taken before.
        self._said: OrderedDict[Hashable, _Said] = OrderedDict()

    def __len__(self) -> int:
        return len(self._said)

    def again(self, request: Request) -> Answer | None:
        """Returns the answer to a request that was refused a moment ago; None for all others."""
        if not self._said:
            return None
        said = self._said.get(_key(request))
        began = self._monotonic()
        if said is None or began >= said.until:
            return None
        counted = None if said.recount is None else said.recount()
        if said.recount is not None and counted is None:
            return None
        if not said.parts:
            said.write()
        request_id = request_id_of(request) or self._ids.new()
        headers = {"X-Request-Id": request_id}
        if counted:
            headers.update(counted)
        if said.limit is not None:
            headers.update(said.limit.headers(round(began * 1_000_000)))
        answer = Answer(said.status, headers, request_id.encode().join(said.parts), standard=said.standard)
        for count in said.counts:
            count()
        said.remember()
        elapsed = self._monotonic() - began
        said.observe(elapsed)
        self._activities.repeat(said.activity, request_id, self._clock.seconds(), elapsed)
        return answer

    def keep(
        self, exchange: Exchange, answer: Answer, activity: Still, seconds: Durations, remember: Callable[[], None]
    ) -> None:
        """Takes a refusal that will hold for a moment, unless it is a service's, ends its connection or has a body."""
        request = exchange.request
        if request.body_exists or answer.ends or answer.cookies or exchange.called:
            return
        if exchange.problem == "rate_limited" and exchange.refusal is None:
            return
        if (exchange.problem in _COUNTED) is (exchange.recount is None):
            return
        size = len(exchange.path) + len(exchange.query)
        for name, value in request.raw_headers:
            size += len(name) + len(value)
        if size > LONGEST_KEPT:
            return
        if len(self._said) >= MOST_KEPT:
            self._said.popitem(last=False)
        self._said[_key(request)] = _Said(
            exchange, answer, activity, seconds, remember, self._monotonic() + KEPT_SECONDS
        )

    def forget(self) -> None:
        """Forgets all: what they were by has changed."""
        self._said.clear()

    async def run(self, stop: asyncio.Event) -> None:
        """Forgets what is over, until `stop` is set."""
        while not stop.is_set():
            await pause(stop, KEPT_SECONDS)
            self.forget()


def _key(request: Request) -> Hashable:
    connection: Any = request.protocol
    # All that checks read: who sent it, and every byte of the head.
    return connection.peer[0], request.method, request.raw_path, request.raw_headers, request.version
