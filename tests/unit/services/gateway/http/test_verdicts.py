"""Verdicts as a gateway holds them: which counts, until when, and what a later state does to an earlier one."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from gatefold.activity.v1 import activity_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from libs import errors
from libs.activity import Pseudonyms
from libs.errors import GatefoldError
from libs.telemetry import Telemetry
from services.gateway.http.verdicts import Verdicts

BEGAN = datetime(2026, 11, 1, tzinfo=UTC)
PSEUDONYMS = Pseudonyms("a pepper for tests")
BLOCK, CHALLENGE = activity_pb2.Verdict.ACTION_BLOCK, activity_pb2.Verdict.ACTION_CHALLENGE
THROTTLE, REVOKE = activity_pb2.Verdict.ACTION_THROTTLE, activity_pb2.Verdict.ACTION_REVOKE
HERE = [
    (scope, PSEUDONYMS.of(scope, text))
    for scope, text in (("address", "192.0.2.1"), ("network", "192.0.2.0/24"), ("user_agent", "curl"))
]


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.time = BEGAN

    def wall(self) -> datetime:
        return self.time

    def move(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


def verdict(
    name: str = "verdict_1",
    scope: str = "address",
    text: str = "192.0.2.1",
    action: Any = BLOCK,
    seconds: float = 60,
    revision: int = 1,
    **rest: Any,
) -> activity_pb2.Verdict:
    made = activity_pb2.Verdict(
        id=name,
        scope=scope,
        entity_hash=PSEUDONYMS.of(scope, text),
        action=action,
        revision=revision,
        reasons=["stuffing"],
        **rest,
    )
    made.expires_at.FromDatetime(BEGAN + timedelta(seconds=seconds))
    return made


def held(clock: Clock, *verdicts: activity_pb2.Verdict, fetch: Any = None, **rest: Any) -> Verdicts:
    store: Any = None
    found = Verdicts(store, fetch, clock=clock, monotonic=lambda: 0.0, telemetry=Telemetry("tests"), **rest)
    found.apply(verdicts)
    return found


def action(verdicts: Verdicts, account: str = "", known: Sequence[tuple[str, bytes]] = HERE) -> str:
    found = verdicts.of(known, account)
    return found.action if found else ""


@pytest.mark.parametrize(
    ("scope", "text"), [("address", "192.0.2.1"), ("network", "192.0.2.0/24"), ("user_agent", "curl")]
)
def test_a_verdict_is_found_by_what_it_is_about(scope: str, text: str) -> None:
    found = held(Clock(), verdict(scope=scope, text=text)).of(HERE)

    assert found is not None
    assert (found.id, found.action, found.reasons) == ("verdict_1", "block", ("stuffing",))
    assert held(Clock(), verdict(scope=scope, text="another")).of(HERE) is None
    assert held(Clock(), verdict(scope="target", text=text)).of(HERE) is None


def test_a_verdict_ends_by_the_clock() -> None:
    clock = Clock()
    found = held(clock, verdict(seconds=60))
    clock.move(59.9)
    assert action(found) == "block"
    clock.move(0.1)
    assert action(found) == ""
    found.apply([])
    assert len(found) == 0


def test_the_strictest_counts_and_shadow_ones_last() -> None:
    found = held(Clock(), verdict("a", action=THROTTLE), verdict("b", "network", "192.0.2.0/24", CHALLENGE))
    assert action(found) == "challenge"
    found.apply([verdict("c", action=REVOKE, shadow=True)])
    assert action(found) == "challenge"
    found.apply([verdict("d", "user_agent", "curl", BLOCK)])
    assert action(found) == "block"
    shadow = held(Clock(), verdict(shadow=True)).of(HERE)
    assert shadow is not None
    assert shadow.shadow


def test_a_verdict_of_one_account_counts_for_its_callers_alone() -> None:
    found = held(Clock(), verdict(account_id="acct_1"))

    assert [action(found, account) for account in ("", "acct_2", "acct_1")] == ["", "", "block"]


def test_what_was_taken_back_counts_no_more_in_whatever_order_it_is_told() -> None:
    taken = verdict(revision=2, revoked=True)
    assert action(held(Clock(), verdict(), taken)) == ""
    assert action(held(Clock(), taken, verdict())) == ""
    sooner = verdict(revision=2, seconds=-1)
    assert action(held(Clock(), verdict(), sooner, verdict())) == ""


def test_what_makes_no_sense_is_left_out() -> None:
    nothing = activity_pb2.Verdict.ACTION_UNSPECIFIED
    odd = [verdict(scope="planet"), verdict(action=nothing), verdict(name=""), verdict(seconds=-1)]

    assert len(held(Clock(), *odd)) == 0


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]),
            st.integers(1, 4),
            st.sampled_from([BLOCK, CHALLENGE]),
            st.booleans(),
            st.sampled_from([50.0, 100.0]),
        ),
        max_size=8,
        unique_by=lambda one: one[:2],
    ),
    st.randoms(use_true_random=False),
)
def test_any_order_ends_in_the_same_state(states: list[Any], chance: Any) -> None:
    made = [
        verdict(name, action=action, revision=revision, revoked=revoked, seconds=seconds)
        for name, revision, action, revoked, seconds in states
    ]
    latest: dict[str, Any] = {}
    for one in made:
        if one.id not in latest or latest[one.id].revision < one.revision:
            latest[one.id] = one
    expected = (
        "block"
        if any(not one.revoked and one.action == BLOCK for one in latest.values())
        else ("challenge" if any(not one.revoked for one in latest.values()) else "")
    )
    told = made * 2
    chance.shuffle(told)

    assert action(held(Clock(), *told)) == expected


def test_they_are_bounded_and_those_that_end_soonest_go_first() -> None:
    found = held(Clock(), *(verdict(str(number), seconds=60 + number) for number in range(20)), most=10)

    assert len(found) == 10
    assert {one.id for one in found._by_id.values()} == {str(number) for number in range(10, 20)}
    for revision in range(2, 500):
        found.apply([verdict("19", revision=revision, seconds=60 + revision)])
    assert len(found) == 10
    assert len(found._ends) < 200


async def test_all_are_asked_for_page_by_page() -> None:
    pages = [[verdict("a")], [verdict("b", "user_agent", "curl")]]
    asked: list[str] = []

    async def fetch(cursor: str, request_id: str) -> tuple[list[activity_pb2.Verdict], str]:
        asked.append(cursor)
        return (pages.pop(0), f"{len(asked)}") if pages else ([], cursor)

    found = held(Clock(), fetch=fetch)
    await found.catch_up()
    await found.catch_up()

    assert (len(found), asked) == (2, ["", "1", "2", "2"])


async def test_who_is_away_is_told_to_whoever_asks() -> None:
    async def away(cursor: str, request_id: str) -> Any:
        raise errors.unavailable("service_unavailable", "away")

    with pytest.raises(GatefoldError, match="service_unavailable"):
        await held(Clock(), fetch=away).catch_up()
