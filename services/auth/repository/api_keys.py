"""Owns the statements on API keys and on the way from a key's hash to its account."""

import ipaddress
from datetime import datetime
from typing import Any
from uuid import UUID

from libs.postgres import Connection
from services.auth.domain.api_key import ApiKey


async def add(
    conn: Connection,
    account: UUID,
    key: ApiKey,
    key_hash: bytes,
    *,
    created_by: UUID | None,
    secret_sealed: bytes | None,
    retry_until: datetime | None,
) -> None:
    """Adds a key and its route; the key itself only sealed, for as long as its making may be repeated."""
    await conn.execute(
        """
        INSERT INTO api_key (account_id, id, kind, live, name, prefix, last_four, scopes, key_hash, created_at,
            expires_at, networks, secret_sealed, retry_until, created_by)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
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
        key.expires_at,
        [ipaddress.ip_network(network) for network in key.networks],
        secret_sealed,
        retry_until,
        created_by,
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
        SELECT id, kind, live, name, prefix, last_four, scopes, created_at, revoked_at, expires_at, networks,
            last_used_at, replaced_by, leaked_at, leaked_in
        FROM api_key WHERE account_id = $1 AND id = $2
        """,
        account,
        key,
    )
    return _key(row) if row else None


async def sealed_secret(conn: Connection, account: UUID, key: UUID) -> bytes | None:
    """Reads a new key as it was sealed; None once nobody may ask for it again."""
    sealed: bytes | None = await conn.fetchval(
        "SELECT secret_sealed FROM api_key WHERE account_id = $1 AND id = $2", account, key
    )
    return sealed


async def lock(conn: Connection, account: UUID, key: UUID) -> ApiKey | None:
    """Reads a key and keeps it from changing until the transaction ends."""
    row = await conn.fetchrow(
        """
        SELECT id, kind, live, name, prefix, last_four, scopes, created_at, revoked_at, expires_at, networks,
            last_used_at, replaced_by, leaked_at, leaked_in
        FROM api_key WHERE account_id = $1 AND id = $2 FOR UPDATE
        """,
        account,
        key,
    )
    return _key(row) if row else None


async def replace(conn: Connection, account: UUID, key: UUID, successor: UUID, until: datetime) -> None:
    """Has a key end when its successor has taken over."""
    await conn.execute(
        "UPDATE api_key SET replaced_by = $3, expires_at = $4 WHERE account_id = $1 AND id = $2",
        account,
        key,
        successor,
        until,
    )


async def note_use(conn: Connection, account: UUID, key: UUID, at: datetime, since: datetime) -> None:
    """Notes that a key was used, unless that was noted after `since`."""
    await conn.execute(
        """
        UPDATE api_key SET last_used_at = $3
        WHERE account_id = $1 AND id = $2 AND (last_used_at IS NULL OR last_used_at < $4)
        """,
        account,
        key,
        at,
        since,
    )


async def note_leak(conn: Connection, account: UUID, key: UUID, at: datetime, place: str) -> bool:
    """Notes where a key was seen; answers True the first time."""
    row = await conn.fetchrow(
        """
        UPDATE api_key SET leaked_at = $3, leaked_in = $4
        WHERE account_id = $1 AND id = $2 AND leaked_at IS NULL RETURNING id
        """,
        account,
        key,
        at,
        place,
    )
    return row is not None


async def page(conn: Connection, account: UUID, before: UUID, limit: int) -> list[ApiKey]:
    """Reads keys made before `before`, newest first."""
    rows = await conn.fetch(
        """
        SELECT id, kind, live, name, prefix, last_four, scopes, created_at, revoked_at, expires_at, networks,
            last_used_at, replaced_by, leaked_at, leaked_in
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
        UPDATE api_key SET revoked_at = coalesce(revoked_at, $3), secret_sealed = NULL, retry_until = NULL
        WHERE account_id = $1 AND id = $2
        RETURNING id, kind, live, name, prefix, last_four, scopes, created_at, revoked_at, expires_at, networks,
            last_used_at, replaced_by, leaked_at, leaked_in, key_hash
        """,
        account,
        key,
        at,
    )
    if row is None:
        return None
    await conn.execute("DELETE FROM api_key_route WHERE key_hash = $1", row["key_hash"])
    return _key(row)


async def revoke_made_by(conn: Connection, account: UUID, person: UUID, at: datetime) -> int:
    """Ends the keys that a person made; returns how many."""
    rows = await conn.fetch(
        """
        UPDATE api_key SET revoked_at = $3, secret_sealed = NULL, retry_until = NULL
        WHERE account_id = $1 AND created_by = $2 AND revoked_at IS NULL RETURNING key_hash
        """,
        account,
        person,
        at,
    )
    await conn.execute("DELETE FROM api_key_route WHERE key_hash = ANY($1)", [row["key_hash"] for row in rows])
    return len(rows)


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
        expires_at=row["expires_at"],
        networks=tuple(str(network) for network in row["networks"]),
        last_used_at=row["last_used_at"],
        replaced_by=row["replaced_by"],
        leaked_at=row["leaked_at"],
        leaked_in=row["leaked_in"] or "",
    )
