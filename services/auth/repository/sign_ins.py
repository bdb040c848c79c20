"""Owns the statements on sign-ins that wait."""

from datetime import datetime
from typing import Any
from uuid import UUID

from libs.postgres import Connection
from services.auth.domain.sign_in import Door, Pending


async def add(conn: Connection, pending: Pending) -> None:
    """Adds a sign-in that waits."""
    await conn.execute(
        """
        INSERT INTO sign_in (account_id, id, kind, live, principal_id, role, proven, next, methods, expires_at,
            must_change, session_id, identity_id, device_id)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
        """,
        pending.door.account,
        pending.id,
        pending.door.kind,
        pending.door.live,
        pending.door.principal,
        pending.door.role,
        list(pending.proven),
        pending.next,
        list(pending.methods),
        pending.expires_at,
        pending.must_change,
        pending.session,
        pending.door.identity,
        pending.door.device,
    )


async def find(conn: Connection, account: UUID, sign_in: UUID, now: datetime) -> Pending | None:
    """Reads a sign-in that still waits."""
    row = await conn.fetchrow(
        """
        SELECT id, account_id, kind, live, principal_id, role, proven, next, methods, expires_at, must_change,
            session_id, identity_id, device_id
        FROM sign_in WHERE account_id = $1 AND id = $2 AND expires_at > $3
        """,
        account,
        sign_in,
        now,
    )
    return _pending(row) if row else None


async def count_try(conn: Connection, account: UUID, sign_in: UUID, most: int) -> int | None:
    """Counts a try and returns which it is, from 1; None when there were too many already."""
    tries: int | None = await conn.fetchval(
        "UPDATE sign_in SET tries = tries + 1 WHERE account_id = $1 AND id = $2 AND tries < $3 RETURNING tries",
        account,
        sign_in,
        most,
    )
    return tries


async def count_code(conn: Connection, account: UUID, sign_in: UUID, code: UUID, most: int) -> bool:
    """Makes a mailed code the one that counts; answers False when enough were mailed."""
    row = await conn.fetchrow(
        """
        UPDATE sign_in SET codes_sent = codes_sent + 1, code_id = $3
        WHERE account_id = $1 AND id = $2 AND codes_sent < $4 RETURNING id
        """,
        account,
        sign_in,
        code,
        most,
    )
    return row is not None


async def code_of(conn: Connection, account: UUID, sign_in: UUID) -> UUID | None:
    """Reads the challenge whose mailed code counts."""
    code: UUID | None = await conn.fetchval(
        "SELECT code_id FROM sign_in WHERE account_id = $1 AND id = $2", account, sign_in
    )
    return code


async def remove(conn: Connection, account: UUID, sign_in: UUID) -> bool:
    """Ends the waiting; answers True to exactly one caller."""
    row = await conn.fetchrow("DELETE FROM sign_in WHERE account_id = $1 AND id = $2 RETURNING id", account, sign_in)
    return row is not None


async def remove_of(conn: Connection, account: UUID, principal: UUID) -> None:
    """Ends all that somebody waits with in an account."""
    await conn.execute("DELETE FROM sign_in WHERE account_id = $1 AND principal_id = $2", account, principal)


async def hold_off(conn: Connection, account: UUID, principal: UUID) -> None:
    """Waits for sign-ins of somebody that are under way, so that what ends their sessions next ends those too.

    Later ones wait until the transaction ends. Comes after `remove_of`: whoever finishes a wait has its row already.
    """
    await conn.execute("SELECT pg_advisory_xact_lock(sign_in_lock($1, $2))", account, principal)


def _pending(row: Any) -> Pending:
    door = Door(
        row["kind"],
        row["account_id"],
        row["live"],
        row["principal_id"],
        row["role"],
        row["identity_id"],
        row["device_id"],
    )
    return Pending(
        id=row["id"],
        door=door,
        proven=tuple(row["proven"]),
        next=row["next"],
        methods=tuple(row["methods"]),
        expires_at=row["expires_at"],
        session=row["session_id"],
        must_change=row["must_change"],
    )
