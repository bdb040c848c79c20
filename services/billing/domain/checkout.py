"""Owns checkouts: a reader's way to a subscription, whose state follows from its payment and subscription."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from uuid import UUID

from services.billing.domain.payment import BEFORE_ANSWER, Payment, PaymentState
from services.billing.domain.subscription import Subscription, SubscriptionState

LIFETIME = timedelta(hours=24)


class CheckoutState(Enum):
    """State of a checkout, with the numbers of gatefold.billing.v1.CheckoutState."""

    PREPARING = 1
    AWAITING_PAYMENT = 2
    AWAITING_AUTHENTICATION = 3
    PROCESSING = 4
    COMPLETE = 5
    EXPIRED = 6


@dataclass(frozen=True)
class Checkout:
    """One checkout; its payment's kind says whether something is due now or a card is stored."""

    id: UUID
    subject_id: UUID
    subscription_id: UUID
    invoice_id: UUID
    payment_id: UUID
    created_at: datetime
    expires_at: datetime
    completed_at: datetime | None = None


def state_of(checkout: Checkout, payment: Payment, subscription: Subscription) -> CheckoutState:
    """Returns how the checkout stands."""
    # A subscription that ran and ended later was paid for all the same.
    if checkout.completed_at is not None:
        return CheckoutState.COMPLETE
    if subscription.state is SubscriptionState.ENDED:
        return CheckoutState.EXPIRED
    if payment.state in BEFORE_ANSWER:
        return CheckoutState.PREPARING
    if payment.state is PaymentState.REQUIRES_ACTION:
        return CheckoutState.AWAITING_AUTHENTICATION
    if payment.state is PaymentState.PROCESSING:
        return CheckoutState.PROCESSING
    return CheckoutState.AWAITING_PAYMENT
