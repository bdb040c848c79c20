"""Owns reading a schema's marks from the PostgreSQL catalogue, and checking that all personal data is accounted for."""

from collections.abc import Sequence
from dataclasses import dataclass

from libs.migrate.files import components_of, read
from libs.postgres import Connection
from libs.privacy.mark import UNTIL_ERASURE, Mark, MarkError, parse
from libs.privacy.subject_table import SubjectTable
from libs.vault import PURPOSES

ACCOUNT_SEALED = "account"
# What a column that must not be NULL is emptied to, by type.
EMPTY = {"bytea": "'\\x'::bytea", "text": "''", "jsonb": "'{}'::jsonb", "text[]": "'{}'::text[]"}


@dataclass(frozen=True)
class Column:
    """One column of a table, as the catalogue knows it. `key_place` is its place in the primary key, from 0."""

    table: str
    name: str
    type: str
    not_null: bool
    key_place: int | None
    mark: Mark | None

    @property
    def personal(self) -> bool:
        """Whether the column is marked as personal data."""
        return self.mark is not None and self.mark.personal


Catalogue = dict[str, list[Column]]


async def columns(conn: Connection) -> Catalogue:
    """Returns all columns of the schema's tables by table; raises MarkError for a malformed mark."""
    rows = await conn.fetch(
        """
        SELECT class.relname, attribute.attname, format_type(attribute.atttypid, NULL) AS type, attribute.attnotnull,
               array_position(index.indkey::int2[], attribute.attnum) AS key_place,
               col_description(class.oid, attribute.attnum) AS comment
        FROM pg_class AS class
        JOIN pg_attribute AS attribute ON attribute.attrelid = class.oid
        LEFT JOIN pg_index AS index ON index.indrelid = class.oid AND index.indisprimary
        WHERE class.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
          AND class.relkind IN ('r', 'p') AND NOT class.relispartition
          AND attribute.attnum > 0 AND NOT attribute.attisdropped
        ORDER BY class.relname, attribute.attnum
        """
    )
    catalogue: Catalogue = {}
    for row in rows:
        try:
            mark = parse(row["comment"])
        except MarkError as error:
            raise MarkError(f"{row['relname']}.{row['attname']}: {error}") from None
        column = Column(row["relname"], row["attname"], row["type"], row["attnotnull"], row["key_place"], mark)
        catalogue.setdefault(column.table, []).append(column)
    return catalogue


async def unmarked_columns(conn: Connection) -> list[str]:
    """Returns the columns (`table.column`) of the schema that do not say whether they hold personal data."""
    return [
        f"{column.table}.{column.name}"
        for table in (await columns(conn)).values()
        for column in table
        if column.mark is None
    ]


async def schema_version(conn: Connection, service: str) -> int:
    """Returns the number of the service's newest applied migration; 0 without any."""
    newest: int = await conn.fetchval(
        "SELECT coalesce(max(number), 0) FROM schema_migration WHERE component = $1", service
    )
    return newest


async def check(conn: Connection, service: str, tables: Sequence[SubjectTable]) -> None:
    """Returns when all personal data of the schema is accounted for; raises MarkError naming all that is not.

    While a newer version is being rolled out the schema may be ahead of this code: then the newer code's check counts.
    """
    ours = max((migration.number for migration in read(components_of(service)[-1])), default=0)
    if await schema_version(conn, service) > ours:
        return
    found = problems(await columns(conn), tables)
    if found:
        raise MarkError("; ".join(found))


def problems(catalogue: Catalogue, tables: Sequence[SubjectTable]) -> list[str]:
    """Returns what is not accounted for, in words."""
    found = [
        f"{column.table}.{column.name} has no pii mark"
        for table in catalogue.values()
        for column in table
        if column.mark is None
    ]
    mapped = {table.name for table in tables}
    found.extend(
        f"{column.table}.{column.name} holds personal data until erasure, and no SubjectTable says how it is erased"
        for name, table in catalogue.items()
        if name not in mapped
        for column in table
        if column.mark is not None and column.mark.retention == UNTIL_ERASURE
    )
    numbers = [table.number for table in tables]
    found.extend(
        f"{table.name}: table number {table.number} is used twice"
        for table in tables
        if numbers.count(table.number) > 1
    )
    for place, table in enumerate(tables):
        found.extend(f"{table.name}: {problem}" for problem in _problems_of(table, catalogue))
        # Once the parent's rows are gone, the child's cannot be found any more.
        if table.via is not None and any(table.via.table == before.name for before in tables[:place]):
            found.append(f"{table.name} is found by way of {table.via.table} and must come before it")
    return found


def _problems_of(table: SubjectTable, catalogue: Catalogue) -> list[str]:
    held = catalogue.get(table.name)
    if held is None:
        return ["there is no such table"]
    by_name = {column.name: column for column in held}
    needed = ["account_id", table.via.column if table.via else table.subject_column]
    sealed = [column for column in held if column.mark is not None and column.mark.sealed]
    if sealed:
        needed.append(table.row_column)
    if table.erase == "retain":
        needed.append(table.retain_from)
    found = [f"there is no column {name}" for name in needed if name not in by_name]
    if not any(column.key_place is not None for column in held):
        found.append("there is no primary key")
    if table.via is not None:
        parent = {column.name for column in catalogue.get(table.via.table, ())}
        found.extend(
            f"{table.via.table} has no column {name}"
            for name in (table.via.key, table.subject_column)
            if name not in parent
        )
    fields = [column.mark.field for column in sealed if column.mark is not None]
    for column in sealed:
        assert column.mark is not None
        if column.mark.sealed not in (*PURPOSES, ACCOUNT_SEALED):
            found.append(f"{column.name} is sealed for an unknown purpose, {column.mark.sealed}")
        if column.type != "bytea":
            found.append(f"{column.name} is sealed and not bytea")
        if fields.count(column.mark.field) > 1:
            found.append(f"{column.name} shares the field number {column.mark.field}")
    found.extend(
        f"{column.name} cannot be emptied: it is {column.type} NOT NULL"
        for column in to_empty(table, held)
        if column.not_null and column.type not in EMPTY
    )
    return found


def to_empty(table: SubjectTable, held: Sequence[Column]) -> list[Column]:
    """Returns the columns that anonymising empties."""
    if table.erase != "anonymise":
        return []
    finds = table.via.column if table.via else table.subject_column
    return [column for column in held if column.personal and column.key_place is None and column.name != finds]
