"""Owns applying one event: position check, gap pull, tombstone, handler, new position, in one tenant transaction."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from gatefold.events.v1 import envelope_pb2, event_pb2, event_pb2_grpc
from opentelemetry import context as otel_context

from libs import caller
from libs.clock import WallClock
from libs.errors import GatefoldError, Kind
from libs.events import inbox
from libs.events.event import Event, account_of
from libs.grpc_client import Channels
from libs.ids import decode, encode
from libs.postgres import Connection, Database
from libs.telemetry import Telemetry

Handler = Callable[[Connection, Event], Awaitable[None]]

PULL_EVENTS = 500
_REMEMBERED_AGGREGATES = 100_000
_PULL_SECONDS = 5.0

Aggregate = tuple[str, str, str, str]


class NotTakenError(Exception):
    """One event could not be applied; `__cause__` says why. It may be another than was delivered: one of its gap.

    `transient` says that it is not the event's fault: something it needs is away, or busy.
    """

    def __init__(self, envelope: envelope_pb2.Envelope, *, transient: bool) -> None:
        super().__init__(envelope.id)
        self.envelope = envelope
        self.transient = transient


class Application:
    """Applies events for one consuming service, each exactly once as far as the service's own database goes."""

    def __init__(
        self,
        service: str,
        db: Database,
        channels: Channels,
        handler: Handler,
        *,
        types: frozenset[str] | None,
        clock: WallClock,
        telemetry: Telemetry,
    ) -> None:
        self._service = service
        self._db = db
        self._channels = channels
        self._handler = handler
        self._types = types
        self._clock = clock
        self._telemetry = telemetry
        self._log = telemetry.logger("libs.events")
        self._events = telemetry.counter("events_consumed", "Events by what became of them.", ["outcome"])
        self._lost = telemetry.counter("events_lost", "Missed events that the producer had already deleted.")
        # Saves asking the database about what this replica applied itself.
        self._known: OrderedDict[Aggregate, int] = OrderedDict()

    async def apply(self, producer: str, envelope: envelope_pb2.Envelope) -> None:
        """Applies the event, and before it what is missing of its aggregate; raises NotTakenError."""
        while (last := await self._apply_one(producer, envelope)) is not None:
            missing = await self._pull(producer, envelope, last)
            for one in missing:
                await self._apply_one(producer, one, over_gap=True)
            if not missing:
                await self._apply_one(producer, envelope, over_gap=True)
                return

    async def apply_together(self, producer: str, envelopes: Sequence[envelope_pb2.Envelope]) -> set[str]:
        """Applies events of one account and type, no two of one aggregate, in one transaction: all, or none.

        Returns the identifiers of those that are done with; before the others something of their aggregate is missing,
        or was applied elsewhere. Raises NotTakenError for the one that could not be applied.
        """
        done = {one.id for one in envelopes if one.sequence <= self._known.get(_aggregate(producer, one), 0)}
        fresh = [envelope for envelope in envelopes if envelope.id not in done]
        outcomes: dict[str, str] = dict.fromkeys(done, "skipped")
        at = None
        try:
            if fresh:
                account = account_of(fresh[0])
                async with self._db.tenant(account, _label(fresh[0])) as conn:
                    following = await inbox.advance_all(conn, account, producer, fresh)
                    fresh = [envelope for envelope in fresh if envelope.id in following]
                    events = []
                    for envelope in fresh:
                        at = envelope
                        events.append(None if self._passed(envelope) else Event.from_envelope(envelope))
                    at = None
                    subjects = [subject for event in events if event is not None for subject in event.subjects]
                    erased = await inbox.erased(conn, account, subjects)
                    for envelope, event in zip(fresh, events, strict=True):
                        at = envelope
                        outcomes[envelope.id] = await self._take(conn, event, erased)
                    at = None
        except Exception as error:
            if at is None:
                # Nobody's fault, or somebody's whom only trying each by itself will tell.
                self._log.warning("events are applied one by one", extra={"reason": describe(error)})
                return done
            raise NotTakenError(at, transient=_transient(error)) from error
        for envelope in fresh:
            self._remember(_aggregate(producer, envelope), envelope.sequence)
        for outcome in outcomes.values():
            self._count(outcome)
        return set(outcomes)

    async def missed(self, producer: str, envelopes: Sequence[envelope_pb2.Envelope]) -> list[envelope_pb2.Envelope]:
        """Returns those of the events that are not applied yet; one question an account for what is not remembered."""
        unsure: dict[str, list[envelope_pb2.Envelope]] = {}
        for envelope in envelopes:
            if envelope.sequence > self._known.get(_aggregate(producer, envelope), 0):
                unsure.setdefault(envelope.account_id, []).append(envelope)
        missed: list[envelope_pb2.Envelope] = []
        for of_account in unsure.values():
            account = account_of(of_account[0])
            aggregates = list({(envelope.aggregate_type, envelope.aggregate_id) for envelope in of_account})
            async with self._db.tenant(account, "read_positions", read_only=True) as conn:
                last = await inbox.positions(conn, account, producer, aggregates)
            for (kind, identifier), sequence in last.items():
                self._remember((of_account[0].account_id, producer, kind, identifier), sequence)
            missed.extend(
                envelope
                for envelope in of_account
                if envelope.sequence > last.get((envelope.aggregate_type, envelope.aggregate_id), 0)
            )
        return missed

    async def bury(self, producer: str, envelope: envelope_pb2.Envelope, error: BaseException, attempts: int) -> None:
        """Moves past an event that its handler cannot take, and keeps it for a replay."""
        account = account_of(envelope)
        async with self._db.tenant(account, "bury_event") as conn:
            if await inbox.lock_position(conn, account, producer, envelope) >= envelope.sequence:
                return
            await inbox.bury(
                conn,
                account,
                producer,
                decode("evt", envelope.id),
                envelope,
                error=describe(error),
                attempts=attempts,
                at=self._clock.wall(),
            )
            await inbox.set_position(conn, account, producer, envelope)
        self._remember(_aggregate(producer, envelope), envelope.sequence)
        self._count("buried")

    async def replay(self, account: UUID, event_id: UUID) -> bool:
        """Gives a dead letter to the handler once more; False when none waits. What the handler raises passes on."""
        async with self._db.tenant(account, "replay_dead_letter") as conn:
            packed = await inbox.lock_dead_letter(conn, account, event_id)
            if packed is None:
                return False
            outcome = await self._take_alone(conn, envelope_pb2.Envelope.FromString(packed))
            await inbox.delete_dead_letter(conn, account, event_id)
        self._count("replayed" if outcome == "applied" else outcome)
        return True

    async def dead_letters(self, account: UUID, limit: int = 100) -> list[inbox.DeadLetter]:
        """Returns the account's dead letters that wait, oldest first."""
        async with self._db.tenant(account, "list_dead_letters", read_only=True) as conn:
            return await inbox.dead_letters(conn, account, limit)

    async def _apply_one(self, producer: str, envelope: envelope_pb2.Envelope, *, over_gap: bool = False) -> int | None:
        """Applies one event; returns the last sequence instead when others come before it."""
        if envelope.sequence <= self._known.get(_aggregate(producer, envelope), 0):
            self._count("skipped")
            return None
        lost = 0
        try:
            account = account_of(envelope)
            async with self._db.tenant(account, _label(envelope)) as conn:
                last = envelope.sequence
                if not await inbox.advance(conn, account, producer, envelope):
                    last = await inbox.lock_position(conn, account, producer, envelope)
                    lost = envelope.sequence - last - 1
                    if lost > 0 and not over_gap:
                        return last
                    if lost >= 0:
                        await inbox.set_position(conn, account, producer, envelope)
                outcome = "skipped"
                if lost >= 0:
                    outcome = await self._take_alone(conn, envelope)
                    last = envelope.sequence
        except Exception as error:
            raise NotTakenError(envelope, transient=_transient(error)) from error
        self._remember(_aggregate(producer, envelope), last)
        self._count(outcome)
        if lost > 0:
            self._lost.inc(lost)
            self._log.error("events were deleted before they were consumed", extra={"producer": producer, "lost": lost})
        return None

    async def _take_alone(self, conn: Connection, envelope: envelope_pb2.Envelope) -> str:
        if self._passed(envelope):
            return await self._take(conn, None, set())
        event = Event.from_envelope(envelope)
        return await self._take(conn, event, await inbox.erased(conn, event.account, event.subjects))

    def _passed(self, envelope: envelope_pb2.Envelope) -> bool:
        return self._types is not None and envelope.type not in self._types

    async def _take(self, conn: Connection, event: Event | None, erased: set[UUID]) -> str:
        """Hands the event to the handler, unless it was passed over and is None; returns what became of it."""
        if event is None:
            return "passed"
        if not erased.isdisjoint(event.subjects):
            # A late event about somebody who was erased (acceptance case compliance 10).
            return "dropped"
        await self._handle(conn, event)
        return "applied"

    async def _handle(self, conn: Connection, event: Event) -> None:
        parent = self._telemetry.remote({"traceparent": event.traceparent}) if event.traceparent else None
        with (
            caller.serving(self._caller(event.account, encode("evt", event.id), event.live, event.actor)),
            self._telemetry.tracer.start_as_current_span(f"consume {event.type}", parent or otel_context.Context()),
        ):
            await self._handler(conn, event)

    async def _pull(self, producer: str, envelope: envelope_pb2.Envelope, last: int) -> list[envelope_pb2.Envelope]:
        request = event_pb2.ListAggregateEventsRequest(
            account_id=envelope.account_id,
            aggregate_type=envelope.aggregate_type,
            aggregate_id=envelope.aggregate_id,
            after_sequence=last,
            limit=min(PULL_EVENTS, envelope.sequence - last - 1),
        )
        try:
            stub = event_pb2_grpc.EventServiceStub(self._channels.channel(producer))
            with caller.acting(self._caller(account_of(envelope), envelope.id, envelope.live, envelope.actor)):
                response = await stub.ListAggregateEvents(request, timeout=_PULL_SECONDS)
        except GatefoldError as error:
            raise NotTakenError(envelope, transient=True) from error
        self._events.labels("pulled").inc(len(response.envelopes))
        return [one for one in response.envelopes if last < one.sequence < envelope.sequence]

    def _caller(self, account: UUID, event_id: str, live: bool, actor: str) -> caller.Caller:
        return caller.service_caller(self._service, account, live=live, request_id=event_id, on_behalf_of=actor)

    def _remember(self, aggregate: Aggregate, sequence: int) -> None:
        if sequence > self._known.get(aggregate, 0):
            self._known[aggregate] = sequence
            self._known.move_to_end(aggregate)
        if len(self._known) > _REMEMBERED_AGGREGATES:
            self._known.popitem(last=False)

    def _count(self, outcome: str) -> None:
        self._events.labels(outcome).inc()


def describe(error: BaseException) -> str:
    """Returns what went wrong without anything that may hold personal data: the reason, or the exception's class."""
    return error.reason if isinstance(error, GatefoldError) else f"{type(error).__module__}.{type(error).__qualname__}"


def _transient(error: Exception) -> bool:
    if not isinstance(error, GatefoldError):
        return False
    return error.kind in (Kind.UNAVAILABLE, Kind.TIMEOUT) or error.reason == "concurrent_change"


def _label(envelope: envelope_pb2.Envelope) -> str:
    return f"consume_{envelope.type.replace('.', '_')}"


def _aggregate(producer: str, envelope: envelope_pb2.Envelope) -> Aggregate:
    return envelope.account_id, producer, envelope.aggregate_type, envelope.aggregate_id
