"""Owns the statements on passwords that another system hashed."""

from datetime import datetime
from uuid import UUID

from libs.postgres import Connection
from services.auth.domain.credential import ImportedPassword
from services.auth.repository.people import stored_password


async def put(
    conn: Connection, account: UUID, imported: ImportedPassword, *, email_index: bytes, until: datetime, at: datetime
) -> bool:
    """Stores a password in place of any other of the reader's or address; False where there is a credential."""
    await remove(conn, account, imported.subject, email_index)
    row = await conn.fetchrow(
        """
        INSERT INTO imported_password (account_id, id, subject_id, email_index, email_sealed, password_scheme,
            password_params, password_pepper_id, password_hash, usable_until, imported_at)
        SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11
        WHERE NOT EXISTS (SELECT FROM credential WHERE account_id = $1 AND (subject_id = $3 OR email_index = $4))
        RETURNING id
        """,
        account,
        imported.id,
        imported.subject,
        email_index,
        imported.email_sealed,
        imported.password.scheme,
        imported.password.params,
        imported.password.pepper_id,
        imported.password.hash,
        until,
        at,
    )
    return row is not None


async def find(conn: Connection, account: UUID, email_index: bytes, now: datetime) -> ImportedPassword | None:
    """Reads the password of an address, if it is still right."""
    row = await conn.fetchrow(
        """
        SELECT id, subject_id, email_sealed, password_scheme, password_params, password_pepper_id, password_hash
        FROM imported_password WHERE account_id = $1 AND email_index = $2 AND usable_until > $3
        """,
        account,
        email_index,
        now,
    )
    return ImportedPassword(row["id"], row["subject_id"], row["email_sealed"], stored_password(row)) if row else None


async def hold(conn: Connection, account: UUID, imported: UUID) -> bool:
    """Keeps a row until the transaction ends; answers False when it is gone."""
    row = await conn.fetchrow(
        "SELECT id FROM imported_password WHERE account_id = $1 AND id = $2 FOR UPDATE", account, imported
    )
    return row is not None


async def address_of(conn: Connection, account: UUID, subject: UUID) -> tuple[UUID, bytes] | None:
    """Reads the identifier and sealed address of a reader without a credential whose password was imported."""
    row = await conn.fetchrow(
        """
        SELECT id, email_sealed FROM imported_password WHERE account_id = $1 AND subject_id = $2
            AND NOT EXISTS (SELECT FROM credential WHERE account_id = $1 AND subject_id = $2)
        """,
        account,
        subject,
    )
    return (row["id"], row["email_sealed"]) if row else None


async def remove(conn: Connection, account: UUID, subject: UUID, email_index: bytes) -> None:
    """Deletes what was imported of a reader, and of an address."""
    await conn.execute(
        "DELETE FROM imported_password WHERE account_id = $1 AND (subject_id = $2 OR email_index = $3)",
        account,
        subject,
        email_index,
    )
