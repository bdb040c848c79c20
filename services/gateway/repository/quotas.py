"""Owns the statements on quotas and accounts' own quotas."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from libs.postgres import Connection
from services.gateway.domain.bundle import Mode, Override, Quota
from services.gateway.domain.register import HeldOverride, HeldQuota

_NOBODY = UUID(int=0)


async def all_quotas(conn: Connection) -> tuple[HeldQuota, ...]:
    """Reads all quotas by name."""
    rows = await conn.fetch("SELECT name, amount, seconds, mode, changed_in FROM quota ORDER BY name")
    return tuple(HeldQuota(_quota(row), row["changed_in"]) for row in rows)


async def find_quota(conn: Connection, name: str) -> HeldQuota | None:
    """Reads a quota."""
    row = await conn.fetchrow("SELECT name, amount, seconds, mode, changed_in FROM quota WHERE name = $1", name)
    return HeldQuota(_quota(row), row["changed_in"]) if row else None


async def put_quota(conn: Connection, held: HeldQuota) -> None:
    """Adds a quota, or replaces the one of its name."""
    await conn.execute(
        """
        INSERT INTO quota (name, amount, seconds, mode, changed_in) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (name) DO UPDATE SET amount = excluded.amount, seconds = excluded.seconds, mode = excluded.mode,
            changed_in = excluded.changed_in
        """,
        held.quota.name,
        held.quota.amount,
        held.quota.seconds,
        held.quota.mode.value,
        held.changed_in,
    )


async def remove_quota(conn: Connection, name: str) -> bool:
    """Removes a quota; answers whether there was one."""
    return await conn.execute("DELETE FROM quota WHERE name = $1", name) == "DELETE 1"


async def all_overrides(conn: Connection) -> tuple[HeldOverride, ...]:
    """Reads all accounts' own quotas by account and name."""
    rows = await conn.fetch(
        """
        SELECT account_id, name, amount, seconds, mode, expires_at, changed_in FROM quota_override
        ORDER BY account_id, name
        """
    )
    return tuple(_override(row) for row in rows)


async def page(
    conn: Connection, account: UUID | None, after: tuple[UUID, str] | None, limit: int
) -> list[HeldOverride]:
    """Reads accounts' own quotas by account and name."""
    behind = after or (_NOBODY, "")
    rows = await conn.fetch(
        """
        SELECT account_id, name, amount, seconds, mode, expires_at, changed_in FROM quota_override
        WHERE (account_id, name) > ($1, $2) AND ($3::uuid IS NULL OR account_id = $3)
        ORDER BY account_id, name LIMIT $4
        """,
        *behind,
        account,
        limit,
    )
    return [_override(row) for row in rows]


async def find_override(conn: Connection, account: UUID, name: str) -> HeldOverride | None:
    """Reads an account's own quota."""
    row = await conn.fetchrow(
        """
        SELECT account_id, name, amount, seconds, mode, expires_at, changed_in FROM quota_override
        WHERE account_id = $1 AND name = $2
        """,
        account,
        name,
    )
    return _override(row) if row else None


async def count_overrides(conn: Connection) -> int:
    """Counts accounts' own quotas."""
    number: int = await conn.fetchval("SELECT count(*) FROM quota_override")
    return number


async def put_override(conn: Connection, held: HeldOverride) -> None:
    """Adds an account's own quota, or replaces it."""
    override = held.override
    await conn.execute(
        """
        INSERT INTO quota_override (account_id, name, amount, seconds, mode, expires_at, changed_in)
        VALUES ($1, $2, $3, $4, $5, $6, $7)
        ON CONFLICT (account_id, name) DO UPDATE SET amount = excluded.amount, seconds = excluded.seconds,
            mode = excluded.mode, expires_at = excluded.expires_at, changed_in = excluded.changed_in
        """,
        override.account,
        override.quota.name,
        override.quota.amount,
        override.quota.seconds,
        override.quota.mode.value,
        override.expires_at,
        held.changed_in,
    )


async def add_overrides(conn: Connection, held: Sequence[HeldOverride]) -> None:
    """Adds accounts' own quotas, none of which is there."""
    said = [each.override for each in held]
    await conn.execute(
        """
        INSERT INTO quota_override (account_id, name, amount, seconds, mode, expires_at, changed_in)
        SELECT account_id, name, amount, seconds, mode, expires_at, changed_in FROM unnest($1::uuid[], $2::text[],
            $3::bigint[], $4::integer[], $5::text[], $6::timestamptz[], $7::bigint[])
            AS added (account_id, name, amount, seconds, mode, expires_at, changed_in)
        """,
        [each.account for each in said],
        [each.quota.name for each in said],
        [each.quota.amount for each in said],
        [each.quota.seconds for each in said],
        [each.quota.mode.value for each in said],
        [each.expires_at for each in said],
        [each.changed_in for each in held],
    )


async def remove_override(conn: Connection, account: UUID, name: str) -> bool:
    """Removes an account's own quota; answers whether there was one."""
    done = await conn.execute("DELETE FROM quota_override WHERE account_id = $1 AND name = $2", account, name)
    return done == "DELETE 1"


async def remove_everything(conn: Connection) -> None:
    """Removes all quotas and overrides."""
    await conn.execute("DELETE FROM quota")
    await conn.execute("DELETE FROM quota_override")


def _quota(row: Any) -> Quota:
    return Quota(row["name"], row["amount"], row["seconds"], Mode(row["mode"]))


def _override(row: Any) -> HeldOverride:
    return HeldOverride(Override(row["account_id"], _quota(row), row["expires_at"]), row["changed_in"])
