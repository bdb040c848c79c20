"""Owns the rules of telling people and servers: which events go where, when a try is repeated, when it is given up."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from uuid import UUID

WEBHOOK_WAITS = (
    # The schedule that the Standard Webhooks specification recommends.
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
MAIL_WAITS = (
    timedelta(seconds=10),
    timedelta(minutes=1),
    timedelta(minutes=10),
    timedelta(hours=1),
    timedelta(hours=4),
    timedelta(hours=12),
)
# A challenge's mail is about a secret between the platform and one person; a session and a password that was lost
# are nobody else's business.
PRIVATE_EVENTS = ("challenge.", "password.", "session.")
CHALLENGE_REQUESTED = "challenge.requested"
INVOICE_PAID = "invoice.paid"
RECEIPT = "receipt"


class State(Enum):
    """How a mail or a webhook delivery stands."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Mail:
    """A mail to be sent. What it says is asked of its owners when it is sent; nothing personal is kept here."""

    id: UUID
    template: str
    event_id: UUID
    subject: UUID | None
    challenge: UUID | None
    data: bytes
    """The event's data, serialised; carries no personal data."""
    state: State
    attempts: int
    sent_at: datetime | None


@dataclass(frozen=True)
class Endpoint:
    """Where a publisher wants its webhooks."""

    id: UUID
    url: str
    event_types: tuple[str, ...]
    created_at: datetime
    disabled_at: datetime | None

    def wants(self, event_type: str) -> bool:
        """Whether an event of this type is to be delivered here."""
        return self.disabled_at is None and (not self.event_types or event_type in self.event_types)


@dataclass(frozen=True)
class Delivery:
    """One event on its way to one endpoint."""

    id: UUID
    endpoint: UUID
    event_id: UUID
    event_type: str
    subject: UUID | None
    payload: bytes
    state: State
    attempts: int
    last_status: int
    next_attempt_at: datetime | None
    delivered_at: datetime | None


def is_public(event_type: str) -> bool:
    """Whether publishers may be told of an event of this type."""
    return not event_type.startswith(PRIVATE_EVENTS)


def next_try(waits: tuple[timedelta, ...], attempts: int, now: datetime) -> datetime | None:
    """When to try again after `attempts` failed tries; None when it is given up."""
    return now + waits[attempts - 1] if attempts <= len(waits) else None


def took(status: int) -> bool:
    """Whether an HTTP status says that the other side has the webhook."""
    return 200 <= status < 300


def gone(status: int) -> bool:
    """Whether the other side says that it wants no more (410, by the Standard Webhooks specification)."""
    return status == 410
