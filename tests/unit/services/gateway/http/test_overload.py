"""Overload by itself: what is refused first, and that nothing is counted that is over."""

import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from uuid import UUID

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
ACCOUNT, OTHER = UUID(int=1), UUID(int=2)
BOUNDS = LoadBounds(in_flight=20, in_flight_per_account=3)


@pytest.fixture
def overload() -> Overload:
    return Overload(BOUNDS, monotonic=Clock(), telemetry=Telemetry("tests", stream=io.StringIO()))


@contextmanager
def working(overload: Overload, criticality: int, account: UUID | None) -> Iterator[None]:
    """A request that is under way within the block."""
    overload.begin(criticality, account)
    try:
        yield
    finally:
        overload.end(account)


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
            stack.enter_context(working(overload, HIGH, None))
        assert refused(overload) == [LOW, NORMAL, HIGH]
        with pytest.raises(GatefoldError), working(overload, HIGH, None):
            pass
    assert [seen[number] for number in (14, 15, 17, 18, 19)] == [[], [LOW], [LOW], [LOW, NORMAL], [LOW, NORMAL]]
    assert refused(overload) == []


def test_what_states_no_criticality_is_normal(overload: Overload) -> None:
    overload.measured(0.9)
    overload.check(UNSTATED)
    overload.measured(1.0)
    with pytest.raises(GatefoldError):
        overload.check(UNSTATED)


def test_one_account_cannot_have_everything(overload: Overload) -> None:
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(working(overload, NORMAL, ACCOUNT))
        with pytest.raises(GatefoldError) as caught, working(overload, HIGH, ACCOUNT):
            pass
        assert (caught.value.kind, caught.value.reason) == (Kind.TOO_MANY, "in_flight_exceeded")
        with working(overload, NORMAL, OTHER), working(overload, NORMAL, None):
            pass
    with working(overload, NORMAL, ACCOUNT):
        assert overload.accounts == 1
    assert overload.accounts == 0, "nothing is kept of accounts that ask for nothing"


def test_work_that_fails_is_over_too(overload: Overload) -> None:
    for _ in range(50):
        with pytest.raises(RuntimeError), working(overload, NORMAL, ACCOUNT):
            raise RuntimeError
    assert refused(overload) == []
    assert overload.accounts == 0
