"""Owns the statements on subscriptions and checkouts."""

from collections.abc import AsyncIterator
from datetime import datetime
from uuid import UUID

import asyncpg

from libs import errors, postgres
from libs.postgres import Connection, Record
from services.billing.domain.checkout import Checkout
from services.billing.domain.periods import Interval, Period
from services.billing.domain.subscription import Subscription, SubscriptionState
from services.billing.repository.rows import money

_COLUMNS = (
    "id, subject_id, product_id, plan_id, price_id, connection_id, state, description, features, amount_minor,"
    " currency, interval, interval_count, anchor, trial_start, zone, period_number, period_start, period_end,"
    " payment_method_id, charge_at, created_at, ended_at, end_reason, sequence"
)
_PART = 5_000
_CHECKOUT = "id, subject_id, subscription_id, invoice_id, payment_id, created_at, expires_at, completed_at"


class LiveSubscriptionExistsError(Exception):
    """The reader has a subscription to the product already, or one that awaits its first payment."""


class SubscriptionRepository:
    """Subscriptions of one account at a time. A row lock on one orders all that happens to it, its invoices and
    payments."""

    async def add(self, conn: Connection, account: UUID, subscription: Subscription) -> None:
        """Raises LiveSubscriptionExistsError; the transaction is lost then."""
        try:
            await conn.execute(
                "INSERT INTO subscription (account_id, id, subject_id, product_id, plan_id, price_id, connection_id,"
                " state, description, features, amount_minor, currency, interval, interval_count, anchor, trial_start,"
                " zone, period_number, created_at, sequence) VALUES"
                " ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, 0, $18, 0)",
                account,
                subscription.id,
                subscription.subject_id,
                subscription.product_id,
                subscription.plan_id,
                subscription.price_id,
                subscription.connection_id,
                subscription.state.value,
                subscription.description,
                list(subscription.features),
                subscription.amount.amount_minor,
                subscription.amount.currency,
                subscription.interval.value,
                subscription.interval_count,
                subscription.anchor,
                subscription.trial_start,
                subscription.zone,
                subscription.created_at,
            )
        except asyncpg.UniqueViolationError as error:
            if postgres.violated(error) != "subscription_live":
                raise
            raise LiveSubscriptionExistsError from error

    async def get(
        self, conn: Connection, account: UUID, subscription_id: UUID, *, subject: UUID | None = None
    ) -> Subscription:
        """Returns a subscription, of this reader only where one is given; raises `not_found`."""
        row = await conn.fetchrow(
            f"SELECT {_COLUMNS} FROM subscription"  # noqa: S608 — a constant
            " WHERE account_id = $1 AND id = $2 AND ($3::uuid IS NULL OR subject_id = $3)",
            account,
            subscription_id,
            subject,
        )
        return _found(row)

    async def lock(self, conn: Connection, account: UUID, subscription_id: UUID) -> Subscription:
        """Returns a subscription and keeps others from changing it, its invoices and payments until the commit."""
        row = await conn.fetchrow(
            f"SELECT {_COLUMNS} FROM subscription WHERE account_id = $1 AND id = $2 FOR UPDATE",  # noqa: S608 — constant
            account,
            subscription_id,
        )
        return _found(row)

    async def find_live(self, conn: Connection, account: UUID, subject: UUID, product_id: UUID) -> Subscription | None:
        """Returns the reader's subscription to a product that has not ended."""
        row = await conn.fetchrow(
            f"SELECT {_COLUMNS} FROM subscription"  # noqa: S608 — a constant
            " WHERE account_id = $1 AND subject_id = $2 AND product_id = $3 AND state <> 'ended'",
            account,
            subject,
            product_id,
        )
        return _subscription(row) if row is not None else None

    async def list_page(
        self, conn: Connection, account: UUID, subject: UUID | None, before: UUID | None, limit: int
    ) -> list[Subscription]:
        """Returns subscriptions, newest first, of one reader where one is given."""
        rows = await conn.fetch(
            f"SELECT {_COLUMNS} FROM subscription WHERE account_id = $1"  # noqa: S608 — a constant
            " AND ($2::uuid IS NULL OR subject_id = $2) AND ($3::uuid IS NULL OR id < $3) ORDER BY id DESC LIMIT $4",
            account,
            subject,
            before,
            limit,
        )
        return [_subscription(row) for row in rows]

    async def save(self, conn: Connection, account: UUID, subscription: Subscription) -> None:
        """Writes what changes in the life of a locked subscription."""
        await conn.execute(
            "UPDATE subscription SET state = $3, period_number = $4, period_start = $5, period_end = $6,"
            " payment_method_id = $7, ended_at = $8, end_reason = $9, sequence = $10, charge_at = $11"
            " WHERE account_id = $1 AND id = $2",
            account,
            subscription.id,
            subscription.state.value,
            subscription.period_number,
            subscription.period.start if subscription.period is not None else None,
            subscription.period.end if subscription.period is not None else None,
            subscription.payment_method_id,
            subscription.ended_at,
            subscription.end_reason,
            subscription.sequence,
            subscription.charge_at,
        )

    async def add_checkout(self, conn: Connection, account: UUID, checkout: Checkout) -> None:
        """Writes a checkout."""
        await conn.execute(
            "INSERT INTO checkout (account_id, id, subject_id, subscription_id, invoice_id, payment_id, created_at,"
            " expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            account,
            checkout.id,
            checkout.subject_id,
            checkout.subscription_id,
            checkout.invoice_id,
            checkout.payment_id,
            checkout.created_at,
            checkout.expires_at,
        )

    async def get_checkout(
        self, conn: Connection, account: UUID, checkout_id: UUID, *, subject: UUID | None = None
    ) -> Checkout:
        """Returns a checkout, of this reader only where one is given; raises `not_found("checkout_not_found")`."""
        row = await conn.fetchrow(
            f"SELECT {_CHECKOUT} FROM checkout"  # noqa: S608 — a constant
            " WHERE account_id = $1 AND id = $2 AND ($3::uuid IS NULL OR subject_id = $3)",
            account,
            checkout_id,
            subject,
        )
        if row is None:
            raise errors.not_found("checkout_not_found", "There is no such checkout.")
        return _checkout(row)

    async def find_checkout(self, conn: Connection, account: UUID, checkout_id: UUID) -> Checkout | None:
        """Returns a checkout if there is one."""
        row = await conn.fetchrow(
            f"SELECT {_CHECKOUT} FROM checkout WHERE account_id = $1 AND id = $2",  # noqa: S608 — a constant
            account,
            checkout_id,
        )
        return _checkout(row) if row is not None else None

    async def checkout_of(self, conn: Connection, account: UUID, subscription_id: UUID) -> Checkout | None:
        """Returns the checkout that a subscription came from, unless it was erased."""
        row = await conn.fetchrow(
            f"SELECT {_CHECKOUT} FROM checkout WHERE account_id = $1 AND subscription_id = $2",  # noqa: S608 — constant
            account,
            subscription_id,
        )
        return _checkout(row) if row is not None else None

    async def open_checkouts(self, conn: Connection, account: UUID) -> AsyncIterator[tuple[UUID, UUID]]:
        """Goes over checkouts whose payment can still be withdrawn, with their readers."""
        after = UUID(int=0)
        while True:
            rows = await conn.fetch(
                "SELECT checkout.id, checkout.subject_id FROM payment JOIN checkout"
                " ON checkout.account_id = payment.account_id AND checkout.payment_id = payment.id"
                " WHERE payment.account_id = $1 AND checkout.id > $2"
                " AND payment.state IN ('reserved', 'unknown', 'called', 'requires_action')"
                " ORDER BY checkout.id LIMIT $3",
                account,
                after,
                _PART,
            )
            for row in rows:
                yield row["id"], row["subject_id"]
            if len(rows) < _PART:
                return
            after = rows[-1]["id"]

    async def complete_checkout(
        self, conn: Connection, account: UUID, subscription_id: UUID, at: datetime
    ) -> UUID | None:
        """Completes the checkout that a subscription came from; returns its id."""
        checkout_id: UUID | None = await conn.fetchval(
            "UPDATE checkout SET completed_at = coalesce(completed_at, $3)"
            " WHERE account_id = $1 AND subscription_id = $2 RETURNING id",
            account,
            subscription_id,
            at,
        )
        return checkout_id


def _found(row: Record | None) -> Subscription:
    if row is None:
        raise errors.not_found("subscription_not_found", "There is no such subscription.")
    return _subscription(row)


def _subscription(row: Record) -> Subscription:
    return Subscription(
        id=row["id"],
        subject_id=row["subject_id"],
        product_id=row["product_id"],
        plan_id=row["plan_id"],
        price_id=row["price_id"],
        connection_id=row["connection_id"],
        state=SubscriptionState(row["state"]),
        description=row["description"],
        features=tuple(row["features"]),
        amount=money(row),
        interval=Interval(row["interval"]),
        interval_count=row["interval_count"],
        anchor=row["anchor"],
        trial_start=row["trial_start"],
        zone=row["zone"],
        created_at=row["created_at"],
        period_number=row["period_number"],
        period=Period(row["period_start"], row["period_end"]) if row["period_number"] else None,
        payment_method_id=row["payment_method_id"],
        charge_at=row["charge_at"],
        ended_at=row["ended_at"],
        end_reason=row["end_reason"],
        sequence=row["sequence"],
    )


def _checkout(row: Record) -> Checkout:
    return Checkout(
        id=row["id"],
        subject_id=row["subject_id"],
        subscription_id=row["subscription_id"],
        invoice_id=row["invoice_id"],
        payment_id=row["payment_id"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        completed_at=row["completed_at"],
    )
