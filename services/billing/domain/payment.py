"""Owns payments: how what the provider says moves one, whatever the order it arrives in."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from uuid import UUID

from libs import errors
from libs.money import Money


class PaymentState(Enum):
    """State of a payment; the last three are final, but for money that came in all the same."""

    RESERVED = "reserved"
    """Written down; the provider has not been asked yet, as far as is known."""
    UNKNOWN = "unknown"
    """The provider was asked and the answer was lost; never counted as failed."""
    CALLED = "called"
    """The provider has it and waits for the reader."""
    REQUIRES_ACTION = "requires_action"
    """The bank asks the reader to prove themselves (3-D Secure)."""
    PROCESSING = "processing"
    """The bank has not answered yet."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class PaymentKind(Enum):
    """What the provider is asked for."""

    PAYMENT = "payment"
    """Money now (a PaymentIntent)."""
    SETUP = "setup"
    """A card for later (a SetupIntent)."""


FINAL = frozenset({PaymentState.SUCCEEDED, PaymentState.FAILED, PaymentState.CANCELLED})
BEFORE_ANSWER = frozenset({PaymentState.RESERVED, PaymentState.UNKNOWN})
# Breaks ties between observations of the same second; what is further along wins.
_RANK = {state: rank for rank, state in enumerate(PaymentState)}

# https://docs.stripe.com/api/payment_intents/object#payment_intent_object-status, and the same for SetupIntents.
_BY_PROVIDER_STATUS = {
    "requires_payment_method": PaymentState.CALLED,
    "requires_confirmation": PaymentState.CALLED,
    "requires_action": PaymentState.REQUIRES_ACTION,
    "processing": PaymentState.PROCESSING,
    "succeeded": PaymentState.SUCCEEDED,
    "canceled": PaymentState.CANCELLED,
}


@dataclass(frozen=True)
class Payment:
    """One try to collect an invoice or to store a card."""

    id: UUID
    invoice_id: UUID
    subscription_id: UUID
    subject_id: UUID
    connection_id: UUID
    kind: PaymentKind
    amount: Money
    state: PaymentState
    off_session: bool
    attempt: int
    created_at: datetime
    provider_intent: str | None = None
    provider_customer: str | None = None
    provider_method: str | None = None
    client_secret_sealed: bytes | None = None
    error_reason: str | None = None
    decline_code: str | None = None
    observed_second: int = 0
    """Second of the newest observation that was taken, by the provider's clock; 0 for none."""
    observed_event: str = ""
    sequence: int = 0

    @property
    def vendor_key(self) -> str:
        """Idempotency key that the provider is asked with; the same however often it is asked."""
        return f"gatefold-{self.id}"


@dataclass(frozen=True)
class Observation:
    """What the provider said about an intent at a second of its own clock."""

    intent: str
    status: str
    second: int
    event: str = ""
    """Identifier of the event; empty for an answer to a call."""
    amount: Money | None = None
    method: str | None = None
    error_reason: str | None = None
    decline_code: str | None = None
    client_secret: str | None = None


def observe(payment: Payment, seen: Observation) -> Payment | None:
    """Returns the payment after an observation, or None where it changes nothing.

    The result does not depend on the order of observations: money that came in beats everything, then a cancelled
    intent, then the newest second, then the state that is further along, then the event's name.
    Raises `precondition("intent_foreign")` for an intent that is not this payment's and
    `precondition("amount_mismatch")` for one of another amount.
    """
    if payment.provider_intent is not None and payment.provider_intent != seen.intent:
        raise errors.precondition("intent_foreign", "This intent belongs to another payment.")
    if seen.amount is not None and seen.amount != payment.amount:
        raise errors.precondition("amount_mismatch", "The provider's amount is not the payment's.")
    state = _state(payment, seen)
    if payment.state is PaymentState.SUCCEEDED or not _newer(payment, state, seen):
        if payment.provider_intent is not None:
            return None
        # Whatever else is older, which intent it is was not known before.
        return replace(payment, provider_intent=seen.intent)
    return replace(
        payment,
        state=state,
        provider_intent=seen.intent,
        provider_method=seen.method or payment.provider_method,
        error_reason=_reason(state, seen),
        decline_code=seen.decline_code,
        observed_second=max(payment.observed_second, seen.second),
        observed_event=seen.event,
    )


def _state(payment: Payment, seen: Observation) -> PaymentState:
    state = _BY_PROVIDER_STATUS.get(seen.status)
    if state is None:
        raise errors.precondition("status_unknown", "The provider's status is not known here.")
    # Nobody is there to try another card or to prove themselves: an off-session try that needs them is over.
    if payment.off_session and state in {PaymentState.CALLED, PaymentState.REQUIRES_ACTION}:
        return PaymentState.FAILED
    return state


def _reason(state: PaymentState, seen: Observation) -> str | None:
    if state is not PaymentState.FAILED or seen.error_reason is not None:
        return seen.error_reason
    return "authentication_required" if seen.status == "requires_action" else "card_declined"


def _newer(payment: Payment, state: PaymentState, seen: Observation) -> bool:
    if state is PaymentState.SUCCEEDED:
        return True
    if payment.state in FINAL:
        return False
    if state is PaymentState.CANCELLED or payment.state in BEFORE_ANSWER:
        return True
    return (seen.second, _RANK[state], seen.event) > (
        payment.observed_second,
        _RANK[payment.state],
        payment.observed_event,
    )


def lose(payment: Payment) -> Payment:
    """Returns the payment after a call whose answer was lost."""
    return replace(payment, state=PaymentState.UNKNOWN) if payment.state is PaymentState.RESERVED else payment


def refuse(payment: Payment, reason: str, decline_code: str | None = None) -> Payment:
    """Returns the payment after the provider refused to begin it."""
    if payment.state in FINAL:
        return payment
    return replace(payment, state=PaymentState.FAILED, error_reason=reason, decline_code=decline_code)
