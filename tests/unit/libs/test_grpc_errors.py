"""Tests of libs/grpc_errors."""

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from libs import grpc_errors
from libs.errors import GatefoldError, Kind, Violation

TEXT = st.text(max_size=80)
ERRORS = st.builds(
    GatefoldError,
    st.sampled_from(Kind),
    TEXT,
    TEXT,
    violations=st.lists(st.builds(Violation, TEXT, TEXT, TEXT), max_size=5),
    metadata=st.dictionaries(TEXT.filter(lambda key: key != "gatefold_kind"), TEXT, max_size=3),
    retry_after_seconds=st.none() | st.integers(0, 3600),
)


def received(status: status_pb2.Status, code: grpc.StatusCode) -> grpc.aio.AioRpcError:
    trailers = grpc.aio.Metadata((grpc_errors.DETAILS_KEY, status.SerializeToString()))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailers, status.message, None)


def broken(code: grpc.StatusCode, text: str = "10.0.0.7: connection refused") -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), text, None)


@given(ERRORS)
def test_an_error_comes_back_whole(error: GatefoldError) -> None:
    back = grpc_errors.from_rpc_error(received(grpc_errors.to_status(error), grpc_errors.code_of(error.kind)))

    assert vars(back) == vars(error)


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_a_grpc_code_that_is_an_error(kind: Kind) -> None:
    assert grpc_errors.code_of(kind).value[0] != 0


def test_a_status_stays_small_enough_for_a_trailer() -> None:
    error = GatefoldError(Kind.INVALID, "r", "d" * 10_000, violations=[Violation("f" * 1000, "r", "d" * 1000)] * 1_000)

    assert grpc_errors.to_status(error).ByteSize() < 40_000


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, Kind.UNAVAILABLE, "service_unavailable"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, Kind.TIMEOUT, "deadline_exceeded"),
        (grpc.StatusCode.CANCELLED, Kind.CANCELLED, "cancelled"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Kind.TOO_LARGE, "message_too_large"),
        (grpc.StatusCode.UNIMPLEMENTED, Kind.INTERNAL, "internal_error"),
        (grpc.StatusCode.UNKNOWN, Kind.INTERNAL, "internal_error"),
    ],
)
def test_an_error_of_the_connection_says_what_it_means_and_nothing_of_its_text(
    code: grpc.StatusCode, kind: Kind, reason: str
) -> None:
    error = grpc_errors.from_rpc_error(broken(code))

    assert (error.kind, error.reason) == (kind, reason)
    assert "10.0.0.7" not in str(error)
    assert not grpc_errors.answered(broken(code))


def test_details_of_another_domain_are_not_ours() -> None:
    foreign = any_pb2.Any()
    foreign.Pack(error_details_pb2.ErrorInfo(reason="x", domain="elsewhere.example"))
    status = status_pb2.Status(code=5, message="secret", details=[foreign])

    error = received(status, grpc.StatusCode.NOT_FOUND)

    assert not grpc_errors.answered(error)
    assert grpc_errors.from_rpc_error(error).reason == "internal_error"


def test_a_kind_of_newer_code_is_read_by_its_grpc_code() -> None:
    info = any_pb2.Any()
    info.Pack(error_details_pb2.ErrorInfo(reason="gone", domain="gatefold", metadata={"gatefold_kind": "GONE"}))
    status = status_pb2.Status(code=5, message="Gone.", details=[info])

    error = grpc_errors.from_rpc_error(received(status, grpc.StatusCode.NOT_FOUND))

    assert (error.kind, error.reason, error.detail) == (Kind.NOT_FOUND, "gone", "Gone.")


def test_an_error_without_any_status_is_internal() -> None:
    assert grpc_errors.from_rpc_error(grpc.RpcError()).kind is Kind.INTERNAL
