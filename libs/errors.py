"""Owns the closed set of error kinds: one row each, with its gRPC code, HTTP status and title."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType


class Kind(Enum):
    """What went wrong, as far as a caller has to tell cases apart: (gRPC code, HTTP status, title)."""

    MALFORMED = ("INVALID_ARGUMENT", 400, "Malformed request")
    INVALID = ("INVALID_ARGUMENT", 422, "Invalid request")
    UNAUTHENTICATED = ("UNAUTHENTICATED", 401, "Authentication required")
    PAYMENT_REQUIRED = ("FAILED_PRECONDITION", 402, "Payment required")
    FORBIDDEN = ("PERMISSION_DENIED", 403, "Forbidden")
    NOT_FOUND = ("NOT_FOUND", 404, "Not found")
    METHOD_NOT_ALLOWED = ("UNIMPLEMENTED", 405, "Method not allowed")
    CONFLICT = ("ABORTED", 409, "Conflict")
    PRECONDITION = ("FAILED_PRECONDITION", 409, "Not possible in the present state")
    TOO_LARGE = ("OUT_OF_RANGE", 413, "Request too large")
    UNSUPPORTED_MEDIA = ("INVALID_ARGUMENT", 415, "Unsupported media type")
    TOO_MANY = ("RESOURCE_EXHAUSTED", 429, "Too many requests")
    CANCELLED = ("CANCELLED", 499, "Cancelled")
    INTERNAL = ("INTERNAL", 500, "Internal error")
    UNAVAILABLE = ("UNAVAILABLE", 503, "Temporarily unavailable")
    TIMEOUT = ("DEADLINE_EXCEEDED", 504, "Timed out")

    # Each is there once: by its name, as Enum has it, a look-up takes ten times as long.
    __hash__ = object.__hash__

    def __init__(self, grpc_code: str, http_status: int, title: str) -> None:
        self.grpc_code = grpc_code
        self.http_status = http_status
        self.title = title


@dataclass(frozen=True)
class Violation:
    """One field of a request that broke one rule."""

    field: str
    """Path of the field, as `items[0].price_id`."""
    rule: str
    """Stable snake_case name of the rule."""
    detail: str
    """A sentence for people."""


class GatefoldError(Exception):
    """The one error that crosses services; only the edge renders it."""

    def __init__(
        self,
        kind: Kind,
        reason: str,
        detail: str,
        *,
        violations: Sequence[Violation] = (),
        metadata: Mapping[str, str] | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(f"{reason}: {detail}")
        self.kind = kind
        self.reason = reason
        self.detail = detail
        self.violations = tuple(violations)
        self.metadata: Mapping[str, str] = MappingProxyType(dict(metadata or {}))
        self.retry_after_seconds = retry_after_seconds


def malformed(
    reason: str,
    detail: str,
    *,
    field: str | None = None,
    violations: Sequence[Violation] = (),
    metadata: Mapping[str, str] | None = None,
) -> GatefoldError:
    """The request cannot be read at all (400)."""
    return GatefoldError(
        Kind.MALFORMED, reason, detail, violations=_violations(reason, detail, field, violations), metadata=metadata
    )


def invalid(
    reason: str,
    detail: str,
    *,
    field: str | None = None,
    violations: Sequence[Violation] = (),
    metadata: Mapping[str, str] | None = None,
) -> GatefoldError:
    """The request can be read and breaks a rule (422); `field` is short for one violation of that field."""
    return GatefoldError(
        Kind.INVALID, reason, detail, violations=_violations(reason, detail, field, violations), metadata=metadata
    )


def unauthenticated(reason: str, detail: str, *, metadata: Mapping[str, str] | None = None) -> GatefoldError:
    """Nobody is known to have sent this (401)."""
    return GatefoldError(Kind.UNAUTHENTICATED, reason, detail, metadata=metadata)


def payment_required(reason: str, detail: str, *, metadata: Mapping[str, str] | None = None) -> GatefoldError:
    """A payment failed or is missing (402)."""
    return GatefoldError(Kind.PAYMENT_REQUIRED, reason, detail, metadata=metadata)


def forbidden(reason: str, detail: str, *, metadata: Mapping[str, str] | None = None) -> GatefoldError:
    """The caller is known and may not do this (403)."""
    return GatefoldError(Kind.FORBIDDEN, reason, detail, metadata=metadata)


def not_found(reason: str, detail: str, *, metadata: Mapping[str, str] | None = None) -> GatefoldError:
    """The thing does not exist, or not for this account (404)."""
    return GatefoldError(Kind.NOT_FOUND, reason, detail, metadata=metadata)


def method_not_allowed(reason: str, detail: str, *, metadata: Mapping[str, str] | None = None) -> GatefoldError:
    """The path exists, the method does not (405)."""
    return GatefoldError(Kind.METHOD_NOT_ALLOWED, reason, detail, metadata=metadata)


def conflict(
    reason: str, detail: str, *, metadata: Mapping[str, str] | None = None, retry_after_seconds: int | None = None
) -> GatefoldError:
    """Something else got there first; reading again and repeating may help (409)."""
    return GatefoldError(Kind.CONFLICT, reason, detail, metadata=metadata, retry_after_seconds=retry_after_seconds)


def precondition(reason: str, detail: str, *, metadata: Mapping[str, str] | None = None) -> GatefoldError:
    """The thing's state does not allow this; repeating does not help (409)."""
    return GatefoldError(Kind.PRECONDITION, reason, detail, metadata=metadata)


def too_large(reason: str, detail: str, *, metadata: Mapping[str, str] | None = None) -> GatefoldError:
    """The body is larger than allowed (413)."""
    return GatefoldError(Kind.TOO_LARGE, reason, detail, metadata=metadata)


def unsupported_media(reason: str, detail: str, *, metadata: Mapping[str, str] | None = None) -> GatefoldError:
    """The body is of a media type that is not read here (415)."""
    return GatefoldError(Kind.UNSUPPORTED_MEDIA, reason, detail, metadata=metadata)


def too_many(
    reason: str, detail: str, retry_after_seconds: int, *, metadata: Mapping[str, str] | None = None
) -> GatefoldError:
    """A limit is reached (429)."""
    return GatefoldError(Kind.TOO_MANY, reason, detail, metadata=metadata, retry_after_seconds=retry_after_seconds)


def cancelled(reason: str, detail: str, *, metadata: Mapping[str, str] | None = None) -> GatefoldError:
    """The caller went away (499)."""
    return GatefoldError(Kind.CANCELLED, reason, detail, metadata=metadata)


def internal(reason: str, detail: str, *, metadata: Mapping[str, str] | None = None) -> GatefoldError:
    """A fault of ours (500); `detail` is shown to clients, so it never carries what happened inside."""
    return GatefoldError(Kind.INTERNAL, reason, detail, metadata=metadata)


def unavailable(
    reason: str, detail: str, retry_after_seconds: int = 1, *, metadata: Mapping[str, str] | None = None
) -> GatefoldError:
    """Something this depends on is away; it is safe to repeat after `retry_after_seconds` (503)."""
    return GatefoldError(Kind.UNAVAILABLE, reason, detail, metadata=metadata, retry_after_seconds=retry_after_seconds)


def timeout(reason: str, detail: str, *, metadata: Mapping[str, str] | None = None) -> GatefoldError:
    """The deadline passed; the outcome is not known (504)."""
    return GatefoldError(Kind.TIMEOUT, reason, detail, metadata=metadata)


def _violations(reason: str, detail: str, field: str | None, violations: Sequence[Violation]) -> Sequence[Violation]:
    if field is None:
        return violations
    return (Violation(field, reason, detail), *violations)
