"""Owns the statements on what accounts ask of their teams and keys."""

from datetime import datetime
from uuid import UUID

from libs.postgres import Connection
from services.auth.domain.account import SecurityPolicy


async def find(conn: Connection, account: UUID) -> SecurityPolicy:
    """Reads a live account's policy; the default where none was set."""
    row = await conn.fetchrow(
        "SELECT require_staff_factor, revoke_leaked_keys, staff_sign_in FROM security_policy WHERE account_id = $1",
        account,
    )
    if row is None:
        return SecurityPolicy()
    return SecurityPolicy(row["require_staff_factor"], row["revoke_leaked_keys"], row["staff_sign_in"])


async def update(
    conn: Connection,
    account: UUID,
    require_staff_factor: bool | None,
    revoke_leaked_keys: bool | None,
    staff_sign_in: str | None,
    at: datetime,
) -> None:
    """Sets what is given; the rest stays."""
    default = SecurityPolicy()
    await conn.execute(
        """
        INSERT INTO security_policy AS known (account_id, require_staff_factor, revoke_leaked_keys, staff_sign_in,
            updated_at)
        VALUES ($1, coalesce($2::boolean, $6), coalesce($3::boolean, $7), coalesce($4::text, $8), $5)
        ON CONFLICT (account_id) DO UPDATE SET
            require_staff_factor = coalesce($2, known.require_staff_factor),
            revoke_leaked_keys = coalesce($3, known.revoke_leaked_keys),
            staff_sign_in = coalesce($4, known.staff_sign_in), updated_at = $5
        """,
        account,
        require_staff_factor,
        revoke_leaked_keys,
        staff_sign_in,
        at,
        default.require_staff_factor,
        default.revoke_leaked_keys,
        default.staff_sign_in,
    )
