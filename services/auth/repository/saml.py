"""Owns the statements on SAML connections, sign-ins by them, and assertions that were taken."""

from datetime import datetime
from typing import Any
from uuid import UUID

from libs.postgres import Connection as Conn
from services.auth.domain.saml import Connection, Provider, SignIn


async def add(conn: Conn, connection: Connection) -> None:
    """Adds a connection; breaks `saml_connection_entity` when the account has one with the provider."""
    await conn.execute(
        """
        INSERT INTO saml_connection (account_id, id, name, enabled, entity_id, sso_url, certificates, email_attribute,
            name_attribute, email_domains, default_role, asks_second_factor, unsolicited, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
        """,
        *_values(connection),
        connection.created_at,
    )


async def update(conn: Conn, connection: Connection) -> None:
    """Stores a connection that was locked; breaks `saml_connection_entity` as `add`."""
    await conn.execute(
        """
        UPDATE saml_connection SET name = $3, enabled = $4, entity_id = $5, sso_url = $6, certificates = $7,
            email_attribute = $8, name_attribute = $9, email_domains = $10, default_role = $11,
            asks_second_factor = $12, unsolicited = $13
        WHERE account_id = $1 AND id = $2
        """,
        *_values(connection),
    )


async def find(conn: Conn, account: UUID, connection: UUID) -> Connection | None:
    """Reads a connection."""
    row = await conn.fetchrow(
        """
        SELECT account_id, id, name, enabled, entity_id, sso_url, certificates, email_attribute, name_attribute,
            email_domains, default_role, asks_second_factor, unsolicited, created_at
        FROM saml_connection WHERE account_id = $1 AND id = $2
        """,
        account,
        connection,
    )
    return _connection(row) if row else None


async def lock(conn: Conn, account: UUID, connection: UUID) -> Connection | None:
    """Reads a connection and keeps it from changing or being used until the transaction ends."""
    row = await conn.fetchrow(
        """
        SELECT account_id, id, name, enabled, entity_id, sso_url, certificates, email_attribute, name_attribute,
            email_domains, default_role, asks_second_factor, unsolicited, created_at
        FROM saml_connection WHERE account_id = $1 AND id = $2 FOR UPDATE
        """,
        account,
        connection,
    )
    return _connection(row) if row else None


async def hold(conn: Conn, account: UUID, connection: UUID) -> Connection | None:
    """Reads a connection and keeps it as it is until the transaction ends; others may use it meanwhile."""
    row = await conn.fetchrow(
        """
        SELECT account_id, id, name, enabled, entity_id, sso_url, certificates, email_attribute, name_attribute,
            email_domains, default_role, asks_second_factor, unsolicited, created_at
        FROM saml_connection WHERE account_id = $1 AND id = $2 FOR SHARE
        """,
        account,
        connection,
    )
    return _connection(row) if row else None


async def page(conn: Conn, account: UUID, before: UUID, limit: int) -> list[Connection]:
    """Reads connections made before `before`, newest first."""
    rows = await conn.fetch(
        """
        SELECT account_id, id, name, enabled, entity_id, sso_url, certificates, email_attribute, name_attribute,
            email_domains, default_role, asks_second_factor, unsolicited, created_at
        FROM saml_connection WHERE account_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3
        """,
        account,
        before,
        limit,
    )
    return [_connection(row) for row in rows]


async def remove(conn: Conn, account: UUID, connection: UUID) -> None:
    """Removes a connection, with all that is under way by it."""
    await conn.execute("DELETE FROM saml_connection WHERE account_id = $1 AND id = $2", account, connection)


async def begin(conn: Conn, account: UUID, sign_in: SignIn, relay_hash: bytes) -> None:
    """Adds a sign-in that waits for its response."""
    await conn.execute(
        """
        INSERT INTO saml_sign_in (account_id, id, connection_id, opens_account_id, live, relay_hash, browser_hash,
            expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        """,
        account,
        sign_in.id,
        sign_in.connection,
        sign_in.account,
        sign_in.live,
        relay_hash,
        sign_in.browser_hash,
        sign_in.expires_at,
    )


async def begun(conn: Conn, account: UUID, connection: UUID, relay_hash: bytes, now: datetime) -> SignIn | None:
    """Reads the sign-in that waits for a response."""
    row = await conn.fetchrow(
        """
        SELECT id, connection_id, opens_account_id, live, browser_hash, expires_at
        FROM saml_sign_in WHERE account_id = $1 AND connection_id = $2 AND relay_hash = $3 AND expires_at > $4
        """,
        account,
        connection,
        relay_hash,
        now,
    )
    return _sign_in(row) if row else None


async def take_begun(conn: Conn, account: UUID, sign_in: UUID) -> bool:
    """Takes away a sign-in that waited for its response; answers True to exactly one caller."""
    row = await conn.fetchrow(
        "DELETE FROM saml_sign_in WHERE account_id = $1 AND id = $2 AND relay_hash IS NOT NULL RETURNING id",
        account,
        sign_in,
    )
    return row is not None


async def hand_over(conn: Conn, account: UUID, sign_in: SignIn, handover_hash: bytes, statement_sealed: bytes) -> None:
    """Adds a sign-in that waits for the page which finishes it."""
    await conn.execute(
        """
        INSERT INTO saml_sign_in (account_id, id, connection_id, opens_account_id, live, browser_hash, handover_hash,
            statement_sealed, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        """,
        account,
        sign_in.id,
        sign_in.connection,
        sign_in.account,
        sign_in.live,
        sign_in.browser_hash,
        handover_hash,
        statement_sealed,
        sign_in.expires_at,
    )


async def handed_over(conn: Conn, account: UUID, handover_hash: bytes, now: datetime) -> tuple[SignIn, bytes] | None:
    """Reads the sign-in that a token finishes, with what was said, sealed."""
    row = await conn.fetchrow(
        """
        SELECT id, connection_id, opens_account_id, live, browser_hash, expires_at, statement_sealed
        FROM saml_sign_in WHERE account_id = $1 AND handover_hash = $2 AND expires_at > $3
        """,
        account,
        handover_hash,
        now,
    )
    return (_sign_in(row), row["statement_sealed"]) if row else None


async def finish(conn: Conn, account: UUID, sign_in: UUID) -> bool:
    """Takes away a sign-in that waited for its page; answers True to exactly one caller."""
    row = await conn.fetchrow(
        "DELETE FROM saml_sign_in WHERE account_id = $1 AND id = $2 AND handover_hash IS NOT NULL RETURNING id",
        account,
        sign_in,
    )
    return row is not None


async def remember(conn: Conn, account: UUID, connection: UUID, assertion_hash: bytes, expires_at: datetime) -> bool:
    """Notes that an assertion was taken; answers True to exactly one caller."""
    row = await conn.fetchrow(
        """
        INSERT INTO saml_assertion (account_id, connection_id, assertion_hash, expires_at) VALUES ($1, $2, $3, $4)
        ON CONFLICT ON CONSTRAINT saml_assertion_once DO NOTHING RETURNING account_id
        """,
        account,
        connection,
        assertion_hash,
        expires_at,
    )
    return row is not None


def _values(connection: Connection) -> tuple[object, ...]:
    provider = connection.provider
    return (
        connection.account,
        connection.id,
        connection.name,
        connection.enabled,
        provider.entity_id if provider else None,
        provider.sso_url if provider else None,
        list(provider.certificates) if provider else [],
        connection.email_attribute,
        connection.name_attribute,
        list(connection.email_domains),
        connection.default_role,
        connection.asks_second_factor,
        connection.unsolicited,
    )


def _connection(row: Any) -> Connection:
    provider = None
    if row["entity_id"] is not None:
        provider = Provider(row["entity_id"], row["sso_url"], tuple(row["certificates"]))
    return Connection(
        id=row["id"],
        account=row["account_id"],
        name=row["name"],
        created_at=row["created_at"],
        provider=provider,
        email_attribute=row["email_attribute"],
        name_attribute=row["name_attribute"],
        email_domains=tuple(row["email_domains"]),
        default_role=row["default_role"],
        asks_second_factor=row["asks_second_factor"],
        unsolicited=row["unsolicited"],
        enabled=row["enabled"],
    )


def _sign_in(row: Any) -> SignIn:
    return SignIn(
        id=row["id"],
        connection=row["connection_id"],
        account=row["opens_account_id"],
        live=row["live"],
        expires_at=row["expires_at"],
        browser_hash=row["browser_hash"],
    )
