"""Owns the statements on who reads which shard of the activities."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from libs.postgres import Connection


async def beat(conn: Connection, replica: UUID, now: datetime, gone_before: datetime) -> int:
    """Says that a replica lives and forgets those that do not; returns how many do."""
    await conn.execute(
        "INSERT INTO replica (id, seen_at) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at",
        replica,
        now,
    )
    await conn.execute(
        "DELETE FROM replica WHERE id IN"
        " (SELECT id FROM replica WHERE seen_at < $1 ORDER BY id FOR UPDATE SKIP LOCKED)",
        gone_before,
    )
    return int(await conn.fetchval("SELECT count(*) FROM replica"))


async def renew(conn: Connection, replica: UUID, shards: Sequence[int], until: datetime) -> list[int]:
    """Holds shards for longer; returns those that it still holds."""
    rows = await conn.fetch(
        "UPDATE shard SET leased_until = $3 WHERE number = ANY($2::int[]) AND holder = $1 RETURNING number",
        replica,
        list(shards),
        until,
    )
    return sorted(row["number"] for row in rows)


async def claim(conn: Connection, replica: UUID, most: int, now: datetime, until: datetime) -> list[int]:
    """Takes shards that nobody holds, up to a number; returns them."""
    rows = await conn.fetch(
        """
        UPDATE shard SET holder = $1, leased_until = $4
        WHERE number IN (
            SELECT number FROM shard WHERE holder IS NULL OR leased_until <= $3
            ORDER BY number LIMIT $2 FOR UPDATE SKIP LOCKED)
        RETURNING number
        """,
        replica,
        most,
        now,
        until,
    )
    return sorted(row["number"] for row in rows)


async def release(conn: Connection, replica: UUID, shards: Sequence[int]) -> None:
    """Lets go of shards."""
    await conn.execute(
        "UPDATE shard SET holder = NULL, leased_until = NULL WHERE number = ANY($2::int[]) AND holder = $1",
        replica,
        list(shards),
    )


async def leave(conn: Connection, replica: UUID) -> None:
    """Says that a replica ends."""
    await conn.execute("DELETE FROM replica WHERE id = $1", replica)


async def holds(conn: Connection, replica: UUID, shard: int) -> bool:
    """Tells whether a replica holds a shard, and keeps that so until the transaction ends."""
    held = await conn.fetchval("SELECT true FROM shard WHERE number = $2 AND holder = $1 FOR SHARE", replica, shard)
    return bool(held)
