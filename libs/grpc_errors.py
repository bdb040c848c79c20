"""Owns the crossing of errors over gRPC: a GatefoldError becomes a google.rpc.Status and comes back whole."""

from collections.abc import Iterable
from typing import cast

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from libs import errors
from libs.errors import GatefoldError, Kind, Violation

DOMAIN = "gatefold"
DETAILS_KEY = "grpc-status-details-bin"

# Statuses travel in HTTP/2 trailers, which peers limit; what is beyond is told by its number.
_MOST_VIOLATIONS = 50
_MOST_TEXT = 300
_KIND_KEY = "gatefold_kind"

_CODES = {code.name: code for code in grpc.StatusCode}


def code_of(kind: Kind) -> grpc.StatusCode:
    """Returns the gRPC code of a kind."""
    return _CODES[kind.grpc_code]


def to_status(error: GatefoldError) -> status_pb2.Status:
    """Returns the status: ErrorInfo (domain `gatefold`), BadRequest for violations, RetryInfo for a wait."""
    number: int = code_of(error.kind).value[0]
    status = status_pb2.Status(code=number, message=error.detail[:_MOST_TEXT])
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)
    info.metadata.update(error.metadata)
    # Several kinds share a gRPC code, so the kind travels by name.
    info.metadata[_KIND_KEY] = error.kind.name
    status.details.append(_packed(info))
    if error.violations:
        bad = error_details_pb2.BadRequest()
        for violation in error.violations[:_MOST_VIOLATIONS]:
            item = bad.field_violations.add(
                field=violation.field[:_MOST_TEXT], description=violation.detail[:_MOST_TEXT]
            )
            item.reason = violation.rule  # type: ignore[attr-defined]  # newer than the published stubs
        status.details.append(_packed(bad))
    if error.retry_after_seconds is not None:
        delay = duration_pb2.Duration(seconds=error.retry_after_seconds)
        status.details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status


def answered(error: grpc.RpcError) -> bool:
    """Tells whether the other service's own code gave this answer; otherwise it came from the connection."""
    status = _status(error)
    return status is not None and _info(status) is not None


def from_rpc_error(error: grpc.RpcError) -> GatefoldError:
    """Returns the error that the other service raised; for an error of the connection's, what that means to a caller.

    Nothing of a foreign message is passed on.
    """
    status = _status(error)
    info = _info(status) if status is not None else None
    if status is None or info is None:
        return _of_connection(_code(error))
    metadata = dict(info.metadata)
    kind = _kind(metadata.pop(_KIND_KEY, ""), _code(error))
    violations: tuple[Violation, ...] = ()
    retry_after_seconds: int | None = None
    for detail in status.details:
        bad, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(bad):
            violations = tuple(
                Violation(item.field, item.reason, item.description)  # type: ignore[attr-defined]  # as above
                for item in bad.field_violations
            )
        elif detail.Unpack(retry):
            retry_after_seconds = retry.retry_delay.seconds
    return GatefoldError(
        kind,
        info.reason,
        status.message,
        violations=violations,
        metadata=metadata,
        retry_after_seconds=retry_after_seconds,
    )


def _packed(
    message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def _code(error: grpc.RpcError) -> grpc.StatusCode:
    code = error.code() if isinstance(error, grpc.Call | grpc.aio.AioRpcError) else None
    return code if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN


def _status(error: grpc.RpcError) -> status_pb2.Status | None:
    if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return None
    trailers = cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
    for key, value in trailers:
        if key == DETAILS_KEY and isinstance(value, bytes):
            return status_pb2.Status.FromString(value)
    return None


def _info(status: status_pb2.Status) -> error_details_pb2.ErrorInfo | None:
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            return info
    return None


def _kind(name: str, code: grpc.StatusCode) -> Kind:
    if name in Kind.__members__:
        return Kind[name]
    # A newer peer may know a kind that this code does not.
    return next((kind for kind in Kind if kind.grpc_code == code.name), Kind.INTERNAL)


def _of_connection(code: grpc.StatusCode) -> GatefoldError:
    if code is grpc.StatusCode.UNAVAILABLE:
        return errors.unavailable("service_unavailable", "A part of the platform is away for a moment.", 1)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.timeout("deadline_exceeded", "This took too long; whether it took effect is not known.")
    if code is grpc.StatusCode.CANCELLED:
        return errors.cancelled("cancelled", "The call was cancelled.")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        # The only limit of the connection itself is the size of a message.
        return errors.too_large("message_too_large", "The message is too large.")
    return errors.internal("internal_error", "Something failed on our side.")
