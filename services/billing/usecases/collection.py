"""Owns asking the provider: reserve (done before) → call → record, and finding out about lost answers."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID

import orjson

from libs import due
from libs.clock import Clock
from libs.due import Due
from libs.ids import IdSource
from libs.postgres import Connection, Database
from libs.vault import Vault
from services.billing.clients import OutcomeUnknownError, RefusedError, StripeProvider, unavailable
from services.billing.domain.connection import PaymentConnection
from services.billing.domain.payment import BEFORE_ANSWER, FINAL, Observation, Payment, PaymentState
from services.billing.usecases.holds import REASON as HELD
from services.billing.usecases.holds import Holds
from services.billing.usecases.settlement import POLL_EVERY, Repositories, Settlement

# Stable numbers of the vault: tables and fields of sealed values.
CONNECTION_TABLE = 301
PAYMENT_TABLE = 302
SECRET_KEY_FIELD = 1
WEBHOOK_SECRETS_FIELD = 2
CLIENT_SECRET_FIELD = 1

# Stripe forgets idempotency keys after 24 hours; an hour before that a lost intent is looked for by its tag.
KEY_LIFETIME = timedelta(hours=23)


class Collection:
    """Has the provider make, tell about and cancel the intents of payments. No call is made inside a transaction."""

    def __init__(
        self,
        app: Database,
        repositories: Repositories,
        settlement: Settlement,
        holds: Holds,
        provider: StripeProvider,
        vault: Vault,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        self._app = app
        self._at = repositories
        self._settlement = settlement
        self._holds = holds
        self._provider = provider
        self._vault = vault
        self._clock = clock
        self._ids = ids

    async def ask(self, account: UUID, payment_id: UUID) -> Payment:
        """Asks the provider for a reserved payment, or what became of one whose answer was lost; returns it recorded.

        Any number may ask at once: the provider's idempotency key makes it one intent. Raises
        `unavailable("payment_provider_unavailable")` while the provider does not answer; the payment is UNKNOWN then.
        """
        payment, connection = await self._read(account, payment_id)
        if payment.state not in BEFORE_ANSWER:
            return payment
        key = await self._secret_key(account, connection)
        try:
            customer = await self._customer(account, connection, payment.subject_id, key)
            seen = await self._call(account, payment_id, customer, key)
        except RefusedError as error:
            async with self._app.tenant(account, "refuse_payment") as conn:
                return await self._settlement.refuse(conn, account, payment_id, error.reason)
        except OutcomeUnknownError as error:
            async with self._app.tenant(account, "lose_payment") as conn:
                await self._settlement.lose(conn, account, payment_id)
            raise unavailable() from error
        if seen is None:
            return (await self._read(account, payment_id))[0]
        return await self._record(account, payment_id, seen)

    async def refresh(self, account: UUID, payment_id: UUID) -> Payment:
        """Asks the provider how a payment stands that is not decided yet; raises as `ask`."""
        payment, _ = await self._read(account, payment_id)
        if payment.state in BEFORE_ANSWER:
            return await self.ask(account, payment_id)
        if payment.state in FINAL:
            return payment
        return await self._tell(account, payment_id, self._provider.retrieve_intent)

    async def cancel(self, account: UUID, payment_id: UUID) -> Payment:
        """Cancels a payment with the provider, unless it is decided or under way; returns how it stands."""
        payment = await self.ask(account, payment_id)
        if payment.state in FINAL or payment.state is PaymentState.PROCESSING:
            return payment
        return await self._tell(account, payment_id, self._provider.cancel_intent)

    async def resolve(self, item: Due) -> None:
        """Due work: finds out about a payment whose answer was lost or whose bank has not decided."""
        payment = await self.refresh(item.account, item.reference)
        async with self._app.tenant(item.account, "resolve_payment") as conn:
            if payment.state is PaymentState.PROCESSING:
                later = self._clock.now(item.account) + POLL_EVERY
                await due.schedule(conn, item.account, item.kind, item.reference, later)
            else:
                await due.finish(conn, item)

    async def describe_method(self, item: Due) -> None:
        """Due work: records what a reader recognises a stored card by."""
        account = item.account
        async with self._app.tenant(account, "read_payment_method", read_only=True) as conn:
            method = await self._at.connections.get_method(conn, account, item.reference)
            connection = (
                await self._at.connections.get(conn, account, method.connection_id) if method is not None else None
            )
        card = None
        if method is not None and connection is not None:
            try:
                key = await self._secret_key(account, connection)
                card = await self._provider.describe_method(key, method.provider_method)
            except OutcomeUnknownError as error:
                raise unavailable() from error
            except RefusedError:
                card = None
        async with self._app.tenant(account, "describe_payment_method") as conn:
            if card is not None:
                await self._at.connections.describe_method(
                    conn,
                    account,
                    item.reference,
                    card.brand,
                    card.last4,
                    card.expiry_month,
                    card.expiry_year,
                    self._holds.card(card.fingerprint),
                )
            await due.finish(conn, item)

    async def client_secret(self, account: UUID, payment: Payment) -> str:
        """Returns the provider's client secret of a payment; empty before the provider has answered."""
        if payment.client_secret_sealed is None:
            return ""
        cipher = await self._vault.account_cipher(account)
        return cipher.open(PAYMENT_TABLE, CLIENT_SECRET_FIELD, payment.id, payment.client_secret_sealed).decode()

    async def _read(self, account: UUID, payment_id: UUID) -> tuple[Payment, PaymentConnection]:
        async with self._app.tenant(account, "read_payment", read_only=True) as conn:
            payment = await self._at.payments.get(conn, account, payment_id)
            return payment, await self._at.connections.get(conn, account, payment.connection_id)

    async def _secret_key(self, account: UUID, connection: PaymentConnection) -> str:
        cipher = await self._vault.account_cipher(account)
        return cipher.open(CONNECTION_TABLE, SECRET_KEY_FIELD, connection.id, connection.secret_key_sealed).decode()

    async def _customer(self, account: UUID, connection: PaymentConnection, subject: UUID, key: str) -> str:
        """Returns the provider's name of a reader: reserved here first, so that a lost answer makes no second one."""
        now = self._clock.now(account)
        async with self._app.tenant(account, "reserve_customer") as conn:
            customer = await self._at.connections.ensure_customer(
                conn, account, connection.id, subject, self._ids.new(), now
            )
        if customer.provider_customer is not None:
            return customer.provider_customer
        name = await self._provider.create_customer(key, account, subject, customer.id)
        async with self._app.tenant(account, "record_customer") as conn:
            return await self._at.connections.name_customer(conn, account, customer.id, name)

    async def _call(self, account: UUID, payment_id: UUID, customer: str, key: str) -> Observation | None:
        """Returns what the provider says; None where it is not asked: held, or decided by now."""
        wall = self._clock.wall()
        async with self._app.tenant(account, "begin_payment_call") as conn:
            if await self._refuse_held(conn, account, payment_id):
                return None
            called_at = await self._at.payments.begin_call(conn, account, payment_id, customer, wall)
            if called_at is None:
                return None
            payment = await self._at.payments.get(conn, account, payment_id)
        if wall - called_at > KEY_LIFETIME:
            found = await self._provider.find_intent(key, account, payment)
            if found is not None:
                return found
        return await self._provider.create_intent(key, account, payment)

    async def _refuse_held(self, conn: Connection, account: UUID, payment_id: UUID) -> bool:
        """Refuses what the provider was never asked for when its reader has been held since it was written down.

        What withdraws payments looks only once the verdict is there for everybody: nothing comes between both.
        Renewals are put off before they are written down, and one that just was is charged.
        """
        payment = await self._at.payments.get(conn, account, payment_id)
        if payment.off_session or not await self._holds.holding(conn, account, payment.subject_id):
            return False
        await self._at.subscriptions.lock(conn, account, payment.subscription_id)
        if await self._at.payments.called(conn, account, payment_id):
            return False
        await self._settlement.refuse(conn, account, payment_id, HELD)
        return True

    async def _tell(
        self, account: UUID, payment_id: UUID, call: Callable[[str, Payment, int], Awaitable[Observation]]
    ) -> Payment:
        payment, connection = await self._read(account, payment_id)
        key = await self._secret_key(account, connection)
        try:
            seen = await call(key, payment, int(self._clock.wall().timestamp()))
        except (OutcomeUnknownError, RefusedError) as error:
            raise unavailable() from error
        return await self._record(account, payment_id, seen)

    async def _record(self, account: UUID, payment_id: UUID, seen: Observation) -> Payment:
        sealed = None
        if seen.client_secret is not None:
            cipher = await self._vault.account_cipher(account)
            sealed = cipher.seal(PAYMENT_TABLE, CLIENT_SECRET_FIELD, payment_id, seen.client_secret.encode())
        async with self._app.tenant(account, "record_payment") as conn:
            return await self._settlement.observe(conn, account, payment_id, seen, sealed)

    async def webhook_secrets(self, account: UUID, connection: PaymentConnection) -> tuple[str, ...]:
        """Returns the signing secrets of a connection's webhooks; more than one while they are being replaced."""
        cipher = await self._vault.account_cipher(account)
        sealed = connection.webhook_secrets_sealed
        return tuple(orjson.loads(cipher.open(CONNECTION_TABLE, WEBHOOK_SECRETS_FIELD, connection.id, sealed)))
