"""Owns every SQL statement of notify: mails, webhook endpoints and deliveries."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from libs.postgres import Connection
from services.notify.domain import Delivery, Endpoint, Mail, State

NEWEST = UUID(int=(1 << 128) - 1)
"""The cursor before the first page: identifiers fall from newest to oldest."""


async def add_mail(conn: Connection, account: UUID, mail: Mail, created_at: datetime) -> bool:
    """Adds a mail; answers False when the event already has one of this template."""
    row = await conn.fetchrow(
        """
        INSERT INTO mail (account_id, id, template, event_id, subject_id, challenge_id, data, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT ON CONSTRAINT mail_once DO NOTHING RETURNING id
        """,
        account,
        mail.id,
        mail.template,
        mail.event_id,
        mail.subject,
        mail.challenge,
        mail.data,
        created_at,
    )
    return row is not None


async def find_mail(conn: Connection, account: UUID, mail: UUID) -> Mail | None:
    """Reads a mail."""
    row = await conn.fetchrow(
        """
        SELECT id, template, event_id, subject_id, challenge_id, data, state, attempts, sent_at
        FROM mail WHERE account_id = $1 AND id = $2
        """,
        account,
        mail,
    )
    return _mail(row) if row else None


async def list_mails(conn: Connection, account: UUID, before: UUID, limit: int) -> list[Mail]:
    """Reads mails older than `before`, newest first."""
    rows = await conn.fetch(
        """
        SELECT id, template, event_id, subject_id, challenge_id, data, state, attempts, sent_at
        FROM mail WHERE account_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3
        """,
        account,
        before,
        limit,
    )
    return [_mail(row) for row in rows]


async def record_mail(
    conn: Connection, account: UUID, mail: UUID, state: State, attempts: int, sent_at: datetime | None
) -> None:
    """Writes how a try to send a mail ended."""
    await conn.execute(
        "UPDATE mail SET state = $3, attempts = $4, sent_at = $5 WHERE account_id = $1 AND id = $2",
        account,
        mail,
        state.value,
        attempts,
        sent_at,
    )


async def remove_mail(conn: Connection, account: UUID, mail: UUID) -> None:
    """Removes a mail that is not to be."""
    await conn.execute("DELETE FROM mail WHERE account_id = $1 AND id = $2", account, mail)


async def add_endpoint(conn: Connection, account: UUID, endpoint: Endpoint) -> None:
    """Adds an endpoint."""
    await conn.execute(
        """
        INSERT INTO webhook_endpoint (account_id, id, url, event_types, created_at)
        VALUES ($1, $2, $3, $4, $5)
        """,
        account,
        endpoint.id,
        endpoint.url,
        list(endpoint.event_types),
        endpoint.created_at,
    )


async def list_endpoints(conn: Connection, account: UUID) -> list[Endpoint]:
    """Reads all endpoints, newest first."""
    rows = await conn.fetch(
        """
        SELECT id, url, event_types, created_at, disabled_at
        FROM webhook_endpoint WHERE account_id = $1 ORDER BY id DESC
        """,
        account,
    )
    return [_endpoint(row) for row in rows]


async def find_endpoint(conn: Connection, account: UUID, endpoint: UUID) -> Endpoint | None:
    """Reads an endpoint."""
    row = await conn.fetchrow(
        """
        SELECT id, url, event_types, created_at, disabled_at
        FROM webhook_endpoint WHERE account_id = $1 AND id = $2
        """,
        account,
        endpoint,
    )
    return _endpoint(row) if row else None


async def disable_endpoint(conn: Connection, account: UUID, endpoint: UUID, at: datetime) -> None:
    """Stops an endpoint and gives its waiting deliveries up; the first time counts."""
    await conn.execute(
        "UPDATE webhook_endpoint SET disabled_at = coalesce(disabled_at, $3) WHERE account_id = $1 AND id = $2",
        account,
        endpoint,
        at,
    )
    await conn.execute(
        """
        UPDATE webhook_delivery SET state = 'failed', next_attempt_at = NULL
        WHERE account_id = $1 AND endpoint_id = $2 AND state = 'pending'
        """,
        account,
        endpoint,
    )


async def add_deliveries(
    conn: Connection, account: UUID, deliveries: Sequence[Delivery], created_at: datetime
) -> list[UUID]:
    """Adds deliveries in one statement; answers those that the event did not have yet."""
    rows = await conn.fetch(
        """
        INSERT INTO webhook_delivery
            (account_id, id, endpoint_id, event_id, event_type, subject_id, payload, created_at, next_attempt_at)
        SELECT $1, item.id, item.endpoint_id, item.event_id, item.event_type, item.subject_id, item.payload, $8, $8
        FROM unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::uuid[], $7::bytea[])
            AS item (id, endpoint_id, event_id, event_type, subject_id, payload)
        ON CONFLICT ON CONSTRAINT webhook_delivery_once DO NOTHING RETURNING id
        """,
        account,
        [delivery.id for delivery in deliveries],
        [delivery.endpoint for delivery in deliveries],
        [delivery.event_id for delivery in deliveries],
        [delivery.event_type for delivery in deliveries],
        [delivery.subject for delivery in deliveries],
        [delivery.payload for delivery in deliveries],
        created_at,
    )
    return [row["id"] for row in rows]


async def find_delivery(conn: Connection, account: UUID, delivery: UUID) -> Delivery | None:
    """Reads a delivery."""
    row = await conn.fetchrow(
        """
        SELECT id, endpoint_id, event_id, event_type, subject_id, payload, state, attempts, last_status,
               next_attempt_at, delivered_at
        FROM webhook_delivery WHERE account_id = $1 AND id = $2
        """,
        account,
        delivery,
    )
    return _delivery(row) if row else None


async def list_deliveries(conn: Connection, account: UUID, before: UUID, limit: int) -> list[Delivery]:
    """Reads deliveries older than `before`, newest first."""
    rows = await conn.fetch(
        """
        SELECT id, endpoint_id, event_id, event_type, subject_id, payload, state, attempts, last_status,
               next_attempt_at, delivered_at
        FROM webhook_delivery WHERE account_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3
        """,
        account,
        before,
        limit,
    )
    return [_delivery(row) for row in rows]


async def record_delivery(
    conn: Connection,
    account: UUID,
    delivery: UUID,
    *,
    state: State,
    attempts: int,
    last_status: int,
    next_attempt_at: datetime | None,
    delivered_at: datetime | None,
) -> None:
    """Writes how a try to deliver ended."""
    await conn.execute(
        """
        UPDATE webhook_delivery
        SET state = $3, attempts = $4, last_status = $5, next_attempt_at = $6, delivered_at = $7
        WHERE account_id = $1 AND id = $2
        """,
        account,
        delivery,
        state.value,
        attempts,
        last_status,
        next_attempt_at,
        delivered_at,
    )


def _mail(row: Any) -> Mail:
    return Mail(
        id=row["id"],
        template=row["template"],
        event_id=row["event_id"],
        subject=row["subject_id"],
        challenge=row["challenge_id"],
        data=row["data"],
        state=State(row["state"]),
        attempts=row["attempts"],
        sent_at=row["sent_at"],
    )


def _endpoint(row: Any) -> Endpoint:
    return Endpoint(
        id=row["id"],
        url=row["url"],
        event_types=tuple(row["event_types"]),
        created_at=row["created_at"],
        disabled_at=row["disabled_at"],
    )


def _delivery(row: Any) -> Delivery:
    return Delivery(
        id=row["id"],
        endpoint=row["endpoint_id"],
        event_id=row["event_id"],
        event_type=row["event_type"],
        subject=row["subject_id"],
        payload=row["payload"],
        state=State(row["state"]),
        attempts=row["attempts"],
        last_status=row["last_status"],
        next_attempt_at=row["next_attempt_at"],
        delivered_at=row["delivered_at"],
    )
