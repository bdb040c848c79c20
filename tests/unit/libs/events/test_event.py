"""The event and its form on the wire."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from gatefold.events.v1 import envelope_pb2
from gatefold.money.v1 import money_pb2
from google.protobuf import any_pb2
from hypothesis import given
from hypothesis import strategies as st

from libs.errors import GatefoldError
from libs.events.event import PREFIXES, Event

UUIDS = st.integers(min_value=0, max_value=2**128 - 1).map(lambda number: UUID(int=number))
TIMES = st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(9000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
EVENTS = st.builds(
    Event,
    id=UUIDS,
    type=st.from_regex(r"[a-z_]{1,20}\.[a-z_]{1,20}", fullmatch=True),
    account=UUIDS,
    aggregate=st.tuples(st.sampled_from(sorted(PREFIXES)), UUIDS),
    sequence=st.integers(min_value=1, max_value=2**63 - 1),
    occurred_at=TIMES,
    recorded_at=TIMES,
    actor=st.text(max_size=40),
    subjects=st.lists(UUIDS, max_size=3).map(tuple),
    schema_version=st.integers(min_value=1, max_value=2**31 - 1),
    causation_id=st.none() | UUIDS,
    traceparent=st.none() | st.just("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    live=st.booleans(),
    data=st.builds(money_pb2.Money, amount_minor=st.integers(-(2**63), 2**63 - 1), currency=st.just("EUR")),
)


def an_event(**changes: object) -> Event:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    fields: dict[str, object] = {
        "id": UUID(int=1),
        "type": "invoice.paid",
        "account": UUID(int=2),
        "aggregate": ("invoice", UUID(int=3)),
        "sequence": 1,
        "occurred_at": at + timedelta(days=30),
        "recorded_at": at,
        "actor": "service:billing",
        "data": money_pb2.Money(amount_minor=500, currency="EUR"),
    }
    return Event(**(fields | changes))  # type: ignore[arg-type]


@given(EVENTS)
def test_an_event_survives_the_wire(event: Event) -> None:
    bytes_ = event.to_envelope().SerializeToString()
    assert Event.from_envelope(envelope_pb2.Envelope.FromString(bytes_)) == event


def test_an_envelope_names_things_with_prefixed_ids() -> None:
    envelope = an_event(subjects=(UUID(int=4),)).to_envelope()
    assert envelope.id.startswith("evt_")
    assert envelope.account_id.startswith("acct_")
    assert envelope.aggregate_id.startswith("inv_")
    assert [subject[:5] for subject in envelope.subject_ids] == ["subj_"]


def test_data_of_an_unknown_message_stays_packed_and_passes_through() -> None:
    packed = any_pb2.Any(type_url="type.googleapis.com/gatefold.future.v1.Thing", value=b"\x08\x01")
    event = an_event(data=packed)
    assert Event.from_envelope(event.to_envelope()).data == packed
    assert Event.from_envelope(event.to_envelope()).to_envelope() == event.to_envelope()


def test_an_aggregate_of_a_newer_producer_can_be_read() -> None:
    envelope = an_event().to_envelope()
    envelope.aggregate_type = "gift"
    envelope.aggregate_id = envelope.aggregate_id.replace("inv_", "gift_")
    assert Event.from_envelope(envelope).aggregate == ("gift", UUID(int=3))


def test_an_aggregate_without_a_prefix_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="has no id prefix"):
        an_event(aggregate=("zeppelin", UUID(int=3))).to_envelope()


def test_a_sequence_starts_at_one() -> None:
    with pytest.raises(ValueError, match="starts at 1"):
        an_event(sequence=0)


def test_an_envelope_with_a_foreign_id_is_refused() -> None:
    envelope = an_event().to_envelope()
    envelope.account_id = envelope.id
    with pytest.raises(GatefoldError) as refused:
        Event.from_envelope(envelope)
    assert refused.value.reason == "id_malformed"
