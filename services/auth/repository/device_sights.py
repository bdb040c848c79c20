"""Owns the statements on what people have signed in from."""

from datetime import datetime
from uuid import UUID

from libs.postgres import Connection


async def look(conn: Connection, account: UUID, principal: UUID, sight: bytes, since: datetime) -> tuple[bool, bool]:
    """Tells whether anything was ever seen of somebody, and whether this was since then."""
    row = await conn.fetchrow(
        """
        SELECT count(*) > 0 AS anything, coalesce(bool_or(sight = $3 AND seen_at > $4), false) AS known
        FROM device_sight WHERE account_id = $1 AND subject_id = $2
        """,
        account,
        principal,
        sight,
        since,
    )
    return (row["anything"], row["known"]) if row else (False, False)


async def note(
    conn: Connection, account: UUID, key: UUID, principal: UUID, sight: bytes, at: datetime, since: datetime
) -> bool:
    """Notes what somebody signs in from; tells whether it had not been seen since then, to one of two at once."""
    former = await conn.fetchval(
        "SELECT seen_at FROM device_sight WHERE account_id = $1 AND subject_id = $2 AND sight = $3 FOR UPDATE",
        account,
        principal,
        sight,
    )
    added: bool = await conn.fetchval(
        """
        INSERT INTO device_sight (account_id, id, subject_id, sight, seen_at) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (account_id, subject_id, sight) DO UPDATE SET seen_at = excluded.seen_at
        RETURNING xmax = 0
        """,
        account,
        key,
        principal,
        sight,
        at,
    )
    return added or (former is not None and former <= since)


async def forget_beyond(conn: Connection, account: UUID, principal: UUID, most: int) -> None:
    """Forgets all but what was seen last of somebody."""
    await conn.execute(
        """
        DELETE FROM device_sight WHERE account_id = $1 AND id IN (
            SELECT id FROM device_sight WHERE account_id = $1 AND subject_id = $2 ORDER BY seen_at DESC OFFSET $3
        )
        """,
        account,
        principal,
        most,
    )
