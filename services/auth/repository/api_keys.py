"""Owns the statements on API keys and on the way from a key's hash to its account."""

from datetime import datetime
from typing import Any
from uuid import UUID

from libs.postgres import Connection
from services.auth.domain.api_key import ApiKey


async def add(conn: Connection, account: UUID, key: ApiKey, key_hash: bytes) -> None:
    """Adds a key and its route."""
    await conn.execute(
        """
        INSERT INTO api_key (account_id, id, kind, live, name, prefix, last_four, scopes, key_hash, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        """,
        account,
        key.id,
        key.kind,
        key.live,
        key.name,
        key.prefix,
        key.last_four,
        list(key.scopes),
        key_hash,
        key.created_at,
    )
    await conn.execute(
        "INSERT INTO api_key_route (key_hash, account_id, key_id) VALUES ($1, $2, $3)", key_hash, account, key.id
    )


async def route(conn: Connection, key_hash: bytes) -> tuple[UUID, UUID] | None:
    """Reads account and key of a hash."""
    row = await conn.fetchrow("SELECT account_id, key_id FROM api_key_route WHERE key_hash = $1", key_hash)
    return (row["account_id"], row["key_id"]) if row else None


async def find(conn: Connection, account: UUID, key: UUID) -> ApiKey | None:
    """Reads a key."""
    row = await conn.fetchrow(
        """
        SELECT id, kind, live, name, prefix, last_four, scopes, created_at, revoked_at
        FROM api_key WHERE account_id = $1 AND id = $2
        """,
        account,
        key,
    )
    return _key(row) if row else None


async def page(conn: Connection, account: UUID, before: UUID, limit: int) -> list[ApiKey]:
    """Reads keys made before `before`, newest first."""
    rows = await conn.fetch(
        """
        SELECT id, kind, live, name, prefix, last_four, scopes, created_at, revoked_at
        FROM api_key WHERE account_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3
        """,
        account,
        before,
        limit,
    )
    return [_key(row) for row in rows]


async def revoke(conn: Connection, account: UUID, key: UUID, at: datetime) -> ApiKey | None:
    """Ends a key, which loses its route; the time of the first revocation stays."""
    row = await conn.fetchrow(
        """
        UPDATE api_key SET revoked_at = coalesce(revoked_at, $3) WHERE account_id = $1 AND id = $2
        RETURNING id, kind, live, name, prefix, last_four, scopes, created_at, revoked_at, key_hash
        """,
        account,
        key,
        at,
    )
    if row is None:
        return None
    await conn.execute("DELETE FROM api_key_route WHERE key_hash = $1", row["key_hash"])
    return _key(row)


def _key(row: Any) -> ApiKey:
    return ApiKey(
        id=row["id"],
        kind=row["kind"],
        live=row["live"],
        name=row["name"],
        prefix=row["prefix"],
        last_four=row["last_four"],
        scopes=tuple(row["scopes"]),
        created_at=row["created_at"],
        revoked_at=row["revoked_at"],
    )
