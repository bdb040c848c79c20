"""Owns the statements on when mailboxes were last sent what anybody can ask for."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from libs.postgres import Connection


async def lock(conn: Connection, account: UUID, mailbox: bytes, at: datetime) -> list[datetime]:
    """Reads when a mailbox was mailed, the newest last, and keeps that from changing until the transaction ends."""
    mailed_at: list[datetime] = await conn.fetchval(
        """
        INSERT INTO mailbox (account_id, mailbox, mailed_at, asked_at) VALUES ($1, $2, '{}', $3)
        ON CONFLICT (account_id, mailbox) DO UPDATE SET asked_at = excluded.asked_at RETURNING mailed_at
        """,
        account,
        mailbox,
        at,
    )
    return mailed_at


async def store(conn: Connection, account: UUID, mailbox: bytes, mailed_at: Sequence[datetime]) -> None:
    """Stores when a locked mailbox was mailed."""
    await conn.execute(
        "UPDATE mailbox SET mailed_at = $3 WHERE account_id = $1 AND mailbox = $2", account, mailbox, list(mailed_at)
    )
