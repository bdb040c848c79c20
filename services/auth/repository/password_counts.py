"""Owns counting passwords by how they are hashed."""

from uuid import UUID

from libs.postgres import Connection
from services.auth.domain.password import PasswordCount


async def of_readers(conn: Connection, account: UUID) -> list[PasswordCount]:
    """Counts an account's credentials and imported passwords."""
    rows = await conn.fetch(
        """
        SELECT password_scheme, password_params, password_pepper_id, count(*) AS found, false AS imported
        FROM credential WHERE account_id = $1 GROUP BY 1, 2, 3
        UNION ALL
        SELECT password_scheme, password_params, password_pepper_id, count(*), true
        FROM imported_password WHERE account_id = $1 AND usable_until IS NOT NULL GROUP BY 1, 2, 3
        ORDER BY found DESC, 1, 2, 3
        """,
        account,
    )
    return [PasswordCount(*row) for row in rows]


async def of_persons(conn: Connection) -> list[PasswordCount]:
    """Counts the passwords of the platform's persons."""
    rows = await conn.fetch(
        """
        SELECT password_scheme, password_params, password_pepper_id, count(*) AS found, false
        FROM person GROUP BY 1, 2, 3 ORDER BY found DESC, 1, 2, 3
        """
    )
    return [PasswordCount(*row) for row in rows]
