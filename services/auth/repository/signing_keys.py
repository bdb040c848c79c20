"""Owns the statements on signing keys."""

from datetime import datetime
from typing import Any
from uuid import UUID

from libs.postgres import Connection
from services.auth.domain.signing_key import ACTIVE, SigningKey


async def add(conn: Connection, key: SigningKey) -> bool:
    """Adds a key; answers False when another replica was first with one of its state."""
    row = await conn.fetchrow(
        """
        INSERT INTO signing_key (id, kid, state, x, y, private_sealed, created_at, activated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        ON CONFLICT (state) WHERE state IN ('next', 'active') DO NOTHING RETURNING id
        """,
        key.id,
        key.kid,
        key.state,
        key.x,
        key.y,
        key.private_sealed,
        key.created_at,
        key.created_at if key.state == ACTIVE else None,
    )
    return row is not None


async def every(conn: Connection) -> list[SigningKey]:
    """Reads all keys, newest first."""
    rows = await conn.fetch(
        """
        SELECT id, kid, state, x, y, private_sealed, created_at, activated_at, retired_at
        FROM signing_key ORDER BY created_at DESC, id DESC
        """
    )
    return [_key(row) for row in rows]


async def hand_over(conn: Connection, active: UUID, following: UUID, at: datetime) -> bool:
    """Retires the active key, whose private part goes, and activates the next; False when another replica was first."""
    retired = await conn.fetchrow(
        """
        UPDATE signing_key SET state = 'retired', private_sealed = NULL, retired_at = $2
        WHERE id = $1 AND state = 'active' RETURNING id
        """,
        active,
        at,
    )
    if retired is None:
        return False
    await conn.execute("UPDATE signing_key SET state = 'active', activated_at = $2 WHERE id = $1", following, at)
    return True


def _key(row: Any) -> SigningKey:
    return SigningKey(
        row["id"],
        row["kid"],
        row["state"],
        row["x"],
        row["y"],
        row["private_sealed"],
        row["created_at"],
        row["activated_at"],
        row["retired_at"],
    )
