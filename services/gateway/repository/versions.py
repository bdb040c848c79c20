"""Owns the statements on versions: the newest, those that were, what they held, and which are not told of yet."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from libs.postgres import Connection
from services.gateway.domain.register import Identity, Version


@dataclass(frozen=True)
class StoredVersion:
    """A version with what it held; None where that is not kept any more."""

    version: Version
    content: bytes | None
    sets: tuple[bytes, ...]


_COLUMNS = "number, made_at, made_by, change, about, restored_from, digest, content IS NOT NULL AS kept"


async def lock(conn: Connection) -> int:
    """Reads the newest version's number, and keeps others from changing anything until the transaction ends."""
    number: int = await conn.fetchval("SELECT version FROM head FOR UPDATE")
    return number


async def newest(conn: Connection) -> int:
    """Reads the newest version's number."""
    number: int = await conn.fetchval("SELECT version FROM head")
    return number


async def identity(conn: Connection) -> Identity:
    """Reads which version is the newest."""
    row = await conn.fetchrow(
        """
        SELECT head.lineage, head.version, version.digest FROM head
        LEFT JOIN version ON version.number = head.version
        """
    )
    assert row is not None
    return Identity(row["lineage"], row["version"], row["digest"] or b"")


async def add(conn: Connection, version: Version, content: bytes, sets: list[bytes]) -> None:
    """Adds a version; the database refuses one that does not follow the newest."""
    await conn.execute(
        """
        INSERT INTO version (number, made_at, made_by, change, about, restored_from, digest, content, sets)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        """,
        version.number,
        version.made_at,
        version.made_by,
        version.change,
        version.about,
        version.restored_from,
        version.digest,
        content,
        sets,
    )


async def check_names_at_the_end(conn: Connection) -> None:
    """Lets names be taken twice until the transaction commits."""
    await conn.execute("SET CONSTRAINTS rule_name_key, entry_list_name_key DEFERRED")


async def find(conn: Connection, number: int) -> StoredVersion | None:
    """Reads a version with what it held."""
    row = await conn.fetchrow(f"SELECT {_COLUMNS}, content, sets FROM version WHERE number = $1", number)  # noqa: S608 — a constant
    return StoredVersion(_version(row), row["content"], tuple(row["sets"])) if row else None


async def page(conn: Connection, before: int, limit: int) -> list[Version]:
    """Reads versions with lower numbers, newest first."""
    rows = await conn.fetch(
        f"SELECT {_COLUMNS} FROM version WHERE number < $1 ORDER BY number DESC LIMIT $2",  # noqa: S608 — a constant
        before,
        limit,
    )
    return [_version(row) for row in rows]


async def forget_content(conn: Connection, up_to: int) -> bool:
    """Drops what versions up to a number held; answers whether there was any."""
    done = await conn.execute("UPDATE version SET content = NULL WHERE content IS NOT NULL AND number <= $1", up_to)
    return done != "UPDATE 0"


async def forget_sets(conn: Connection) -> None:
    """Drops packed entries that no kept version and no list holds."""
    await conn.execute(
        """
        DELETE FROM entry_set WHERE digest NOT IN (
            SELECT unnest(sets) FROM version WHERE content IS NOT NULL UNION SELECT digest FROM entry_list)
        """
    )


async def lock_unpublished(conn: Connection) -> StoredVersion | None:
    """Reads the newest version that gateways were not told of, for one process at a time."""
    row = await conn.fetchrow(
        f"""
        SELECT {_COLUMNS}, content, sets FROM version WHERE published_at IS NULL AND content IS NOT NULL
        ORDER BY number DESC LIMIT 1 FOR UPDATE SKIP LOCKED
        """  # noqa: S608 — a constant
    )
    return StoredVersion(_version(row), row["content"], tuple(row["sets"])) if row else None


async def any_unpublished(conn: Connection) -> bool:
    """Answers whether there is a version that gateways were not told of."""
    waiting: bool = await conn.fetchval("SELECT EXISTS (SELECT FROM version WHERE published_at IS NULL)")
    return waiting


async def published(conn: Connection, up_to: int, at: datetime) -> None:
    """Notes that gateways were told: a version makes those before it old news."""
    await conn.execute("UPDATE version SET published_at = $2 WHERE published_at IS NULL AND number <= $1", up_to, at)


async def lineage(conn: Connection) -> UUID:
    """Reads which history of versions this database has."""
    found: UUID = await conn.fetchval("SELECT lineage FROM head")
    return found


def _version(row: Any) -> Version:
    return Version(
        number=row["number"],
        made_at=row["made_at"],
        made_by=row["made_by"],
        change=row["change"],
        about=row["about"],
        restored_from=row["restored_from"],
        digest=row["digest"],
        kept=row["kept"],
    )
