"""Owns what falls due in the life of a subscription: renewing it, trying again, ending it."""

from dataclasses import replace
from uuid import UUID

from libs import due
from libs.clock import Clock
from libs.due import Due
from libs.ids import IdSource
from libs.postgres import Connection, Database
from services.billing.domain import invoice as invoices
from services.billing.domain.invoice import Invoice, InvoiceLine, InvoiceState
from services.billing.domain.payment import BEFORE_ANSWER, Payment, PaymentKind, PaymentState
from services.billing.domain.subscription import RUNNING, Subscription, SubscriptionState
from services.billing.repository.connections import PaymentMethod
from services.billing.usecases.collection import Collection
from services.billing.usecases.holds import Holds
from services.billing.usecases.settlement import POLL_EVERY, Repositories, Settlement

UNDER_WAY = BEFORE_ANSWER | {PaymentState.PROCESSING}


class Renewals:
    """Renewals on the account's clock, by any number of workers: one invoice a period, one charge at a time.

    Periods that were missed are billed one after another, each with its own invoice and events.
    """

    def __init__(
        self,
        app: Database,
        repositories: Repositories,
        settlement: Settlement,
        collection: Collection,
        holds: Holds,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        self._app = app
        self._at = repositories
        self._settlement = settlement
        self._collection = collection
        self._holds = holds
        self._clock = clock
        self._ids = ids

    async def renew(self, item: Due) -> None:
        """Due work: invoices the next period and charges the stored card for it, or charges it once more."""
        account = item.account
        async with self._app.tenant(account, "reserve_renewal") as conn:
            payment = await self._reserve(conn, item)
        if payment is None:
            return
        await self._collection.ask(account, payment.id)
        async with self._app.tenant(account, "finish_renewal") as conn:
            # What follows was scheduled with the outcome, under another time; only this turn is taken off.
            await due.finish(conn, item)

    async def end(self, item: Due) -> None:
        """Due work: ends a subscription whose payment is overdue for good, unless money is on its way."""
        account = item.account
        async with self._app.tenant(account, "end_subscription") as conn:
            subscription = await self._at.subscriptions.lock(conn, account, item.reference)
            if subscription.state is not SubscriptionState.PAST_DUE:
                await due.finish(conn, item)
                return
            invoice = await self._at.invoices.open_for_period(conn, account, subscription.id, subscription.next_number)
            if invoice is not None:
                payment = await self._at.payments.newest_of(conn, account, invoice.id)
                if payment is not None and payment.state in UNDER_WAY:
                    later = self._clock.now(account) + POLL_EVERY
                    await due.schedule(conn, account, item.kind, item.reference, later)
                    return
            await self._settlement.end(conn, account, subscription, invoice, "payment_failed")

    async def _reserve(self, conn: Connection, item: Due) -> Payment | None:
        """Returns the payment to ask for; None when there is nothing to ask."""
        account = item.account
        subscription = await self._at.subscriptions.lock(conn, account, item.reference)
        if subscription.state not in RUNNING or subscription.charge_at is None:
            await due.finish(conn, item)
            return None
        if subscription.charge_at > self._clock.now(account):
            # A worker that lost its lease comes late: what was to be done has been, and is due again then.
            await due.schedule(conn, account, item.kind, item.reference, subscription.charge_at)
            return None
        invoice = await self._invoice(conn, account, subscription)
        if invoice.state is not InvoiceState.OPEN:
            await due.finish(conn, item)
            return None
        if not invoice.due:
            await self._settlement.pay(conn, account, subscription, invoice, None)
            return None
        payment = await self._at.payments.newest_of(conn, account, invoice.id)
        if payment is None or payment.state in {PaymentState.FAILED, PaymentState.CANCELLED}:
            method = None
            if subscription.payment_method_id is not None:
                method = await self._at.connections.get_method(conn, account, subscription.payment_method_id)
            card = method.card_hash if method is not None else None
            later = await self._holds.put_off(conn, account, subscription.subject_id, card, subscription.charge_at)
            if later is not None:
                await due.schedule(conn, account, item.kind, item.reference, later)
                return None
            return await self._add_payment(conn, account, subscription, invoice, payment, method)
        if payment.state not in BEFORE_ANSWER:
            # Its bank decides; the outcome schedules what follows.
            await due.finish(conn, item)
            return None
        return payment

    async def _invoice(self, conn: Connection, account: UUID, subscription: Subscription) -> Invoice:
        number = subscription.next_number
        found = await self._at.invoices.open_for_period(conn, account, subscription.id, number)
        if found is not None:
            return found
        period = subscription.schedule.period(number)
        invoice = invoices.issue(
            id=self._ids.new(),
            subscription_id=subscription.id,
            subject_id=subscription.subject_id,
            lines=[InvoiceLine(subscription.description, 1, subscription.amount, period)],
            currency=subscription.amount.currency,
            period_number=number,
            issued_at=self._clock.now(account),
        )
        await self._at.invoices.add(conn, account, invoice)
        return invoice

    async def _add_payment(
        self,
        conn: Connection,
        account: UUID,
        subscription: Subscription,
        invoice: Invoice,
        last: Payment | None,
        method: PaymentMethod | None,
    ) -> Payment | None:
        payment = Payment(
            id=self._ids.new(),
            invoice_id=invoice.id,
            subscription_id=subscription.id,
            subject_id=subscription.subject_id,
            connection_id=method.connection_id if method is not None else subscription.connection_id,
            kind=PaymentKind.PAYMENT,
            amount=invoice.due,
            state=PaymentState.RESERVED,
            off_session=True,
            attempt=last.attempt + 1 if last is not None else 1,
            created_at=self._clock.now(account),
        )
        if method is not None:
            payment = replace(payment, provider_method=method.provider_method)
        await self._at.payments.add(conn, account, payment)
        if method is None:
            await self._settlement.refuse(conn, account, payment.id, "payment_method_missing")
            return None
        return payment
