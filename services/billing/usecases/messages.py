"""Owns the form that billing's facts have in its contracts."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from gatefold.billing.v1 import (
    catalogue_pb2,
    checkout_pb2,
    event_pb2,
    invoice_pb2,
    payment_connection_pb2,
    subscription_pb2,
)
from gatefold.money.v1 import money_pb2

from libs import ids
from libs.money import Money
from services.billing.domain.catalogue import Offer, Plan, Price, Product
from services.billing.domain.checkout import Checkout, CheckoutState, state_of
from services.billing.domain.connection import PaymentConnection
from services.billing.domain.invoice import Invoice, InvoiceState
from services.billing.domain.payment import Payment, PaymentKind, PaymentState
from services.billing.domain.periods import Interval
from services.billing.domain.subscription import Subscription, SubscriptionState, access_until
from services.billing.repository.invoices import Balance

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

INTERVALS = {
    catalogue_pb2.INTERVAL_DAY: Interval.DAY,
    catalogue_pb2.INTERVAL_WEEK: Interval.WEEK,
    catalogue_pb2.INTERVAL_MONTH: Interval.MONTH,
    catalogue_pb2.INTERVAL_YEAR: Interval.YEAR,
}
_INTERVAL_NUMBERS = {interval: number for number, interval in INTERVALS.items()}
_SUBSCRIPTION_STATES = {
    SubscriptionState.INCOMPLETE: subscription_pb2.SUBSCRIPTION_STATE_INCOMPLETE,
    SubscriptionState.TRIALING: subscription_pb2.SUBSCRIPTION_STATE_TRIALING,
    SubscriptionState.ACTIVE: subscription_pb2.SUBSCRIPTION_STATE_ACTIVE,
    SubscriptionState.PAST_DUE: subscription_pb2.SUBSCRIPTION_STATE_PAST_DUE,
    SubscriptionState.ENDED: subscription_pb2.SUBSCRIPTION_STATE_ENDED,
}
_INVOICE_STATES = {
    InvoiceState.OPEN: invoice_pb2.INVOICE_STATE_OPEN,
    InvoiceState.PAID: invoice_pb2.INVOICE_STATE_PAID,
    InvoiceState.VOID: invoice_pb2.INVOICE_STATE_VOID,
}
_CHECKOUT_STATES = {
    CheckoutState.PREPARING: checkout_pb2.CHECKOUT_STATE_PREPARING,
    CheckoutState.AWAITING_PAYMENT: checkout_pb2.CHECKOUT_STATE_AWAITING_PAYMENT,
    CheckoutState.AWAITING_AUTHENTICATION: checkout_pb2.CHECKOUT_STATE_AWAITING_AUTHENTICATION,
    CheckoutState.PROCESSING: checkout_pb2.CHECKOUT_STATE_PROCESSING,
    CheckoutState.COMPLETE: checkout_pb2.CHECKOUT_STATE_COMPLETE,
    CheckoutState.EXPIRED: checkout_pb2.CHECKOUT_STATE_EXPIRED,
}


def money(amount: Money) -> money_pb2.Money:
    """Returns gatefold.money.v1.Money."""
    return money_pb2.Money(amount_minor=amount.amount_minor, currency=amount.currency)


def product(found: Product) -> catalogue_pb2.Product:
    """Returns gatefold.billing.v1.Product."""
    message = catalogue_pb2.Product(
        id=ids.encode("prod", found.id),
        name=found.name,
        features=found.features,
        external_id=found.external_id or "",
    )
    _set(message.created_at, found.created_at)
    return message


def plan(found: Plan) -> catalogue_pb2.Plan:
    """Returns gatefold.billing.v1.Plan."""
    message = catalogue_pb2.Plan(
        id=ids.encode("plan", found.id),
        product_id=ids.encode("prod", found.product_id),
        name=found.name,
        interval=_INTERVAL_NUMBERS[found.interval],
        interval_count=found.interval_count,
        trial_days=found.trial_days,
    )
    _set(message.created_at, found.created_at)
    return message


def price(found: Price) -> catalogue_pb2.Price:
    """Returns gatefold.billing.v1.Price."""
    message = catalogue_pb2.Price(
        id=ids.encode("price", found.id), plan_id=ids.encode("plan", found.plan_id), amount=money(found.amount)
    )
    _set(message.created_at, found.created_at)
    if found.archived_at is not None:
        _set(message.archived_at, found.archived_at)
    return message


def offer(found: Offer) -> catalogue_pb2.Offer:
    """Returns gatefold.billing.v1.Offer."""
    return catalogue_pb2.Offer(product=product(found.product), plan=plan(found.plan), price=price(found.price))


def connection(found: PaymentConnection) -> payment_connection_pb2.PaymentConnection:
    """Returns gatefold.billing.v1.PaymentConnection, without its secrets."""
    name = ids.encode("pc", found.id)
    message = payment_connection_pb2.PaymentConnection(
        id=name,
        provider="stripe",
        provider_account=found.provider_account,
        publishable_key=found.publishable_key,
        webhook_path=f"/v1/webhooks/stripe/{name}",
    )
    _set(message.created_at, found.created_at)
    return message


def subscription(found: Subscription) -> subscription_pb2.Subscription:
    """Returns gatefold.billing.v1.Subscription."""
    message = subscription_pb2.Subscription(
        id=ids.encode("sub", found.id),
        subscriber_id=ids.encode("subj", found.subject_id),
        product_id=ids.encode("prod", found.product_id),
        plan_id=ids.encode("plan", found.plan_id),
        price_id=ids.encode("price", found.price_id),
        state=_SUBSCRIPTION_STATES[found.state],
        amount=money(found.amount),
        period_number=found.period_number,
    )
    if found.period is not None:
        _set(message.current_period_start, found.period.start)
        _set(message.current_period_end, found.period.end)
    _set(message.created_at, found.created_at)
    return message


def invoice(found: Invoice) -> invoice_pb2.Invoice:
    """Returns gatefold.billing.v1.Invoice."""
    message = invoice_pb2.Invoice(
        id=ids.encode("inv", found.id),
        number=found.number or "",
        subscription_id=ids.encode("sub", found.subscription_id),
        subscriber_id=ids.encode("subj", found.subject_id),
        state=_INVOICE_STATES[found.state],
        total=money(found.total),
        paid=money(found.paid),
        due=money(found.due),
    )
    for line in found.lines:
        added = message.lines.add(description=line.description, quantity=line.quantity, amount=money(line.amount))
        _set(added.period_start, line.period.start)
        _set(added.period_end, line.period.end)
    _set(message.issued_at, found.issued_at)
    if found.paid_at is not None:
        _set(message.paid_at, found.paid_at)
    return message


def balance(found: Balance) -> invoice_pb2.LedgerBalance:
    """Returns gatefold.billing.v1.LedgerBalance."""
    return invoice_pb2.LedgerBalance(
        ledger_account=found.ledger_account, debits=money(found.debits), credits=money(found.credits)
    )


def checkout(
    found: Checkout, payment: Payment, subscribed: Subscription, publishable_key: str
) -> checkout_pb2.Checkout:
    """Returns gatefold.billing.v1.Checkout without its client secret, which is never written down unsealed."""
    awaiting = payment.state in {PaymentState.CALLED, PaymentState.REQUIRES_ACTION}
    message = checkout_pb2.Checkout(
        id=ids.encode("chk", found.id),
        state=_CHECKOUT_STATES[state_of(found, payment, subscribed)],
        subscription_id=ids.encode("sub", found.subscription_id),
        invoice_id=ids.encode("inv", found.invoice_id),
        amount_due=money(payment.amount),
        mode="setup" if payment.kind is PaymentKind.SETUP else "payment",
        publishable_key=publishable_key,
        last_error_reason=(payment.error_reason or "") if awaiting else "",
        decline_code=(payment.decline_code or "") if awaiting else "",
    )
    _set(message.expires_at, found.expires_at)
    return message


def subscription_changed(found: Subscription, grace: timedelta) -> event_pb2.SubscriptionChanged:
    """Returns gatefold.billing.v1.SubscriptionChanged."""
    message = event_pb2.SubscriptionChanged(
        subscription_id=ids.encode("sub", found.id),
        subscriber_id=ids.encode("subj", found.subject_id),
        product_id=ids.encode("prod", found.product_id),
        plan_id=ids.encode("plan", found.plan_id),
        features=found.features,
        period_number=found.period_number,
    )
    until = access_until(found, grace)
    if found.period is not None and until is not None:
        _set(message.period_start, found.period.start)
        _set(message.period_end, found.period.end)
        _set(message.access_until, until)
    return message


def invoice_paid(found: Invoice) -> event_pb2.InvoicePaid:
    """Returns gatefold.billing.v1.InvoicePaid."""
    message = event_pb2.InvoicePaid(
        invoice_id=ids.encode("inv", found.id),
        number=found.number or "",
        subscription_id=ids.encode("sub", found.subscription_id),
        subscriber_id=ids.encode("subj", found.subject_id),
        total=money(found.total),
        description=found.description,
    )
    _set(message.period_end, found.period.end)
    return message


def payment_failed(found: Payment) -> event_pb2.PaymentFailed:
    """Returns gatefold.billing.v1.PaymentFailed."""
    return event_pb2.PaymentFailed(
        payment_id=ids.encode("pay", found.id),
        invoice_id=ids.encode("inv", found.invoice_id),
        subscriber_id=ids.encode("subj", found.subject_id),
        reason=found.error_reason or "",
        decline_code=found.decline_code or "",
    )


def _set(stamp: "Timestamp", at: datetime) -> None:
    stamp.FromDatetime(at)
