"""Owns the statements on attempts, which are counted here while the store is away."""

from collections.abc import Sequence
from datetime import datetime

from libs.postgres import Connection
from services.auth.domain.attempts import Bucket, State


async def lock(conn: Connection, buckets: Sequence[Bucket], at: datetime) -> list[State]:
    """Reads buckets and keeps them from changing until the transaction ends; those that are missing are made."""
    states = {}
    # In one order everywhere, so that two attempts never wait for each other.
    for bucket in sorted(buckets, key=lambda one: (one.key, one.field)):
        row = await conn.fetchrow(
            """
            INSERT INTO attempt (bucket, field, tries, until_ms, last_ms, updated_at) VALUES ($1, $2, 0, 0, 0, $3)
            ON CONFLICT (bucket, field) DO UPDATE SET updated_at = excluded.updated_at
            RETURNING tries, until_ms, last_ms
            """,
            bucket.key,
            bucket.field,
            at,
        )
        assert row is not None
        states[bucket] = State(row["tries"], row["until_ms"], row["last_ms"])
    return [states[bucket] for bucket in buckets]


async def store(conn: Connection, bucket: Bucket, state: State) -> None:
    """Stores what a locked bucket holds."""
    await conn.execute(
        "UPDATE attempt SET tries = $3, until_ms = $4, last_ms = $5 WHERE bucket = $1 AND field = $2",
        bucket.key,
        bucket.field,
        state.tries,
        state.until,
        state.last,
    )


async def empty(conn: Connection, bucket: Bucket) -> None:
    """Empties one bucket."""
    await conn.execute("DELETE FROM attempt WHERE bucket = $1 AND field = $2", bucket.key, bucket.field)


async def release(conn: Connection, key: bytes, now: int, most: int) -> bool:
    """Ends the waits of a key's buckets, and keeps the counts; tells whether any is full and stays shut."""
    await conn.execute("UPDATE attempt SET until_ms = 0 WHERE bucket = $1 AND tries < $2", key, most)
    shut: bool = await conn.fetchval(
        "SELECT EXISTS (SELECT FROM attempt WHERE bucket = $1 AND tries >= $2 AND until_ms > $3)", key, most, now
    )
    return shut


async def forget(conn: Connection, key: bytes) -> None:
    """Empties all buckets of a key."""
    await conn.execute("DELETE FROM attempt WHERE bucket = $1", key)
