"""How waits grow, when a bucket is empty again, whom an address stands for, and whose device a token names."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from services.auth.domain import attempts, device_token
from services.auth.domain.attempts import Rule, State, Trust

RULE = Rule(free=10, most=100, first_wait=30_000, longest_wait=3_600_000, forget=86_400_000)
NOW = 1_767_225_600_000
AT = datetime(2026, 1, 1, tzinfo=UTC)
OWNER, PRINCIPAL, DEVICE = UUID(int=1), UUID(int=2), UUID(int=3)
SECRET = b"s" * 32


@pytest.mark.case("auth-22")
def test_the_wait_doubles_from_thirty_seconds_to_an_hour_and_then_all_is_shut() -> None:
    state, now, waits = State(), NOW, []
    for _ in range(100):
        assert attempts.wait_left(state, RULE, now) == 0
        state = attempts.counted(state, RULE, now)
        waits.append(attempts.wait_left(state, RULE, now) // 1000)
        now = max(now, state.until)
    assert waits[:9] == [0] * 9
    assert waits[9:17] == [30, 60, 120, 240, 480, 960, 1920, 3600]
    assert set(waits[17:99]) == {3600}
    assert waits[99] == 86_400


@pytest.mark.case("auth-32")
def test_a_bucket_is_empty_after_a_day_without_an_attempt() -> None:
    full = State(tries=100, until=NOW + RULE.forget, last=NOW)
    assert attempts.wait_left(full, RULE, NOW + RULE.forget - 1) == 1
    assert attempts.wait_left(full, RULE, NOW + RULE.forget) == 0
    assert attempts.counted(full, RULE, NOW + RULE.forget) == State(1, 0, NOW + RULE.forget)


def test_what_was_never_looked_at_is_taken_back() -> None:
    state = State(tries=9, last=NOW)
    assert attempts.returned(attempts.counted(state, RULE, NOW), RULE) == state
    assert attempts.returned(State(), RULE) == State()


@pytest.mark.parametrize(
    ("address", "near", "wide"),
    [
        ("192.0.2.7", "192.0.2.7/32", "192.0.2.0/24"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64", "2001:db8:1::/48"),
        ("", "", ""),
        (None, "", ""),
        ("unix:", "", ""),
    ],
)
def test_an_address_stands_for_what_one_client_has(address: str | None, near: str, wide: str) -> None:
    assert attempts.network_of(address) == near
    assert attempts.network_of(address, wide=True) == wide


def test_a_device_is_known_for_ninety_days_to_its_principal_alone_and_as_long_as_the_password() -> None:
    trust = Trust(OWNER, PRINCIPAL, 3)
    token = device_token.make(DEVICE, trust, AT, SECRET)
    late = AT + timedelta(days=90)
    assert device_token.read(token, trust, late - timedelta(seconds=1), SECRET) == DEVICE
    assert device_token.read(token, trust, late, SECRET) is None
    assert device_token.read(token, replace(trust, principal=UUID(int=9)), AT, SECRET) is None
    assert device_token.read(token, replace(trust, owner=UUID(int=9)), AT, SECRET) is None
    assert device_token.read(token, replace(trust, password_version=4), AT, SECRET) is None
    assert device_token.read(token, trust, AT, b"x" * 32) is None


def test_a_network_is_known_to_its_principal_alone_and_as_long_as_the_password() -> None:
    trust = Trust(OWNER, PRINCIPAL, 3)
    others = [
        replace(trust, principal=UUID(int=9)),
        replace(trust, owner=UUID(int=9)),
        replace(trust, password_version=4),
    ]
    keys = {attempts.network_key(SECRET, each, "192.0.2.1/32") for each in [trust, trust, *others]}
    assert len(keys) == 4


@pytest.mark.parametrize("token", ["", "gfdt_", "gfdt_!!", "gfrt_AAAA", "gfdt_" + "A" * 69])
def test_what_is_no_device_token_is_no_device(token: str) -> None:
    assert device_token.read(token, Trust(OWNER, PRINCIPAL, 3), AT, SECRET) is None
