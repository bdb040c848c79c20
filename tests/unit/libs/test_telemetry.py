"""Tests of libs/telemetry."""

import io
import logging
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import orjson
import pytest
from opentelemetry import trace

from libs import caller
from libs.caller import Caller, CallerKind
from libs.telemetry import Telemetry, TelemetryConfig, redact, scrub

ACCOUNT = UUID("01890a5d-ac96-774b-bcce-b302099a8057")


class Lines:
    """A telemetry whose log lines can be read back."""

    def __init__(self, level: str = "info") -> None:
        self.stream = io.StringIO()
        self.telemetry = Telemetry("billing", TelemetryConfig(log_level=level), stream=self.stream)
        self.log = self.telemetry.logger("test")

    def read(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.stream.getvalue().splitlines()]


@pytest.fixture
def collecting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, float], Telemetry]]:
    """Makes telemetry whose traces go somewhere where nobody is, and whose threads end with the test."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.05")
    made: list[Telemetry] = []

    def make(service: str, share: float) -> Telemetry:
        made.append(Telemetry(service, TelemetryConfig(otlp_endpoint="http://127.0.0.1:9", trace_share=share)))
        return made[-1]

    yield make
    for telemetry in made:
        telemetry.close()


def test_a_line_says_when_where_and_what() -> None:
    lines = Lines()

    lines.log.warning("renewals are late by %d seconds", 5, extra={"due": 3})

    (line,) = lines.read()
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "warning",
        "service": "billing",
        "logger": "test",
        "message": "renewals are late by 5 seconds",
        "due": 3,
    }


def test_a_line_of_a_request_carries_its_ids() -> None:
    lines = Lines()
    who = Caller(CallerKind.SECRET_KEY, "key_1", account=ACCOUNT, request_id="req_1")

    with caller.serving(who), lines.telemetry.tracer.start_as_current_span("x") as span:
        lines.log.info("hello")

    (line,) = lines.read()
    assert line["request_id"] == "req_1"
    assert line["account"] == str(ACCOUNT)
    assert line["trace_id"] == f"{span.get_span_context().trace_id:032x}"


def test_an_extra_does_not_take_the_place_of_a_line_s_own_keys() -> None:
    lines = Lines()

    lines.log.info("hello", extra={"service": "other", "level": "none"})

    (line,) = lines.read()
    assert (line["service"], line["level"], line["extra_service"]) == ("billing", "info", "other")


def test_levels_below_the_configured_one_are_not_written() -> None:
    lines = Lines("warning")

    lines.log.info("quiet")

    assert lines.read() == []


@pytest.mark.parametrize(
    "key",
    ["email", "Email", "user_email", "password", "new_password", "token", "access_token", "authorization", "secret",
     "client_secret", "name", "first_name", "cookie", "api_key", "app_dsn", "card", "phone"],
)  # fmt: skip
def test_personal_data_and_secrets_do_not_get_through_by_key(key: str) -> None:
    lines = Lines()

    # A record's own attribute is called `name`, so that one cannot be an extra at the top.
    top = {} if key == "name" else {key: "hunter2"}

    lines.log.info("x", extra={**top, "deep": {key: ["hunter2"]}, "list": [{key: "hunter2"}]})

    assert "hunter2" not in lines.stream.getvalue()


@pytest.mark.parametrize("key", ["task_name", "renamed", "method", "count", "keyboard", "username_length"])
def test_ordinary_keys_are_written(key: str) -> None:
    assert redact(key, "plain") == "plain"


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("Key (email)=(ada@example.org) exists", "Key (email)=([redacted]) exists"),
        ("postgres://app:hunter2@db/x", "postgres://app:[redacted]@db/x"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer [redacted]"),
        ("key sk_live_0123456789abcdef", "key sk_live_[redacted]"),
        ("token eyJhbGciOiJFUzI1NiJ9.eyJzdWIi.c2ln", "token eyJ[redacted]"),
        ("nothing to see: 12:30, a@b", "nothing to see: 12:30, a@b"),
    ],
)
def test_addresses_and_credentials_are_cut_out_of_texts(text: str, scrubbed: str) -> None:
    assert scrub(text) == scrubbed


def test_a_traceback_is_written_without_the_personal_data_in_its_message() -> None:
    lines = Lines()

    try:
        raise ValueError("no mailbox ada@example.org")
    except ValueError:
        lines.log.exception("it failed")

    (line,) = lines.read()
    assert "ValueError: no mailbox [redacted]" in line["error"]
    assert "ada@example.org" not in lines.stream.getvalue()


def test_loggers_of_other_packages_write_the_same_lines() -> None:
    lines = Lines()
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        lines.telemetry.capture_root()
        logging.getLogger("somebody.else").error("mail to ada@example.org")
    finally:
        root.handlers[:] = before
        root.setLevel(level)

    (line,) = lines.read()
    assert (line["logger"], line["message"]) == ("somebody.else", "mail to [redacted]")


def test_trace_headers_lead_back_to_the_same_trace() -> None:
    telemetry = Telemetry("a")
    with telemetry.tracer.start_as_current_span("outer") as outer:
        headers = telemetry.headers()

    inner = Telemetry("b").tracer.start_span("inner", telemetry.remote(headers))

    assert list(headers) == ["traceparent"]
    assert inner.get_span_context().trace_id == outer.get_span_context().trace_id


def test_a_call_within_a_trace_that_is_not_recorded_has_no_span_of_its_own() -> None:
    telemetry = Telemetry("a")

    with telemetry.tracer.start_as_current_span("outer") as outer, telemetry.calling("x.Y/Z"):
        inner = trace.get_current_span()

    assert inner is outer


def test_a_call_outside_of_any_trace_begins_one_where_traces_are_collected(
    collecting: Callable[[str, float], Telemetry],
) -> None:
    telemetry = collecting("a", 0.0)

    with telemetry.calling("x.Y/Z"):
        headers = telemetry.headers()

    assert list(headers) == ["traceparent"]


def test_where_nobody_collects_traces_a_call_begins_none_and_hands_on_that_of_others() -> None:
    telemetry = Telemetry("a")

    with telemetry.calling("x.Y/Z"):
        assert telemetry.headers() == {}
    there = telemetry.serving("x.Y/Z", {"traceparent": f"00-{TRACE}-{SPAN}-00"})
    with trace.use_span(there), telemetry.calling("x.Y/Z"):
        assert telemetry.headers() == {"traceparent": f"00-{TRACE}-{SPAN}-00"}


TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("headers", "same_trace", "same_span"),
    [
        ({"traceparent": f"00-{TRACE}-{SPAN}-00"}, True, True),
        ({"traceparent": f"00-{TRACE}-{SPAN}-01"}, True, False),
        ({"traceparent": f"00-{TRACE}-{SPAN}-00", "tracestate": "a=b"}, True, False),
        ({"traceparent": f"00-{TRACE}-{'0' * 16}-00"}, False, False),
        ({"traceparent": f"00-{'0' * 32}-{SPAN}-00"}, False, False),
        ({"traceparent": f"00-{TRACE}-{SPAN}-00-"}, False, False),
        ({"traceparent": f"00-{TRACE.upper()}-{SPAN}-00"}, False, False),
        ({"traceparent": "nonsense"}, False, False),
    ],
)
def test_a_served_call_belongs_to_the_trace_of_its_headers(
    headers: dict[str, str], same_trace: bool, same_span: bool
) -> None:
    span = Telemetry("b").serving("x.Y/Z", headers).get_span_context()

    assert span.is_valid
    assert (trace.format_trace_id(span.trace_id) == TRACE) is same_trace
    assert (trace.format_span_id(span.span_id) == SPAN) is same_span


def test_a_call_that_comes_without_a_trace_begins_one_where_traces_are_collected(
    collecting: Callable[[str, float], Telemetry],
) -> None:
    assert collecting("b", 0.0).serving("x.Y/Z", {}).get_span_context().is_valid
    assert not Telemetry("b").serving("x.Y/Z", {}).get_span_context().is_valid


def test_a_trace_that_is_recorded_is_recorded_on_both_sides(
    collecting: Callable[[str, float], Telemetry],
) -> None:
    calling, serving = collecting("a", 1.0), collecting("b", 1.0)

    with calling.tracer.start_as_current_span("outer", end_on_exit=False), calling.calling("x.Y/Z") as client:
        served = serving.serving("x.Y/Z", calling.headers())
        assert client.is_recording()  # type: ignore[attr-defined]
        assert served.is_recording()
        assert served.parent.span_id == client.get_span_context().span_id  # type: ignore[attr-defined]


def test_two_services_in_one_process_keep_their_metrics_apart() -> None:
    first, second = Telemetry("a"), Telemetry("b")

    first.counter("things", "Things", ("kind",)).labels("x").inc()
    assert first.counter("things", "Things", ("kind",)) is first.counter("things", "Things", ("kind",))
    second.counter("things", "Things", ("kind",))
    first.histogram("seconds", "Seconds").observe(0.2)
    first.gauge("open", "Open").set(2)

    metrics = first.metrics().decode()
    assert 'gatefold_things_total{kind="x"} 1.0' in metrics
    assert "gatefold_seconds_count 1.0" in metrics
    assert "gatefold_open 2.0" in metrics
    assert 'kind="x"' not in second.metrics().decode()


@pytest.mark.parametrize("arguments", [{"log_level": "loud"}, {"trace_share": 2.0}])
def test_unusable_configuration_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        TelemetryConfig(**arguments)
