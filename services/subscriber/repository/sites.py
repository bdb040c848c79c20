"""Owns the statements on sites and on the routing table by which an origin finds its accounts."""

from uuid import UUID

from libs import errors
from libs.postgres import Connection, violated
from services.subscriber.domain.site import Site


async def insert(conn: Connection, account: UUID, site: Site) -> None:
    """Adds a site and its route; raises `conflict("site_exists")`."""
    try:
        await conn.execute(
            "INSERT INTO site (account_id, id, name, origin, created_at) VALUES ($1, $2, $3, $4, $5)",
            account,
            site.id,
            site.name,
            site.origin,
            site.created_at,
        )
    except Exception as error:
        if violated(error) == "site_origin_unique":
            raise errors.conflict("site_exists", "The account already has a site with this origin.") from error
        raise
    await conn.execute("INSERT INTO site_origin (origin, account_id) VALUES ($1, $2)", site.origin, account)


async def all_of(conn: Connection, account: UUID) -> list[Site]:
    """Returns the account's sites, oldest first."""
    rows = await conn.fetch(
        "SELECT id, name, origin, created_at FROM site WHERE account_id = $1 ORDER BY created_at, id", account
    )
    return [Site(row["id"], row["name"], row["origin"], row["created_at"]) for row in rows]


async def accounts_of_origin(conn: Connection, origin: str) -> list[UUID]:
    """Returns the accounts that have a site with this origin."""
    rows = await conn.fetch("SELECT account_id FROM site_origin WHERE origin = $1 ORDER BY account_id", origin)
    return [row["account_id"] for row in rows]
