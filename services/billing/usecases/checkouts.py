"""Owns a reader's way to a subscription: reserve → call → record, resuming, expiry."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from gatefold.billing.v1 import checkout_pb2

from libs import due, errors, idempotency, ids
from libs.caller import Caller, CallerKind
from libs.clock import Clock
from libs.due import Due
from libs.ids import IdSource
from libs.postgres import Connection, Database
from services.billing.clients import Readers
from services.billing.domain import invoice as invoices
from services.billing.domain.catalogue import Offer
from services.billing.domain.checkout import LIFETIME, Checkout, CheckoutState, state_of
from services.billing.domain.connection import PaymentConnection
from services.billing.domain.payment import FINAL, Payment, PaymentKind, PaymentState
from services.billing.domain.periods import days_later
from services.billing.domain.subscription import Subscription, SubscriptionState
from services.billing.repository.catalogue import CatalogueRepository
from services.billing.repository.subscriptions import LiveSubscriptionExistsError
from services.billing.usecases import messages
from services.billing.usecases.collection import Collection
from services.billing.usecases.holds import REASON as HELD
from services.billing.usecases.holds import Holds, held
from services.billing.usecases.records import own_subject
from services.billing.usecases.settlement import EXPIRE, POLL_EVERY, RESOLVE, Repositories

_CREATE = "gatefold.billing.v1.CheckoutService/CreateCheckout"
# When a payment is asked about again whose request ended before the provider answered.
RESOLVE_AFTER = timedelta(minutes=1)
_MOST_TRIES = 3


@dataclass(frozen=True)
class _Standing:
    """A checkout with what its state follows from."""

    checkout: Checkout
    payment: Payment
    subscription: Subscription
    connection: PaymentConnection

    @property
    def state(self) -> CheckoutState:
        return state_of(self.checkout, self.payment, self.subscription)


class _SupersededError(Exception):
    """Another checkout for the same product is open at another price, and has to be ended first."""

    def __init__(self, checkout_id: UUID) -> None:
        super().__init__()
        self.checkout_id = checkout_id


class Checkouts:
    """Checkouts. A reader has at most one open for a product: whoever asks again gets the same one."""

    def __init__(
        self,
        app: Database,
        catalogue: CatalogueRepository,
        repositories: Repositories,
        collection: Collection,
        holds: Holds,
        readers: Readers,
        clock: Clock,
        id_source: IdSource,
    ) -> None:
        self._app = app
        self._catalogue = catalogue
        self._at = repositories
        self._collection = collection
        self._holds = holds
        self._readers = readers
        self._clock = clock
        self._ids = id_source

    async def create(
        self, caller: Caller, request: checkout_pb2.CreateCheckoutRequest, price_id: UUID, subscriber: UUID | None
    ) -> checkout_pb2.Checkout:
        """Begins a checkout, or answers the one that is open for the same price.

        Raises `not_found("price_not_found")`, `precondition("price_archived")`, `precondition("subscription_exists")`,
        `precondition("payment_connection_missing")`, `precondition("payment_held")` while a verdict holds the reader's
        payments, `precondition("payment_refused")` for what the provider will not begin, again for the same key, and
        `unavailable("payment_provider_unavailable")` when the provider does not answer: the same call with the same
        key goes on where it was.
        """
        account = caller.require_account()
        subject = await self._subject(caller, subscriber)
        reserved = await self._reserve(caller, account, request, price_id, subject)
        if isinstance(reserved, checkout_pb2.Checkout):
            return await self._with_secret(account, reserved)
        try:
            payment = await self._collection.ask(account, reserved.payment_id)
            if payment.state is PaymentState.FAILED and payment.error_reason == HELD:
                raise held()
            if payment.state is PaymentState.FAILED:
                raise errors.precondition(
                    "payment_refused",
                    "The payment provider does not take this payment.",
                    metadata={"provider_reason": payment.error_reason or ""},
                )
        except errors.GatefoldError:
            async with self._app.tenant(account, "release_create_checkout") as conn:
                await idempotency.release(conn, caller, _CREATE, clock=self._clock)
            raise
        async with self._app.tenant(account, "record_create_checkout") as conn:
            standing = await self._standing(conn, account, reserved.id)
            answer = self._message(standing)
            await idempotency.record(conn, caller, _CREATE, answer)
        return await self._with_secret(account, answer, standing)

    async def get(self, caller: Caller, checkout_id: UUID) -> checkout_pb2.Checkout:
        """Shows how a checkout stands; raises `not_found("checkout_not_found")`, also for another reader's."""
        account = caller.require_account()
        async with self._app.tenant(account, "get_checkout", read_only=True) as conn:
            standing = await self._standing(conn, account, checkout_id, subject=own_subject(caller))
        answer = self._message(standing)
        # Whoever has the secret can confirm the payment: that is the reader, and the server that asked for them.
        return answer if caller.kind is CallerKind.STAFF else await self._with_secret(account, answer, standing)

    async def expire(self, item: Due) -> None:
        """Due work: ends a checkout that nobody paid, with the provider first."""
        await self._end(item.account, item.reference)
        async with self._app.tenant(item.account, "expire_checkout") as conn:
            # Taken off the queue with the checkout's end; what is left is a payment whose bank has not decided.
            standing = await self._standing(conn, item.account, item.reference)
            if standing.state is CheckoutState.PROCESSING:
                later = self._clock.now(item.account) + POLL_EVERY
                await due.schedule(conn, item.account, EXPIRE, item.reference, later)
            else:
                await due.finish(conn, item)

    async def _subject(self, caller: Caller, subscriber: UUID | None) -> UUID:
        if caller.kind is CallerKind.SUBSCRIBER:
            if subscriber is not None and subscriber != caller.subject:
                raise errors.forbidden("subscriber_foreign", "A reader subscribes for themselves.")
            return caller.require_subject()
        if subscriber is None:
            raise errors.invalid(
                "subscriber_required", "With a secret key, say which reader subscribes.", field="subscriber_id"
            )
        await self._readers.require(subscriber)
        return subscriber

    async def _reserve(
        self,
        caller: Caller,
        account: UUID,
        request: checkout_pb2.CreateCheckoutRequest,
        price_id: UUID,
        subject: UUID,
    ) -> Checkout | checkout_pb2.Checkout:
        """Returns the checkout to ask the provider for, or the answer that was given before."""
        for _ in range(_MOST_TRIES):
            try:
                async with self._app.tenant(account, "create_checkout") as conn:
                    new_id = self._ids.new()
                    claim = await idempotency.claim(conn, caller, _CREATE, request, clock=self._clock, reference=new_id)
                    if claim.replay is not None:
                        return checkout_pb2.Checkout.FromString(claim.replay)
                    if claim.reference is not None:
                        resumed = await self._at.subscriptions.find_checkout(conn, account, claim.reference)
                        if resumed is not None and not await self._was_held(conn, account, resumed):
                            return resumed
                    return await self._new_or_open(conn, account, price_id, subject, new_id)
            except LiveSubscriptionExistsError:
                # Another request was first by a moment: its checkout is found on the next turn.
                continue
            except _SupersededError as superseded:
                await self._end(account, superseded.checkout_id)
        raise errors.conflict("checkout_open", "Another checkout of this reader is under way.", retry_after_seconds=1)

    async def _was_held(self, conn: Connection, account: UUID, checkout: Checkout) -> bool:
        """Tells whether it was refused for a verdict: nothing was asked for, and another may begin in its place."""
        payment = await self._at.payments.get(conn, account, checkout.payment_id)
        return payment.state is PaymentState.FAILED and payment.error_reason == HELD

    async def _new_or_open(
        self, conn: Connection, account: UUID, price_id: UUID, subject: UUID, new_id: UUID
    ) -> Checkout:
        offer = await self._catalogue.get_offer(conn, account, price_id)
        await self._holds.require_none(conn, account, subject)
        live = await self._at.subscriptions.find_live(conn, account, subject, offer.product.id)
        if live is not None:
            if live.state is not SubscriptionState.INCOMPLETE:
                raise errors.precondition("subscription_exists", "The reader has subscribed to this product already.")
            open_checkout = await self._at.subscriptions.checkout_of(conn, account, live.id)
            assert open_checkout is not None
            if live.price_id == price_id and open_checkout.expires_at > self._clock.now(account):
                return open_checkout
            payment = await self._at.payments.get(conn, account, open_checkout.payment_id)
            if payment.state is PaymentState.PROCESSING:
                raise errors.precondition("checkout_processing", "A payment of the reader is being processed.")
            raise _SupersededError(open_checkout.id)
        if offer.price.archived_at is not None:
            raise errors.precondition("price_archived", "This price is not offered any more.")
        connection = await self._at.connections.newest(conn, account)
        return await self._add(conn, account, offer, subject, connection, new_id)

    async def _add(
        self,
        conn: Connection,
        account: UUID,
        offer: Offer,
        subject: UUID,
        connection: PaymentConnection,
        new_id: UUID,
    ) -> Checkout:
        now = self._clock.now(account)
        subscription = self._subscription(offer, subject, connection, now)
        await self._at.subscriptions.add(conn, account, subscription)
        trial = subscription.trial_start is not None
        line = invoices.subscription_line(offer, subscription.amount, subscription.schedule.period(1), trial=trial)
        invoice = invoices.issue(
            id=self._ids.new(),
            subscription_id=subscription.id,
            subject_id=subject,
            lines=[line],
            currency=subscription.amount.currency,
            period_number=1,
            issued_at=now,
        )
        await self._at.invoices.add(conn, account, invoice)
        payment = Payment(
            id=self._ids.new(),
            invoice_id=invoice.id,
            subscription_id=subscription.id,
            subject_id=subject,
            connection_id=connection.id,
            kind=PaymentKind.PAYMENT if invoice.due else PaymentKind.SETUP,
            amount=invoice.due,
            state=PaymentState.RESERVED,
            off_session=False,
            attempt=1,
            created_at=now,
        )
        await self._at.payments.add(conn, account, payment)
        checkout = Checkout(new_id, subject, subscription.id, invoice.id, payment.id, now, now + LIFETIME)
        await self._at.subscriptions.add_checkout(conn, account, checkout)
        await due.schedule(conn, account, RESOLVE, payment.id, now + RESOLVE_AFTER)
        await due.schedule(conn, account, EXPIRE, checkout.id, checkout.expires_at)
        return checkout

    def _subscription(self, offer: Offer, subject: UUID, connection: PaymentConnection, now: datetime) -> Subscription:
        trial_days = offer.plan.trial_days
        return Subscription(
            id=self._ids.new(),
            subject_id=subject,
            product_id=offer.product.id,
            plan_id=offer.plan.id,
            price_id=offer.price.id,
            connection_id=connection.id,
            state=SubscriptionState.INCOMPLETE,
            description=f"{offer.product.name}, {offer.plan.name}",
            features=offer.product.features,
            amount=offer.price.amount,
            interval=offer.plan.interval,
            interval_count=offer.plan.interval_count,
            anchor=days_later(now, trial_days, connection.time_zone) if trial_days else now,
            trial_start=now if trial_days else None,
            zone=connection.time_zone,
            created_at=now,
        )

    async def _end(self, account: UUID, checkout_id: UUID) -> None:
        async with self._app.tenant(account, "read_checkout", read_only=True) as conn:
            standing = await self._standing(conn, account, checkout_id)
        if standing.payment.state not in FINAL:
            await self._collection.cancel(account, standing.payment.id)

    async def _standing(
        self, conn: Connection, account: UUID, checkout_id: UUID, *, subject: UUID | None = None
    ) -> _Standing:
        checkout = await self._at.subscriptions.get_checkout(conn, account, checkout_id, subject=subject)
        payment = await self._at.payments.get(conn, account, checkout.payment_id)
        subscription = await self._at.subscriptions.get(conn, account, checkout.subscription_id)
        connection = await self._at.connections.get(conn, account, payment.connection_id)
        return _Standing(checkout, payment, subscription, connection)

    def _message(self, standing: _Standing) -> checkout_pb2.Checkout:
        return messages.checkout(
            standing.checkout, standing.payment, standing.subscription, standing.connection.publishable_key
        )

    async def _with_secret(
        self, account: UUID, answer: checkout_pb2.Checkout, standing: _Standing | None = None
    ) -> checkout_pb2.Checkout:
        """Adds the client secret while there is something to confirm; an answer that is replayed had one then."""
        if answer.state in {checkout_pb2.CHECKOUT_STATE_COMPLETE, checkout_pb2.CHECKOUT_STATE_EXPIRED}:
            return answer
        if standing is None:
            async with self._app.tenant(account, "read_checkout", read_only=True) as conn:
                standing = await self._standing(conn, account, ids.decode("chk", answer.id))
        answer.client_secret = await self._collection.client_secret(account, standing.payment)
        return answer
