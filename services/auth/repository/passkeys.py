"""Owns the statements on passkeys, and on what their authenticators are asked to sign."""

from datetime import datetime
from typing import Any
from uuid import UUID

from libs.postgres import Connection
from services.auth.domain.passkey import Asked, Passkey


async def add(conn: Connection, account: UUID, passkey: Passkey) -> None:
    """Adds what its factor has besides; breaks `passkey_credential` when the key is known."""
    await conn.execute(
        """
        INSERT INTO passkey (account_id, id, subject_id, credential_id, public_key, user_handle, sign_count,
            backup_eligible, backed_up, transports)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        """,
        account,
        passkey.id,
        passkey.principal,
        passkey.credential_id,
        passkey.public_key,
        passkey.user_handle,
        passkey.sign_count,
        passkey.backup_eligible,
        passkey.backed_up,
        list(passkey.transports),
    )


async def of_principal(conn: Connection, account: UUID, principal: UUID) -> list[Passkey]:
    """Reads a principal's keys, oldest first."""
    rows = await conn.fetch(
        """
        SELECT id, kind, passkey.subject_id, credential_id, public_key, user_handle, sign_count, backup_eligible,
            backed_up, transports
        FROM passkey JOIN factor USING (account_id, id)
        WHERE account_id = $1 AND passkey.subject_id = $2 ORDER BY id
        """,
        account,
        principal,
    )
    return [_passkey(row) for row in rows]


async def find(conn: Connection, account: UUID, credential_id: bytes) -> Passkey | None:
    """Reads the key that calls itself so."""
    row = await conn.fetchrow(
        """
        SELECT id, kind, passkey.subject_id, credential_id, public_key, user_handle, sign_count, backup_eligible,
            backed_up, transports
        FROM passkey JOIN factor USING (account_id, id)
        WHERE account_id = $1 AND credential_id = $2
        """,
        account,
        credential_id,
    )
    return _passkey(row) if row else None


async def count(conn: Connection, account: UUID, passkey: UUID, sign_count: int, *, backed_up: bool) -> bool:
    """Takes a signature's count; answers False unless it is above the one before, or its authenticator never counts."""
    row = await conn.fetchrow(
        """
        UPDATE passkey SET sign_count = $3, backed_up = $4
        WHERE account_id = $1 AND id = $2 AND (sign_count < $3 OR (sign_count = 0 AND $3 = 0)) RETURNING id
        """,
        account,
        passkey,
        sign_count,
        backed_up,
    )
    return row is not None


async def suspect(conn: Connection, account: UUID, passkey: UUID, at: datetime) -> bool:
    """Marks a key that may have been copied; answers True the first time."""
    row = await conn.fetchrow(
        """
        UPDATE passkey SET clone_suspected_at = $3
        WHERE account_id = $1 AND id = $2 AND clone_suspected_at IS NULL RETURNING id
        """,
        account,
        passkey,
        at,
    )
    return row is not None


async def use(conn: Connection, account: UUID, passkey: UUID, at: datetime) -> bool:
    """Notes a use, and keeps the key from being removed until the transaction ends; False when it is gone."""
    row = await conn.fetchrow(
        "UPDATE passkey SET last_used_at = $3 WHERE account_id = $1 AND id = $2 RETURNING id", account, passkey, at
    )
    return row is not None


async def ask(conn: Connection, account: UUID, challenge_hash: bytes, asked: Asked) -> None:
    """Stores what is asked; of a registration and of a sign-in that waits it takes the place of an earlier one."""
    await conn.execute(
        """
        INSERT INTO passkey_challenge (account_id, challenge_hash, ceremony, kind, principal_id, sign_in_id,
            user_handle, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        ON CONFLICT (account_id, ceremony, (coalesce(sign_in_id, principal_id))) WHERE ceremony <> 'sign_in'
            DO UPDATE SET challenge_hash = excluded.challenge_hash, kind = excluded.kind,
                user_handle = excluded.user_handle, expires_at = excluded.expires_at
        """,
        account,
        challenge_hash,
        asked.ceremony,
        asked.kind,
        asked.principal,
        asked.sign_in,
        asked.user_handle,
        asked.expires_at,
    )


async def take(
    conn: Connection, account: UUID, challenge_hash: bytes, ceremony: str, now: datetime, *, by: UUID | None
) -> Asked | None:
    """Spends a challenge: answers with it exactly once. `by` is whoever registers, or the sign-in that waits."""
    row = await conn.fetchrow(
        """
        DELETE FROM passkey_challenge
        WHERE account_id = $1 AND challenge_hash = $2 AND ceremony = $3 AND expires_at > $4
            AND (ceremony = 'sign_in' OR coalesce(sign_in_id, principal_id) = $5)
        RETURNING ceremony, kind, principal_id, sign_in_id, user_handle, expires_at
        """,
        account,
        challenge_hash,
        ceremony,
        now,
        by,
    )
    if row is None:
        return None
    return Asked(
        row["ceremony"], row["kind"], row["expires_at"], row["principal_id"], row["sign_in_id"], row["user_handle"]
    )


def _passkey(row: Any) -> Passkey:
    return Passkey(
        row["id"],
        row["kind"],
        row["subject_id"],
        row["credential_id"],
        row["public_key"],
        row["user_handle"],
        row["sign_count"],
        row["backup_eligible"],
        row["backed_up"],
        tuple(row["transports"]),
    )
