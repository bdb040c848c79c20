"""Owns what follows, in one transaction, from what the provider says about a payment."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from google.protobuf.message import Message

from libs import due, outbox
from libs.clock import Clock
from libs.events import Event
from libs.ids import IdSource
from libs.postgres import Connection
from services.billing.domain import dunning, ledger
from services.billing.domain import invoice as invoices
from services.billing.domain import payment as payments
from services.billing.domain import subscription as subscriptions
from services.billing.domain.invoice import Invoice, InvoiceState
from services.billing.domain.payment import Observation, Payment, PaymentState
from services.billing.domain.subscription import Subscription, SubscriptionState
from services.billing.repository.connections import ConnectionRepository
from services.billing.repository.invoices import InvoiceRepository
from services.billing.repository.payments import PaymentRepository
from services.billing.repository.subscriptions import SubscriptionRepository
from services.billing.usecases import messages

RENEW = "renew_subscription"
END = "end_subscription"
RESOLVE = "resolve_payment"
EXPIRE = "expire_checkout"
DESCRIBE = "describe_payment_method"
TAKE = "take_stripe_event"
FORGET = "forget_stripe_event"
HOLD = "withdraw_payments"

POLL_EVERY = timedelta(hours=1)
ACTOR = "service:billing"

Trace = Callable[[], Mapping[str, str]]
"""Returns the headers of the trace that is under way."""


@dataclass(frozen=True)
class Repositories:
    """Where billing's rows are."""

    connections: ConnectionRepository
    subscriptions: SubscriptionRepository
    invoices: InvoiceRepository
    payments: PaymentRepository


class Settlement:
    """Carries the outcome of payments over to invoices, ledger, subscriptions, events and due work.

    Every method runs in the caller's transaction and begins by locking the subscription, so that whoever learns of an
    outcome first (request, webhook, worker) records it, and the others find it recorded.
    """

    def __init__(self, repositories: Repositories, clock: Clock, ids: IdSource, grace: timedelta, trace: Trace) -> None:
        self._at = repositories
        self._clock = clock
        self._ids = ids
        self._grace = grace
        self._trace = trace

    async def observe(
        self, conn: Connection, account: UUID, payment_id: UUID, seen: Observation, sealed_secret: bytes | None = None
    ) -> Payment:
        """Records what the provider said; returns the payment as it stands. Raises as domain.payment.observe."""
        before, subscription = await self._lock(conn, account, payment_id)
        after = payments.observe(before, seen) or before
        if after.client_secret_sealed is None and sealed_secret is not None:
            after = replace(after, client_secret_sealed=sealed_secret)
        return await self._record(conn, account, subscription, before, after)

    async def refuse(self, conn: Connection, account: UUID, payment_id: UUID, reason: str) -> Payment:
        """Records that the provider will not begin a payment."""
        before, subscription = await self._lock(conn, account, payment_id)
        return await self._record(conn, account, subscription, before, payments.refuse(before, reason))

    async def lose(self, conn: Connection, account: UUID, payment_id: UUID) -> Payment:
        """Records that the provider's answer was lost."""
        before, subscription = await self._lock(conn, account, payment_id)
        return await self._record(conn, account, subscription, before, payments.lose(before))

    async def pay(
        self, conn: Connection, account: UUID, subscription: Subscription, invoice: Invoice, payment: Payment | None
    ) -> None:
        """Pays an open invoice of a locked subscription in full and begins its period; without a payment if it is
        over nothing."""
        now = self._clock.now(account)
        if payment is not None and payment.provider_method is not None:
            method_id = await self._at.connections.ensure_method(
                conn, account, payment.connection_id, payment.subject_id, payment.provider_method, self._ids.new(), now
            )
            if method_id != subscription.payment_method_id:
                subscription = replace(subscription, payment_method_id=method_id)
                await due.schedule(conn, account, DESCRIBE, method_id, now)
        first = subscription.state is SubscriptionState.INCOMPLETE
        subscription = subscriptions.begin_period(subscription, invoice.period_number)
        assert subscription.period is not None
        # Last of the locks: from here to the commit the account's other payments wait.
        number = invoices.number_of(await self._at.invoices.next_number(conn, account))
        paid = replace(invoices.pay(invoice, number, now), sequence=invoice.sequence + 1)
        await self._at.invoices.save(conn, account, paid)
        for entry in ledger.invoice_paid(paid.id, payment.id if payment is not None else None, paid.total, now):
            await self._at.invoices.enter(conn, account, self._ids.new(), entry)
        await self._emit(
            conn, account, subscription.connection_id, "invoice.paid", ("invoice", paid.id), paid.sequence,
            paid.subject_id, messages.invoice_paid(paid), now,
        )  # fmt: skip
        await self._save(
            conn, account, subscription, "subscription.activated" if first else "subscription.renewed", now
        )
        await due.schedule(conn, account, RENEW, subscription.id, subscription.period.end)
        await due.cancel(conn, account, END, subscription.id)
        if first:
            checkout_id = await self._at.subscriptions.complete_checkout(conn, account, subscription.id, now)
            if checkout_id is not None:
                await due.cancel(conn, account, EXPIRE, checkout_id)

    async def end(
        self, conn: Connection, account: UUID, subscription: Subscription, invoice: Invoice | None, reason: str
    ) -> None:
        """Ends a locked subscription and withdraws its open invoice."""
        now = self._clock.now(account)
        never_ran = subscription.state is SubscriptionState.INCOMPLETE
        ended = subscriptions.end(subscription, reason, now)
        if invoice is not None and invoice.state is InvoiceState.OPEN:
            await self._at.invoices.save(conn, account, invoices.void(invoice))
        # Nobody was told of a subscription that never ran.
        await self._save(conn, account, ended, None if never_ran else "subscription.ended", now)
        for kind in (RENEW, END):
            await due.cancel(conn, account, kind, ended.id)

    async def _lock(self, conn: Connection, account: UUID, payment_id: UUID) -> tuple[Payment, Subscription]:
        found = await self._at.payments.get(conn, account, payment_id)
        subscription = await self._at.subscriptions.lock(conn, account, found.subscription_id)
        # Read again: what stood before the lock may be old.
        return await self._at.payments.get(conn, account, payment_id), subscription

    async def _record(
        self, conn: Connection, account: UUID, subscription: Subscription, before: Payment, after: Payment
    ) -> Payment:
        if after == before:
            return after
        now = self._clock.now(account)
        if after.state is not before.state:
            match after.state:
                case PaymentState.SUCCEEDED:
                    await self._succeeded(conn, account, subscription, after, now)
                case PaymentState.FAILED if after.off_session:
                    after = await self._failed(conn, account, subscription, after, now)
                case PaymentState.FAILED | PaymentState.CANCELLED:
                    await self._abandoned(conn, account, subscription, after)
                case _:
                    pass
            await self._watch(conn, account, after, now)
        await self._at.payments.save(conn, account, after)
        return after

    async def _watch(self, conn: Connection, account: UUID, payment: Payment, now: datetime) -> None:
        """Has the provider asked again about what it has not decided yet; what nothing is to be asked about is left."""
        if payment.state is PaymentState.PROCESSING:
            await due.schedule(conn, account, RESOLVE, payment.id, now + POLL_EVERY)
        elif payment.state not in payments.BEFORE_ANSWER:
            await due.cancel(conn, account, RESOLVE, payment.id)

    async def _succeeded(
        self, conn: Connection, account: UUID, subscription: Subscription, payment: Payment, now: datetime
    ) -> None:
        invoice = await self._at.invoices.get(conn, account, payment.invoice_id)
        if invoice.state is InvoiceState.OPEN and subscription.state is not SubscriptionState.ENDED:
            await self.pay(conn, account, subscription, invoice, payment)
        elif payment.amount:
            # Money that came in too late is the reader's: it stands in the ledger until it is given back.
            for entry in ledger.payment_unapplied(payment.id, payment.amount, now):
                await self._at.invoices.enter(conn, account, self._ids.new(), entry)

    async def _failed(
        self, conn: Connection, account: UUID, subscription: Subscription, payment: Payment, now: datetime
    ) -> Payment:
        """A charge without the reader failed: the subscription falls past due, and what follows is scheduled."""
        if subscription.state not in subscriptions.RUNNING:
            return payment
        invoice = await self._at.invoices.get(conn, account, payment.invoice_id)
        step = dunning.after_failure(
            invoice.period.start, payment.attempt, payment.error_reason or "", payment.decline_code, now
        )
        payment = replace(payment, sequence=payment.sequence + 1)
        await self._emit(
            conn, account, payment.connection_id, "payment.failed", ("payment", payment.id), payment.sequence,
            payment.subject_id, messages.payment_failed(payment), now,
        )  # fmt: skip
        changed = subscriptions.fall_past_due(subscription, step.at if isinstance(step, dunning.RetryAt) else None)
        newly = subscription.state is not SubscriptionState.PAST_DUE
        await self._save(conn, account, changed, "subscription.past_due" if newly else None, now)
        if isinstance(step, dunning.RetryAt):
            await due.schedule(conn, account, RENEW, subscription.id, step.at)
        else:
            await due.cancel(conn, account, RENEW, subscription.id)
            await due.schedule(conn, account, END, subscription.id, step.at)
        return payment

    async def _abandoned(self, conn: Connection, account: UUID, subscription: Subscription, payment: Payment) -> None:
        """A checkout's payment can no longer be made: what waited for it is over."""
        if subscription.state is not SubscriptionState.INCOMPLETE:
            return
        invoice = await self._at.invoices.get(conn, account, payment.invoice_id)
        await self.end(conn, account, subscription, invoice, "checkout_abandoned")
        checkout = await self._at.subscriptions.checkout_of(conn, account, subscription.id)
        if checkout is not None:
            await due.cancel(conn, account, EXPIRE, checkout.id)

    async def _save(
        self, conn: Connection, account: UUID, subscription: Subscription, event: str | None, now: datetime
    ) -> None:
        if event is not None:
            subscription = replace(subscription, sequence=subscription.sequence + 1)
            await self._emit(
                conn, account, subscription.connection_id, event, ("subscription", subscription.id),
                subscription.sequence, subscription.subject_id,
                messages.subscription_changed(subscription, self._grace), now,
            )  # fmt: skip
        await self._at.subscriptions.save(conn, account, subscription)

    async def _emit(
        self,
        conn: Connection,
        account: UUID,
        connection_id: UUID,
        event: str,
        aggregate: tuple[str, UUID],
        sequence: int,
        subject: UUID,
        data: Message,
        now: datetime,
    ) -> None:
        connection = await self._at.connections.get(conn, account, connection_id)
        await outbox.append(
            conn,
            event=Event(
                id=self._ids.new(),
                type=event,
                account=account,
                aggregate=aggregate,
                sequence=sequence,
                occurred_at=now,
                recorded_at=self._clock.wall(),
                actor=ACTOR,
                subjects=(subject,),
                traceparent=self._trace().get("traceparent"),
                live=connection.live,
                data=data,
            ),
        )
