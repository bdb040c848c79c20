"""Owns the statements on challenges and on the way from a token's hash to its account."""

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

from libs.postgres import PLATFORM, Connection
from services.auth.domain.challenge import Challenge
from services.auth.repository.people import stored_password


async def add(conn: Connection, account: UUID, challenge: Challenge, *, mails: int = 1) -> None:
    """Adds a challenge and its route; `mails` are sent for it now."""
    password = challenge.password
    await conn.execute(
        """
        INSERT INTO challenge (account_id, id, purpose, subject_id, membership_id, email_index, email_sealed,
            name_sealed, password_scheme, password_params, password_pepper_id, password_hash, created_at, expires_at,
            details_sealed, browser_hash, mails)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
        """,
        account,
        challenge.id,
        challenge.purpose,
        challenge.subject,
        challenge.membership,
        challenge.email_index,
        challenge.email_sealed,
        challenge.name_sealed,
        password.scheme if password else None,
        password.params if password else None,
        password.pepper_id if password else None,
        password.hash if password else None,
        challenge.created_at,
        challenge.expires_at,
        challenge.details_sealed,
        challenge.browser_hash,
        mails,
    )
    await conn.execute(
        "INSERT INTO challenge_route (challenge_id, token_hash, account_id, expires_at) VALUES ($1, $2, $3, $4)",
        challenge.id,
        challenge.token_hash,
        account,
        challenge.expires_at,
    )


async def account_of(conn: Connection, challenge: UUID) -> UUID | None:
    """Reads the account of a challenge."""
    account: UUID | None = await conn.fetchval(
        "SELECT account_id FROM challenge_route WHERE challenge_id = $1", challenge
    )
    return account


async def route(conn: Connection, token_hash: bytes) -> tuple[UUID, UUID] | None:
    """Reads account and challenge of a token's hash."""
    row = await conn.fetchrow("SELECT account_id, challenge_id FROM challenge_route WHERE token_hash = $1", token_hash)
    return (row["account_id"], row["challenge_id"]) if row else None


async def find(conn: Connection, account: UUID, challenge: UUID) -> Challenge | None:
    """Reads a challenge."""
    row = await conn.fetchrow(
        """
        SELECT id, purpose, subject_id, membership_id, email_index, email_sealed, name_sealed, password_scheme,
            password_params, password_pepper_id, password_hash, created_at, expires_at, spent_at, spent_by,
            details_sealed, browser_hash
        FROM challenge WHERE account_id = $1 AND id = $2
        """,
        account,
        challenge,
    )
    return _challenge(row) if row else None


async def inert(conn: Connection, challenge: UUID) -> bool:
    """Tells whether a challenge has no token, because nobody has the address that it was asked for."""
    return bool(
        await conn.fetchval(
            "SELECT EXISTS (SELECT 1 FROM challenge_route WHERE challenge_id = $1 AND token_hash IS NULL)", challenge
        )
    )


async def spend(conn: Connection, account: UUID, challenge: UUID, *, subject: UUID, at: datetime, by: str) -> bool:
    """Spends a challenge's token; answers True to exactly one caller. What it held of a person goes at once."""
    row = await conn.fetchrow(
        """
        UPDATE challenge SET spent_at = $4, spent_by = $5, subject_id = $3, email_index = NULL, email_sealed = '',
            name_sealed = '', details_sealed = '', password_scheme = NULL, password_params = NULL,
            password_pepper_id = NULL, password_hash = NULL
        WHERE account_id = $1 AND id = $2 AND spent_at IS NULL RETURNING id
        """,
        account,
        challenge,
        subject,
        at,
        by,
    )
    return row is not None


async def void_open(conn: Connection, account: UUID, purpose: str, email_index: bytes) -> None:
    """Deletes the other open challenges of an address: a token from an older mail must not undo what was proven."""
    await conn.execute(
        "DELETE FROM challenge WHERE account_id = $1 AND purpose = $2 AND email_index = $3 AND spent_at IS NULL",
        account,
        purpose,
        email_index,
    )


async def principal_of(conn: Connection, account: UUID, email_index: bytes, *, imported: bool = False) -> UUID | None:
    """Reads who has an address: the reader's subject, or the person where the account is the platform.

    A reader who is kept out is nobody; one whose password was imported, and who has not come yet, is somebody where
    `imported` says so.
    """
    principal: UUID | None
    if account == PLATFORM:
        principal = await conn.fetchval("SELECT id FROM person WHERE email_index = $1", email_index)
    else:
        principal = await conn.fetchval(
            """
            SELECT subject_id FROM credential WHERE account_id = $1 AND email_index = $2
                AND NOT EXISTS (SELECT FROM disabled_sign_in AS disabled
                    WHERE disabled.account_id = $1 AND disabled.subject_id = credential.subject_id)
            UNION ALL
            SELECT subject_id FROM imported_password AS waiting WHERE $3 AND account_id = $1 AND email_index = $2
                AND NOT EXISTS (SELECT FROM credential WHERE account_id = $1
                    AND (email_index = $2 OR subject_id = waiting.subject_id))
            """,
            account,
            email_index,
            imported,
        )
    return principal


async def is_open(conn: Connection, account: UUID, email_index: bytes, purpose: str, now: datetime) -> bool:
    """Tells whether a mail to an address can still be answered."""
    found: bool = await conn.fetchval(
        """
        SELECT EXISTS (SELECT FROM challenge WHERE account_id = $1 AND email_index = $2 AND purpose = $3
            AND spent_at IS NULL AND expires_at > $4)
        """,
        account,
        email_index,
        purpose,
        now,
    )
    return found


async def count_mail(
    conn: Connection, account: UUID, email_index: bytes, purpose: str, now: datetime
) -> tuple[UUID, int] | None:
    """Counts one more mail of an address's newest open challenge; None when there is none."""
    row = await conn.fetchrow(
        """
        UPDATE challenge SET mails = mails + 1
        WHERE account_id = $1 AND id =
            (SELECT id FROM challenge WHERE account_id = $1 AND email_index = $2 AND purpose = $3
                AND spent_at IS NULL AND expires_at > $4 ORDER BY id DESC LIMIT 1)
        RETURNING id, mails
        """,
        account,
        email_index,
        purpose,
        now,
    )
    return (row["id"], row["mails"]) if row else None


async def void_of(conn: Connection, account: UUID, subject: UUID, purposes: Collection[str]) -> None:
    """Deletes somebody's open challenges."""
    await conn.execute(
        "DELETE FROM challenge WHERE account_id = $1 AND subject_id = $2 AND purpose = ANY($3) AND spent_at IS NULL",
        account,
        subject,
        list(purposes),
    )


async def void_newer(conn: Connection, account: UUID, than: Challenge) -> None:
    """Deletes somebody's open challenges of the same purpose that were made after one."""
    await conn.execute(
        """
        DELETE FROM challenge
        WHERE account_id = $1 AND subject_id = $2 AND purpose = $3 AND id > $4 AND spent_at IS NULL
        """,
        account,
        than.subject,
        than.purpose,
        than.id,
    )


def _challenge(row: Any) -> Challenge:
    return Challenge(
        id=row["id"],
        purpose=row["purpose"],
        subject=row["subject_id"],
        membership=row["membership_id"],
        email_index=row["email_index"] or b"",
        email_sealed=row["email_sealed"],
        name_sealed=row["name_sealed"],
        password=stored_password(row) if row["password_hash"] is not None else None,
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        spent_at=row["spent_at"],
        spent_by=row["spent_by"],
        details_sealed=row["details_sealed"],
        browser_hash=row["browser_hash"],
    )
