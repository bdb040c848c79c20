"""How much one account may send, whatever others do."""

from uuid import UUID

import pytest

from libs.errors import GatefoldError
from services.abuse.usecases import allowances
from services.abuse.usecases.allowances import BURST_SECONDS, BYTES_A_RECORD, UNDER_WAY, Allowances

pytestmark = pytest.mark.case("edge-15")

LOUD, QUIET = UUID(int=1), UUID(int=2)
RATE = 100


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def allowed(clock: Clock) -> Allowances:
    return Allowances(RATE, clock)


def send(allowed: Allowances, records: int, account: UUID = LOUD, size: int = 0) -> int:
    """Returns 0 for what is taken, otherwise the seconds to wait."""
    try:
        with allowed.export(account, size) as counted:
            counted(records)
    except GatefoldError as error:
        return (error.retry_after_seconds or 0) if error.reason == "telemetry_rate" else -1
    return 0


def test_a_burst_is_taken_and_what_is_over_waits_for_as_long_as_it_owes(allowed: Allowances, clock: Clock) -> None:
    assert send(allowed, RATE * BURST_SECONDS) == 0
    assert send(allowed, 1) == 1
    clock.now += 1
    # The last that is taken may owe.
    assert send(allowed, 5 * RATE) == 0
    assert send(allowed, 1) == 5
    clock.now += 4
    assert send(allowed, 1) == 1
    clock.now += 1
    assert send(allowed, 1) == 0


def test_over_any_time_no_more_is_taken_than_the_rate_and_a_burst(allowed: Allowances, clock: Clock) -> None:
    taken, largest = 0, 50
    for _ in range(10_000):
        clock.now += 0.01
        taken += largest if send(allowed, largest) == 0 else 0
    assert 100 * RATE <= taken <= (100 + BURST_SECONDS) * RATE + largest


def test_one_that_floods_leaves_the_others_theirs(allowed: Allowances) -> None:
    while send(allowed, 500) == 0:
        pass
    assert send(allowed, 500, QUIET) == 0


def test_long_exports_cost_by_their_length_also_when_they_cannot_be_read(allowed: Allowances) -> None:
    whole = RATE * BURST_SECONDS * BYTES_A_RECORD
    with pytest.raises(RuntimeError, match="unreadable"), allowed.export(LOUD, whole):
        raise RuntimeError("unreadable")
    assert send(allowed, 1) > 0
    assert send(allowed, 10, QUIET, size=10 * BYTES_A_RECORD) == 0


def test_few_exports_of_an_account_are_read_at_once(allowed: Allowances) -> None:
    with allowed.export(LOUD, 1), allowed.export(LOUD, 1):
        assert UNDER_WAY == 2
        assert send(allowed, 1) == 1
        assert send(allowed, 1, QUIET) == 0
    assert send(allowed, 1) == 0


def test_accounts_without_number_take_no_memory_without_bound(
    allowed: Allowances, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allowances, "MOST_ACCOUNTS", 10)
    with allowed.export(LOUD, 1):
        for number in range(100, 200):
            send(allowed, 1, UUID(int=number))
        assert len(allowed._accounts) <= 11
        with allowed.export(LOUD, 1):
            assert send(allowed, 1) == 1
