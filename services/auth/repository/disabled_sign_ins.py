"""Owns the statements on who may not sign in."""

from datetime import datetime
from uuid import UUID

from libs.postgres import Connection
from services.auth.repository import sign_ins


async def disable(
    conn: Connection, account: UUID, key: UUID, at: datetime, *, subject: UUID | None = None, person: UUID | None = None
) -> bool:
    """Keeps a reader or a member out; answers False when they were kept out already.

    Holds their sign-ins off as `sign_ins.hold_off`. Breaks `membership_last_owner` at the end when no owner could sign
    in any more.
    """
    principal = subject or person
    assert principal is not None
    await sign_ins.hold_off(conn, account, principal)
    row = await conn.fetchrow(
        """
        INSERT INTO disabled_sign_in (account_id, id, subject_id, person_id, disabled_at) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT DO NOTHING RETURNING id
        """,
        account,
        key,
        subject,
        person,
        at,
    )
    return row is not None


async def enable(conn: Connection, account: UUID, principal: UUID) -> bool:
    """Lets a reader or a member in again; answers False when they were not kept out."""
    row = await conn.fetchrow(
        "DELETE FROM disabled_sign_in WHERE account_id = $1 AND (subject_id = $2 OR person_id = $2) RETURNING id",
        account,
        principal,
    )
    return row is not None


async def since(conn: Connection, account: UUID, principals: list[UUID]) -> dict[UUID, datetime]:
    """Reads who of some is kept out, and since when."""
    rows = await conn.fetch(
        """
        SELECT coalesce(subject_id, person_id) AS principal, disabled_at FROM disabled_sign_in
        WHERE account_id = $1 AND coalesce(subject_id, person_id) = ANY($2)
        """,
        account,
        principals,
    )
    return {row["principal"]: row["disabled_at"] for row in rows}
