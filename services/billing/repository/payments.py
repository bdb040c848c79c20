"""Owns the statements on payments and on Stripe's events as they were taken."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from libs import errors
from libs.postgres import Connection, Record
from services.billing.domain.payment import Payment, PaymentKind, PaymentState
from services.billing.repository.rows import money

_COLUMNS = (
    "id, invoice_id, subscription_id, subject_id, connection_id, kind, amount_minor, currency, state, off_session,"
    " attempt, provider_intent, provider_customer, provider_method, client_secret_sealed, error_reason, decline_code,"
    " observed_second, observed_event, created_at, sequence"
)
_EVENT = (
    "id, account_id, connection_id, event, type, created_second, state, payment_id, intent, status, amount, currency,"
    " method, error_reason, decline_code"
)


@dataclass(frozen=True)
class StripeEvent:
    """What was kept of an event of Stripe's."""

    id: UUID
    account: UUID
    connection_id: UUID
    event: str
    type: str
    created_second: int
    state: str
    """`received`, `parked` (its payment is not known yet), `done`, `ignored` or `refused`."""
    payment_id: UUID | None = None
    intent: str | None = None
    status: str | None = None
    amount: int | None = None
    currency: str | None = None
    method: str | None = None
    error_reason: str | None = None
    decline_code: str | None = None


class PaymentRepository:
    """Payments of one account at a time. Who changes one holds its subscription's row lock."""

    async def add(self, conn: Connection, account: UUID, payment: Payment) -> None:
        """Writes a reserved payment."""
        await conn.execute(
            "INSERT INTO payment (account_id, id, invoice_id, subscription_id, subject_id, connection_id, kind,"
            " amount_minor, currency, state, off_session, attempt, provider_customer, provider_method,"
            " observed_second, observed_event, created_at, sequence)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 0, '', $15, 0)",
            account,
            payment.id,
            payment.invoice_id,
            payment.subscription_id,
            payment.subject_id,
            payment.connection_id,
            payment.kind.value,
            payment.amount.amount_minor,
            payment.amount.currency,
            payment.state.value,
            payment.off_session,
            payment.attempt,
            payment.provider_customer,
            payment.provider_method,
            payment.created_at,
        )

    async def find(self, conn: Connection, account: UUID, payment_id: UUID) -> Payment | None:
        """Returns a payment if there is one."""
        row = await conn.fetchrow(
            f"SELECT {_COLUMNS} FROM payment WHERE account_id = $1 AND id = $2",  # noqa: S608 — a constant
            account,
            payment_id,
        )
        return _payment(row) if row is not None else None

    async def get(self, conn: Connection, account: UUID, payment_id: UUID) -> Payment:
        """Returns a payment; raises `not_found("payment_not_found")`."""
        payment = await self.find(conn, account, payment_id)
        if payment is None:
            raise errors.not_found("payment_not_found", "There is no such payment.")
        return payment

    async def newest_of(self, conn: Connection, account: UUID, invoice_id: UUID) -> Payment | None:
        """Returns the last try to collect an invoice."""
        row = await conn.fetchrow(
            f"SELECT {_COLUMNS} FROM payment WHERE account_id = $1 AND invoice_id = $2"  # noqa: S608 — a constant
            " ORDER BY attempt DESC, id DESC LIMIT 1",
            account,
            invoice_id,
        )
        return _payment(row) if row is not None else None

    async def begin_call(
        self, conn: Connection, account: UUID, payment_id: UUID, provider_customer: str, wall: datetime
    ) -> datetime | None:
        """Records that the provider is about to be asked, for the first time; returns when that was.

        None when it is not to be asked any more.
        """
        called_at: datetime | None = await conn.fetchval(
            "UPDATE payment SET provider_customer = coalesce(provider_customer, $3),"
            " called_at = coalesce(called_at, $4)"
            " WHERE account_id = $1 AND id = $2 AND state IN ('reserved', 'unknown') RETURNING called_at",
            account,
            payment_id,
            provider_customer,
            wall,
        )
        return called_at

    async def called(self, conn: Connection, account: UUID, payment_id: UUID) -> bool:
        """Tells whether the provider was asked, or is about to be; keeps others from it until the commit."""
        found = await conn.fetchval(
            "SELECT called_at IS NOT NULL FROM payment WHERE account_id = $1 AND id = $2 FOR UPDATE",
            account,
            payment_id,
        )
        return bool(found)

    async def save(self, conn: Connection, account: UUID, payment: Payment) -> None:
        """Writes what changes in the life of a payment."""
        await conn.execute(
            "UPDATE payment SET state = $3, provider_intent = $4, provider_method = $5, client_secret_sealed = $6,"
            " error_reason = $7, decline_code = $8, observed_second = $9, observed_event = $10, sequence = $11"
            " WHERE account_id = $1 AND id = $2",
            account,
            payment.id,
            payment.state.value,
            payment.provider_intent,
            payment.provider_method,
            payment.client_secret_sealed,
            payment.error_reason,
            payment.decline_code,
            payment.observed_second,
            payment.observed_event,
            payment.sequence,
        )


class StripeInboxRepository:
    """Stripe's events of all accounts; a routing table."""

    async def take(self, conn: Connection, event: StripeEvent, wall: datetime) -> bool:
        """Writes an event; returns whether it is new."""
        taken = await conn.fetchval(
            "INSERT INTO stripe_event (id, account_id, connection_id, event, type, created_second, state, payment_id,"
            " intent, status, amount, currency, method, error_reason, decline_code, received_at)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)"
            " ON CONFLICT (connection_id, event) DO NOTHING RETURNING id",
            event.id,
            event.account,
            event.connection_id,
            event.event,
            event.type,
            event.created_second,
            event.state,
            event.payment_id,
            event.intent,
            event.status,
            event.amount,
            event.currency,
            event.method,
            event.error_reason,
            event.decline_code,
            wall,
        )
        return taken is not None

    async def get(self, conn: Connection, account: UUID, event_id: UUID) -> StripeEvent | None:
        """Returns an event of this account."""
        row = await conn.fetchrow(
            f"SELECT {_EVENT} FROM stripe_event WHERE account_id = $1 AND id = $2",  # noqa: S608 — a constant
            account,
            event_id,
        )
        if row is None:
            return None
        values = dict(row)
        return StripeEvent(account=values.pop("account_id"), **values)

    async def settle(self, conn: Connection, event_id: UUID, state: str, outcome: str, wall: datetime) -> None:
        """Records what became of an event and drops what it says of a card, which the payment keeps."""
        await conn.execute(
            "UPDATE stripe_event SET state = $2, outcome = $3, handled_at = $4, method = NULL, error_reason = NULL,"
            " decline_code = NULL WHERE id = $1",
            event_id,
            state,
            outcome,
            wall,
        )

    async def park(self, conn: Connection, event_id: UUID) -> None:
        """Records that an event waits for its payment."""
        await conn.execute("UPDATE stripe_event SET state = 'parked' WHERE id = $1", event_id)

    async def delete(self, conn: Connection, account: UUID, event_id: UUID) -> None:
        """Deletes an event of this account, if it is there."""
        await conn.execute("DELETE FROM stripe_event WHERE account_id = $1 AND id = $2", account, event_id)


def _payment(row: Record) -> Payment:
    return Payment(
        id=row["id"],
        invoice_id=row["invoice_id"],
        subscription_id=row["subscription_id"],
        subject_id=row["subject_id"],
        connection_id=row["connection_id"],
        kind=PaymentKind(row["kind"]),
        amount=money(row),
        state=PaymentState(row["state"]),
        off_session=row["off_session"],
        attempt=row["attempt"],
        created_at=row["created_at"],
        provider_intent=row["provider_intent"],
        provider_customer=row["provider_customer"],
        provider_method=row["provider_method"],
        client_secret_sealed=row["client_secret_sealed"],
        error_reason=row["error_reason"],
        decline_code=row["decline_code"],
        observed_second=row["observed_second"],
        observed_event=row["observed_event"],
        sequence=row["sequence"],
    )
