"""Owns the statements on payment connections, customers and payment methods."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from libs import errors
from libs.postgres import Connection, Record
from services.billing.domain.connection import PaymentConnection

_COLUMNS = (
    "id, live, provider_account, publishable_key, time_zone, created_at, secret_key_sealed, webhook_secrets_sealed"
)


@dataclass(frozen=True)
class Customer:
    """A reader's counterpart at the provider; without a name there until the provider has answered."""

    id: UUID
    provider_customer: str | None


@dataclass(frozen=True)
class PaymentMethod:
    """A stored way to pay."""

    id: UUID
    connection_id: UUID
    provider_method: str
    card_hash: bytes | None = None
    """What verdicts name its card by."""


class ConnectionRepository:
    """The accounts at payment providers, and who the readers are there."""

    async def add(self, conn: Connection, account: UUID, connection: PaymentConnection) -> None:
        """Writes a connection and the route of its webhooks."""
        await conn.execute(
            "INSERT INTO payment_connection (account_id, id, provider, live, provider_account, publishable_key,"
            " time_zone, created_at, secret_key_sealed, webhook_secrets_sealed)"
            " VALUES ($1, $2, 'stripe', $3, $4, $5, $6, $7, $8, $9)",
            account,
            connection.id,
            connection.live,
            connection.provider_account,
            connection.publishable_key,
            connection.time_zone,
            connection.created_at,
            connection.secret_key_sealed,
            connection.webhook_secrets_sealed,
        )
        await conn.execute(
            "INSERT INTO payment_connection_route (connection_id, account_id, live) VALUES ($1, $2, $3)",
            connection.id,
            account,
            connection.live,
        )

    async def accounts(self, conn: Connection) -> list[UUID]:
        """Returns the accounts that have a connection; needs no tenant."""
        rows = await conn.fetch("SELECT DISTINCT account_id FROM payment_connection_route ORDER BY account_id")
        return [row["account_id"] for row in rows]

    async def route(self, conn: Connection, connection_id: UUID) -> UUID | None:
        """Returns the account whose connection it is; needs no tenant."""
        account: UUID | None = await conn.fetchval(
            "SELECT account_id FROM payment_connection_route WHERE connection_id = $1", connection_id
        )
        return account

    async def list_all(self, conn: Connection, account: UUID) -> list[PaymentConnection]:
        """Returns the account's connections, newest first."""
        rows = await conn.fetch(
            f"SELECT {_COLUMNS} FROM payment_connection WHERE account_id = $1"  # noqa: S608 — a constant
            " ORDER BY id DESC LIMIT 100",
            account,
        )
        return [_connection(row) for row in rows]

    async def newest(self, conn: Connection, account: UUID) -> PaymentConnection:
        """Returns the connection that new payments go through; raises `precondition("payment_connection_missing")`."""
        row = await conn.fetchrow(
            f"SELECT {_COLUMNS} FROM payment_connection WHERE account_id = $1 ORDER BY id DESC LIMIT 1",  # noqa: S608
            account,
        )
        if row is None:
            raise errors.precondition(
                "payment_connection_missing", "The publisher has not connected a payment provider yet."
            )
        return _connection(row)

    async def get(self, conn: Connection, account: UUID, connection_id: UUID) -> PaymentConnection:
        """Returns a connection; raises `not_found("payment_connection_not_found")`."""
        row = await conn.fetchrow(
            f"SELECT {_COLUMNS} FROM payment_connection WHERE account_id = $1 AND id = $2",  # noqa: S608 — a constant
            account,
            connection_id,
        )
        if row is None:
            raise errors.not_found("payment_connection_not_found", "There is no such payment connection.")
        return _connection(row)

    async def ensure_customer(
        self, conn: Connection, account: UUID, connection_id: UUID, subject_id: UUID, new_id: UUID, at: datetime
    ) -> Customer:
        """Returns the reader's customer, reserved under `new_id` when there is none."""
        await conn.execute(
            "INSERT INTO customer (account_id, id, connection_id, subject_id, created_at) VALUES ($1, $2, $3, $4, $5)"
            " ON CONFLICT (account_id, connection_id, subject_id) DO NOTHING",
            account,
            new_id,
            connection_id,
            subject_id,
            at,
        )
        row = await conn.fetchrow(
            "SELECT id, provider_customer FROM customer"
            " WHERE account_id = $1 AND connection_id = $2 AND subject_id = $3",
            account,
            connection_id,
            subject_id,
        )
        assert row is not None
        return Customer(row["id"], row["provider_customer"])

    async def name_customer(self, conn: Connection, account: UUID, customer_id: UUID, provider_customer: str) -> str:
        """Records the provider's name of a customer; returns the one that stands when another was first."""
        await conn.execute(
            "UPDATE customer SET provider_customer = $3"
            " WHERE account_id = $1 AND id = $2 AND provider_customer IS NULL",
            account,
            customer_id,
            provider_customer,
        )
        name: str = await conn.fetchval(
            "SELECT provider_customer FROM customer WHERE account_id = $1 AND id = $2", account, customer_id
        )
        return name

    async def ensure_method(
        self,
        conn: Connection,
        account: UUID,
        connection_id: UUID,
        subject_id: UUID,
        provider_method: str,
        new_id: UUID,
        at: datetime,
    ) -> UUID:
        """Returns the payment method with the provider's name, added under `new_id` when there is none."""
        await conn.execute(
            "INSERT INTO payment_method (account_id, id, connection_id, subject_id, provider_method, created_at)"
            " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (account_id, connection_id, provider_method) DO NOTHING",
            account,
            new_id,
            connection_id,
            subject_id,
            provider_method,
            at,
        )
        found: UUID = await conn.fetchval(
            "SELECT id FROM payment_method WHERE account_id = $1 AND connection_id = $2 AND provider_method = $3",
            account,
            connection_id,
            provider_method,
        )
        return found

    async def get_method(self, conn: Connection, account: UUID, method_id: UUID) -> PaymentMethod | None:
        """Returns a payment method, unless it was erased."""
        row = await conn.fetchrow(
            "SELECT id, connection_id, provider_method, card_hash FROM payment_method"
            " WHERE account_id = $1 AND id = $2",
            account,
            method_id,
        )
        if row is None:
            return None
        return PaymentMethod(row["id"], row["connection_id"], row["provider_method"], row["card_hash"])

    async def describe_method(
        self,
        conn: Connection,
        account: UUID,
        method_id: UUID,
        brand: str,
        last4: str,
        month: int,
        year: int,
        card_hash: bytes | None,
    ) -> None:
        """Records what the reader, and what verdicts, recognise a card by."""
        await conn.execute(
            "UPDATE payment_method SET brand = $3, last4 = $4, expiry_month = $5, expiry_year = $6, card_hash = $7"
            " WHERE account_id = $1 AND id = $2",
            account,
            method_id,
            brand,
            last4,
            month,
            year,
            card_hash,
        )


def _connection(row: Record) -> PaymentConnection:
    return PaymentConnection(
        id=row["id"],
        live=row["live"],
        provider_account=row["provider_account"],
        publishable_key=row["publishable_key"],
        time_zone=row["time_zone"],
        created_at=row["created_at"],
        secret_key_sealed=row["secret_key_sealed"],
        webhook_secrets_sealed=row["webhook_secrets_sealed"],
    )
