"""Owns the statements on sessions and on the way from a session to its account."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from libs.postgres import Connection
from services.auth.domain.session import SUBSCRIBER, Session


async def add(conn: Connection, session: Session) -> None:
    """Adds a session and its route."""
    reader = session.kind == SUBSCRIBER
    await conn.execute(
        """
        INSERT INTO session (account_id, id, kind, live, person_id, subject_id, acr, salt, generation, rotated_at,
            authenticated_at, expires_at, last_used_at, device_sealed, identity_id)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
        """,
        session.account,
        session.id,
        session.kind,
        session.live,
        None if reader else session.principal,
        session.principal if reader else None,
        session.acr,
        session.salt,
        session.generation,
        session.rotated_at,
        session.authenticated_at,
        session.expires_at,
        session.last_used_at,
        session.device_sealed,
        session.identity,
    )
    await conn.execute(
        "INSERT INTO session_route (session_id, account_id, expires_at) VALUES ($1, $2, $3)",
        session.id,
        session.account,
        session.expires_at,
    )


async def account_of(conn: Connection, session: UUID) -> UUID | None:
    """Reads the account of a session."""
    account: UUID | None = await conn.fetchval("SELECT account_id FROM session_route WHERE session_id = $1", session)
    return account


async def lock(conn: Connection, account: UUID, session: UUID) -> Session | None:
    """Reads a session and keeps it from changing until the transaction ends."""
    row = await conn.fetchrow(
        """
        SELECT account_id, id, kind, live, person_id, subject_id, acr, salt, generation, rotated_at, authenticated_at,
            expires_at, revoked_at, last_used_at, device_sealed, identity_id
        FROM session WHERE account_id = $1 AND id = $2 FOR UPDATE
        """,
        account,
        session,
    )
    return _session(row) if row else None


async def touch(conn: Connection, account: UUID, session: UUID, at: datetime) -> None:
    """Notes that a session is in use."""
    await conn.execute(
        "UPDATE session SET last_used_at = $3 WHERE account_id = $1 AND id = $2",
        account,
        session,
        at,
    )


async def rotate(conn: Connection, account: UUID, session: UUID, at: datetime) -> None:
    """Makes the next generation the newest."""
    await conn.execute(
        """
        UPDATE session SET generation = generation + 1, rotated_at = $3, last_used_at = $3
        WHERE account_id = $1 AND id = $2
        """,
        account,
        session,
        at,
    )


async def assure(conn: Connection, account: UUID, session: UUID, acr: str, authenticated_at: datetime) -> None:
    """Stores what a session was proven to be, and when."""
    await conn.execute(
        "UPDATE session SET acr = $3, authenticated_at = $4 WHERE account_id = $1 AND id = $2",
        account,
        session,
        acr,
        authenticated_at,
    )


async def revoke(conn: Connection, account: UUID, session: UUID, at: datetime, reason: str) -> bool:
    """Ends a session, unless it has ended; tells whether it did."""
    ended = await conn.fetchval(
        """
        UPDATE session SET revoked_at = $3, revoked_reason = $4
        WHERE account_id = $1 AND id = $2 AND revoked_at IS NULL
        RETURNING id
        """,
        account,
        session,
        at,
        reason,
    )
    return ended is not None


async def alive_of(conn: Connection, account: UUID, principal: UUID, now: datetime, most: int) -> list[Session]:
    """Reads somebody's sessions in the tenant's account, newest first; idle ones as well."""
    rows = await conn.fetch(
        """
        SELECT account_id, id, kind, live, person_id, subject_id, acr, salt, generation, rotated_at, authenticated_at,
            expires_at, revoked_at, last_used_at, device_sealed, identity_id
        FROM session
        WHERE account_id = $1 AND coalesce(subject_id, person_id) = $2 AND revoked_at IS NULL AND expires_at > $3
        ORDER BY id DESC LIMIT $4
        """,
        account,
        principal,
        now,
        most,
    )
    return [_session(row) for row in rows]


async def newest_of(conn: Connection, account: UUID, principal: UUID) -> Session | None:
    """Reads somebody's last session in the tenant's account, ended or not."""
    row = await conn.fetchrow(
        """
        SELECT account_id, id, kind, live, person_id, subject_id, acr, salt, generation, rotated_at, authenticated_at,
            expires_at, revoked_at, last_used_at, device_sealed, identity_id
        FROM session WHERE account_id = $1 AND coalesce(subject_id, person_id) = $2 ORDER BY id DESC LIMIT 1
        """,
        account,
        principal,
    )
    return _session(row) if row else None


async def end_beyond(conn: Connection, account: UUID, principal: UUID, at: datetime, reason: str, *, most: int) -> None:
    """Ends all but somebody's newest sessions in an account."""
    await conn.execute(
        """
        UPDATE session SET revoked_at = $3, revoked_reason = $4
        WHERE account_id = $1 AND id IN (
            SELECT id FROM session
            WHERE account_id = $1 AND coalesce(subject_id, person_id) = $2 AND revoked_at IS NULL
            ORDER BY id DESC OFFSET $5
        )
        """,
        account,
        principal,
        at,
        reason,
        most,
    )


async def revoke_all_of(
    conn: Connection, account: UUID, principal: UUID, at: datetime, reason: str, *, but: UUID | None = None
) -> int:
    """Ends all sessions of a reader, or of a person in an account, or all but one; returns how many it ended."""
    rows = await conn.fetch(
        """
        UPDATE session SET revoked_at = $3, revoked_reason = $4
        WHERE account_id = $1 AND coalesce(subject_id, person_id) = $2 AND revoked_at IS NULL
            AND id IS DISTINCT FROM $5
        RETURNING id
        """,
        account,
        principal,
        at,
        reason,
        but,
    )
    return len(rows)


async def revoke_unfederated(conn: Connection, account: UUID, kept: Sequence[UUID], at: datetime, reason: str) -> None:
    """Ends staff's sessions that no provider began, but those of some persons."""
    await conn.execute(
        """
        UPDATE session SET revoked_at = $3, revoked_reason = $4
        WHERE account_id = $1 AND kind = 'STAFF' AND identity_id IS NULL AND revoked_at IS NULL
            AND person_id <> ALL($2::uuid[])
        """,
        account,
        list(kept),
        at,
        reason,
    )


def _session(row: Any) -> Session:
    return Session(
        id=row["id"],
        account=row["account_id"],
        kind=row["kind"],
        live=row["live"],
        principal=row["subject_id"] or row["person_id"],
        acr=row["acr"],
        salt=row["salt"],
        generation=row["generation"],
        rotated_at=row["rotated_at"],
        authenticated_at=row["authenticated_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        last_used_at=row["last_used_at"],
        device_sealed=row["device_sealed"],
        identity=row["identity_id"],
    )
