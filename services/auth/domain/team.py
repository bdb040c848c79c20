"""Owns people: who works for the platform or a publisher, and as what."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services.auth.domain.password import StoredPassword


@dataclass(frozen=True)
class Person:
    """One person, known once however many publishers they work for."""

    id: UUID
    email_sealed: bytes
    name_sealed: bytes
    password: StoredPassword
    operator: bool
    must_change: bool = False


@dataclass(frozen=True)
class Membership:
    """A person's place in an account's team; `person` is None until the invitation is accepted."""

    id: UUID
    role: str
    person: UUID | None
    email_sealed: bytes | None
    """The invited address, until the invitation is accepted; after that the person's own counts."""
    invited_at: datetime
    accepted_at: datetime | None
    sequence: int = 0
