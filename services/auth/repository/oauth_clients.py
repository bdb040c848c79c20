"""Owns the statements on clients of the OpenID Connect provider, and on the way from a client to its account."""

from typing import Any
from uuid import UUID

from libs.postgres import Connection
from services.auth.domain.oauth import Client


async def add(conn: Connection, client: Client) -> None:
    """Adds a client and its route."""
    await conn.execute(
        """
        INSERT INTO oauth_client (account_id, id, name, home_url, logo_url, redirect_uris, post_logout_redirect_uris,
            confidential, scopes, first_party, enabled, secret_hash, created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13)
        """,
        client.account,
        client.id,
        client.name,
        client.home_url,
        client.logo_url,
        list(client.redirect_uris),
        list(client.post_logout_redirect_uris),
        client.confidential,
        list(client.scopes),
        client.first_party,
        client.enabled,
        client.secret_hash,
        client.created_at,
    )
    await conn.execute(
        "INSERT INTO oauth_client_route (client_id, account_id) VALUES ($1, $2)", client.id, client.account
    )


async def account_of(conn: Connection, client: UUID) -> UUID | None:
    """Reads the account of a client."""
    account: UUID | None = await conn.fetchval("SELECT account_id FROM oauth_client_route WHERE client_id = $1", client)
    return account


async def find(conn: Connection, account: UUID, client: UUID) -> Client | None:
    """Reads a client."""
    row = await conn.fetchrow(
        """
        SELECT account_id, id, name, home_url, logo_url, redirect_uris, post_logout_redirect_uris, confidential, scopes,
            first_party, enabled, secret_hash, former_secret_hash, former_secret_until, created_at, updated_at
        FROM oauth_client WHERE account_id = $1 AND id = $2
        """,
        account,
        client,
    )
    return _client(row) if row else None


async def lock(conn: Connection, account: UUID, client: UUID) -> Client | None:
    """Reads a client and keeps it from changing until the transaction ends."""
    row = await conn.fetchrow(
        """
        SELECT account_id, id, name, home_url, logo_url, redirect_uris, post_logout_redirect_uris, confidential, scopes,
            first_party, enabled, secret_hash, former_secret_hash, former_secret_until, created_at, updated_at
        FROM oauth_client WHERE account_id = $1 AND id = $2 FOR UPDATE
        """,
        account,
        client,
    )
    return _client(row) if row else None


async def page(conn: Connection, account: UUID, before: UUID, limit: int) -> list[Client]:
    """Reads clients registered before `before`, newest first."""
    rows = await conn.fetch(
        """
        SELECT account_id, id, name, home_url, logo_url, redirect_uris, post_logout_redirect_uris, confidential, scopes,
            first_party, enabled, secret_hash, former_secret_hash, former_secret_until, created_at, updated_at
        FROM oauth_client WHERE account_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3
        """,
        account,
        before,
        limit,
    )
    return [_client(row) for row in rows]


async def replace(conn: Connection, client: Client) -> None:
    """Stores what a client is from now on."""
    await conn.execute(
        """
        UPDATE oauth_client SET name = $3, home_url = $4, logo_url = $5, redirect_uris = $6,
            post_logout_redirect_uris = $7, scopes = $8, first_party = $9, enabled = $10, secret_hash = $11,
            former_secret_hash = $12, former_secret_until = $13, updated_at = $14
        WHERE account_id = $1 AND id = $2
        """,
        client.account,
        client.id,
        client.name,
        client.home_url,
        client.logo_url,
        list(client.redirect_uris),
        list(client.post_logout_redirect_uris),
        list(client.scopes),
        client.first_party,
        client.enabled,
        client.secret_hash,
        client.former_secret_hash,
        client.former_secret_until,
        client.updated_at,
    )


def _client(row: Any) -> Client:
    return Client(
        id=row["id"],
        account=row["account_id"],
        name=row["name"],
        home_url=row["home_url"],
        logo_url=row["logo_url"],
        redirect_uris=tuple(row["redirect_uris"]),
        post_logout_redirect_uris=tuple(row["post_logout_redirect_uris"]),
        confidential=row["confidential"],
        scopes=tuple(row["scopes"]),
        first_party=row["first_party"],
        enabled=row["enabled"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        secret_hash=row["secret_hash"],
        former_secret_hash=row["former_secret_hash"],
        former_secret_until=row["former_secret_until"],
    )
