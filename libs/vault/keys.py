"""Owns the keys database's tables: wrapped account keys and wrapped subject keys."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from libs.postgres import Connection


@dataclass(frozen=True)
class AccountKeyRow:
    """One version of an account's key, as stored."""

    version: int
    provider: str
    provider_key_id: str
    wrapped: bytes
    index_key_wrapped: bytes


@dataclass(frozen=True)
class SubjectKeyRow:
    """One version of one subject's key for one purpose; `wrapped` is None once it is destroyed."""

    subject: UUID
    purpose: str
    version: int
    wrapped: bytes | None
    account_key_version: int


async def account_keys(conn: Connection, account: UUID) -> list[AccountKeyRow]:
    """Returns all versions of the account's key, oldest first."""
    rows = await conn.fetch(
        "SELECT version, provider, provider_key_id, wrapped, index_key_wrapped FROM account_key"
        " WHERE account_id = $1 ORDER BY version",
        account,
    )
    return [AccountKeyRow(*row) for row in rows]


async def insert_account_key(conn: Connection, account: UUID, key: AccountKeyRow, at: datetime) -> bool:
    """Stores a version unless somebody else was first; answers whether it was stored."""
    stored = await conn.fetchval(
        "INSERT INTO account_key"
        " (account_id, version, provider, provider_key_id, wrapped, index_key_wrapped, created_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING version",
        account,
        key.version,
        key.provider,
        key.provider_key_id,
        key.wrapped,
        key.index_key_wrapped,
        at,
    )
    return stored is not None


async def retire_account_keys(conn: Connection, account: UUID, before_version: int, at: datetime) -> None:
    """Marks older versions as no longer used for new keys; they stay for what is sealed under them."""
    await conn.execute(
        "UPDATE account_key SET retired_at = $3 WHERE account_id = $1 AND version < $2 AND retired_at IS NULL",
        account,
        before_version,
        at,
    )


async def insert_subject_keys(conn: Connection, account: UUID, keys: Sequence[SubjectKeyRow], at: datetime) -> None:
    """Stores keys in one statement; subjects that have one, even a destroyed one, keep it."""
    await conn.execute(
        "INSERT INTO subject_key (account_id, subject_id, purpose, version, wrapped, account_key_version, created_at)"
        " SELECT $1, new.subject_id, new.purpose, new.version, new.wrapped, new.account_key_version, $7"
        " FROM unnest($2::uuid[], $3::text[], $4::integer[], $5::bytea[], $6::integer[])"
        " AS new (subject_id, purpose, version, wrapped, account_key_version)"
        " ON CONFLICT DO NOTHING",
        account,
        [key.subject for key in keys],
        [key.purpose for key in keys],
        [key.version for key in keys],
        [key.wrapped for key in keys],
        [key.account_key_version for key in keys],
        at,
    )


async def subject_keys(
    conn: Connection, account: UUID, subjects: Sequence[UUID], purposes: Sequence[str]
) -> list[SubjectKeyRow]:
    """Returns all versions of the subjects' keys for the purposes, in one statement."""
    rows = await conn.fetch(
        "SELECT subject_id, purpose, version, wrapped, account_key_version FROM subject_key"
        " WHERE account_id = $1 AND subject_id = ANY($2::uuid[]) AND purpose = ANY($3::text[])",
        account,
        subjects,
        purposes,
    )
    return [SubjectKeyRow(*row) for row in rows]


async def keys_under_older_versions(conn: Connection, account: UUID, version: int, limit: int) -> list[SubjectKeyRow]:
    """Returns and locks keys that are wrapped under an account key older than `version`."""
    rows = await conn.fetch(
        "SELECT subject_id, purpose, version, wrapped, account_key_version FROM subject_key"
        " WHERE account_id = $1 AND account_key_version < $2 AND wrapped IS NOT NULL"
        " ORDER BY account_key_version LIMIT $3 FOR UPDATE SKIP LOCKED",
        account,
        version,
        limit,
    )
    return [SubjectKeyRow(*row) for row in rows]


async def count_under_older_versions(conn: Connection, account: UUID, version: int) -> int:
    """Returns how many keys are still wrapped under an account key older than `version`."""
    count: int = await conn.fetchval(
        "SELECT count(*) FROM subject_key WHERE account_id = $1 AND account_key_version < $2 AND wrapped IS NOT NULL",
        account,
        version,
    )
    return count


async def rewrap(conn: Connection, account: UUID, keys: Sequence[SubjectKeyRow]) -> None:
    """Replaces the wrapping of keys that are not destroyed."""
    await conn.execute(
        "UPDATE subject_key SET wrapped = new.wrapped, account_key_version = new.account_key_version"
        " FROM unnest($2::uuid[], $3::text[], $4::integer[], $5::bytea[], $6::integer[])"
        " AS new (subject_id, purpose, version, wrapped, account_key_version)"
        " WHERE subject_key.account_id = $1 AND subject_key.subject_id = new.subject_id"
        " AND subject_key.purpose = new.purpose AND subject_key.version = new.version"
        " AND subject_key.wrapped IS NOT NULL",
        account,
        [key.subject for key in keys],
        [key.purpose for key in keys],
        [key.version for key in keys],
        [key.wrapped for key in keys],
        [key.account_key_version for key in keys],
    )


async def destroy(conn: Connection, account: UUID, subject: UUID, purpose: str, at: datetime) -> None:
    """Overwrites every version of the key; a subject without one gets a destroyed one, so that none comes later."""
    await conn.execute(
        "INSERT INTO subject_key"
        " (account_id, subject_id, purpose, version, wrapped, account_key_version, created_at, destroyed_at)"
        " VALUES ($1, $2, $3, 1, NULL, 0, $4, $4)"
        " ON CONFLICT (account_id, subject_id, purpose, version) DO NOTHING",
        account,
        subject,
        purpose,
        at,
    )
    await conn.execute(
        "UPDATE subject_key SET wrapped = NULL, destroyed_at = $4"
        " WHERE account_id = $1 AND subject_id = $2 AND purpose = $3 AND wrapped IS NOT NULL",
        account,
        subject,
        purpose,
        at,
    )
