"""Owns how auth's events are made: with the clock, the actor and the trace of the work that causes them."""

from uuid import UUID

from google.protobuf.message import Message

from libs import caller
from libs.clock import Clock
from libs.events.event import Event
from libs.ids import IdSource
from libs.telemetry import Telemetry


class Facts:
    """Makes events of the request being served."""

    def __init__(self, clock: Clock, ids: IdSource, telemetry: Telemetry) -> None:
        self._clock = clock
        self._ids = ids
        self._telemetry = telemetry

    def make(
        self,
        kind: str,
        account: UUID,
        aggregate: tuple[str, UUID],
        data: Message,
        *,
        live: bool,
        sequence: int = 1,
        subjects: tuple[UUID, ...] = (),
    ) -> Event:
        """Returns the event; append it in the transaction of what it tells."""
        return Event(
            id=self._ids.new(),
            type=kind,
            account=account,
            aggregate=aggregate,
            sequence=sequence,
            occurred_at=self._clock.now(account),
            recorded_at=self._clock.wall(),
            actor=caller.current().actor,
            subjects=subjects,
            traceparent=self._telemetry.headers().get("traceparent"),
            live=live,
            data=data,
        )
