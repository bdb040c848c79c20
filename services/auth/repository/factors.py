"""Owns the statements on second factors, recovery codes, and tries of both."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from libs.postgres import Connection
from services.auth.domain.factor import Factor


async def lock(conn: Connection, principal: UUID) -> None:
    """Lets one change of a principal's factors happen at a time, until the transaction ends."""
    await conn.execute("SELECT pg_advisory_xact_lock(hashtextextended('factor:' || $1::uuid::text, 0))", principal)


async def begin(conn: Connection, account: UUID, principal: UUID, factor: Factor) -> None:
    """Adds a factor that is to be confirmed, in place of another such."""
    await conn.execute(
        "DELETE FROM factor WHERE account_id = $1 AND subject_id = $2 AND confirmed_at IS NULL", account, principal
    )
    await _add(conn, account, principal, factor, None)


async def add(conn: Connection, account: UUID, principal: UUID, factor: Factor) -> None:
    """Adds a factor that needs no confirmation."""
    await _add(conn, account, principal, factor, factor.created_at)


async def _add(conn: Connection, account: UUID, principal: UUID, factor: Factor, confirmed_at: datetime | None) -> None:
    await conn.execute(
        """
        INSERT INTO factor (account_id, id, subject_id, kind, name, secret_sealed, created_at, confirmed_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        """,
        account,
        factor.id,
        principal,
        factor.kind,
        factor.name,
        factor.secret_sealed,
        factor.created_at,
        confirmed_at,
    )


async def unconfirmed(conn: Connection, account: UUID, principal: UUID, factor: UUID, since: datetime) -> Factor | None:
    """Reads a factor that waits to be confirmed."""
    row = await conn.fetchrow(
        """
        SELECT id, kind, name, created_at, secret_sealed, last_step FROM factor
        WHERE account_id = $1 AND subject_id = $2 AND id = $3 AND confirmed_at IS NULL AND created_at > $4
        """,
        account,
        principal,
        factor,
        since,
    )
    return _factor(row) if row else None


async def confirm(conn: Connection, account: UUID, factor: UUID, step: int, at: datetime) -> bool:
    """Confirms a factor with the code of a step; answers True to exactly one caller."""
    row = await conn.fetchrow(
        """
        UPDATE factor SET confirmed_at = $4, last_step = $3
        WHERE account_id = $1 AND id = $2 AND confirmed_at IS NULL RETURNING id
        """,
        account,
        factor,
        step,
        at,
    )
    return row is not None


async def of_principal(conn: Connection, account: UUID, principal: UUID) -> list[Factor]:
    """Reads the factors that are set up, oldest first."""
    rows = await conn.fetch(
        """
        SELECT id, kind, name, created_at, secret_sealed, last_step, last_used_at, backed_up, clone_suspected_at
        FROM factor LEFT JOIN passkey USING (account_id, id)
        WHERE account_id = $1 AND factor.subject_id = $2 AND confirmed_at IS NOT NULL ORDER BY id
        """,
        account,
        principal,
    )
    return [_factor(row) for row in rows]


async def spend_step(conn: Connection, account: UUID, factor: UUID, step: int) -> bool:
    """Takes the code of a step; answers True to exactly one caller, and to none for an older step."""
    row = await conn.fetchrow(
        """
        UPDATE factor SET last_step = $3
        WHERE account_id = $1 AND id = $2 AND confirmed_at IS NOT NULL AND last_step < $3 RETURNING id
        """,
        account,
        factor,
        step,
    )
    return row is not None


async def rename(conn: Connection, account: UUID, principal: UUID, factor: UUID, name: str) -> Factor | None:
    """Gives a factor another name."""
    row = await conn.fetchrow(
        """
        WITH renamed AS (
            UPDATE factor SET name = $4
            WHERE account_id = $1 AND subject_id = $2 AND id = $3 AND confirmed_at IS NOT NULL
            RETURNING account_id, id, kind, name, created_at, secret_sealed, last_step
        )
        SELECT id, kind, name, created_at, secret_sealed, last_step, last_used_at, backed_up, clone_suspected_at
        FROM renamed LEFT JOIN passkey USING (account_id, id)
        """,
        account,
        principal,
        factor,
        name,
    )
    return _factor(row) if row else None


async def remove(conn: Connection, account: UUID, principal: UUID, factor: UUID) -> Factor | None:
    """Deletes a factor."""
    row = await conn.fetchrow(
        """
        DELETE FROM factor WHERE account_id = $1 AND subject_id = $2 AND id = $3 AND confirmed_at IS NOT NULL
        RETURNING id, kind, name, created_at, secret_sealed, last_step
        """,
        account,
        principal,
        factor,
    )
    return _factor(row) if row else None


async def left(conn: Connection, account: UUID, principal: UUID) -> int:
    """Counts the factors that a principal has, recovery codes aside: they only stand in for one."""
    return int(
        await conn.fetchval(
            "SELECT count(*) FROM factor WHERE account_id = $1 AND subject_id = $2 AND confirmed_at IS NOT NULL",
            account,
            principal,
        )
    )


async def replace_recovery_codes(
    conn: Connection, account: UUID, principal: UUID, hashes: Sequence[bytes], at: datetime
) -> None:
    """Stores a set of recovery codes over the one before."""
    # Always in the order of their numbers: of two sets at once, one is whole in the end.
    for number, code_hash in enumerate(hashes, 1):
        await conn.execute(
            """
            INSERT INTO recovery_code (account_id, subject_id, number, code_hash, created_at)
            VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT (account_id, subject_id, number) DO UPDATE
                SET code_hash = excluded.code_hash, created_at = excluded.created_at, spent_at = NULL
            """,
            account,
            principal,
            number,
            code_hash,
            at,
        )


async def spend_recovery_code(conn: Connection, account: UUID, principal: UUID, code_hash: bytes, at: datetime) -> bool:
    """Spends a recovery code; answers True to exactly one caller."""
    row = await conn.fetchrow(
        """
        UPDATE recovery_code SET spent_at = $4
        WHERE account_id = $1 AND subject_id = $2 AND code_hash = $3 AND spent_at IS NULL RETURNING number
        """,
        account,
        principal,
        code_hash,
        at,
    )
    return row is not None


async def recovery_hashes(conn: Connection, account: UUID, principal: UUID) -> list[bytes]:
    """Reads what is stored of the recovery codes that are not spent."""
    rows = await conn.fetch(
        "SELECT code_hash FROM recovery_code WHERE account_id = $1 AND subject_id = $2 AND spent_at IS NULL",
        account,
        principal,
    )
    return [bytes(row["code_hash"]) for row in rows]


async def remove_recovery_codes(conn: Connection, account: UUID, principal: UUID) -> None:
    """Deletes all recovery codes of a principal."""
    await conn.execute("DELETE FROM recovery_code WHERE account_id = $1 AND subject_id = $2", account, principal)


async def count_attempt(conn: Connection, account: UUID, principal: UUID, now: datetime, most: int) -> int | None:
    """Counts a try and returns how many there were in a row; None while the principal must wait.

    Whoever has waited after `most` begins anew.
    """
    tries: int | None = await conn.fetchval(
        """
        INSERT INTO factor_attempt AS held (account_id, subject_id, tries, retry_at) VALUES ($1, $2, 1, $3)
        ON CONFLICT (account_id, subject_id)
            DO UPDATE SET tries = CASE WHEN held.tries >= $4 THEN 1 ELSE held.tries + 1 END WHERE held.retry_at <= $3
        RETURNING tries
        """,
        account,
        principal,
        now,
        most,
    )
    return tries


async def wait_until(conn: Connection, account: UUID, principal: UUID, at: datetime) -> None:
    """Lets no try be made before a time."""
    await conn.execute(
        "UPDATE factor_attempt SET retry_at = $3 WHERE account_id = $1 AND subject_id = $2", account, principal, at
    )


async def retry_at(conn: Connection, account: UUID, principal: UUID) -> datetime | None:
    """Reads when a principal may try again."""
    at: datetime | None = await conn.fetchval(
        "SELECT retry_at FROM factor_attempt WHERE account_id = $1 AND subject_id = $2", account, principal
    )
    return at


async def open_attempts(conn: Connection, account: UUID, principal: UUID, most: int) -> None:
    """Begins to count anew after `most`, and ends no shorter wait."""
    await conn.execute(
        "DELETE FROM factor_attempt WHERE account_id = $1 AND subject_id = $2 AND tries >= $3", account, principal, most
    )


async def forget_attempts(conn: Connection, account: UUID, principal: UUID) -> None:
    """Begins to count anew."""
    await conn.execute("DELETE FROM factor_attempt WHERE account_id = $1 AND subject_id = $2", account, principal)


def _factor(row: Any) -> Factor:
    return Factor(
        row["id"],
        row["kind"],
        row["name"],
        row["created_at"],
        row["secret_sealed"],
        row["last_step"],
        row.get("last_used_at"),
        bool(row.get("backed_up")),
        row.get("clone_suspected_at"),
    )
