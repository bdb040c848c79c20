"""Owns the statements on networks that somebody has signed in from."""

from datetime import datetime
from uuid import UUID

from libs.postgres import Connection


async def see(conn: Connection, account: UUID, principal: UUID, network: bytes, at: datetime, most: int) -> None:
    """Keeps a network that somebody signs in from, and forgets all but the newest."""
    await conn.execute(
        """
        INSERT INTO known_network (account_id, subject_id, network, seen_at) VALUES ($1, $2, $3, $4)
        ON CONFLICT (account_id, subject_id, network) DO UPDATE SET seen_at = excluded.seen_at
        """,
        account,
        principal,
        network,
        at,
    )
    await conn.execute(
        """
        DELETE FROM known_network WHERE account_id = $1 AND subject_id = $2 AND network IN
            (SELECT network FROM known_network WHERE account_id = $1 AND subject_id = $2
             ORDER BY seen_at DESC, network OFFSET $3)
        """,
        account,
        principal,
        most,
    )


async def seen(conn: Connection, account: UUID, principal: UUID, network: bytes, since: datetime) -> bool:
    """Tells whether somebody has signed in from a network."""
    found: bool = await conn.fetchval(
        """
        SELECT EXISTS (SELECT FROM known_network
            WHERE account_id = $1 AND subject_id = $2 AND network = $3 AND seen_at > $4)
        """,
        account,
        principal,
        network,
        since,
    )
    return found
