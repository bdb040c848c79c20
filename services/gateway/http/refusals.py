"""Owns refusals that hold for a moment: who sends the same again meanwhile is told the same, and not looked at anew."""

import asyncio
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

from aiohttp.web import BaseRequest
from gatefold.activity.v1.activity_pb2 import Activity
from prometheus_client import Histogram

from libs.clock import WallClock
from libs.events.pause import pause
from services.gateway.http.answer import Answer
from services.gateway.http.caches import Monotonic
from services.gateway.http.exchange import Exchange, RequestIds, request_id_of
from services.gateway.http.limits.refusal import Refusal

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
        "activity", "counts", "limit", "observe", "parts", "recount", "remember", "standard", "status", "until"
    )  # fmt: skip

    def __init__(
        self,
        exchange: Exchange,
        answer: Answer,
        activity: Activity,
        seconds: Histogram,
        remember: Callable[[], None],
        until: float,
    ) -> None:
        self.status = answer.status
        still = {name: value for name, value in answer.headers.items() if name not in _MOVING}
        self.standard = answer.standard + "".join(f"\r\n{name}: {value}" for name, value in still.items())
        self.activity = activity
        self.counts: Sequence[Callable[[], object]] = exchange.counts
        self.limit: Refusal | None = exchange.refusal
        self.recount = exchange.recount
        self.observe: Callable[[float], None] = seconds.observe
        self.parts = answer.body.split(exchange.request_id.encode())
        self.remember = remember
        self.until = until if self.limit is None else min(until, self.limit.until / 1_000_000)


class Repeats(Protocol):
    """What takes activities again; http/activity.Activities."""

    def repeat(self, former: Activity, request_id: str, at: float, seconds: float) -> None: ...


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
        self._said: dict[Hashable, _Said] = {}

    def __len__(self) -> int:
        return len(self._said)

    def again(self, request: BaseRequest) -> Answer | None:
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
        request_id = request_id_of(request) or self._ids.new()
        headers = {"X-Request-Id": request_id, **(counted or {})}
        if said.limit is not None:
            now = round(began * 1_000_000)
            headers.update(said.limit.headers(now))
            headers["Retry-After"] = str(said.limit.retry_after_seconds(now))
        answer = Answer(said.status, headers, request_id.encode().join(said.parts), standard=said.standard)
        for count in said.counts:
            count()
        said.remember()
        elapsed = self._monotonic() - began
        said.observe(elapsed)
        self._activities.repeat(said.activity, request_id, self._clock.seconds(), elapsed)
        return answer

    def keep(
        self, exchange: Exchange, answer: Answer, activity: Activity, seconds: Histogram, remember: Callable[[], None]
    ) -> None:
        """Takes a refusal that will hold for a moment, unless it is a service's, ends its connection or has a body."""
        request = exchange.request
        if request.body_exists or answer.ends or answer.cookies or exchange.called:
            return
        if exchange.problem == "rate_limited" and exchange.refusal is None:
            return
        if (exchange.problem in _COUNTED) is (exchange.recount is None):
            return
        if (
            len(exchange.path) + len(exchange.query) + sum(len(k) + len(v) for k, v in request.raw_headers)
            > LONGEST_KEPT
        ):
            return
        if len(self._said) >= MOST_KEPT:
            del self._said[next(iter(self._said))]
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


def _key(request: BaseRequest) -> Hashable:
    connection: Any = request.protocol
    # All that checks read: who sent it, and every byte of the head.
    return connection.peer[0], request.method, request.raw_path, request.raw_headers, request.version
