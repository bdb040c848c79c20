"""Overload by itself: what is refused first, and that nothing is counted that is over."""

import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from gatefold.edge.v1 import policy_pb2

from libs.errors import GatefoldError, Kind
from libs.telemetry import Telemetry
from services.gateway.domain.bounds import LoadBounds
from services.gateway.http.overload import Overload
from tests.support.crowd import Clock

LOW, NORMAL, HIGH, UNSTATED = (
    policy_pb2.CRITICALITY_LOW,
    policy_pb2.CRITICALITY_NORMAL,
    policy_pb2.CRITICALITY_HIGH,
    policy_pb2.CRITICALITY_UNSPECIFIED,
)
BOUNDS = LoadBounds(in_flight=20)


@pytest.fixture
def overload() -> Overload:
    return Overload(BOUNDS, monotonic=Clock(), telemetry=Telemetry("tests", stream=io.StringIO()))


@contextmanager
def working(overload: Overload, criticality: int) -> Iterator[None]:
    """A request that is under way within the block."""
    overload.begin(criticality)
    try:
        yield
    finally:
        overload.end()


def refused(overload: Overload) -> list[int]:
    """Returns which criticalities are refused."""
    found = []
    for criticality in (LOW, NORMAL, HIGH):
        try:
            overload.check(criticality)
        except GatefoldError as error:
            if (error.kind, error.reason) == (Kind.UNAVAILABLE, "overloaded") and error.retry_after_seconds:
                found.append(criticality)
    return found


@pytest.mark.parametrize(
    ("lag", "expected"),
    [(0.0, []), (0.24, []), (0.25, [LOW]), (1.0, [LOW, NORMAL]), (2.9, [LOW, NORMAL]), (3.0, [LOW, NORMAL, HIGH])],
)
def test_a_late_event_loop_sheds_the_least_critical_first(overload: Overload, lag: float, expected: list[int]) -> None:
    overload.measured(lag)
    assert refused(overload) == expected


def test_a_lag_counts_at_once_and_fades(overload: Overload) -> None:
    overload.measured(2.0)
    seen = []
    for _ in range(8):
        overload.measured(-0.001)
        seen.append(refused(overload))
    assert seen[0] == [LOW, NORMAL]
    assert seen[-1] == []
    assert seen == sorted(seen, key=len, reverse=True)


def test_work_under_way_sheds_the_least_critical_first(overload: Overload) -> None:
    seen = {}
    with ExitStack() as stack:
        for number in range(20):
            seen[number] = refused(overload)
            stack.enter_context(working(overload, HIGH))
        assert refused(overload) == [LOW, NORMAL, HIGH]
        with pytest.raises(GatefoldError), working(overload, HIGH):
            pass
    assert [seen[number] for number in (14, 15, 17, 18, 19)] == [[], [LOW], [LOW], [LOW, NORMAL], [LOW, NORMAL]]
    assert refused(overload) == []


def test_what_states_no_criticality_is_normal(overload: Overload) -> None:
    overload.measured(0.9)
    overload.check(UNSTATED)
    overload.measured(1.0)
    with pytest.raises(GatefoldError):
        overload.check(UNSTATED)


def test_work_that_fails_is_over_too(overload: Overload) -> None:
    for _ in range(50):
        with pytest.raises(RuntimeError), working(overload, NORMAL):
            raise RuntimeError
    assert refused(overload) == []
