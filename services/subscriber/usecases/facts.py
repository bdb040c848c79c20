"""Owns turning what happened here into events."""

from collections.abc import Callable, Mapping
from uuid import UUID

from gatefold.subscriber.v1 import event_pb2
from google.protobuf.message import Message

from libs import caller, ids
from libs.clock import Clock
from libs.events.event import Event
from services.subscriber.domain.import_job import ImportJob
from services.subscriber.domain.profile import Profile


class Facts:
    """Makes events in the name of whoever is being served."""

    def __init__(self, clock: Clock, id_source: ids.IdSource, trace: Callable[[], Mapping[str, str]]) -> None:
        self._clock = clock
        self._ids = id_source
        self._trace = trace

    def reader_created(self, account: UUID, profile: Profile) -> Event:
        """A reader became known."""
        data = event_pb2.SubscriberCreated(subscriber_id=ids.encode("subj", profile.subject_id), source=profile.source)
        return self._reader("subscriber.created", account, profile, data)

    def reader_updated(self, account: UUID, profile: Profile, changed: list[str]) -> Event:
        """A reader's profile changed; `profile` carries the new sequence."""
        data = event_pb2.SubscriberUpdated(subscriber_id=ids.encode("subj", profile.subject_id), changed=changed)
        return self._reader("subscriber.updated", account, profile, data)

    def entitlement_changed(self, account: UUID, subject: UUID, sequence: int, features: tuple[str, ...]) -> Event:
        """A reader may use other features than before."""
        data = event_pb2.EntitlementChanged(subscriber_id=ids.encode("subj", subject), features=features)
        return self._event("entitlement.changed", account, ("entitlement", subject), sequence, data, (subject,))

    def import_finished(self, account: UUID, job: ImportJob, sequence: int) -> Event:
        """Every record of an import was looked at."""
        data = event_pb2.ImportFinished(
            import_id=ids.encode("imp", job.id), total=job.total, refused=job.counts.refused
        )
        return self._event("import.finished", account, ("import", job.id), sequence, data)

    def _reader(self, kind: str, account: UUID, profile: Profile, data: Message) -> Event:
        aggregate = ("subscriber", profile.subject_id)
        return self._event(kind, account, aggregate, profile.sequence, data, (profile.subject_id,))

    def _event(
        self,
        kind: str,
        account: UUID,
        aggregate: tuple[str, UUID],
        sequence: int,
        data: Message,
        subjects: tuple[UUID, ...] = (),
    ) -> Event:
        who = caller.current()
        return Event(
            id=self._ids.new(),
            type=kind,
            account=account,
            aggregate=aggregate,
            sequence=sequence,
            occurred_at=self._clock.now(account),
            recorded_at=self._clock.wall(),
            actor=who.actor,
            subjects=subjects,
            traceparent=self._trace().get("traceparent"),
            live=who.live,
            data=data,
        )
