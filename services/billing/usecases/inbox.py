"""Owns working off Stripe's events that were taken."""

from datetime import timedelta

from libs import due, errors
from libs.clock import Clock
from libs.due import Due
from libs.money import Money
from libs.postgres import Connection, Database
from services.billing.domain.payment import Observation
from services.billing.repository.payments import PaymentRepository, StripeEvent, StripeInboxRepository
from services.billing.usecases.settlement import Settlement

# An event whose payment is not known yet is tried again so often; Stripe itself gives up after three days.
PARKED_EVERY = timedelta(minutes=10)
PARKED_FOR = timedelta(days=3)
# How long an event is kept to recognise it by when it is sent once more; taken again later, it changes nothing.
KEPT_FOR = timedelta(days=30)
_WAITING = frozenset({"received", "parked"})
_REFUSALS = frozenset(
    {
        "intent_foreign",
        "amount_mismatch",
        "status_unknown",
        "currency_unknown",
        "amount_not_chargeable",
        "amount_out_of_range",
    }
)


class StripeInbox:
    """Carries events over to payments, once each, in whatever order and number they come."""

    def __init__(
        self,
        app: Database,
        payments: PaymentRepository,
        inbox: StripeInboxRepository,
        settlement: Settlement,
        clock: Clock,
    ) -> None:
        self._app = app
        self._payments = payments
        self._inbox = inbox
        self._settlement = settlement
        self._clock = clock

    async def take(self, item: Due) -> None:
        """Due work: carries an event over to its payment, in one transaction with all that follows."""
        account = item.account
        async with self._app.tenant(account, "take_stripe_event") as conn:
            event = await self._inbox.get(conn, account, item.reference)
            if event is None or event.state not in _WAITING:
                await due.finish(conn, item)
                return
            payment = (
                await self._payments.find(conn, account, event.payment_id) if event.payment_id is not None else None
            )
            if payment is None:
                await self._park(conn, item, event)
                return
            if payment.connection_id != event.connection_id:
                await self._settle(conn, item, "refused", "connection_foreign")
                return
            try:
                await self._settlement.observe(conn, account, payment.id, _observation(event))
            except errors.GatefoldError as error:
                # Raised before anything was written. All others undo the transaction, and the event is tried again.
                if error.reason not in _REFUSALS:
                    raise
                await self._settle(conn, item, "refused", error.reason)
                return
            await self._settle(conn, item, "done", "taken")

    async def forget(self, item: Due) -> None:
        """Due work: deletes an event that was worked off; one that still waits is left for another day."""
        account = item.account
        async with self._app.tenant(account, "forget_stripe_event") as conn:
            event = await self._inbox.get(conn, account, item.reference)
            if event is not None and event.state in _WAITING:
                tomorrow = self._clock.now(account) + timedelta(days=1)
                await due.schedule(conn, account, item.kind, item.reference, tomorrow)
                return
            await self._inbox.delete(conn, account, item.reference)
            await due.finish(conn, item)

    async def _park(self, conn: Connection, item: Due, event: StripeEvent) -> None:
        now, wall = self._clock.now(item.account), self._clock.wall()
        if wall.timestamp() - event.created_second > PARKED_FOR.total_seconds():
            await self._settle(conn, item, "ignored", "payment_unknown")
            return
        await self._inbox.park(conn, event.id)
        await due.schedule(conn, item.account, item.kind, item.reference, now + PARKED_EVERY)

    async def _settle(self, conn: Connection, item: Due, state: str, outcome: str) -> None:
        await self._inbox.settle(conn, item.reference, state, outcome, self._clock.wall())
        await due.finish(conn, item)


def _observation(event: StripeEvent) -> Observation:
    amount = None
    if event.amount is not None and event.currency is not None:
        amount = Money.from_stripe(event.amount, event.currency)
    return Observation(
        intent=event.intent or "",
        status=event.status or "",
        second=event.created_second,
        event=event.event,
        amount=amount,
        method=event.method,
        error_reason=event.error_reason,
        decline_code=event.decline_code,
    )
