"""Owns subscriptions: the states one goes through, and its price, plan and anchor as they were agreed."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from uuid import UUID

from libs import errors
from libs.money import Money
from services.billing.domain.periods import Interval, Period, Schedule


class SubscriptionState(Enum):
    """State of a subscription."""

    INCOMPLETE = "incomplete"
    TRIALING = "trialing"
    ACTIVE = "active"
    PAST_DUE = "past_due"
    ENDED = "ended"


RUNNING = frozenset({SubscriptionState.TRIALING, SubscriptionState.ACTIVE, SubscriptionState.PAST_DUE})

_ALLOWED = {
    SubscriptionState.INCOMPLETE: {SubscriptionState.TRIALING, SubscriptionState.ACTIVE, SubscriptionState.ENDED},
    SubscriptionState.TRIALING: {SubscriptionState.ACTIVE, SubscriptionState.PAST_DUE, SubscriptionState.ENDED},
    SubscriptionState.ACTIVE: {SubscriptionState.ACTIVE, SubscriptionState.PAST_DUE, SubscriptionState.ENDED},
    SubscriptionState.PAST_DUE: {SubscriptionState.ACTIVE, SubscriptionState.ENDED},
    SubscriptionState.ENDED: set(),
}


@dataclass(frozen=True)
class Subscription:
    """A reader's subscription. Price, plan and features are what was agreed, whatever the catalogue says later."""

    id: UUID
    subject_id: UUID
    product_id: UUID
    plan_id: UUID
    price_id: UUID
    connection_id: UUID
    state: SubscriptionState
    description: str
    features: tuple[str, ...]
    amount: Money
    interval: Interval
    interval_count: int
    anchor: datetime
    trial_start: datetime | None
    zone: str
    created_at: datetime
    period_number: int = 0
    """Number of the running period; 0 before the first."""
    period: Period | None = None
    payment_method_id: UUID | None = None
    charge_at: datetime | None = None
    """When the next period is charged for, or charged again; None when no charge is to come."""
    ended_at: datetime | None = None
    end_reason: str | None = None
    sequence: int = 0

    @property
    def schedule(self) -> Schedule:
        """When its periods begin and end."""
        return Schedule(self.anchor, self.zone, self.interval, self.interval_count, self.trial_start)

    @property
    def next_number(self) -> int:
        """Number of the period that is paid for next."""
        return self.period_number + 1


def begin_period(subscription: Subscription, number: int) -> Subscription:
    """Returns the subscription with this period running, paid or on trial."""
    if number != subscription.next_number:
        raise errors.precondition("period_out_of_order", "Periods are begun one after another.")
    trial = number == 1 and subscription.trial_start is not None
    changed = _to(subscription, SubscriptionState.TRIALING if trial else SubscriptionState.ACTIVE)
    period = subscription.schedule.period(number)
    return replace(changed, period_number=number, period=period, charge_at=period.end)


def fall_past_due(subscription: Subscription, charge_at: datetime | None) -> Subscription:
    """Returns the subscription with a payment overdue, and when it is charged again, if it is."""
    if subscription.state is SubscriptionState.PAST_DUE:
        return replace(subscription, charge_at=charge_at)
    return replace(_to(subscription, SubscriptionState.PAST_DUE), charge_at=charge_at)


def end(subscription: Subscription, reason: str, at: datetime) -> Subscription:
    """Returns the subscription ended for this reason."""
    return replace(_to(subscription, SubscriptionState.ENDED), ended_at=at, end_reason=reason, charge_at=None)


def access_until(subscription: Subscription, grace: timedelta) -> datetime | None:
    """Returns until when access holds unless a later event says otherwise; None before the first period."""
    if subscription.period is None:
        return None
    until = subscription.period.end + grace
    if subscription.ended_at is not None:
        return min(until, subscription.ended_at)
    return until


def _to(subscription: Subscription, state: SubscriptionState) -> Subscription:
    if state not in _ALLOWED[subscription.state]:
        raise errors.precondition(
            "subscription_state",
            f"A subscription that is {subscription.state.value} cannot become {state.value}.",
        )
    return replace(subscription, state=state)
