"""Shows the states of a subscription, its access and what follows an unpaid renewal."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from libs.errors import GatefoldError
from libs.money import Money
from services.billing.domain import dunning
from services.billing.domain import subscription as subscriptions
from services.billing.domain.dunning import EndAt, RetryAt
from services.billing.domain.periods import Interval
from services.billing.domain.subscription import Subscription, SubscriptionState

AT = datetime(2026, 1, 31, 9, tzinfo=UTC)
GRACE = timedelta(days=3)


def incomplete(*, trial: bool = False) -> Subscription:
    """A monthly subscription that awaits its first payment."""
    return Subscription(
        id=UUID(int=1),
        subject_id=UUID(int=2),
        product_id=UUID(int=3),
        plan_id=UUID(int=4),
        price_id=UUID(int=5),
        connection_id=UUID(int=6),
        state=SubscriptionState.INCOMPLETE,
        description="Paper, monthly",
        features=("premium",),
        amount=Money(990, "EUR"),
        interval=Interval.MONTH,
        interval_count=1,
        anchor=AT,
        trial_start=AT - timedelta(days=14) if trial else None,
        zone="UTC",
        created_at=AT,
    )


def test_first_payment_begins_the_first_period() -> None:
    active = subscriptions.begin_period(incomplete(), 1)
    assert active.state is SubscriptionState.ACTIVE
    assert active.period is not None
    assert active.period.end == active.charge_at == datetime(2026, 2, 28, 9, tzinfo=UTC)


def test_a_trial_comes_first_and_is_charged_at_its_end() -> None:
    trialing = subscriptions.begin_period(incomplete(trial=True), 1)
    assert (trialing.state, trialing.charge_at) == (SubscriptionState.TRIALING, AT)
    assert subscriptions.begin_period(trialing, 2).state is SubscriptionState.ACTIVE


def test_no_period_is_left_out_or_begun_twice() -> None:
    active = subscriptions.begin_period(incomplete(), 1)
    for number in (1, 3):
        with pytest.raises(GatefoldError, match="period_out_of_order"):
            subscriptions.begin_period(active, number)


def test_paying_late_does_not_shift_the_anchor() -> None:
    late = subscriptions.fall_past_due(subscriptions.begin_period(incomplete(), 1), None)
    paid = subscriptions.begin_period(late, 2)
    assert paid.period is not None
    assert paid.period.end == datetime(2026, 3, 31, 9, tzinfo=UTC)


def test_an_ended_subscription_stays_ended() -> None:
    ended = subscriptions.end(subscriptions.begin_period(incomplete(), 1), "payment_failed", AT)
    for change in (
        lambda: subscriptions.begin_period(ended, 2),
        lambda: subscriptions.fall_past_due(ended, None),
        lambda: subscriptions.end(ended, "again", AT),
    ):
        with pytest.raises(GatefoldError, match="subscription_state"):
            change()


def test_access_lasts_through_the_grace_and_ends_with_the_subscription() -> None:
    active = subscriptions.begin_period(incomplete(), 1)
    assert subscriptions.access_until(incomplete(), GRACE) is None
    assert subscriptions.access_until(active, GRACE) == datetime(2026, 3, 3, 9, tzinfo=UTC)
    ended = replace(active, ended_at=datetime(2026, 3, 1, tzinfo=UTC))
    assert subscriptions.access_until(ended, GRACE) == datetime(2026, 3, 1, tzinfo=UTC)


def test_a_decline_is_tried_again_after_one_three_and_five_days_and_then_ends() -> None:
    steps = []
    now = AT
    for attempt in (1, 2, 3, 4):
        step = dunning.after_failure(AT, attempt, "card_declined", "insufficient_funds", now)
        steps.append(step)
        now = step.at
    assert steps == [
        RetryAt(AT + timedelta(days=1)),
        RetryAt(AT + timedelta(days=3)),
        RetryAt(AT + timedelta(days=5)),
        EndAt(AT + timedelta(days=5)),
    ]


@pytest.mark.parametrize(("reason", "code"), [("authentication_required", None), ("card_declined", "stolen_card")])
def test_what_the_reader_must_mend_is_not_charged_again(reason: str, code: str | None) -> None:
    assert dunning.after_failure(AT, 1, reason, code, AT) == EndAt(AT + timedelta(days=5))


def test_a_charge_that_comes_late_leaves_a_day_before_the_next() -> None:
    late = AT + timedelta(days=30)
    assert dunning.after_failure(AT, 1, "card_declined", None, late) == RetryAt(late + timedelta(days=1))
    assert dunning.after_failure(AT, 1, "authentication_required", None, late) == EndAt(late + timedelta(days=1))
