"""Owns telemetry: traces (OpenTelemetry), metrics (prometheus-client) and logs (JSON lines), wired once."""

import logging
import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO
from uuid import UUID

import orjson
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, generate_latest

from libs import caller
from libs.durations import Histogram
from libs.version import version

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Histogram bounds for durations."""

_REDACTED = "[redacted]"
_SECRET_KEY = re.compile(
    r"(^|[_.-])(e?mail|passw(or)?d|tokens?|authorization|cookies?|secrets?|name|phone|address|dsn|pepper|card|cvc|iban"
    r"|birthday|credentials?|signature)([_.-]|$)|[_.-]key$"
)
# Names of things, not of people.
_PLAIN_KEYS = frozenset({"task_name", "service_name", "file_name", "event_name", "job_name", "table_name"})
_EMAIL = re.compile(r"[^\s\"'<>()=,;:@]+@[^\s\"'<>()=,;:@]+\.[^\s\"'<>()=,;:@.]+")
_CREDENTIAL = re.compile(
    r"(?i)(://[^\s/:@]*:)[^\s@]+(@)"  # user:password@ in a URL
    r"|\b((?:bearer|basic)\s+)[\w.~+/=-]+"
    r"|\b((?:sk|pk|rk|whsec)_[a-z]*_?)[\w]{8,}"
    r"|\b(eyJ)[\w-]{8,}\.[\w.-]+"  # a token in JWT's form
)
_NO_SPAN: AbstractContextManager[object] = nullcontext()
_UNRECORDED = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-00")
_STANDARD_KEYS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@dataclass(frozen=True)
class TelemetryConfig:
    """Where traces go (nowhere without an endpoint), which share of them, and the least level that is logged."""

    otlp_endpoint: str | None = None
    trace_share: float = 0.1
    log_level: str = "info"

    def __post_init__(self) -> None:
        if self.log_level.upper() not in logging.getLevelNamesMapping():
            raise ValueError("log_level must be debug, info, warning or error")
        if not 0 <= self.trace_share <= 1:
            raise ValueError("trace_share must be between 0 and 1")


class Telemetry:
    """One service's tracer, metrics registry and loggers; holds no global state until `capture_root`."""

    def __init__(self, service: str, config: TelemetryConfig | None = None, *, stream: TextIO | None = None) -> None:
        settings = config or TelemetryConfig()
        self.service = service
        self._level = logging.getLevelNamesMapping()[settings.log_level.upper()]
        self._handler = logging.StreamHandler(stream or sys.stderr)
        self._handler.setFormatter(JsonFormatter(service))
        self._loggers: dict[str, logging.Logger] = {}
        self._metrics: dict[str, Counter | Gauge | Histogram] = {}
        self._propagator = TraceContextTextMapPropagator()
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        # Unsampled spans still carry ids, so that logs of one request can be told together without any collector.
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": service, "service.version": version()}),
            sampler=ParentBased(TraceIdRatioBased(settings.trace_share)) if settings.otlp_endpoint else ALWAYS_OFF,
            shutdown_on_exit=False,
        )
        self.tracing = bool(settings.otlp_endpoint)
        """Whether anybody collects traces."""
        if settings.otlp_endpoint:
            exporter = OTLPSpanExporter(endpoint=f"{settings.otlp_endpoint.rstrip('/')}/v1/traces")
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self.tracer: trace.Tracer = self._provider.get_tracer("gatefold")

    def logger(self, name: str) -> logging.Logger:
        """Returns the logger of that name; it writes JSON lines to stderr with the request's ids."""
        if name not in self._loggers:
            logger = logging.Logger(name, self._level)
            logger.addHandler(self._handler)
            self._loggers[name] = logger
        return self._loggers[name]

    def capture_root(self) -> None:
        """Sends what other packages log through the same formatter; once, by the process."""
        root = logging.getLogger()
        root.handlers[:] = [self._handler]
        root.setLevel(max(self._level, logging.WARNING))

    def counter(self, name: str, text: str, labels: Iterable[str] = ()) -> Counter:
        """Returns the counter `gatefold_<name>`, made on first use."""
        found = self._metrics.get(name)
        if not isinstance(found, Counter):
            found = Counter(f"gatefold_{name}", text, tuple(labels), registry=self.registry)
            self._metrics[name] = found
        return found

    def gauge(self, name: str, text: str, labels: Iterable[str] = ()) -> Gauge:
        """Returns the gauge `gatefold_<name>`, made on first use."""
        found = self._metrics.get(name)
        if not isinstance(found, Gauge):
            found = Gauge(f"gatefold_{name}", text, tuple(labels), registry=self.registry)
            self._metrics[name] = found
        return found

    def histogram(
        self, name: str, text: str, labels: Iterable[str] = (), *, buckets: tuple[float, ...] = SECONDS
    ) -> Histogram:
        """Returns the histogram `gatefold_<name>`, made on first use; durations are in seconds."""
        found = self._metrics.get(name)
        if not isinstance(found, Histogram):
            found = Histogram(f"gatefold_{name}", text, labels, buckets)
            self.registry.register(found)
            self._metrics[name] = found
        return found

    def metrics(self) -> bytes:
        """Returns all metrics in the Prometheus text format."""
        return generate_latest(self.registry)

    def calling(self, name: str) -> AbstractContextManager[object]:
        """Returns the span of a call to another service, to be entered.

        Where nobody collects traces, and within one that is not recorded, there is none: the ids of whoever calls go
        along, and the time is saved.
        """
        if not self.tracing:
            return _NO_SPAN
        outer = trace.get_current_span().get_span_context()
        if outer.is_valid and not outer.trace_flags.sampled:
            return _NO_SPAN
        return self.tracer.start_as_current_span(name, kind=trace.SpanKind.CLIENT, attributes=_rpc(name))

    def headers(self) -> dict[str, str]:
        """Returns the W3C trace headers of the present span, to be sent along; none outside of a trace."""
        carrier: dict[str, str] = {}
        # Where nothing was ever begun there is not even an empty span, and nothing to be looked for in it.
        if otel_context.get_current() and trace.get_current_span().get_span_context().is_valid:
            self._propagator.inject(carrier)
        return carrier

    def remote(self, headers: Mapping[str, str]) -> otel_context.Context:
        """Returns the context that W3C trace headers name, as a parent for spans."""
        return self._propagator.extract(headers)

    def serving(self, name: str, headers: Mapping[str, str]) -> trace.Span:
        """Returns the span of a served call, under whatever span its W3C trace headers name.

        Of a trace that is not recorded it is that span itself, as if the work were done there; without a trace and
        anybody who collects them it is none.
        """
        if not self.tracing and "traceparent" not in headers:
            return trace.INVALID_SPAN
        unrecorded = _UNRECORDED.fullmatch(headers.get("traceparent", ""))
        if unrecorded is not None and "tracestate" not in headers:
            there = trace.SpanContext(int(unrecorded[1], 16), int(unrecorded[2], 16), is_remote=True)
            if there.is_valid:
                return trace.NonRecordingSpan(there)
        return self.tracer.start_span(name, self.remote(headers), trace.SpanKind.SERVER, _rpc(name))

    def close(self) -> None:
        """Sends what traces are left."""
        self._provider.shutdown()


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON line; personal data and secrets do not get through."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line: time, level, service, logger, message, request_id, trace_id, account, and the extras."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": scrub(record.getMessage()),
        }
        acting = caller.current_or_none()
        if acting is not None:
            line["request_id"] = acting.request_id
            line["account"] = str(acting.account) if acting.account else None
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            line["trace_id"] = trace.format_trace_id(span.trace_id)
        for key, value in vars(record).items():
            if key not in _STANDARD_KEYS:
                line[f"extra_{key}" if key in line else key] = redact(key, value)
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = scrub("".join(traceback.format_exception(record.exc_info[1])))
        return orjson.dumps(line, default=str).decode()


def _rpc(name: str) -> dict[str, str]:
    return {"rpc.system": "grpc", "rpc.method": name}


def redact(key: str, value: Any) -> Any:
    """Returns the value, or a mark in its place when the key says that it is personal data or a secret."""
    if key not in _PLAIN_KEYS and _SECRET_KEY.search(key.lower()):
        return _REDACTED
    if isinstance(value, Mapping):
        return {str(inner): redact(str(inner), content) for inner, content in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact("", content) for content in value]
    if isinstance(value, bool | int | float | UUID) or value is None:
        return value
    return scrub(str(value))


def scrub(text: str) -> str:
    """Returns the text without e-mail addresses and credentials; error messages of others carry them."""

    def keep_ends(match: re.Match[str]) -> str:
        before = match[1] or match[3] or match[4] or match[5] or ""
        return f"{before}{_REDACTED}{match[2] or ''}"

    return _EMAIL.sub(_REDACTED, _CREDENTIAL.sub(keep_ends, text))
