"""Which rights a subscription gives, when they hold, and what the paywall answers."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.errors import GatefoldError
from services.subscriber.domain.entitlement import (
    Entitlement,
    Grant,
    active_features,
    checked_feature,
    decide,
    regranted,
)

NOW = datetime(2026, 1, 15, tzinfo=UTC)
DAY = timedelta(days=1)
SUB = UUID(int=1)


def right(begin: int, end: int | None, feature: str = "premium", subscription: UUID | None = SUB) -> Entitlement:
    return Entitlement(feature, subscription, NOW + begin * DAY, None if end is None else NOW + end * DAY)


def test_a_right_holds_from_its_beginning_until_before_its_end() -> None:
    assert right(0, 1).active(NOW)
    assert not right(-1, 0).active(NOW)
    assert not right(1, 2).active(NOW)
    assert right(-1, None).active(NOW)


def test_the_longest_right_that_holds_counts() -> None:
    assert decide([right(-1, 1), right(-1, 3), right(-9, -1)], NOW).until == NOW + 3 * DAY
    free = decide([right(-1, 1), right(-1, None, subscription=None)], NOW)
    assert (free.allowed, free.reason, free.until) == (True, "entitled", None)


def test_the_refusal_tells_an_expired_right_from_none() -> None:
    assert decide([], NOW).reason == "no_entitlement"
    assert decide([right(-2, -1)], NOW).reason == "expired"
    assert decide([right(1, 2)], NOW).reason == "no_entitlement"


def test_a_renewal_moves_the_end_and_keeps_the_beginning() -> None:
    assert regranted([right(-30, 0)], Grant(SUB, ("premium",), NOW, NOW + 30 * DAY), NOW) == [right(-30, 30)]


def test_another_subscriptions_rights_are_left_alone() -> None:
    other = right(-1, 5, subscription=UUID(int=2))
    assert regranted([other], Grant(SUB, ("premium",), NOW, NOW + DAY), NOW) == [right(0, 1)]


def test_a_feature_that_is_dropped_ends_now_unless_it_ended_before() -> None:
    before = [right(-9, 9, "archive"), right(-9, -2, "podcast")]
    after = regranted(before, Grant(SUB, ("premium",), NOW, NOW + DAY), NOW)
    assert after == [right(0, 1), right(-9, 0, "archive"), right(-9, -2, "podcast")]


GRANTS = st.builds(
    Grant,
    st.just(SUB),
    st.lists(st.sampled_from(["a", "b", "c"]), max_size=4).map(tuple),
    st.integers(-50, 50).map(lambda days: NOW + days * DAY),
    st.integers(-50, 50).map(lambda days: NOW + days * DAY),
)


@given(st.lists(GRANTS, min_size=1, max_size=5))
def test_grants_repeat_harmlessly_and_no_right_ends_before_it_begins(grants: list[Grant]) -> None:
    held: list[Entitlement] = []
    for grant in grants:
        held = regranted(held, grant, NOW)
        assert sorted(regranted(held, grant, NOW), key=repr) == sorted(held, key=repr)
        assert all(one.active_until is not None and one.active_until >= one.active_from for one in held)
        assert len({one.feature for one in held}) == len(held)
        assert set(active_features(held, NOW)) <= set(grant.features)


@pytest.mark.parametrize("feature", ["", "A", "a b", "a,b", "ü", "a" * 81])
def test_a_name_no_feature_can_have_is_refused(feature: str) -> None:
    assert checked_feature("a-z_0.9") == "a-z_0.9"
    with pytest.raises(GatefoldError):
        checked_feature(feature)
