"""Owns the statements on accounts."""

from typing import Any
from uuid import UUID

from libs.postgres import Connection
from services.auth.domain.account import Account


async def add(conn: Connection, accounts: tuple[Account, Account]) -> bool:
    """Adds an account and its sibling; answers False when they are there already."""
    rows = await conn.fetch(
        """
        INSERT INTO account (id, sibling_id, live, name, time_zone, reader_url, created_at)
        SELECT new.id, new.sibling_id, new.live, $4, $5, $6, $7
        FROM unnest($1::uuid[], $2::uuid[], $3::boolean[]) AS new (id, sibling_id, live)
        ON CONFLICT (id) DO NOTHING RETURNING id
        """,
        [account.id for account in accounts],
        [account.sibling for account in accounts],
        [account.live for account in accounts],
        accounts[0].name,
        accounts[0].time_zone,
        accounts[0].reader_url,
        accounts[0].created_at,
    )
    return bool(rows)


async def find(conn: Connection, account: UUID) -> Account | None:
    """Reads an account."""
    row = await conn.fetchrow(
        "SELECT id, sibling_id, live, name, time_zone, reader_url, created_at FROM account WHERE id = $1", account
    )
    return _account(row) if row else None


async def find_many(conn: Connection, accounts: list[UUID]) -> list[Account]:
    """Reads accounts."""
    rows = await conn.fetch(
        "SELECT id, sibling_id, live, name, time_zone, reader_url, created_at FROM account WHERE id = ANY($1::uuid[])",
        accounts,
    )
    return [_account(row) for row in rows]


async def page(conn: Connection, before: UUID, limit: int) -> list[Account]:
    """Reads accounts made before `before`, newest first."""
    rows = await conn.fetch(
        """
        SELECT id, sibling_id, live, name, time_zone, reader_url, created_at
        FROM account WHERE id < $1 ORDER BY id DESC LIMIT $2
        """,
        before,
        limit,
    )
    return [_account(row) for row in rows]


def _account(row: Any) -> Account:
    return Account(
        row["id"], row["sibling_id"], row["live"], row["name"], row["time_zone"], row["reader_url"], row["created_at"]
    )
