"""Owns readers' credentials: a proven mailbox and a password."""

from dataclasses import dataclass
from uuid import UUID

from services.auth.domain.password import StoredPassword


@dataclass(frozen=True)
class Credential:
    """What a reader signs in with."""

    id: UUID
    subject: UUID
    password: StoredPassword
    sequence: int
    must_change: bool = False
    disabled: bool = False
    """Staff keep the reader out."""


@dataclass(frozen=True)
class ImportedPassword:
    """A password that another system hashed, of a reader who has no credential yet."""

    id: UUID
    subject: UUID
    email_sealed: bytes
    password: StoredPassword
