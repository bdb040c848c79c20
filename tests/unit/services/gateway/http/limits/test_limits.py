"""Which limits count, the limiter of one process, what a gateway holds of counters, places in flight."""

from typing import Any, cast
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.caller import Caller, CallerKind
from services.gateway.config import GatewayConfig
from services.gateway.domain import quotas as names
from services.gateway.domain.bundle import Override, Quota
from services.gateway.http.limits import Away, LocalLimiter, Quotas
from services.gateway.http.limits.decision import UNKNOWN, Decision, State
from services.gateway.http.limits.held import Held
from services.gateway.http.limits.holdings import Asking, Holdings
from services.gateway.http.limits.in_flight import InFlight
from services.gateway.http.limits.limit import Limit
from services.gateway.http.limits.refusal import Refusal
from tests.support.rates import Microseconds


def limit(amount: int = 10, seconds: int = 60, **rest: Any) -> Limit:
    return Limit("read-server", "k", amount, seconds, **rest)


# -- quotas -----------------------------------------------------------------------------------------------------------


def test_an_override_is_one_accounts_and_ends_with_its_time() -> None:
    clock, account = Microseconds(0), uuid4()
    override = Override(account, Quota("read.server", 7, 60))
    quotas = Quotas({}, overrides=[(override, 10.0)], monotonic=clock)
    mine = Caller(kind=CallerKind.SECRET_KEY, actor="key_1", account=account)
    other = Caller(kind=CallerKind.SECRET_KEY, actor="key_2", account=uuid4())

    def amount(caller: Caller) -> int:
        return quotas.of("read", caller, "203.0.113.1").limits[0].amount

    assert (amount(mine), amount(other)) == (7, 6000)
    clock.now = 10_000_000
    assert amount(mine) == 6000


def test_an_override_by_address_counts_apart_from_what_others_do_there() -> None:
    account, name = uuid4(), "route:/gatefold.billing.v1.CatalogueService/ListOffers.address"
    quotas = Quotas({}, quotas=[Quota(name, 5, 60)], overrides=[(Override(account, Quota(name, 9, 60)), float("inf"))])
    keys = {
        quotas.of(
            "read",
            Caller(kind=CallerKind.SECRET_KEY, actor="key_1", account=one),
            "203.0.113.1",
            rpc="/gatefold.billing.v1.CatalogueService/ListOffers",
        )
        .limits[-1]
        .key
        for one in (account, uuid4())
    }
    assert len(keys) == 2


def test_strict_classes_and_what_holds_without_the_store_are_of_the_class() -> None:
    quotas = Quotas({}, away={"strict": Away.CLOSED, "webhook": Away.OPEN})
    anonymous = Caller(kind=CallerKind.ANONYMOUS, actor="anonymous")
    found = {rate: quotas.of(rate, anonymous, "203.0.113.1").limits[0] for rate in names.RATE_CLASSES}
    assert {rate: one.away for rate, one in found.items() if one.away is not Away.LOCAL} == {
        "strict": Away.CLOSED,
        "webhook": Away.OPEN,
    }
    assert [rate for rate, one in found.items() if one.strict] == ["strict"]
    with pytest.raises(ValueError, match="sometimes"):
        Quotas({}, away={"sometimes": Away.OPEN})


@pytest.mark.parametrize("text", ["[]", "{", '{"read":"perhaps"}', '{"read":1}'])
def test_a_policy_that_is_none_is_refused_at_the_start(text: str) -> None:
    settings = cast("GatewayConfig", type("Settings", (), {"rate_store_away": text})())
    with pytest.raises(ValueError, match=r"rate_store_away|read"):
        GatewayConfig.away(settings)


# -- one process ------------------------------------------------------------------------------------------------------


def test_the_local_limiter_keeps_what_was_used_when_a_quota_changes() -> None:
    clock = Microseconds()
    limiter = LocalLimiter(clock)
    assert [limiter.decide([limit(10)], 1).admitted for _ in range(10)] == [True] * 10
    assert [limiter.decide([limit(12)], 1).admitted for _ in range(3)] == [True, True, False]
    clock.now += 30_000_000
    assert [limiter.decide([limit(2)], 1).admitted for _ in range(2)] == [False, False], "a whole quota is owed"
    clock.now += 30_000_000
    assert limiter.decide([limit(2)], 1).admitted


def test_the_local_limiter_refuses_nobody_for_a_limit_in_shadow() -> None:
    limiter = LocalLimiter(Microseconds())
    shadow, wide = limit(2, shadow=True), Limit("read-account", "wide", 4, 60)
    decisions = [limiter.decide([shadow, wide], 1) for _ in range(5)]
    assert [decision.admitted for decision in decisions] == [True] * 4 + [False]
    assert [bool(decision.shadowed) for decision in decisions] == [False, False, True, True, True]


# -- holdings ---------------------------------------------------------------------------------------------------------


def asked(holdings: Holdings, one: Limit, now: int) -> Asking:
    asking = holdings.decide([one], 1, now)
    assert isinstance(asking, Asking)
    return asking


def test_a_gateway_asks_for_one_lease_at_a_time() -> None:
    holdings, one = Holdings(5_000_000), limit(1000)
    asked(holdings, one, 0).answered([60_000, 0, 0], 0)
    waiting = [asked(holdings, one, 10) for _ in range(3)]
    assert [asking.missing[0].want > 0 for asking in waiting] == [True, False, False]
    waiting[0].unanswered(Decision([one], [State(0, 0)]))
    assert asked(holdings, one, 20).missing[0].want > 0, "a question without an answer has ended"


def test_a_lease_is_no_more_than_a_twentieth_and_what_comes_back_while_it_holds() -> None:
    for amount, seconds, most in ((1000, 10, 50), (1000, 1000, 5), (19, 1, 0), (1000, 10_000, 0)):
        holdings, one = Holdings(5_000_000), limit(amount, seconds)
        wants = []
        for now in range(0, 4_000_000, 1_000):
            asking = holdings.decide([one], 1, now)
            assert isinstance(asking, Asking)
            wants.append(asking.missing[0].want)
            asking.answered([0, 0, 0], now)
        assert max(wants) == most


def test_a_quota_that_is_used_seldom_is_not_leased() -> None:
    holdings, one = Holdings(5_000_000), limit(6000)
    for now in range(0, 200_000_000, 6_000_000):
        asking = asked(holdings, one, now)
        assert asking.missing[0].want == 0
        asking.answered([0, 0, 0], now)


def test_units_that_are_given_back_are_less_by_what_came_back_meanwhile() -> None:
    for later, back in ((0, 1_000_000), (400_000, 600_000), (1_000_000, None), (5_000_001, None)):
        holdings, one = Holdings(5_000_000), limit(1000, 100)
        asked(holdings, one, 0).answered([100_000, 0, 0], 0)
        asked(holdings, one, 0).answered([1_200_000, 0, 10], 0)
        assert holdings.unspent(later) == ([] if back is None else [("k", 100_000, back)])
        assert holdings.unspent(later) == [], "once"


def lease(holdings: Holdings, one: Limit, now: int = 0) -> None:
    asked(holdings, one, now).answered([0, 0, 0], now)
    asked(holdings, one, now).answered([0, 0, 10], now)


def bound(holdings: Holdings, *limits: Limit) -> Held:
    held = Held(limits, ())
    holdings.bind(held)
    return held


def test_what_leases_suffice_for_is_let_through_and_told_without_being_looked_up() -> None:
    holdings, one, shadow = Holdings(5_000_000), limit(1000, 100), Limit("read-account", "s", 500, 100, shadow=True)
    for each in (one, shadow):
        lease(holdings, each)
    held = bound(holdings, one, shadow)
    told = held.spend(3, 0)
    assert told == Decision([one, shadow], [State(0, 0), State(0, 0)]).headers() | {
        "RateLimit": '"read-server";r=1000;t=0'
    }
    assert held.spend(8, 0) is None, "of either there are seven"
    assert [held.spend(1, 0) is None for _ in range(8)] == [False] * 7 + [True]


def test_a_lease_is_over_when_its_time_is_and_when_it_was_given_back() -> None:
    for over in ("expired", "given back"):
        holdings, one = Holdings(5_000_000), limit(1000, 100)
        lease(holdings, one)
        held = bound(holdings, one)
        assert held.spend(1, 4_999_999) is not None
        if over == "given back":
            holdings.unspent(0)
            assert held.spend(1, 0) is None
        assert held.spend(1, 5_000_000) is None


def test_nothing_is_spent_of_what_was_forgotten_or_dropped_or_is_of_another_quota(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.gateway.http.limits.holdings._MOST_KEYS", 1)
    for what in ("forgotten", "crowded out", "another quota"):
        holdings, one = Holdings(5_000_000), limit(1000, 100)
        lease(holdings, one)
        held = bound(holdings, one)
        assert held.spend(1, 0) is not None
        waiting = holdings.decide([one], 20, 0)
        if what == "forgotten":
            holdings.forget()
        elif what == "crowded out":
            asked(holdings, Limit("read-server", "other", 1000, 100), 0)
        else:
            asked(holdings, limit(500, 100), 0)
        assert isinstance(waiting, Asking)
        waiting.answered([0, 0, 10], 0)
        assert held.spend(1, 0) is None, what


def test_a_new_lease_is_found_where_an_old_one_was() -> None:
    holdings, one = Holdings(5_000_000), limit(1000, 100)
    held = bound(holdings, one)
    assert held.spend(1, 0) is None
    lease(holdings, one)
    assert held.spend(1, 0) is None, "it was not known of when it was looked for"
    holdings.bind(held)
    assert held.spend(1, 0) is not None
    asked(holdings, limit(500, 100), 0)
    lease(holdings, one)
    assert held.spend(1, 0) is None
    holdings.bind(held)
    assert held.spend(1, 0) is not None


def test_a_request_without_limits_waits_for_nobody() -> None:
    assert Held((), ()).spend(1, 0) == {}


def test_what_a_gateway_knows_of_counters_is_bounded() -> None:
    holdings = Holdings(0)
    for number in range(50_010):
        holdings.decide([Limit("read-server", str(number), 5, 60)], 1, 0)
    assert len(holdings) == 50_000


# -- headers ----------------------------------------------------------------------------------------------------------


def test_headers_tell_neither_of_shadow_nor_of_what_was_not_asked() -> None:
    shadow, other = limit(shadow=True), Limit("read-account", "a", 5, 60)
    assert Decision([shadow, other], [State(0, 7), UNKNOWN]).headers() == {
        "RateLimit-Policy": '"read-account";q=5;w=60'
    }
    assert Decision([shadow], [State(0, 7)]).headers() == {}
    assert Decision([other], [State(24_000_001, 0)]).headers()["RateLimit"] == '"read-account";r=2;t=25'


@given(
    st.lists(st.tuples(st.integers(1, 50), st.sampled_from([1, 10, 400]), st.integers(1, 3)), min_size=1, max_size=3),
    st.lists(st.sampled_from([1, 40_000, 333_333, 1_000_000]), min_size=1, max_size=20),
)
def test_what_a_refusal_says_is_as_of_now_each_time(quotas: list[tuple[int, int, int]], steps: list[int]) -> None:
    limits = [Limit(f"read-{n}", str(n), amount, seconds) for n, (amount, seconds, _) in enumerate(quotas)]
    states = [State(one.tolerance, wait * 700_000) for one, (_, _, wait) in zip(limits, quotas, strict=True)]
    decision = Decision(limits, states, refused_until=1_000_700_000)
    kept, now = Refusal(decision, 1, 1_000_000_000), 1_000_000_000
    for step in steps:
        now += step
        assert kept.headers(now) == Refusal(decision, 1, 1_000_000_000).headers(now)


# -- in flight --------------------------------------------------------------------------------------------------------


def test_places_are_taken_in_all_limits_or_in_none_and_given_back() -> None:
    flight, one, wide = InFlight(), limit(2), Limit("read-account", "wide", 3, 60)
    places = flight.places([wide, one])
    assert [places.take() for _ in range(3)] == [True, True, False]
    assert places.full() == [one]
    assert flight.places([wide]).take(), "the third place there was left"
    places.leave()
    assert places.full() == []
    assert places.take()
    assert places.full() == [wide, one]


def test_those_under_way_count_together_by_whatever_quota_and_nothing_is_kept_of_who_has_left() -> None:
    flight, one = InFlight(), limit(2)
    before = flight.places([one])
    assert before.take()
    after = flight.places([limit(1)])
    assert after.full() == [limit(1)]
    assert not after.take()
    after.squeeze()  # in shadow
    assert before.full() == [one]
    assert len(flight) == 1
    del before
    after.leave()
    assert after.full() == [limit(1)], "the first one is still under way"
    after.leave()
    assert len(flight) == 0
    del after
    assert not flight.places([one]).full()
