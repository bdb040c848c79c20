"""Owns the event: one fact that happened, and its form on the wire. An event carries no personal data."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from uuid import UUID

from gatefold.events.v1 import envelope_pb2
from google.protobuf import any_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from libs import ids
from libs.errors import GatefoldError
from libs.postgres import PLATFORM

# The id prefix of each kind of aggregate. A new aggregate gets its line here.
PREFIXES: Mapping[str, str] = MappingProxyType(
    {
        "account": "acct",
        "api_key": "key",
        "breach": "brch",
        "case": "case",
        "challenge": "chal",
        "checkout": "chk",
        "credential": "cred",
        "entitlement": "subj",
        "import": "imp",
        "invoice": "inv",
        "ledger_entry": "le",
        "mail": "mail",
        "membership": "mem",
        "organization": "org",
        "payment": "pay",
        "payment_connection": "pc",
        "person": "per",
        "plan": "plan",
        "price": "price",
        "product": "prod",
        "refund": "ref",
        "request": "req",
        "session": "ses",
        "site": "site",
        "subject": "subj",
        "subscriber": "subj",
        "subscription": "sub",
        "webhook": "wh",
        "webhook_delivery": "whd",
        "webhook_endpoint": "wh",
    }
)


@dataclass(frozen=True, kw_only=True)
class Event:
    """One fact. `sequence` is gapless within the aggregate, from 1, and comes from the aggregate's own row.

    `occurred_at` is on the account's clock, `recorded_at` on the wall's. `data` is a message of the producer's package;
    a consumer that does not know its type gets it as `google.protobuf.Any`.
    """

    id: UUID
    type: str
    account: UUID
    aggregate: tuple[str, UUID]
    sequence: int
    occurred_at: datetime
    recorded_at: datetime
    actor: str
    data: Message
    subjects: tuple[UUID, ...] = ()
    schema_version: int = 1
    causation_id: UUID | None = None
    traceparent: str | None = None
    live: bool = True

    def __post_init__(self) -> None:
        if self.sequence < 1:
            raise ValueError("an aggregate's sequence starts at 1")

    @property
    def aggregate_id(self) -> str:
        """Identifier of the aggregate with its prefix; raises ValueError for an aggregate without one."""
        kind, identifier = self.aggregate
        if kind not in PREFIXES:
            raise ValueError(f"aggregate {kind!r} has no id prefix yet: give it a line in libs/events/event.py")
        return ids.encode(PREFIXES[kind], identifier)

    def to_envelope(self) -> envelope_pb2.Envelope:
        """Returns the event's form on the wire."""
        envelope = envelope_pb2.Envelope(
            id=ids.encode("evt", self.id),
            type=self.type,
            schema_version=self.schema_version,
            account_id=ids.encode("acct", self.account) if self.account != PLATFORM else "",
            aggregate_type=self.aggregate[0],
            aggregate_id=self.aggregate_id,
            sequence=self.sequence,
            actor=self.actor,
            subject_ids=[ids.encode("subj", subject) for subject in self.subjects],
            causation_id=ids.encode("evt", self.causation_id) if self.causation_id is not None else "",
            traceparent=self.traceparent or "",
            live=self.live,
        )
        envelope.occurred_at.FromDatetime(self.occurred_at)
        envelope.recorded_at.FromDatetime(self.recorded_at)
        if isinstance(self.data, any_pb2.Any):
            envelope.data.CopyFrom(self.data)
        else:
            envelope.data.Pack(self.data)
        return envelope

    @classmethod
    def from_envelope(cls, envelope: envelope_pb2.Envelope) -> "Event":
        """Returns the event; raises invalid("id_malformed") or ValueError for an envelope that is none."""
        # The prefix is taken from the text: a newer producer may name aggregates that this version does not know.
        prefix = ids.prefix_of(envelope.aggregate_id)
        return cls(
            id=ids.decode("evt", envelope.id),
            type=envelope.type,
            schema_version=envelope.schema_version,
            account=account_of(envelope),
            aggregate=(envelope.aggregate_type, ids.decode(prefix, envelope.aggregate_id, field="aggregate_id")),
            sequence=envelope.sequence,
            occurred_at=envelope.occurred_at.ToDatetime(tzinfo=UTC),
            recorded_at=envelope.recorded_at.ToDatetime(tzinfo=UTC),
            actor=envelope.actor,
            subjects=tuple(ids.decode("subj", subject, field="subject_ids") for subject in envelope.subject_ids),
            causation_id=ids.decode("evt", envelope.causation_id) if envelope.causation_id else None,
            traceparent=envelope.traceparent or None,
            live=envelope.live,
            data=_unpacked(envelope.data),
        )


def account_of(envelope: envelope_pb2.Envelope) -> UUID:
    """Returns the account of an envelope, PLATFORM for the platform's own; raises invalid("id_malformed")."""
    return ids.decode("acct", envelope.account_id, field="account_id") if envelope.account_id else PLATFORM


def readable(envelope: envelope_pb2.Envelope) -> bool:
    """Answers whether the envelope says whose it is and where it belongs; one that does not can only be set aside."""
    try:
        account_of(envelope)
        ids.decode("evt", envelope.id)
    except GatefoldError:
        return False
    return bool(envelope.aggregate_type and envelope.aggregate_id and envelope.sequence > 0)


def _unpacked(packed: any_pb2.Any) -> Message:
    try:
        kind = descriptor_pool.Default().FindMessageTypeByName(packed.TypeName())
    except KeyError:
        # The consumer has not imported the producer's messages, so it does not look inside either.
        return packed
    message = message_factory.GetMessageClass(kind)()
    packed.Unpack(message)
    return message
