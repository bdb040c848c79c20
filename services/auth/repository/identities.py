"""Owns the statements on identities at other providers, and on browsers that were sent to one."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from libs.postgres import Connection
from services.auth.domain.federation import Away, Identity


async def add(
    conn: Connection, account: UUID, identity: Identity, *, foreign_hash: bytes, foreign_sealed: bytes
) -> None:
    """Adds an identity; breaks `identity_foreign` when it is somebody's already."""
    await conn.execute(
        """
        INSERT INTO identity (account_id, id, audience, provider_id, provider_name, issuer, foreign_hash,
            foreign_sealed, subject_id, created_at, last_used_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)
        """,
        account,
        identity.id,
        identity.audience,
        identity.provider,
        identity.provider_name,
        identity.issuer,
        foreign_hash,
        foreign_sealed,
        identity.principal,
        identity.created_at,
    )


async def find(conn: Connection, account: UUID, audience: str, issuer: str, foreign_hash: bytes) -> Identity | None:
    """Reads an identity by what its provider calls it."""
    row = await conn.fetchrow(
        """
        SELECT id, audience, provider_id, provider_name, issuer, subject_id, created_at, last_used_at FROM identity
        WHERE account_id = $1 AND audience = $2 AND issuer = $3 AND foreign_hash = $4
        """,
        account,
        audience,
        issuer,
        foreign_hash,
    )
    return _identity(row) if row else None


async def use(conn: Connection, account: UUID, identity: UUID, at: datetime) -> bool:
    """Notes that an identity signs in and keeps it until the transaction ends; answers False when it is gone."""
    row = await conn.fetchrow(
        "UPDATE identity SET last_used_at = $3 WHERE account_id = $1 AND id = $2 RETURNING id", account, identity, at
    )
    return row is not None


async def of_principal(conn: Connection, account: UUID, principal: UUID) -> list[Identity]:
    """Reads somebody's identities in an account, oldest first."""
    rows = await conn.fetch(
        """
        SELECT id, audience, provider_id, provider_name, issuer, subject_id, created_at, last_used_at FROM identity
        WHERE account_id = $1 AND subject_id = $2 ORDER BY id
        """,
        account,
        principal,
    )
    return [_identity(row) for row in rows]


async def remove(conn: Connection, account: UUID, principal: UUID, identity: UUID) -> bool:
    """Deletes one of somebody's identities; answers True to exactly one caller."""
    row = await conn.fetchrow(
        "DELETE FROM identity WHERE account_id = $1 AND id = $2 AND subject_id = $3 RETURNING id",
        account,
        identity,
        principal,
    )
    return row is not None


async def of_provider(conn: Connection, account: UUID, provider: UUID) -> list[UUID]:
    """Reads the identities at a provider."""
    rows = await conn.fetch("SELECT id FROM identity WHERE account_id = $1 AND provider_id = $2", account, provider)
    return [row["id"] for row in rows]


async def remove_all(conn: Connection, account: UUID, provider: UUID) -> None:
    """Deletes the identities at a provider."""
    await conn.execute("DELETE FROM identity WHERE account_id = $1 AND provider_id = $2", account, provider)


async def end_sessions(conn: Connection, account: UUID, identities: Sequence[UUID], at: datetime, reason: str) -> None:
    """Ends sign-ins that wait and sessions that identities began in an account, in this order.

    A wait that becomes a session at this moment holds its row until it commits: its session is seen then.
    """
    await conn.execute(
        "DELETE FROM sign_in WHERE account_id = $1 AND identity_id = ANY($2::uuid[])", account, list(identities)
    )
    await conn.execute(
        """
        UPDATE session SET revoked_at = $3, revoked_reason = $4
        WHERE account_id = $1 AND identity_id = ANY($2::uuid[]) AND revoked_at IS NULL
        """,
        account,
        list(identities),
        at,
        reason,
    )


async def send_away(conn: Connection, account: UUID, away: Away) -> None:
    """Adds a browser that is sent to a provider."""
    await conn.execute(
        """
        INSERT INTO federated_sign_in (account_id, id, provider_id, place_id, live, redirect_uri, browser_hash,
            principal_id, session_id, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        """,
        account,
        away.id,
        away.provider,
        away.place,
        away.live,
        away.redirect_uri,
        away.browser_hash,
        away.principal,
        away.session,
        away.expires_at,
    )


async def find_away(conn: Connection, account: UUID, away: UUID, now: datetime) -> Away | None:
    """Reads a browser that has not come back."""
    row = await conn.fetchrow(
        """
        SELECT id, provider_id, place_id, live, redirect_uri, browser_hash, principal_id, session_id, expires_at
        FROM federated_sign_in WHERE account_id = $1 AND id = $2 AND expires_at > $3
        """,
        account,
        away,
        now,
    )
    return _away(row) if row else None


async def come_back(
    conn: Connection,
    account: UUID,
    away: UUID,
    browser_hash: bytes,
    now: datetime,
    *,
    principal: UUID | None,
    session: UUID | None,
) -> Away | None:
    """Takes a browser that comes back, once; None for another browser, session or purpose, which changes nothing."""
    row = await conn.fetchrow(
        """
        DELETE FROM federated_sign_in
        WHERE account_id = $1 AND id = $2 AND browser_hash = $3 AND expires_at > $4
            AND principal_id IS NOT DISTINCT FROM $5 AND session_id IS NOT DISTINCT FROM $6
        RETURNING id, provider_id, place_id, live, redirect_uri, browser_hash, principal_id, session_id, expires_at
        """,
        account,
        away,
        browser_hash,
        now,
        principal,
        session,
    )
    return _away(row) if row else None


def _identity(row: Any) -> Identity:
    return Identity(
        id=row["id"],
        audience=row["audience"],
        provider=row["provider_id"],
        provider_name=row["provider_name"],
        issuer=row["issuer"],
        principal=row["subject_id"],
        created_at=row["created_at"],
        last_used_at=row["last_used_at"],
    )


def _away(row: Any) -> Away:
    return Away(
        id=row["id"],
        provider=row["provider_id"],
        place=row["place_id"],
        live=row["live"],
        redirect_uri=row["redirect_uri"],
        browser_hash=row["browser_hash"],
        expires_at=row["expires_at"],
        principal=row["principal_id"],
        session=row["session_id"],
    )
