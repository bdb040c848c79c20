"""Owns the statements on providers whose word on people an account takes."""

from datetime import datetime
from typing import Any
from uuid import UUID

from libs.postgres import Connection
from services.auth.domain.openid import Provider


async def add(conn: Connection, account: UUID, provider: Provider, secret_sealed: bytes | None) -> None:
    """Adds a provider; breaks `identity_provider_issuer` when its issuer is there already."""
    await conn.execute(
        """
        INSERT INTO identity_provider (account_id, id, kind, audience, name, issuer, client_id, secret_sealed, team_id,
            key_id, scopes, redirect_uris, tenants, email_domains, trust_verified_email, default_role,
            asks_second_factor, enabled, created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $19)
        """,
        account,
        provider.id,
        provider.kind,
        provider.audience,
        provider.name,
        provider.issuer,
        provider.client_id,
        secret_sealed,
        provider.team_id,
        provider.key_id,
        list(provider.scopes),
        list(provider.redirect_uris),
        list(provider.tenants),
        list(provider.email_domains),
        provider.trust_verified_email,
        provider.default_role,
        provider.asks_second_factor,
        provider.enabled,
        provider.created_at,
    )


async def find(conn: Connection, account: UUID, provider: UUID) -> Provider | None:
    """Reads a provider."""
    row = await conn.fetchrow(
        """
        SELECT id, kind, audience, name, issuer, client_id, team_id, key_id, scopes, redirect_uris, tenants,
            email_domains, trust_verified_email, default_role, asks_second_factor, enabled, created_at
        FROM identity_provider WHERE account_id = $1 AND id = $2
        """,
        account,
        provider,
    )
    return _provider(row) if row else None


async def secret_of(conn: Connection, account: UUID, provider: UUID) -> bytes | None:
    """Reads a provider's sealed secret."""
    sealed: bytes | None = await conn.fetchval(
        "SELECT secret_sealed FROM identity_provider WHERE account_id = $1 AND id = $2", account, provider
    )
    return sealed


async def is_enabled(conn: Connection, account: UUID, provider: UUID) -> bool:
    """Tells whether a provider may be used, and keeps it so until the transaction ends."""
    row = await conn.fetchrow(
        "SELECT id FROM identity_provider WHERE account_id = $1 AND id = $2 AND enabled FOR SHARE", account, provider
    )
    return row is not None


async def update(
    conn: Connection, account: UUID, provider: Provider, secret_sealed: bytes | None, at: datetime
) -> bool:
    """Replaces a provider's settings; its secret too where one is given. Kind, audience and issuer stay."""
    row = await conn.fetchrow(
        """
        UPDATE identity_provider SET name = $3, client_id = $4, secret_sealed = coalesce($5, secret_sealed),
            team_id = $6, key_id = $7, scopes = $8, redirect_uris = $9, tenants = $10, email_domains = $11,
            trust_verified_email = $12, default_role = $13, asks_second_factor = $14, enabled = $15, updated_at = $16
        WHERE account_id = $1 AND id = $2 RETURNING id
        """,
        account,
        provider.id,
        provider.name,
        provider.client_id,
        secret_sealed,
        provider.team_id,
        provider.key_id,
        list(provider.scopes),
        list(provider.redirect_uris),
        list(provider.tenants),
        list(provider.email_domains),
        provider.trust_verified_email,
        provider.default_role,
        provider.asks_second_factor,
        provider.enabled,
        at,
    )
    return row is not None


async def remove(conn: Connection, account: UUID, provider: UUID) -> bool:
    """Deletes a provider."""
    row = await conn.fetchrow(
        "DELETE FROM identity_provider WHERE account_id = $1 AND id = $2 RETURNING id", account, provider
    )
    return row is not None


async def page(conn: Connection, account: UUID, before: UUID, limit: int) -> list[Provider]:
    """Reads providers added before `before`, newest first."""
    rows = await conn.fetch(
        """
        SELECT id, kind, audience, name, issuer, client_id, team_id, key_id, scopes, redirect_uris, tenants,
            email_domains, trust_verified_email, default_role, asks_second_factor, enabled, created_at
        FROM identity_provider WHERE account_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3
        """,
        account,
        before,
        limit,
    )
    return [_provider(row) for row in rows]


async def enabled(conn: Connection, account: UUID, audience: str, most: int) -> list[Provider]:
    """Reads the providers that an audience may sign in with, oldest first."""
    rows = await conn.fetch(
        """
        SELECT id, kind, audience, name, issuer, client_id, team_id, key_id, scopes, redirect_uris, tenants,
            email_domains, trust_verified_email, default_role, asks_second_factor, enabled, created_at
        FROM identity_provider WHERE account_id = $1 AND audience = $2 AND enabled ORDER BY id LIMIT $3
        """,
        account,
        audience,
        most,
    )
    return [_provider(row) for row in rows]


def _provider(row: Any) -> Provider:
    return Provider(
        id=row["id"],
        kind=row["kind"],
        audience=row["audience"],
        name=row["name"],
        issuer=row["issuer"],
        client_id=row["client_id"],
        scopes=tuple(row["scopes"]),
        redirect_uris=tuple(row["redirect_uris"]),
        created_at=row["created_at"],
        team_id=row["team_id"],
        key_id=row["key_id"],
        tenants=tuple(row["tenants"]),
        email_domains=tuple(row["email_domains"]),
        trust_verified_email=row["trust_verified_email"],
        default_role=row["default_role"],
        asks_second_factor=row["asks_second_factor"],
        enabled=row["enabled"],
    )
