"""Shows that a payment ends the same in whatever order and number the provider's news arrive."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import permutations
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.errors import GatefoldError
from libs.money import Money
from services.billing.domain import payment as payments
from services.billing.domain.payment import Observation, Payment, PaymentKind, PaymentState

PRICE = Money(990, "EUR")


def reserved(*, off_session: bool = False) -> Payment:
    """A payment that the provider has not been asked for."""
    return Payment(
        id=UUID(int=1),
        invoice_id=UUID(int=2),
        subscription_id=UUID(int=3),
        subject_id=UUID(int=4),
        connection_id=UUID(int=5),
        kind=PaymentKind.PAYMENT,
        amount=PRICE,
        state=PaymentState.RESERVED,
        off_session=off_session,
        attempt=1,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def news(status: str, second: int, event: str = "evt", **more: str) -> Observation:
    """What the provider says of the payment's intent."""
    return Observation("pi_1", status, second, event, PRICE, **more)


def told(payment: Payment, *observations: Observation) -> Payment:
    """The payment after these observations."""
    for each in observations:
        payment = payments.observe(payment, each) or payment
    return payment


CREATED = news("requires_payment_method", 100, "")
DECLINED = news("requires_payment_method", 101, "evt_1", error_reason="card_declined", decline_code="do_not_honor")
CHALLENGED = news("requires_action", 102, "evt_2")
PROCESSING = news("processing", 103, "evt_3")
SUCCEEDED = news("succeeded", 104, "evt_4", method="pm_1")


@pytest.mark.case("billing-16")
def test_every_order_of_the_news_ends_in_success() -> None:
    for order in permutations((CREATED, DECLINED, CHALLENGED, PROCESSING, SUCCEEDED)):
        end = told(reserved(), *order)
        assert (end.state, end.provider_intent, end.provider_method) == (PaymentState.SUCCEEDED, "pi_1", "pm_1")
        assert (end.error_reason, end.decline_code) == (None, None)


statuses = st.sampled_from(("requires_payment_method", "requires_action", "processing", "succeeded", "canceled"))
observations = st.lists(st.builds(news, statuses, st.integers(100, 104), st.uuids().map(str)), min_size=1, max_size=5)


@pytest.mark.case("billing-16")
@given(seen=observations, data=st.data())
def test_any_order_and_repetition_converges(seen: list[Observation], data: st.DataObject) -> None:
    final = {"succeeded", "canceled"} & {each.status for each in seen}
    shuffled = data.draw(st.permutations(seen + seen[:2]))
    one, other = told(reserved(), CREATED, *seen), told(reserved(), CREATED, *shuffled)
    assert one.state is other.state
    if not final:
        assert one == other


def test_an_older_event_changes_nothing() -> None:
    now = told(reserved(), CREATED, CHALLENGED)
    assert payments.observe(now, DECLINED) is None


def test_success_is_final() -> None:
    paid = told(reserved(), SUCCEEDED)
    for later in (news("canceled", 999), news("requires_payment_method", 999)):
        assert payments.observe(paid, later) is None


def test_money_that_came_in_beats_a_cancelled_payment() -> None:
    cancelled = told(reserved(), CREATED, news("canceled", 200))
    assert cancelled.state is PaymentState.CANCELLED
    assert told(cancelled, SUCCEEDED).state is PaymentState.SUCCEEDED


@pytest.mark.case("billing-18")
def test_a_lost_answer_is_unknown_and_not_failed() -> None:
    lost = payments.lose(reserved())
    assert lost.state is PaymentState.UNKNOWN
    assert lost.vendor_key == reserved().vendor_key
    assert told(lost, SUCCEEDED).state is PaymentState.SUCCEEDED


def test_an_answer_is_not_lost_once_it_is_known() -> None:
    known = told(reserved(), CREATED)
    assert payments.lose(known) == known


def test_a_decline_leaves_a_checkout_to_be_tried_again() -> None:
    declined = told(reserved(), CREATED, DECLINED)
    assert (declined.state, declined.decline_code) == (PaymentState.CALLED, "do_not_honor")


@pytest.mark.parametrize(
    ("status", "reason"), [("requires_action", "authentication_required"), ("requires_payment_method", "card_declined")]
)
def test_an_off_session_charge_that_needs_the_reader_has_failed(status: str, reason: str) -> None:
    failed = told(reserved(off_session=True), news(status, 100))
    assert (failed.state, failed.error_reason) == (PaymentState.FAILED, reason)


@pytest.mark.case("billing-17")
def test_an_intent_of_another_payment_is_refused() -> None:
    with pytest.raises(GatefoldError, match="intent_foreign"):
        payments.observe(told(reserved(), CREATED), replace(SUCCEEDED, intent="pi_2"))


@pytest.mark.case("billing-17")
@pytest.mark.parametrize("amount", [Money(1, "EUR"), Money(990, "USD")])
def test_another_amount_or_currency_is_refused(amount: Money) -> None:
    with pytest.raises(GatefoldError, match="amount_mismatch"):
        payments.observe(reserved(), replace(SUCCEEDED, amount=amount))


def test_a_status_that_nobody_knows_is_refused() -> None:
    with pytest.raises(GatefoldError, match="status_unknown"):
        payments.observe(reserved(), news("vanished", 1))


def test_a_refused_payment_has_failed_unless_it_was_decided() -> None:
    assert payments.refuse(reserved(), "amount_too_small").state is PaymentState.FAILED
    assert payments.refuse(told(reserved(), SUCCEEDED), "x").state is PaymentState.SUCCEEDED
