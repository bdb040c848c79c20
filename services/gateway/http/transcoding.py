"""Owns the step between one HTTP request and one message: path, query, headers and body become its fields."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

import orjson
from gatefold.edge.v1 import policy_pb2
from gatefold.edge.v1.answer_headers_pb2 import AnswerHeaders
from google.protobuf.message import Message

from libs import errors
from libs.codecs import RequestCodecs, ResponseCodecs
from libs.codecs.json_to_proto import refused
from libs.codecs.shapes import Field, Kind
from services.gateway.http.contracts import Endpoint
from services.gateway.http.problems import SCIM_TYPE

JSON_TYPE = "application/json"
FORM_TYPE = "application/x-www-form-urlencoded"

_MOST_PARAMETERS = 100
_LONGEST_TYPE = 200
_MOST_KEPT = 64
_LONGEST_KEPT = 200
_BOOLS: Mapping[str, object] = {"true": True, "false": False}


class Transcoder:
    """Reads the requests and writes the answers of one endpoint."""

    def __init__(self, endpoint: Endpoint, requests: RequestCodecs, responses: ResponseCodecs) -> None:
        self._variables = endpoint.variables
        self._body = endpoint.body
        self._raw_body = endpoint.raw_body
        self._raw_required = self._raw_body and endpoint.field(endpoint.body).required
        self._query = {endpoint.query_name(field): field for field in endpoint.query_fields}
        self._headers = tuple((field.rule.header, field) for field in endpoint.header_fields)
        self._parse = requests.parser(endpoint.request)
        self._wire = endpoint.wire
        self._form = {field.name: field for field in endpoint.body_fields}
        self._render = None if endpoint.raw_response else responses.renderer(endpoint.response)
        # What many ask alike, as whether a feature may be read, is read once.
        self._asked = lru_cache(_MOST_KEPT)(self._of_address)

    def request(
        self, values: tuple[str, ...], query: str, headers: Mapping[str, str], content_type: str, body: bytes
    ) -> Message:
        """Returns the message of a request.

        `values` are the texts of the path's variables, `query` is the raw query. Raises `malformed` for what cannot
        be read, `unsupported_media`, and `invalid("request_invalid")` with all violations. The message may be given out
        again, so it must not be changed.
        """
        if not body and not self._headers and not self._raw_body and len(query) <= _LONGEST_KEPT:
            return self._asked(values, query)
        return self._read(values, query, headers, content_type, body)

    def _of_address(self, values: tuple[str, ...], query: str) -> Message:
        return self._read(values, query, {}, "", b"")

    def _read(
        self, values: tuple[str, ...], query: str, headers: Mapping[str, str], content_type: str, body: bytes
    ) -> Message:
        violations: list[list[str]] = []
        fields = self._read_body(content_type, body, violations)
        if query:
            self._read_query(query, fields, violations)
        for name, text in zip(self._variables, values, strict=True):
            fields[name] = text
        for header, field in self._headers:
            if (sent := headers.get(header)) is not None:
                if sent.isascii():
                    fields[field.name] = sent
                else:
                    violations.append([field.name, "characters", f"The header {header} must be ASCII."])
        if self._raw_required and not body:
            violations.append([self._body, "required", "A body is required."])
        try:
            message = self._parse(fields)
        except errors.GatefoldError as error:
            if not violations:
                raise
            found = [[violation.field, violation.rule, violation.detail] for violation in error.violations]
            raise refused(violations + found) from None
        if violations:
            raise refused(violations)
        if self._raw_body and body:
            raw: Any = getattr(message, self._body)
            raw.content_type = content_type
            raw.data = body
        return message

    def response(self, message: Any) -> tuple[bytes, str]:
        """Returns the body of an answer and its media type."""
        if self._render is None:
            return message.data, message.content_type or "application/octet-stream"
        written = self._render(message)
        if self._wire == policy_pb2.WIRE_OAUTH:
            # Clients take an absent member for absent, and null for a fault of ours.
            present = {name: value for name, value in orjson.loads(written).items() if value is not None}
            written = orjson.dumps(present)
        return written, JSON_TYPE

    def headers(self, message: Any) -> dict[str, str]:
        """Returns the headers that an answer in bytes brings along."""
        if self._render is not None:
            return {}
        for packed in message.extensions:
            if packed.type_url.endswith(AnswerHeaders.DESCRIPTOR.full_name):
                brought = AnswerHeaders.FromString(packed.value)
                named = {"ETag": brought.etag, "Location": brought.location}
                return {name: value for name, value in named.items() if value}
        return {}

    def _read_body(self, content_type: str, body: bytes, violations: list[list[str]]) -> dict[str, object]:
        if self._raw_body:
            if body and self._wire == policy_pb2.WIRE_SCIM and not is_json(content_type, JSON_TYPE, SCIM_TYPE):
                raise errors.unsupported_media("media_type_unsupported", f"The body must be {SCIM_TYPE} in UTF-8.")
            if body and not (0 < len(content_type) <= _LONGEST_TYPE and content_type.isascii()):
                raise errors.unsupported_media("media_type_unsupported", "State the media type of the body.")
            return {}
        if not body:
            return {}
        if not self._body:
            raise errors.malformed("body_unexpected", "This request has no body.")
        if self._wire == policy_pb2.WIRE_OAUTH:
            return self._read_form(content_type, body, violations)
        if not is_json(content_type):
            raise errors.unsupported_media("media_type_unsupported", f"The body must be {JSON_TYPE} in UTF-8.")
        value = read_json(body)
        if self._body != "*":
            return {self._body: value}
        if type(value) is not dict:
            raise errors.malformed("json_malformed", "The body must be one JSON object.")
        for name in [name for name in value if name not in self._form][:20]:
            violations.append([name[:100], "unknown_field", "There is no such field in the body."])
            del value[name]
        return value

    def _read_form(self, content_type: str, body: bytes, violations: list[list[str]]) -> dict[str, object]:
        if content_type.partition(";")[0].strip().lower() != FORM_TYPE:
            raise errors.unsupported_media("media_type_unsupported", f"The body must be {FORM_TYPE} in UTF-8.")
        fields: dict[str, object] = {}
        try:
            pairs = _pairs(body.decode("ascii"))
        except ValueError:
            raise errors.malformed("form_malformed", "The form cannot be read.") from None
        # Parameters that are not known are passed over (RFC 6749 section 3.2).
        _take([pair for pair in pairs if pair[0] in self._form], self._form, fields, violations)
        return fields

    def _read_query(self, query: str, fields: dict[str, object], violations: list[list[str]]) -> None:
        try:
            pairs = _pairs(query)
        except ValueError:
            raise errors.malformed("query_malformed", "The query cannot be read.") from None
        _take(pairs, self._query, fields, violations)


def _take(
    pairs: Iterable[tuple[str, str]],
    known: Mapping[str, Field],
    fields: dict[str, object],
    violations: list[list[str]],
) -> None:
    for name, text in pairs:
        field = known.get(name)
        if field is None:
            violations.append([name[:100], "unknown_field", "There is no such query parameter."])
            continue
        value = _BOOLS.get(text, text) if field.shape.kind is Kind.BOOL else text
        if field.repeated:
            items = fields.setdefault(field.name, [])
            if isinstance(items, list):
                items.append(value)
        elif field.name in fields:
            violations.append([name, "repeated", "This can be given only once."])
        else:
            fields[field.name] = value


def _pairs(encoded: str) -> list[tuple[str, str]]:
    return parse_qsl(encoded, keep_blank_values=True, errors="strict", max_num_fields=_MOST_PARAMETERS)


def is_json(content_type: str, *accepted: str) -> bool:
    """Whether a Content-Type is application/json, or one of those named instead, in UTF-8."""
    media_type, _, parameters = content_type.partition(";")
    if media_type.strip().lower() not in (accepted or (JSON_TYPE,)):
        return False
    parameters = parameters.strip().lower().replace('"', "")
    return parameters in ("", "charset=utf-8")


def read_json(body: bytes) -> object:
    """Returns a decoded JSON text; raises `malformed("json_malformed")`. Of a name that comes twice the last counts."""
    try:
        value: object = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        detail = f"The body is no JSON: line {error.lineno}, column {error.colno}."
        raise errors.malformed("json_malformed", detail) from None
    return value
