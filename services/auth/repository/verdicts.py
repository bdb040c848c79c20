"""Owns the statements by which verdicts of the abuse service find whom they are about, a part at a time."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from libs.postgres import Connection

PART = 5_000


async def obeyed(conn: Connection, verdict: UUID) -> bool:
    """Tells whether a verdict was acted on."""
    return bool(await conn.fetchval("SELECT true FROM obeyed_verdict WHERE verdict_id = $1", verdict))


async def note(conn: Connection, verdict: UUID, until: datetime) -> None:
    """Notes that a verdict was acted on."""
    await conn.execute(
        "INSERT INTO obeyed_verdict (verdict_id, until) VALUES ($1, $2) ON CONFLICT DO NOTHING", verdict, until
    )


async def forget(conn: Connection, now: datetime) -> None:
    """Forgets verdicts that are over."""
    await conn.execute("DELETE FROM obeyed_verdict WHERE until < $1", now)


async def sessions_after(
    conn: Connection, account: UUID, after: UUID, now: datetime
) -> Sequence[tuple[UUID, str, UUID]]:
    """Reads sessions in use beyond an identifier: with `subj` or `per`, and whose they are."""
    rows = await conn.fetch(
        """
        SELECT id, CASE WHEN subject_id IS NULL THEN 'per' ELSE 'subj' END AS prefix,
               coalesce(subject_id, person_id) AS principal
        FROM session WHERE account_id = $1 AND id > $2 AND revoked_at IS NULL AND expires_at > $3
        ORDER BY id LIMIT $4
        """,
        account,
        after,
        now,
        PART,
    )
    return [(row["id"], row["prefix"], row["principal"]) for row in rows]


async def keys_after(conn: Connection, account: UUID, after: UUID) -> Sequence[UUID]:
    """Reads keys that were not ended, beyond an identifier."""
    rows = await conn.fetch(
        "SELECT id FROM api_key WHERE account_id = $1 AND id > $2 AND revoked_at IS NULL ORDER BY id LIMIT $3",
        account,
        after,
        PART,
    )
    return [row["id"] for row in rows]


async def credentials_after(conn: Connection, account: UUID, after: UUID) -> Sequence[tuple[UUID, UUID, bytes]]:
    """Reads readers' credentials beyond an identifier: with their subjects and the look-up values of addresses."""
    rows = await conn.fetch(
        "SELECT id, subject_id, email_index FROM credential WHERE account_id = $1 AND id > $2"
        " AND email_index IS NOT NULL ORDER BY id LIMIT $3",
        account,
        after,
        PART,
    )
    return [(row["id"], row["subject_id"], row["email_index"]) for row in rows]


async def people_after(conn: Connection, after: UUID) -> Sequence[tuple[UUID, bytes]]:
    """Reads persons beyond an identifier, with the look-up values of their addresses."""
    rows = await conn.fetch(
        "SELECT id, email_index FROM person WHERE id > $1 AND email_index IS NOT NULL ORDER BY id LIMIT $2", after, PART
    )
    return [(row["id"], row["email_index"]) for row in rows]
