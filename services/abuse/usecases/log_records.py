"""Owns turning OTLP log records of a publisher's site into activities: known attributes only, pseudonymised, bounded.

Names are OpenTelemetry's (semantic conventions for HTTP, client, user, session, device and geo attributes).
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID

from gatefold.activity.v1 import activity_pb2
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from libs import errors, ids
from libs.activity import Pseudonyms, network_of
from libs.clock import WallClock
from services.abuse.engine.columns import SITE

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
MOST_RECORDS = 5_000
LONGEST_TEXT = 1_000
MOST_ATTRIBUTES = 64
OLDEST = timedelta(hours=1)
NEWEST = timedelta(minutes=1)
_HASHED = {
    "client_address_hash": ("address", "client.address"),
    "user_agent_hash": ("user_agent", "user_agent.original"),
    "actor_hash": ("actor", "user.id"),
    "session_hash": ("session", "session.id"),
    "device_hash": ("device", "device.id"),
    "target_hash": ("target", "gatefold.target"),
}
_TEXTS = {
    "http_request_method": ("http.request.method", 16),
    "http_route": ("http.route", 200),
    "problem_reason": ("error.type", 100),
    "geo_country_iso_code": ("geo.country.iso_code", 2),
}
_NUMBERS = {
    "http_response_status_code": ("http.response.status_code", 0, 599),
    "http_request_body_size": ("http.request.body.size", 0, 1 << 40),
    "http_response_body_size": ("http.response.body.size", 0, 1 << 40),
}


class LogRecords:
    """Reads exports of log records."""

    def __init__(self, pseudonyms: Pseudonyms, clock: WallClock) -> None:
        self._pseudonyms = pseudonyms
        self._clock = clock

    def read(self, account: UUID, content_type: str, payload: bytes) -> tuple[list[activity_pb2.Activity], int]:
        """Returns activities of the account, and how many records were no good.

        Whatever a record says of an account, of verdicts or of refusals is not believed. Raises
        `unsupported_media("media_type_unsupported")`, `malformed("telemetry_malformed")` for what cannot be read and
        `too_large("telemetry_too_large")` for too many records.
        """
        request = _parsed(content_type, payload)
        number = sum(len(scope.log_records) for resource in request.resource_logs for scope in resource.scope_logs)
        if number > MOST_RECORDS:
            raise errors.too_large("telemetry_too_large", f"An export has at most {MOST_RECORDS:,} records.")
        text = ids.encode("acct", account)
        found = [activity for record in _records(request) if (activity := self._activity(text, record)) is not None]
        return found, number - len(found)

    def _activity(self, account: str, record: LogRecord) -> activity_pb2.Activity | None:
        if len(record.attributes) > MOST_ATTRIBUTES:
            return None
        said = _attributes(record.attributes)
        if said is None:
            return None
        at = self._time(record)
        if at is None:
            return None
        activity = activity_pb2.Activity(account_id=account, caller_kind=SITE)
        activity.time.FromDatetime(at)
        for field, (kind, name) in _HASHED.items():
            setattr(activity, field, self._pseudonyms.of(kind, _text(said, name)))
        activity.client_network_hash = self._pseudonyms.of("network", network_of(_text(said, "client.address")))
        for field, (name, longest) in _TEXTS.items():
            setattr(activity, field, _text(said, name)[:longest])
        activity.event_name = (record.event_name or _text(said, "event.name"))[:100]
        for field, (name, least, most) in _NUMBERS.items():
            value = said.get(name)
            if isinstance(value, int) and least <= value <= most:
                setattr(activity, field, value)
        if not (activity.client_address_hash or activity.actor_hash or activity.session_hash or activity.device_hash):
            return None
        return activity

    def _time(self, record: LogRecord) -> datetime | None:
        """Returns when it happened; None for what is long past or yet to come, and now for what does not say."""
        now = self._clock.wall()
        nanos = record.time_unix_nano or record.observed_time_unix_nano
        if not nanos:
            return now
        if nanos >= 1 << 62:
            return None
        at = datetime.fromtimestamp(nanos / 1e9, UTC)
        return at if now - OLDEST <= at <= now + NEWEST else None


def answer(rejected: int, content_type: str) -> bytes:
    """Returns the body of an answer, in the form that was asked in."""
    response = ExportLogsServiceResponse()
    if rejected:
        response.partial_success.rejected_log_records = rejected
        response.partial_success.error_message = (
            "Records need client.address, user.id, session.id or device.id, a time within the last hour,"
            " and texts of at most 1,000 characters."
        )
    if media_type(content_type) == JSON:
        return json_format.MessageToJson(response, indent=None).encode()
    return response.SerializeToString()


def media_type(content_type: str) -> str:
    """Returns a media type without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def _parsed(content_type: str, payload: bytes) -> ExportLogsServiceRequest:
    kind = media_type(content_type)
    try:
        if kind == PROTOBUF:
            return ExportLogsServiceRequest.FromString(payload)
        if kind == JSON:
            return json_format.Parse(payload, ExportLogsServiceRequest(), ignore_unknown_fields=True)
    except (DecodeError, json_format.ParseError, ValueError, RecursionError):
        raise errors.malformed("telemetry_malformed", "This is no ExportLogsServiceRequest.") from None
    raise errors.unsupported_media("media_type_unsupported", f"Send {PROTOBUF} or {JSON}.")


def _records(request: ExportLogsServiceRequest) -> Iterator[LogRecord]:
    for resource in request.resource_logs:
        for scope in resource.scope_logs:
            yield from scope.log_records


def _attributes(pairs: Iterable[KeyValue]) -> Mapping[str, str | int] | None:
    found: dict[str, str | int] = {}
    for pair in pairs:
        value = _plain(pair.value)
        if isinstance(value, str) and len(value) > LONGEST_TEXT:
            return None
        if value is not None:
            found[pair.key] = value
    return found


def _plain(value: AnyValue) -> str | int | None:
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value
        case "int_value":
            return value.int_value
        case _:
            return None


def _text(said: Mapping[str, str | int], name: str) -> str:
    value = said.get(name, "")
    return value if isinstance(value, str) else str(value)
