"""Owns how abuse's events are made."""

from collections.abc import Callable, Mapping
from uuid import UUID

from gatefold.abuse.v1 import event_pb2

from libs import caller, ids
from libs.clock import Clock
from libs.events.event import Event
from libs.ids import IdSource

OWN = "service:abuse"


class Facts:
    """Makes events of cases: of the request being served, or of the service's own work."""

    def __init__(self, clock: Clock, make: IdSource, headers: Callable[[], Mapping[str, str]]) -> None:
        self._clock = clock
        self._make = make
        self._headers = headers

    def stepped(
        self, account: UUID, case: UUID, sequence: int, kind: str, actor: str, detail: str, verdict: UUID | None
    ) -> Event:
        """Returns the event of a case's step; append it in the step's transaction."""
        who = caller.current_or_none()
        return Event(
            id=self._make.new(),
            type=f"case.{kind}",
            account=account,
            aggregate=("case", case),
            sequence=sequence,
            occurred_at=self._clock.now(account),
            recorded_at=self._clock.wall(),
            actor=actor,
            traceparent=self._headers().get("traceparent"),
            live=who.live if who else True,
            data=event_pb2.CaseStepped(
                case_id=ids.encode("case", case),
                kind=kind,
                detail=detail,
                verdict_id=ids.encode("verdict", verdict) if verdict else "",
            ),
        )
