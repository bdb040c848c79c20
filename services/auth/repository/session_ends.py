"""Owns the statements on sessions that ended before their time, whose access tokens gateways refuse."""

from datetime import datetime
from uuid import UUID

from libs.postgres import Connection


async def after(
    conn: Connection, place: tuple[int, int], now: datetime, limit: int
) -> list[tuple[UUID, tuple[int, int]]]:
    """Reads ends after a place, with theirs, in an order in which nothing appears later before what was read.

    That order is by transaction, and only transactions older than every running one are shown.
    """
    rows = await conn.fetch(
        """
        SELECT session_id, xid::text AS xid, position FROM session_end
        WHERE (xid, position) > ($1::text::xid8, $2::bigint) AND xid < pg_snapshot_xmin(pg_current_snapshot())
            AND until > $3
        ORDER BY xid, position LIMIT $4
        """,
        str(place[0]),
        place[1],
        now,
        limit,
    )
    return [(row["session_id"], (int(row["xid"]), row["position"])) for row in rows]


async def newest_transaction(conn: Connection) -> int:
    """Reads the number that the next transaction gets: a place beyond it belongs to another cluster's history."""
    return int(await conn.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text"))


async def unannounced(conn: Connection, limit: int) -> list[tuple[int, UUID]]:
    """Reads ends that gateways were not told of, oldest first."""
    rows = await conn.fetch(
        "SELECT position, session_id FROM session_end WHERE published_at IS NULL ORDER BY position LIMIT $1", limit
    )
    return [(row["position"], row["session_id"]) for row in rows]


async def announced(conn: Connection, positions: list[int], at: datetime) -> None:
    """Notes that gateways were told."""
    await conn.execute("UPDATE session_end SET published_at = $2 WHERE position = ANY($1::bigint[])", positions, at)
