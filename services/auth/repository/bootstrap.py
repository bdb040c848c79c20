"""Owns the statements on one-time bootstrap tokens."""

from datetime import datetime
from typing import Any
from uuid import UUID

from libs.postgres import Connection


async def add(conn: Connection, token: UUID, token_hash: bytes, created_at: datetime, expires_at: datetime) -> None:
    """Adds a token; unspent ones made before work no longer."""
    await conn.execute("DELETE FROM bootstrap_token WHERE spent_at IS NULL")
    await conn.execute(
        "INSERT INTO bootstrap_token (id, token_hash, created_at, expires_at) VALUES ($1, $2, $3, $4)",
        token,
        token_hash,
        created_at,
        expires_at,
    )


async def find(conn: Connection, token_hash: bytes) -> Any:
    """Reads a token: id, expires_at, spent_at, spent_by, person_id."""
    return await conn.fetchrow(
        "SELECT id, expires_at, spent_at, spent_by, person_id FROM bootstrap_token WHERE token_hash = $1", token_hash
    )


async def spend(conn: Connection, token: UUID, *, person: UUID, at: datetime, by: str) -> bool:
    """Spends a token; answers True to exactly one caller."""
    row = await conn.fetchrow(
        """
        UPDATE bootstrap_token SET spent_at = $2, spent_by = $3, person_id = $4
        WHERE id = $1 AND spent_at IS NULL RETURNING id
        """,
        token,
        at,
        by,
        person,
    )
    return row is not None
