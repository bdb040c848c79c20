"""Owns the statements on what a directory says of members."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from libs.postgres import Connection


@dataclass(frozen=True)
class DirectoryEntry:
    """What a directory says of one member, sealed; and whether it wants one who has not accepted yet."""

    member: UUID
    attributes_sealed: bytes
    wanted: bool
    updated_at: datetime


async def of(conn: Connection, account: UUID, members: list[UUID]) -> dict[UUID, DirectoryEntry]:
    """Reads what is said of members, by member."""
    rows = await conn.fetch(
        """
        SELECT id, attributes_sealed, wanted, updated_at FROM directory_entry WHERE account_id = $1 AND id = ANY($2)
        """,
        account,
        members,
    )
    return {row["id"]: _entry(row) for row in rows}


async def put(conn: Connection, account: UUID, entry: DirectoryEntry) -> None:
    """Stores what is said of a member, in place of what was said before."""
    await conn.execute(
        """
        INSERT INTO directory_entry (account_id, id, attributes_sealed, wanted, updated_at) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (account_id, id) DO UPDATE SET attributes_sealed = excluded.attributes_sealed,
            wanted = excluded.wanted, updated_at = excluded.updated_at
        """,
        account,
        entry.member,
        entry.attributes_sealed,
        entry.wanted,
        entry.updated_at,
    )


def _entry(row: Any) -> DirectoryEntry:
    return DirectoryEntry(row["id"], row["attributes_sealed"], row["wanted"], row["updated_at"])
