"""Owns taking one chunk of imported records: keys and ciphertexts before the transaction, few statements within it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from libs import errors, ids, outbox
from libs.clock import Clock
from libs.events.event import Event
from libs.postgres import Connection, Database
from libs.vault import Vault
from services.subscriber.domain import profile
from services.subscriber.domain.entitlement import Entitlement
from services.subscriber.domain.import_job import Counts, ImportJob
from services.subscriber.domain.member_record import DUPLICATE, Outcome, Problem
from services.subscriber.domain.profile import ImportedReader, Profile
from services.subscriber.repository import sealing, subscribers
from services.subscriber.repository.sealing import SealedProfile
from services.subscriber.usecases import rights
from services.subscriber.usecases.facts import Facts


@dataclass(frozen=True)
class PreparedChunk:
    """A chunk that is ready to be written, as long as the readers are as they were when it was prepared."""

    account: UUID
    created: Sequence[tuple[SealedProfile, bytes]]
    updated: Sequence[SealedProfile]
    events: Sequence[Event]
    complimentary: Sequence[UUID]
    feature: str
    counts: Counts
    at: datetime
    facts: Facts

    async def apply(self, conn: Connection) -> Counts:
        """Writes the chunk; raises `conflict("concurrent_change")` when a reader was added or changed meanwhile."""
        added = await subscribers.insert(conn, self.account, self.created, self.at) if self.created else set()
        changed = await subscribers.update(conn, self.account, self.updated, self.at) if self.updated else set()
        if len(added) < len(self.created) or len(changed) < len(self.updated):
            raise errors.conflict("concurrent_change", "Another change got in the way; try again.")
        if self.events:
            await outbox.append_all(conn, events=self.events)
        if self.complimentary:
            await rights.change(conn, self.account, self.complimentary, self._given, self.at, self.facts)
        return self.counts

    def _given(self, known: Mapping[UUID, Sequence[Entitlement]]) -> list[tuple[UUID, Entitlement]]:
        given = Entitlement(self.feature, None, self.at, None)
        return [
            (subject, given)
            for subject in self.complimentary
            if not any(
                right.subscription_id is None and right.feature == self.feature for right in known.get(subject, ())
            )
        ]


class ChunkWriter:
    """Prepares chunks: finds who is known, makes keys for who is not, seals."""

    def __init__(self, db: Database, vault: Vault, clock: Clock, id_source: ids.IdSource, facts: Facts) -> None:
        self._db = db
        self._vault = vault
        self._clock = clock
        self._ids = id_source
        self._facts = facts

    async def prepare(self, account: UUID, job: ImportJob, chunk: Sequence[Outcome]) -> PreparedChunk:
        """Returns the chunk sealed: one query for the known readers, two for the keys of all.

        Raises `conflict("concurrent_change")` for a known reader whose key is gone: they are being erased.
        """
        indexer = await self._vault.indexer(account)
        records = {
            indexer.index(sealing.EMAIL_INDEX, outcome.email): outcome
            for outcome in chunk
            if isinstance(outcome, ImportedReader)
        }
        async with self._db.tenant(account, "find_imported", read_only=True) as conn:
            known = await subscribers.find_by_emails(conn, account, list(records))
        subjects = {index: self._ids.new() for index in records if index not in known}
        await self._vault.create_subjects(account, list(subjects.values()))
        ciphers = await self._vault.ciphers(account, [*subjects.values(), *(row.subject_id for row in known.values())])
        at = self._clock.now(account)
        created: list[tuple[SealedProfile, bytes]] = []
        updated: list[SealedProfile] = []
        events: list[Event] = []
        complimentary: list[UUID] = []
        for index, record in records.items():
            row = known.get(index)
            cipher = ciphers.get(subjects[index] if row is None else row.subject_id)
            if cipher is None:
                raise errors.conflict("concurrent_change", "A reader of the file is being erased; try again.")
            if row is None:
                fresh = _fresh(record, subjects[index], at)
                created.append((sealing.sealed(fresh, cipher), index))
                events.append(self._facts.reader_created(account, fresh))
                gained = fresh.complimentary
            else:
                before = sealing.opened(row, cipher)
                after = profile.merged(before, record)
                gained = after.complimentary and not before.complimentary
                if after is not before:
                    after = replace(after, sequence=before.sequence + 1)
                    updated.append(sealing.sealed(after, cipher))
                    events.append(self._facts.reader_updated(account, after, profile.changed_fields(before, after)))
            if gained:
                complimentary.append(subjects[index] if row is None else row.subject_id)
        counts = _counted(chunk, len(created), len(updated))
        return PreparedChunk(
            account, created, updated, events, complimentary, job.complimentary_feature, counts, at, self._facts
        )


def _fresh(record: ImportedReader, subject: UUID, at: datetime) -> Profile:
    return Profile(
        subject_id=subject,
        sequence=1,
        email=record.email,
        name=record.name,
        note=record.note,
        # Without a word on it nobody gets mails: consent is not assumed.
        subscribed_to_emails=record.subscribed_to_emails is True,
        complimentary=record.complimentary is True,
        labels=record.labels,
        external_id=None,
        metadata=record.metadata,
        source="import",
        created_at=record.created_at or at,
    )


def _counted(chunk: Sequence[Outcome], created: int, updated: int) -> Counts:
    problems = Counter(outcome.reason for outcome in chunk if isinstance(outcome, Problem))
    duplicates = problems.pop(DUPLICATE, 0)
    refused = problems.total()
    return Counts(
        created=created,
        updated=updated,
        unchanged=len(chunk) - created - updated - duplicates - refused,
        duplicates=duplicates,
        refused=refused,
        refused_by_reason=dict(problems),
    )
