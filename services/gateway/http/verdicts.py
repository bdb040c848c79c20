"""Owns what the abuse detection has decided, as this gateway holds it against requests."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from gatefold.activity.v1 import activity_pb2
from google.protobuf.message import DecodeError

from libs.clock import WallClock
from libs.errors import GatefoldError
from libs.events import listening
from libs.events.listening import Listening, Streams
from libs.telemetry import Telemetry
from services.gateway.http.caches import Monotonic

STREAM = "gatefold:verdicts"
"""The abuse service writes it."""
FIELD = b"batch"
SCOPES = ("address", "network", "user_agent", "actor", "session", "device", "target")
MOST_HELD = 500_000
"""Verdicts; beyond them those that end soonest are given up."""
_MOST_PAGES = 2_000

# Of several that hold for a request the strictest counts.
_ACTIONS = {
    activity_pb2.Verdict.ACTION_THROTTLE: "throttle",
    activity_pb2.Verdict.ACTION_CHALLENGE: "challenge",
    activity_pb2.Verdict.ACTION_BLOCK: "block",
    activity_pb2.Verdict.ACTION_REVOKE: "revoke",
}
_STRICTNESS = {name: number for number, name in enumerate(_ACTIONS.values())}

Fetch = Callable[[str, str], Awaitable[tuple[Sequence[activity_pb2.Verdict], str]]]
"""Asks the abuse service for verdicts after a cursor; the second argument is a request id."""


@dataclass(frozen=True, slots=True)
class Held:
    """One verdict."""

    id: str
    account: str
    """`acct_…` that it is limited to; empty for the platform."""
    scope: str
    entity: bytes
    action: str
    reasons: tuple[str, ...]
    ends_at: float
    """In seconds of the epoch."""
    revision: int
    revoked: bool
    shadow: bool


class Verdicts:
    """Verdicts by what they are about."""

    def __init__(
        self,
        store: Streams,
        fetch: Fetch | None,
        *,
        clock: WallClock,
        monotonic: Monotonic,
        telemetry: Telemetry,
        most: int = MOST_HELD,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`fetch` is None where there is no abuse service to ask; `changed` is called when other verdicts hold."""
        self._changed = changed
        self._store = store
        self._fetch = fetch
        self._clock = clock
        self._most = most
        self._by_id: dict[str, Held] = {}
        self._by_entity: dict[str, dict[bytes, tuple[Held, ...]]] = defaultdict(dict)
        self._ends: list[tuple[float, str]] = []
        self._cursor = ""
        # From the beginning: what is read twice does no harm.
        self._last: listening.Last = "0"
        self._listening = Listening(self._hear, self.catch_up, failed=self._failed, monotonic=monotonic)
        self._log = telemetry.logger("verdicts")
        self._away = telemetry.counter("gateway_verdict_failures", "Times that verdicts could not be read")
        # As whoever follows them inside says it (libs/verdicts).
        self._followed = telemetry.gauge(
            "verdicts_followed_timestamp_seconds", "When verdicts were last heard, or asked for, with an answer."
        )

    def __len__(self) -> int:
        return len(self._by_id)

    def of(self, known: Iterable[tuple[str, bytes]], account: str = "") -> Held | None:
        """Returns the strictest verdict on one of `known`, hashes by scope (libs/activity), that counts or would.

        One that is limited to an account counts only where that is the caller's. Shadow verdicts come last.
        """
        if not self._by_id:
            return None
        now: float | None = None
        worst: Held | None = None
        for scope, entity in known:
            held = self._by_entity.get(scope)
            if not held or not entity:
                continue
            for verdict in held.get(entity, ()):
                now = self._clock.wall().timestamp() if now is None else now
                if verdict.ends_at <= now or verdict.account not in ("", account):
                    continue
                if worst is None or _weight(verdict) > _weight(worst):
                    worst = verdict
        return worst

    def apply(self, verdicts: Iterable[activity_pb2.Verdict]) -> None:
        """Takes verdicts; of two states of one the later counts, whichever comes first."""
        now = self._clock.wall().timestamp()
        for verdict in verdicts:
            before = self._by_id.get(verdict.id)
            ends_at = verdict.expires_at.seconds + verdict.expires_at.nanos / 1e9
            if before is not None and before.revision >= verdict.revision:
                continue
            if verdict.scope not in SCOPES or verdict.action not in _ACTIONS or not verdict.id:
                continue
            over = ends_at <= now
            if before is not None:
                self._drop(before)
                # What has ended sooner than was said before is remembered for as long as an older state could say so.
                ends_at = max(ends_at, before.ends_at) if over else ends_at
            if ends_at <= now:
                continue
            self._keep(
                Held(
                    verdict.id,
                    verdict.account_id,
                    verdict.scope,
                    verdict.entity_hash,
                    _ACTIONS[verdict.action],
                    tuple(verdict.reasons),
                    ends_at,
                    verdict.revision,
                    verdict.revoked or over,
                    verdict.shadow,
                )
            )
        self._forget(now)
        self._changed()

    async def catch_up(self) -> None:
        """Asks the abuse service for all that has changed since it was asked last."""
        if self._fetch is None:
            return
        for _ in range(_MOST_PAGES):
            found, cursor = await self._fetch(self._cursor, "verdicts")
            self.apply(found)
            self._cursor = cursor
            self._followed.set(self._clock.wall().timestamp())
            if not found:
                return

    async def follow(self, stop: asyncio.Event) -> None:
        """Reads the stream until `stop` is set, and asks the abuse service now and then; often while it is away.

        Nothing waits for verdicts: a gateway that knows none serves everybody, as rules and limits allow.
        """
        self._followed.set(self._clock.wall().timestamp())
        await self._listening.run(stop)

    async def _hear(self) -> None:
        found, last = await listening.read(self._store, STREAM, self._last)
        self._followed.set(self._clock.wall().timestamp())
        for fields in found:
            try:
                self.apply(activity_pb2.VerdictBatch.FromString(fields.get(FIELD, b"")).verdicts)
            except DecodeError as error:
                self._failed(error, "stream")
        self._last = last

    def _keep(self, verdict: Held) -> None:
        # One that was taken back is kept by its name alone, so that an older state of it finds it.
        self._by_id[verdict.id] = verdict
        heappush(self._ends, (verdict.ends_at, verdict.id))
        if not verdict.revoked:
            held = self._by_entity[verdict.scope]
            held[verdict.entity] = (*held.get(verdict.entity, ()), verdict)

    def _drop(self, verdict: Held) -> None:
        del self._by_id[verdict.id]
        held = self._by_entity[verdict.scope]
        left = tuple(other for other in held.get(verdict.entity, ()) if other.id != verdict.id)
        if left:
            held[verdict.entity] = left
        else:
            held.pop(verdict.entity, None)

    def _forget(self, now: float) -> None:
        while self._ends and (self._ends[0][0] <= now or len(self._by_id) > self._most):
            ends_at, name = heappop(self._ends)
            verdict = self._by_id.get(name)
            if verdict is not None and verdict.ends_at == ends_at:
                self._drop(verdict)
        if len(self._ends) > 2 * len(self._by_id) + 64:
            # What was changed often left its former ends behind.
            self._ends = [(verdict.ends_at, verdict.id) for verdict in self._by_id.values()]
            heapify(self._ends)

    def _failed(self, error: Exception, part: str) -> None:
        self._away.inc()
        reason = error.reason if isinstance(error, GatefoldError) else type(error).__name__
        self._log.warning("verdicts cannot be read", extra={"part": part, "reason": reason})


def _weight(verdict: Held) -> tuple[bool, int]:
    return not verdict.shadow, _STRICTNESS[verdict.action]
