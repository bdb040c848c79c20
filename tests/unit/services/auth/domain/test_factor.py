"""Which codes are right, how often may be tried, and who may change factors."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pyotp
import pytest

from services.auth.domain import factor, session

SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"  # RFC 6238, appendix B
NOW = datetime(2026, 7, 1, 12, 0, 15, tzinfo=UTC)
CODE_AT = pyotp.TOTP(SECRET).generate_otp
PRESENT = factor.step_at(NOW)


@pytest.mark.case("auth-41")
@pytest.mark.parametrize(
    ("offset", "taken"), [(-3, False), (-2, False), (-1, True), (0, True), (1, True), (2, False), (3, False)]
)
def test_a_code_of_the_step_before_or_after_is_taken_and_no_other(offset: int, taken: bool) -> None:
    found = factor.matching_step(CODE_AT(PRESENT + offset), NOW, CODE_AT)
    assert found == (PRESENT + offset if taken else None)


def test_the_steps_are_those_of_the_rfc() -> None:
    at = datetime.fromtimestamp(59, UTC)
    eight = pyotp.TOTP(SECRET, digits=8).generate_otp
    assert eight(factor.step_at(at)) == "94287082"
    assert factor.matching_step("94287082", at, eight) == 1


@pytest.mark.parametrize("typed", ["", "12345", "1234567", "abcdef", "１２３４５６", "12345\0", "-12345", "1e5"])
def test_what_is_no_code_is_wrong(typed: str) -> None:
    assert factor.matching_step(typed, NOW, CODE_AT) is None


def test_spaces_around_a_code_make_no_difference() -> None:
    assert factor.matching_step(f" {CODE_AT(PRESENT)}\n", NOW, CODE_AT) == PRESENT


@pytest.mark.case("auth-29")
def test_every_fifth_try_in_a_row_imposes_a_wait_that_doubles_and_is_bounded() -> None:
    waits = [factor.wait_after(tries).total_seconds() for tries in range(0, 41, 5)]
    assert waits == [0, 30, 60, 120, 240, 480, 900, 900, 900]
    assert all(not factor.wait_after(tries) for tries in range(1, 100) if tries % 5)
    assert factor.wait_after(95) == timedelta(minutes=15)
    assert factor.wait_after(100) == factor.wait_after(10**9) == timedelta(days=1)


@pytest.mark.case("auth-38")
def test_a_recovery_code_has_80_bits_and_all_of_them_count() -> None:
    asked: list[int] = []

    def ones(count: int) -> bytes:
        asked.append(count)
        return b"\xff" * count

    assert factor.new_recovery_code(ones) == "7777-7777-7777-7777"
    assert asked == [10]
    texts = {factor.new_recovery_code(lambda count, bit=bit: (1 << bit).to_bytes(count, "big")) for bit in range(80)}
    assert len(texts) == 80


def test_a_recovery_code_is_read_however_it_is_typed_and_is_its_owners_alone() -> None:
    me, other, account = UUID(int=1), UUID(int=2), UUID(int=3)
    stored = factor.recovery_hash("abcd-efgh-2345-6777", account, me)
    assert factor.recovery_hash(" ABCD efgh 23456777 ", account, me) == stored
    assert factor.recovery_hash("abcd-efgh-2345-6777", account, other) != stored
    assert factor.recovery_hash("abcd-efgh-2345-6777", other, me) != stored
    assert factor.recovery_hash("abcd-efgh-2345-6776", account, me) != stored


@pytest.mark.case("auth-44")
@pytest.mark.parametrize(
    ("acr", "age", "has_factor", "may"),
    [
        (session.AAL2, 900, True, True),
        (session.AAL2, 901, True, False),
        (session.AAL1, 0, True, False),
        (session.ENROL, 0, True, False),
        (session.AAL1, 900, False, True),
        (session.ENROL, 900, False, True),
        (session.AAL1, 901, False, False),
        (session.ENROL, 901, False, False),
        (None, 0, True, False),
    ],
)
def test_changing_factors_takes_a_fresh_proof_and_a_strong_one_where_there_is_a_factor(
    acr: str | None, age: int, has_factor: bool, may: bool
) -> None:
    assert factor.may_change(acr, NOW - timedelta(seconds=age), NOW, has_factor=has_factor) is may
    assert not factor.may_change(acr, None, NOW, has_factor=has_factor)
