"""Owns the statements on readers' credentials."""

from datetime import datetime
from typing import Any
from uuid import UUID

from libs.postgres import Connection
from services.auth.domain.credential import Credential
from services.auth.domain.password import StoredPassword
from services.auth.repository.people import stored_password


async def put(
    conn: Connection,
    account: UUID,
    credential: Credential,
    *,
    email_index: bytes,
    email_sealed: bytes,
    at: datetime,
) -> Credential:
    """Stores the credential of a reader who has proven a mailbox.

    One that the reader had for an earlier address is replaced, its identifier included. Breaks `credential_email` when
    the address is another reader's.
    """
    row = await conn.fetchrow(
        """
        INSERT INTO credential (account_id, id, subject_id, email_index, email_sealed, password_scheme, password_params,
            password_pepper_id, password_hash, sequence, verified_at, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 1, $10, $10)
        ON CONFLICT ON CONSTRAINT credential_subject DO UPDATE SET id = excluded.id, email_index = excluded.email_index,
            email_sealed = excluded.email_sealed, password_scheme = excluded.password_scheme,
            password_params = excluded.password_params, password_pepper_id = excluded.password_pepper_id,
            password_hash = excluded.password_hash, password_version = credential.password_version + 1,
            password_must_change = false, verified_at = excluded.verified_at
        RETURNING id, subject_id, password_scheme, password_params, password_pepper_id, password_hash, sequence,
            password_must_change, password_version
        """,
        account,
        credential.id,
        credential.subject,
        email_index,
        email_sealed,
        credential.password.scheme,
        credential.password.params,
        credential.password.pepper_id,
        credential.password.hash,
        at,
    )
    return _credential(row)


async def add(
    conn: Connection,
    account: UUID,
    credential: Credential,
    *,
    email_index: bytes,
    email_sealed: bytes,
    at: datetime,
) -> None:
    """Adds the credential of a reader who has none; breaks `credential_subject` or `credential_email`."""
    await conn.execute(
        """
        INSERT INTO credential (account_id, id, subject_id, email_index, email_sealed, password_scheme, password_params,
            password_pepper_id, password_hash, sequence, verified_at, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 1, $10, $10)
        """,
        account,
        credential.id,
        credential.subject,
        email_index,
        email_sealed,
        credential.password.scheme,
        credential.password.params,
        credential.password.pepper_id,
        credential.password.hash,
        at,
    )


async def find_by_email(conn: Connection, account: UUID, email_index: bytes) -> Credential | None:
    """Reads the credential with an address."""
    row = await conn.fetchrow(
        """
        SELECT id, subject_id, password_scheme, password_params, password_pepper_id, password_hash, sequence,
            password_must_change, password_version, EXISTS (SELECT FROM disabled_sign_in AS disabled
                WHERE disabled.account_id = $1 AND disabled.subject_id = credential.subject_id) AS disabled
        FROM credential WHERE account_id = $1 AND email_index = $2
        """,
        account,
        email_index,
    )
    return _credential(row) if row else None


async def among(conn: Connection, account: UUID, indexes: list[bytes]) -> set[bytes]:
    """Reads which addresses have a credential."""
    rows = await conn.fetch(
        "SELECT email_index FROM credential WHERE account_id = $1 AND email_index = ANY($2)", account, indexes
    )
    return {row["email_index"] for row in rows}


async def address_of(conn: Connection, account: UUID, subject: UUID) -> tuple[UUID, bytes] | None:
    """Reads a reader's credential's identifier and sealed address."""
    row = await conn.fetchrow(
        "SELECT id, email_sealed FROM credential WHERE account_id = $1 AND subject_id = $2", account, subject
    )
    return (row["id"], row["email_sealed"]) if row else None


async def index_of(conn: Connection, account: UUID, subject: UUID) -> bytes | None:
    """Reads the look-up value of a reader's address."""
    index: bytes | None = await conn.fetchval(
        "SELECT email_index FROM credential WHERE account_id = $1 AND subject_id = $2", account, subject
    )
    return index


async def exists(conn: Connection, account: UUID, subject: UUID) -> bool:
    """Tells whether a reader has a credential."""
    return bool(
        await conn.fetchval(
            "SELECT EXISTS (SELECT 1 FROM credential WHERE account_id = $1 AND subject_id = $2)", account, subject
        )
    )


async def count_change(conn: Connection, account: UUID, subject: UUID) -> tuple[UUID, int]:
    """Counts a change of a reader's credential that another table keeps; returns its identifier and the number."""
    row: Any = await conn.fetchrow(
        """
        UPDATE credential SET sequence = sequence + 1 WHERE account_id = $1 AND subject_id = $2 RETURNING id, sequence
        """,
        account,
        subject,
    )
    return row["id"], row["sequence"]


async def password_version(conn: Connection, account: UUID, subject: UUID) -> int:
    """Reads how many passwords a reader has had; 0 of one who has no credential."""
    version: int | None = await conn.fetchval(
        "SELECT password_version FROM credential WHERE account_id = $1 AND subject_id = $2", account, subject
    )
    return version or 0


async def hold_password(conn: Connection, account: UUID, subject: UUID, version: int) -> bool:
    """Keeps a password from changing until the transaction ends; answers False when it was changed already."""
    row = await conn.fetchrow(
        """
        SELECT id FROM credential WHERE account_id = $1 AND subject_id = $2 AND password_version = $3 FOR NO KEY UPDATE
        """,
        account,
        subject,
        version,
    )
    return row is not None


async def replace_password(conn: Connection, account: UUID, credential: UUID, new: StoredPassword) -> None:
    """Stores the same password hashed anew, in a transaction that holds it."""
    await conn.execute(
        """
        UPDATE credential SET password_scheme = $3, password_params = $4, password_pepper_id = $5, password_hash = $6
        WHERE account_id = $1 AND id = $2
        """,
        account,
        credential,
        new.scheme,
        new.params,
        new.pepper_id,
        new.hash,
    )


async def demand_change(conn: Connection, account: UUID, subject: UUID) -> bool:
    """Has the password changed before the next session begins; answers True to the first who says so."""
    row = await conn.fetchrow(
        """
        UPDATE credential SET password_must_change = true
        WHERE account_id = $1 AND subject_id = $2 AND NOT password_must_change RETURNING id
        """,
        account,
        subject,
    )
    return row is not None


async def change_password(
    conn: Connection, account: UUID, subject: UUID, old: StoredPassword, new: StoredPassword
) -> bool:
    """Stores another password; answers False when the old one was changed in the meantime."""
    row = await conn.fetchrow(
        """
        UPDATE credential SET password_scheme = $4, password_params = $5, password_pepper_id = $6, password_hash = $7,
            password_version = password_version + 1, password_must_change = false
        WHERE account_id = $1 AND subject_id = $2 AND password_hash = $3 RETURNING id
        """,
        account,
        subject,
        old.hash,
        new.scheme,
        new.params,
        new.pepper_id,
        new.hash,
    )
    return row is not None


async def set_password(
    conn: Connection, account: UUID, subject: UUID, email_index: bytes, password: StoredPassword
) -> bool:
    """Stores a new password of the reader who has the address; answers False when it is theirs no more."""
    row = await conn.fetchrow(
        """
        UPDATE credential SET password_scheme = $4, password_params = $5, password_pepper_id = $6, password_hash = $7,
            password_version = password_version + 1, password_must_change = false
        WHERE account_id = $1 AND subject_id = $2 AND email_index = $3 RETURNING id
        """,
        account,
        subject,
        email_index,
        password.scheme,
        password.params,
        password.pepper_id,
        password.hash,
    )
    return row is not None


async def find(conn: Connection, account: UUID, subject: UUID) -> Credential | None:
    """Reads a reader's credential."""
    row = await conn.fetchrow(
        """
        SELECT id, subject_id, password_scheme, password_params, password_pepper_id, password_hash, sequence,
            password_must_change, password_version
        FROM credential WHERE account_id = $1 AND subject_id = $2
        """,
        account,
        subject,
    )
    return _credential(row) if row else None


async def has_address(conn: Connection, account: UUID, subject: UUID, email_index: bytes) -> bool:
    """Tells whether the address is the reader's, and keeps it so until the transaction ends."""
    row = await conn.fetchrow(
        "SELECT id FROM credential WHERE account_id = $1 AND subject_id = $2 AND email_index = $3 FOR SHARE",
        account,
        subject,
        email_index,
    )
    return row is not None


async def change_address(
    conn: Connection, account: UUID, credential: UUID, former_sealed: bytes, email_index: bytes, email_sealed: bytes
) -> bool:
    """Gives a credential another address; answers False when it had another than the former one.

    Breaks `credential_email` when the address is another reader's.
    """
    row = await conn.fetchrow(
        """
        UPDATE credential SET email_index = $4, email_sealed = $5
        WHERE account_id = $1 AND id = $2 AND email_sealed = $3 RETURNING id
        """,
        account,
        credential,
        former_sealed,
        email_index,
        email_sealed,
    )
    return row is not None


async def is_erased(conn: Connection, account: UUID, subject: UUID) -> bool:
    """Tells whether the reader was erased here, so that nothing late brings them back."""
    return bool(
        await conn.fetchval(
            "SELECT EXISTS (SELECT 1 FROM erased_subject WHERE account_id = $1 AND subject_id = $2)", account, subject
        )
    )


def _credential(row: Any) -> Credential:
    return Credential(
        row["id"],
        row["subject_id"],
        stored_password(row),
        row["sequence"],
        row["password_must_change"],
        row.get("disabled", False),
    )
