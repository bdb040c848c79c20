"""OTLP log records become activities: known attributes, hashed, bounded."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

from libs import ids
from libs.activity import Pseudonyms
from libs.clock import FixedClock
from libs.errors import GatefoldError
from services.abuse.usecases.log_records import JSON, PROTOBUF, LogRecords, answer

ACCOUNT = UUID("01900000-0000-7000-8000-000000000001")
NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
HIDDEN = Pseudonyms("pepper")
RECORDS = LogRecords(HIDDEN, FixedClock(NOW))


def exported(*records: dict[str, object], at: datetime = NOW) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    held = request.resource_logs.add().scope_logs.add()
    for record in records:
        made = held.log_records.add(time_unix_nano=int(at.timestamp() * 1e9))
        for name, value in record.items():
            pair = made.attributes.add(key=name)
            if isinstance(value, int):
                pair.value.int_value = value
            else:
                pair.value.string_value = str(value)
    return request


SIGN_IN = {
    "client.address": "2001:db8:1:2::7",
    "user_agent.original": "Mozilla/5.0",
    "user.id": "reader-17",
    "session.id": "s-1",
    "device.id": "d-1",
    "gatefold.target": "ada@example.com",
    "http.request.method": "POST",
    "http.route": "/login",
    "http.response.status_code": 401,
    "event.name": "sign_in.password",
    "error.type": "credentials_invalid",
    "geo.country.iso_code": "FR",
    "something.else": "kept out",
}


@pytest.mark.parametrize("content_type", [PROTOBUF, JSON, "application/json; charset=utf-8"])
def test_a_record_is_read_by_its_opentelemetry_names(content_type: str) -> None:
    request = exported(SIGN_IN)
    payload = request.SerializeToString() if content_type == PROTOBUF else json_format.MessageToJson(request).encode()
    [activity], rejected = RECORDS.read(ACCOUNT, content_type, payload)
    assert rejected == 0
    assert activity.account_id == ids.encode("acct", ACCOUNT)
    assert activity.client_address_hash == HIDDEN.of("address", "2001:db8:1:2::7")
    assert activity.client_network_hash == HIDDEN.of("network", "2001:db8:1::/48")
    assert activity.user_agent_hash == HIDDEN.of("user_agent", "Mozilla/5.0")
    assert activity.actor_hash == HIDDEN.of("actor", "reader-17")
    assert activity.session_hash == HIDDEN.of("session", "s-1")
    assert activity.device_hash == HIDDEN.of("device", "d-1")
    assert activity.target_hash == HIDDEN.of("target", "ada@example.com")
    assert (activity.http_request_method, activity.http_route, activity.http_response_status_code) == (
        "POST",
        "/login",
        401,
    )
    assert (activity.event_name, activity.problem_reason) == ("sign_in.password", "credentials_invalid")
    assert activity.geo_country_iso_code == "FR"
    assert activity.time.ToDatetime(tzinfo=UTC) == NOW
    assert b"kept out" not in activity.SerializeToString()


@pytest.mark.parametrize(
    ("ago", "taken"),
    [(timedelta(minutes=59), 1), (timedelta(minutes=61), 0), (timedelta(seconds=-59), 1), (timedelta(seconds=-61), 0)],
)
def test_times_are_bounded(ago: timedelta, taken: int) -> None:
    payload = exported(SIGN_IN, at=NOW - ago).SerializeToString()
    found, rejected = RECORDS.read(ACCOUNT, PROTOBUF, payload)
    assert (len(found), rejected) == (taken, 1 - taken)


def test_numbers_out_of_range_are_left_out() -> None:
    record = {**SIGN_IN, "http.response.status_code": 1 << 40, "http.request.body.size": -5}
    [activity], _ = RECORDS.read(ACCOUNT, PROTOBUF, exported(record).SerializeToString())
    assert (activity.http_response_status_code, activity.http_request_body_size) == (0, 0)


@given(st.binary(max_size=300), st.sampled_from([PROTOBUF, JSON, "", "x" * 50]))
def test_whatever_comes_is_read_or_refused(payload: bytes, content_type: str) -> None:
    try:
        RECORDS.read(ACCOUNT, content_type, payload)
    except GatefoldError as error:
        assert error.reason in ("telemetry_malformed", "media_type_unsupported")  # noqa: PT017 — or nothing is raised


def test_the_answer_has_the_form_of_the_question() -> None:
    assert answer(0, PROTOBUF) == b""
    assert answer(0, JSON) == b"{}"
    said = ExportLogsServiceResponse.FromString(answer(3, PROTOBUF))
    assert said.partial_success.rejected_log_records == 3
    assert b'"rejectedLogRecords"' in answer(3, "application/json;charset=UTF-8")
