"""Owns problem details (RFC 9457): the one place where errors become HTTP answers."""

import math
import re
from collections.abc import Mapping

import orjson
from gatefold.edge.v1 import policy_pb2

from libs import errors
from libs.errors import GatefoldError, Kind
from services.gateway.http.answer import Answer

PROBLEM_TYPE = "application/problem+json"
SCIM_TYPE = "application/scim+json"
SCIM_ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"
REALM = 'Bearer realm="gatefold"'
QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
"""The type of `rate_limited`, as clients of RateLimit headers know it (draft-ietf-httpapi-ratelimit-headers-11)."""
BASIC = 'Basic realm="gatefold", charset="UTF-8"'

# Python 3.11 looks a member up by a call each time that it is named.
_INTERNAL, _UNAUTHENTICATED, _NOT_ALLOWED = Kind.INTERNAL, Kind.UNAUTHENTICATED, Kind.METHOD_NOT_ALLOWED
_AWAY = frozenset({Kind.UNAVAILABLE, Kind.TIMEOUT})

# HTTP has a status of its own for what RPCs have no kind for.
_STATUSES = {"body_timeout": 408, "header_timeout": 408, "version_mismatch": 412}
# Neither protocol of others knows 422.
_OTHERS_STATUSES = {Kind.INVALID: 400, Kind.UNSUPPORTED_MEDIA: 400}
_OAUTH_ERRORS = {
    Kind.FORBIDDEN: "access_denied",
    Kind.INTERNAL: "server_error",
    Kind.TOO_MANY: "temporarily_unavailable",
    Kind.UNAVAILABLE: "temporarily_unavailable",
    Kind.TIMEOUT: "temporarily_unavailable",
}
# RFC 6750 section 3.1 and RFC 9470 section 3: parameters of the challenge that errors carry in their metadata.
_CHALLENGE = ("error", "error_description", "scope", "acr_values", "max_age")


class Problems:
    """Writes problems."""

    def __init__(self, base: str) -> None:
        self._base = base

    def response(self, error: GatefoldError, request_id: str, wire: int = policy_pb2.WIRE_UNSPECIFIED) -> Answer:
        """Returns the answer for an error, as the route's clients read it.

        Its detail and violations are shown; of its metadata only what a protocol has a place for.
        """
        if error.kind is _INTERNAL:
            # What failed inside is for the log.
            error = errors.internal("internal_error", "Something failed on our side.")
        status = _STATUSES.get(error.reason, error.kind.http_status)
        if wire != policy_pb2.WIRE_UNSPECIFIED:
            return _as_others_do(error, _OTHERS_STATUSES.get(error.kind, status), wire)
        problem: dict[str, object] = {
            "type": f"{self._base}{error.reason}",
            "title": error.kind.title,
            "status": status,
            "detail": error.detail,
            "instance": f"urn:gatefold:request:{request_id}",
            "reason": error.reason,
        }
        if error.metadata and "violated_policies" in error.metadata:
            problem["violated-policies"] = error.metadata["violated_policies"].split(",")
            if error.reason == "rate_limited":
                problem["type"] = QUOTA_EXCEEDED
        if error.violations:
            problem["errors"] = [
                {"field": violation.field, "rule": violation.rule, "detail": violation.detail}
                for violation in error.violations
            ]
        return Answer(status, {"Content-Type": PROBLEM_TYPE, **_headers(error)}, orjson.dumps(problem))


def _as_others_do(error: GatefoldError, status: int, wire: int) -> Answer:
    fields = "; ".join(f"{violation.field}: {violation.detail}" for violation in error.violations)
    if wire == policy_pb2.WIRE_OAUTH:
        code = error.metadata.get("error") or _OAUTH_ERRORS.get(error.kind, "invalid_request")
        # RFC 6749 allows no quotes, backslashes and non-ASCII in the description.
        text = re.sub(r'[^\x20-\x7e]|["\\]', "'", fields or error.detail)
        body: dict[str, object] = {"error": code, "error_description": text}
        media_type = "application/json"
    else:
        body = {"schemas": [SCIM_ERROR], "status": str(status), "detail": fields or error.detail}
        if "scim_type" in error.metadata:
            body["scimType"] = error.metadata["scim_type"]
        media_type = SCIM_TYPE
    return Answer(status, {"Content-Type": media_type, **_headers(error)}, orjson.dumps(body))


def _headers(error: GatefoldError) -> Mapping[str, str]:
    headers: dict[str, str] = {}
    kind, metadata = error.kind, error.metadata
    if metadata and metadata.get("error") == "invalid_client":
        # Clients prove who they are by RFC 7617, where they do so in a header (RFC 6749 section 5.2).
        headers["WWW-Authenticate"] = BASIC
    elif kind is _UNAUTHENTICATED or error.reason == "scope_missing":
        headers["WWW-Authenticate"] = _challenge(error)
    if kind is _NOT_ALLOWED and "allow" in metadata:
        headers["Allow"] = metadata["allow"]
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_seconds)))
    elif kind in _AWAY:
        headers["Retry-After"] = "1"
    return headers


def _challenge(error: GatefoldError) -> str:
    metadata, challenge = error.metadata, REALM
    for name in _CHALLENGE:
        value = "insufficient_scope" if name == "error" and error.reason == "scope_missing" else metadata.get(name)
        if value is not None:
            challenge += f', {name}="{value}"'
    return challenge
