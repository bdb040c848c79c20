"""Owns the statements on what browsers were sent for, consents, and authorizations of clients by readers."""

from datetime import datetime
from typing import Any
from uuid import UUID

from libs.postgres import Connection
from services.auth.domain.oauth import Authorization, Request


async def add_request(conn: Connection, request: Request, handle_hash: bytes) -> None:
    """Adds what a browser was sent for."""
    await conn.execute(
        """
        INSERT INTO oauth_request (account_id, id, handle_hash, client_id, redirect_uri, scopes, state, nonce,
            code_challenge, prompts, max_age, acr, created_at, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
        """,
        request.account,
        request.id,
        handle_hash,
        request.client,
        request.redirect_uri,
        list(request.scopes),
        request.state,
        request.nonce,
        request.code_challenge,
        list(request.prompts),
        request.max_age,
        request.acr,
        request.created_at,
        request.expires_at,
    )


async def lock_request(conn: Connection, account: UUID, key: UUID, handle_hash: bytes, now: datetime) -> Request | None:
    """Reads what a handle stands for, and keeps it from changing until the transaction ends."""
    row = await conn.fetchrow(
        """
        SELECT account_id, id, client_id, redirect_uri, scopes, state, nonce, code_challenge, prompts, max_age, acr,
            created_at, expires_at, session_id
        FROM oauth_request WHERE account_id = $1 AND id = $2 AND handle_hash = $3 AND expires_at > $4 FOR UPDATE
        """,
        account,
        key,
        handle_hash,
        now,
    )
    return _request(row) if row else None


async def show_request(conn: Connection, account: UUID, key: UUID, session: UUID) -> None:
    """Notes the session that is shown what is asked for."""
    await conn.execute(
        "UPDATE oauth_request SET session_id = $3 WHERE account_id = $1 AND id = $2", account, key, session
    )


async def remove_request(conn: Connection, account: UUID, key: UUID) -> None:
    """Removes what was decided."""
    await conn.execute("DELETE FROM oauth_request WHERE account_id = $1 AND id = $2", account, key)


async def consented(conn: Connection, account: UUID, subject: UUID, client: UUID) -> tuple[str, ...]:
    """Reads what a reader lets a client know."""
    scopes = await conn.fetchval(
        "SELECT scopes FROM oauth_consent WHERE account_id = $1 AND subject_id = $2 AND client_id = $3",
        account,
        subject,
        client,
    )
    return tuple(scopes or ())


async def consent(
    conn: Connection, account: UUID, key: UUID, subject: UUID, client: UUID, scopes: tuple[str, ...], at: datetime
) -> None:
    """Remembers a consent, together with what was consented to before."""
    await conn.execute(
        """
        INSERT INTO oauth_consent AS held (account_id, id, subject_id, client_id, scopes, created_at)
        VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT ON CONSTRAINT oauth_consent_client DO UPDATE
        SET scopes = ARRAY(SELECT DISTINCT unnest(held.scopes || excluded.scopes))
        """,
        account,
        key,
        subject,
        client,
        list(scopes),
        at,
    )


async def consents(
    conn: Connection, account: UUID, subject: UUID, limit: int
) -> list[tuple[UUID, str, tuple[str, ...], datetime]]:
    """Reads a reader's consents, newest first: client, its name, scopes, since when."""
    rows = await conn.fetch(
        """
        SELECT held.client_id, client.name, held.scopes, held.created_at
        FROM oauth_consent AS held
        JOIN oauth_client AS client ON client.account_id = held.account_id AND client.id = held.client_id
        WHERE held.account_id = $1 AND held.subject_id = $2 ORDER BY held.id DESC LIMIT $3
        """,
        account,
        subject,
        limit,
    )
    return [(row["client_id"], row["name"], tuple(sorted(row["scopes"])), row["created_at"]) for row in rows]


async def remove_consent(conn: Connection, account: UUID, subject: UUID, client: UUID) -> None:
    """Forgets a consent."""
    await conn.execute(
        "DELETE FROM oauth_consent WHERE account_id = $1 AND subject_id = $2 AND client_id = $3",
        account,
        subject,
        client,
    )


async def add(conn: Connection, held: Authorization, code_hash: bytes) -> None:
    """Adds an authorization with its code."""
    await conn.execute(
        """
        INSERT INTO oauth_authorization (account_id, id, client_id, subject_id, session_id, scopes, redirect_uri, nonce,
            code_challenge, code_hash, code_expires_at, acr, authenticated_at, salt, generation, rotated_at, created_at,
            expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
        """,
        held.account,
        held.id,
        held.client,
        held.subject,
        held.session,
        list(held.scopes),
        held.redirect_uri,
        held.nonce,
        held.code_challenge,
        code_hash,
        held.code_expires_at,
        held.acr,
        held.authenticated_at,
        held.salt,
        held.generation,
        held.rotated_at,
        held.created_at,
        held.expires_at,
    )


async def lock(conn: Connection, account: UUID, key: UUID) -> Authorization | None:
    """Reads an authorization, and whether its session goes on; keeps it from changing until the transaction ends."""
    row = await conn.fetchrow(
        """
        SELECT held.account_id, held.id, held.client_id, held.subject_id, held.session_id, held.scopes,
            held.redirect_uri, held.nonce, held.code_challenge, held.code_expires_at, held.code_spent_at,
            held.code_spent_by, held.acr, held.authenticated_at, held.salt, held.generation, held.rotated_at,
            held.created_at, held.expires_at, held.revoked_at,
            EXISTS (SELECT FROM session
                WHERE session.account_id = held.account_id AND session.id = held.session_id
                    AND session.revoked_at IS NULL) AS session_alive
        FROM oauth_authorization AS held WHERE held.account_id = $1 AND held.id = $2 FOR UPDATE OF held
        """,
        account,
        key,
    )
    return _authorization(row) if row else None


async def lock_by_code(conn: Connection, account: UUID, key: UUID, code_hash: bytes) -> Authorization | None:
    """Reads the authorization of a code as `lock` does."""
    right = await conn.fetchval(
        "SELECT true FROM oauth_authorization WHERE account_id = $1 AND id = $2 AND code_hash = $3",
        account,
        key,
        code_hash,
    )
    return await lock(conn, account, key) if right else None


async def spend_code(conn: Connection, account: UUID, key: UUID, at: datetime, request_id: str) -> None:
    """Notes that a code was used, and by which request."""
    await conn.execute(
        "UPDATE oauth_authorization SET code_spent_at = $3, code_spent_by = $4 WHERE account_id = $1 AND id = $2",
        account,
        key,
        at,
        request_id,
    )


async def rotate(conn: Connection, account: UUID, key: UUID, at: datetime) -> None:
    """Makes the next generation the newest."""
    await conn.execute(
        """
        UPDATE oauth_authorization SET generation = generation + 1, rotated_at = $3
        WHERE account_id = $1 AND id = $2
        """,
        account,
        key,
        at,
    )


async def revoke(conn: Connection, account: UUID, key: UUID, at: datetime, reason: str) -> None:
    """Ends an authorization, unless it has ended."""
    await conn.execute(
        """
        UPDATE oauth_authorization SET revoked_at = $3, revoked_reason = $4
        WHERE account_id = $1 AND id = $2 AND revoked_at IS NULL
        """,
        account,
        key,
        at,
        reason,
    )


async def revoke_of(
    conn: Connection, account: UUID, client: UUID, at: datetime, reason: str, *, subject: UUID | None = None
) -> None:
    """Ends all authorizations of a client, or those of one reader."""
    await conn.execute(
        """
        UPDATE oauth_authorization SET revoked_at = $3, revoked_reason = $4
        WHERE account_id = $1 AND client_id = $2 AND revoked_at IS NULL AND ($5::uuid IS NULL OR subject_id = $5)
        """,
        account,
        client,
        at,
        reason,
        subject,
    )


def _request(row: Any) -> Request:
    return Request(
        id=row["id"],
        account=row["account_id"],
        client=row["client_id"],
        redirect_uri=row["redirect_uri"],
        scopes=tuple(row["scopes"]),
        state=row["state"],
        nonce=row["nonce"],
        code_challenge=row["code_challenge"],
        prompts=tuple(row["prompts"]),
        max_age=row["max_age"],
        acr=row["acr"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        session=row["session_id"],
    )


def _authorization(row: Any) -> Authorization:
    return Authorization(
        id=row["id"],
        account=row["account_id"],
        client=row["client_id"],
        subject=row["subject_id"],
        session=row["session_id"],
        scopes=tuple(row["scopes"]),
        redirect_uri=row["redirect_uri"],
        nonce=row["nonce"],
        code_challenge=row["code_challenge"],
        code_expires_at=row["code_expires_at"],
        acr=row["acr"],
        authenticated_at=row["authenticated_at"],
        salt=row["salt"],
        generation=row["generation"],
        rotated_at=row["rotated_at"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        code_spent_at=row["code_spent_at"],
        code_spent_by=row["code_spent_by"],
        revoked_at=row["revoked_at"],
        session_alive=row["session_alive"],
    )
