"""Owns the statements on what accounts ask of their teams and keys."""

from datetime import datetime
from uuid import UUID

from libs.postgres import Connection
from services.auth.domain.account import SecurityPolicy


async def find(conn: Connection, account: UUID) -> SecurityPolicy:
    """Reads a live account's policy; the default where none was set."""
    row = await conn.fetchrow(
        "SELECT require_staff_factor, revoke_leaked_keys FROM security_policy WHERE account_id = $1", account
    )
    return SecurityPolicy(row["require_staff_factor"], row["revoke_leaked_keys"]) if row else SecurityPolicy()


async def update(
    conn: Connection, account: UUID, require_staff_factor: bool | None, revoke_leaked_keys: bool | None, at: datetime
) -> None:
    """Sets what is given; the rest stays."""
    default = SecurityPolicy()
    await conn.execute(
        """
        INSERT INTO security_policy AS known (account_id, require_staff_factor, revoke_leaked_keys, updated_at)
        VALUES ($1, coalesce($2::boolean, $5), coalesce($3::boolean, $6), $4)
        ON CONFLICT (account_id) DO UPDATE SET
            require_staff_factor = coalesce($2, known.require_staff_factor),
            revoke_leaked_keys = coalesce($3, known.revoke_leaked_keys), updated_at = $4
        """,
        account,
        require_staff_factor,
        revoke_leaked_keys,
        at,
        default.require_staff_factor,
        default.revoke_leaked_keys,
    )
