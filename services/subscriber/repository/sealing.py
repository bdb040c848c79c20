"""Owns how a profile becomes a row: which values are sealed, and under which stable numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import orjson

from libs.vault import Cipher
from services.subscriber.domain.profile import Profile

TABLE = 201
"""The table's stable number; the fields' are those of their marks in the migration."""

EMAIL, NAME, NOTE, METADATA = 1, 2, 3, 4

EMAIL_INDEX = "email"
"""Kind of the blind index."""


@dataclass(frozen=True)
class SealedProfile:
    """A row of `subscriber`, its personal values sealed; an empty value is None."""

    subject_id: UUID
    sequence: int
    email_sealed: bytes
    name_sealed: bytes | None
    note_sealed: bytes | None
    metadata_sealed: bytes | None
    subscribed_to_emails: bool
    complimentary: bool
    labels: tuple[str, ...]
    external_id: str | None
    source: str
    created_at: datetime


def sealed(profile: Profile, cipher: Cipher) -> SealedProfile:
    """Seals a profile under its subject's key."""

    def seal(field: int, plaintext: bytes) -> bytes | None:
        return cipher.seal(TABLE, field, profile.subject_id, plaintext) if plaintext else None

    return SealedProfile(
        subject_id=profile.subject_id,
        sequence=profile.sequence,
        email_sealed=cipher.seal(TABLE, EMAIL, profile.subject_id, profile.email.encode()),
        name_sealed=seal(NAME, profile.name.encode()),
        note_sealed=seal(NOTE, profile.note.encode()),
        metadata_sealed=seal(METADATA, _metadata_bytes(profile.metadata)),
        subscribed_to_emails=profile.subscribed_to_emails,
        complimentary=profile.complimentary,
        labels=profile.labels,
        external_id=profile.external_id,
        source=profile.source,
        created_at=profile.created_at,
    )


def opened(row: SealedProfile, cipher: Cipher) -> Profile:
    """Opens a row with its subject's key; raises vault.KeyDestroyed or vault.Damaged."""

    def text(field: int, value: bytes | None) -> str:
        return "" if value is None else cipher.open(TABLE, field, row.subject_id, value).decode()

    metadata = text(METADATA, row.metadata_sealed)
    return Profile(
        subject_id=row.subject_id,
        sequence=row.sequence,
        email=text(EMAIL, row.email_sealed),
        name=text(NAME, row.name_sealed),
        note=text(NOTE, row.note_sealed),
        subscribed_to_emails=row.subscribed_to_emails,
        complimentary=row.complimentary,
        labels=row.labels,
        external_id=row.external_id,
        metadata=orjson.loads(metadata) if metadata else {},
        source=row.source,
        created_at=row.created_at,
    )


def _metadata_bytes(metadata: Mapping[str, str]) -> bytes:
    return orjson.dumps(dict(metadata)) if metadata else b""
