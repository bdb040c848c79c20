"""Owns planning, carrying out and verifying an erasure in one service's tables, in SQL made from the catalogue."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import orjson

from libs.postgres import Connection
from libs.privacy.catalogue import EMPTY, Catalogue, to_empty
from libs.privacy.subject_table import SubjectTable


@dataclass(frozen=True)
class Planned:
    """What an erasure does with one table's rows of the subject."""

    table: SubjectTable
    rows: int
    until: datetime | None


def quoted(identifier: str) -> str:
    """Returns a quoted SQL identifier. Names come from the catalogue and from code, never from a request."""
    return '"' + identifier.replace('"', '""') + '"'


def of_subject(table: SubjectTable) -> str:
    """Returns the condition that finds a subject's rows; $1 is the account, $2 the subject."""
    if table.via is None:
        return f"account_id = $1 AND {quoted(table.subject_column)} = $2"
    parent = f"SELECT {quoted(table.via.key)} FROM {quoted(table.via.table)}"  # noqa: S608
    return (
        f"account_id = $1 AND {quoted(table.via.column)} IN"
        f" ({parent} WHERE account_id = $1 AND {quoted(table.subject_column)} = $2)"
    )


async def plan(conn: Connection, account: UUID, subject: UUID, tables: Sequence[SubjectTable]) -> list[Planned]:
    """Returns what an erasure would do, for each table that holds rows of the subject."""
    planned = []
    for table in tables:
        newest = f"max({quoted(table.retain_from)})" if table.erase == "retain" else "NULL::timestamptz"
        row = await conn.fetchrow(
            f"SELECT count(*) AS rows, {newest} AS newest FROM {quoted(table.name)} WHERE {of_subject(table)}",  # noqa: S608
            account,
            subject,
        )
        assert row is not None
        if row["rows"]:
            until = table.retain_until(row["newest"]) if table.retain_until is not None else None
            planned.append(Planned(table, row["rows"], until))
    return planned


def plan_hash(planned: Sequence[Planned]) -> str:
    """Returns a hash that changes when what is deleted, emptied or kept does.

    How many rows are deleted does not count: a person who goes on reading makes new ones until the erasure.
    """
    agreed = [
        [
            one.table.name,
            one.table.erase,
            one.table.retain_reason,
            one.rows if one.table.erase == "retain" else None,
            one.until,
        ]
        for one in planned
    ]
    return hashlib.sha256(orjson.dumps(agreed)).hexdigest()


async def carry_out(
    conn: Connection, account: UUID, subject: UUID, planned: Sequence[Planned], catalogue: Catalogue
) -> None:
    """Deletes and empties what the plan says."""
    for one in planned:
        name, condition = quoted(one.table.name), of_subject(one.table)
        if one.table.erase == "delete":
            await conn.execute(f"DELETE FROM {name} WHERE {condition}", account, subject)  # noqa: S608
        columns = to_empty(one.table, catalogue[one.table.name])
        if columns:
            changes = ", ".join(
                f"{quoted(column.name)} = {EMPTY[column.type] if column.not_null else 'NULL'}" for column in columns
            )
            await conn.execute(f"UPDATE {name} SET {changes} WHERE {condition}", account, subject)  # noqa: S608


async def residue(
    conn: Connection, account: UUID, subject: UUID, tables: Sequence[SubjectTable], catalogue: Catalogue
) -> tuple[int, int]:
    """Returns how many rows and values are left that should be gone, and how many rows are kept for a reason."""
    residual = retained = 0
    for table in tables:
        counted = "1"
        if table.erase == "anonymise":
            counted = " + ".join(
                ["0"]
                + [
                    f"({quoted(column.name)} <> {EMPTY[column.type]})::integer"
                    if column.not_null
                    else f"num_nonnulls({quoted(column.name)})"
                    for column in to_empty(table, catalogue[table.name])
                ]
            )
        left: int = await conn.fetchval(
            f"SELECT coalesce(sum({counted}), 0)::bigint FROM {quoted(table.name)} WHERE {of_subject(table)}",  # noqa: S608
            account,
            subject,
        )
        if table.erase == "retain":
            retained += left
        else:
            residual += left
    return residual, retained


async def place_tombstone(conn: Connection, account: UUID, subject: UUID, at: datetime) -> None:
    """Stores that the subject is erased here; a second erasure waits until the first has committed."""
    await conn.execute(
        "INSERT INTO erased_subject (account_id, subject_id, erased_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        account,
        subject,
        at,
    )


async def has_tombstone(conn: Connection, account: UUID, subject: UUID) -> bool:
    """Answers whether the subject is erased here."""
    erased: bool = await conn.fetchval(
        "SELECT EXISTS (SELECT FROM erased_subject WHERE account_id = $1 AND subject_id = $2)", account, subject
    )
    return erased


async def receipt(conn: Connection, account: UUID, subject: UUID) -> bytes | None:
    """Returns the receipt of the subject's erasure, if there was one."""
    stored: bytes | None = await conn.fetchval(
        "SELECT receipt FROM erasure_receipt WHERE account_id = $1 AND subject_id = $2", account, subject
    )
    return stored


async def store_receipt(conn: Connection, account: UUID, subject: UUID, stored: bytes, at: datetime) -> None:
    """Stores the receipt of an erasure."""
    await conn.execute(
        "INSERT INTO erasure_receipt (account_id, subject_id, receipt, erased_at) VALUES ($1, $2, $3, $4)",
        account,
        subject,
        stored,
        at,
    )
