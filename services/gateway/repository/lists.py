"""Owns the statements on lists and their entries."""

from collections.abc import Iterable
from datetime import datetime
from itertools import islice
from typing import Any
from uuid import UUID

from libs.postgres import Connection
from services.gateway.domain.bundle import EntryList, ListKind
from services.gateway.domain.entries import Entry
from services.gateway.domain.register import HeldList

_COLUMNS = "id, name, kind, allows, description, size, digest, created_at, changed_in"
_PORTION = 2_000
"""Entries that one statement adds or reads: others are served in between."""


async def all_lists(conn: Connection) -> tuple[HeldList, ...]:
    """Reads all lists by name."""
    return tuple(_list(row) for row in await conn.fetch(f"SELECT {_COLUMNS} FROM entry_list ORDER BY name"))  # noqa: S608 — a constant


async def find(conn: Connection, key: UUID) -> HeldList | None:
    """Reads a list."""
    row = await conn.fetchrow(f"SELECT {_COLUMNS} FROM entry_list WHERE id = $1", key)  # noqa: S608 — a constant
    return _list(row) if row else None


async def put(conn: Connection, held: HeldList) -> None:
    """Adds a list, or replaces the one with its id; a name that is taken violates `entry_list_name_key`."""
    await conn.execute(
        """
        INSERT INTO entry_list (id, name, kind, allows, description, size, digest, created_at, changed_in)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        ON CONFLICT (id) DO UPDATE SET name = excluded.name, allows = excluded.allows,
            description = excluded.description, size = excluded.size, digest = excluded.digest,
            changed_in = excluded.changed_in
        """,
        held.list.id,
        held.list.name,
        held.list.kind.value,
        held.list.allows,
        held.description,
        held.size,
        held.digest,
        held.created_at,
        held.changed_in,
    )


async def remove(conn: Connection, key: UUID) -> None:
    """Removes a list with its entries."""
    await conn.execute("DELETE FROM entry_list WHERE id = $1", key)


async def remove_others(conn: Connection, keys: list[UUID]) -> None:
    """Removes all lists but these."""
    await conn.execute("DELETE FROM entry_list WHERE NOT id = ANY($1::uuid[])", keys)


async def page(conn: Connection, key: UUID, after: str, limit: int) -> list[Entry]:
    """Reads entries in the order of their texts."""
    rows = await conn.fetch(
        """
        SELECT text, expires_at FROM list_entry WHERE list_id = $1 AND text > $2
        ORDER BY text LIMIT $3
        """,
        key,
        after,
        limit,
    )
    return [(row["text"], row["expires_at"]) for row in rows]


async def entries(conn: Connection, key: UUID) -> tuple[Entry, ...]:
    """Reads all entries in the order of their texts, in portions: others are served in between."""
    found: list[Entry] = []
    while True:
        portion = await page(conn, key, found[-1][0] if found else "", _PORTION)
        found += portion
        if len(portion) < _PORTION:
            return tuple(found)


async def add_entries(conn: Connection, key: UUID, added: Iterable[Entry]) -> None:
    """Adds entries; one that is there takes the new end."""
    texts, ends = [], []
    for text, end in added:
        texts.append(text)
        ends.append(end)
    await conn.execute(
        """
        INSERT INTO list_entry (list_id, text, expires_at)
        SELECT $1, added.text, added.expires_at FROM unnest($2::text[], $3::timestamptz[]) AS added (text, expires_at)
        ON CONFLICT (list_id, text) DO UPDATE SET expires_at = excluded.expires_at
        """,
        key,
        texts,
        ends,
    )


async def add_all_entries(conn: Connection, key: UUID, added: Iterable[Entry]) -> None:
    """Adds any number of entries, in portions."""
    left = iter(added)
    while portion := list(islice(left, _PORTION)):
        await add_entries(conn, key, portion)


async def remove_entries(conn: Connection, key: UUID, texts: list[str]) -> None:
    """Removes entries."""
    await conn.execute("DELETE FROM list_entry WHERE list_id = $1 AND text = ANY($2::text[])", key, texts)


async def remove_all_entries(conn: Connection, key: UUID) -> None:
    """Empties a list."""
    await conn.execute("DELETE FROM list_entry WHERE list_id = $1", key)


async def remove_ended(conn: Connection, key: UUID, now: datetime) -> None:
    """Removes entries whose end is over."""
    await conn.execute("DELETE FROM list_entry WHERE list_id = $1 AND expires_at <= $2", key, now)


async def count_entries(conn: Connection, key: UUID) -> int:
    """Counts entries."""
    number: int = await conn.fetchval("SELECT count(*) FROM list_entry WHERE list_id = $1", key)
    return number


async def add_set(conn: Connection, digest: bytes, packed: bytes) -> None:
    """Keeps packed entries under their digest, unless they are there."""
    await conn.execute(
        "INSERT INTO entry_set (digest, packed) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING", digest, packed
    )


async def sets(conn: Connection, digests: list[bytes]) -> dict[bytes, bytes]:
    """Reads packed entries by digest."""
    rows = await conn.fetch("SELECT digest, packed FROM entry_set WHERE digest = ANY($1::bytea[])", digests)
    return {row["digest"]: row["packed"] for row in rows}


def _list(row: Any) -> HeldList:
    described = EntryList(id=row["id"], name=row["name"], kind=ListKind(row["kind"]), allows=row["allows"])
    return HeldList(described, row["description"], row["size"], row["digest"], row["created_at"], row["changed_in"])
