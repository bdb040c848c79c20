"""Owns applying migrations to a schema, and telling whether a schema fits the code that wants to serve from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import asyncpg

from libs import errors
from libs.clock import SystemClock, WallClock
from libs.config import Secret
from libs.migrate.files import Component, Migration, MigrationError, components_of, keys_components, read
from libs.postgres import NEWEST_VERSION, OLDEST_VERSION, Connection, Database
from libs.version import CODE_VERSION

# Any number of processes may migrate one database: each migration is done by whoever holds this lock.
_LOCK = 0x6761_7465_666F_6C64
_LOCK_WAIT = "SET LOCAL lock_timeout = '120s'"
# A migration that waits for a table's lock makes everyone behind it wait as well, so it gives up soon.
_LIMITS = "SET LOCAL lock_timeout = '5s'; SET LOCAL statement_timeout = '60s'"


@dataclass(frozen=True)
class Applied:
    """One row of schema_migration."""

    title: str
    sha256: bytes
    min_compatible_code: int


async def apply(
    owner_dsn: Secret | str, service: str, *, code_version: int = CODE_VERSION, clock: WallClock | None = None
) -> list[str]:
    """Brings the service's schema up to the files; returns the titles of what was applied, nothing when it was level.

    `owner_dsn` is the DSN of the role <service>_owner. Raises MigrationError when a file changed after it was applied,
    the schema is for newer code, or a migration fails (the ones before it stay applied); `unavailable` when the
    database is away.
    """
    return await apply_components(owner_dsn, components_of(service), code_version=code_version, clock=clock)


async def apply_keys(
    owner_dsn: Secret | str, *, code_version: int = CODE_VERSION, clock: WallClock | None = None
) -> list[str]:
    """Brings the keys database up to libs/vault/migrations, as `apply` does for a service; as role keys_owner."""
    return await apply_components(owner_dsn, keys_components(), code_version=code_version, clock=clock)


async def apply_components(
    owner_dsn: Secret | str,
    components: Sequence[Component],
    *,
    code_version: int = CODE_VERSION,
    clock: WallClock | None = None,
) -> list[str]:
    """Applies the components one after the other; see `apply`."""
    wall = clock or SystemClock()
    lines = [read(component) for component in components]
    connection = await connect(owner_dsn)
    try:
        await _create_record(connection)
        return [
            migration.title
            for line in lines
            for migration in line
            if await _apply_one(connection, line, migration, code_version, wall)
        ]
    finally:
        await connection.close(timeout=5)


async def check(
    source: Database | Secret | str,
    service: str,
    code_version: int = CODE_VERSION,
    *,
    components: Sequence[Component] | None = None,
) -> None:
    """Returns when this code may serve from the schema; older code may serve from a newer schema.

    Raises MigrationError when migrations are missing, a file changed after it was applied, or the schema has dropped
    what this code needs; `unavailable` when the database is away.
    """
    if isinstance(source, Database):
        async with source.transaction("check_schema", read_only=True) as connection:
            applied = await _applied(connection)
    else:
        opened = await connect(source)
        try:
            applied = await _applied(opened)
        finally:
            await opened.close(timeout=5)
    lines = [read(component) for component in (components or components_of(service))]
    _check_code(applied, code_version)
    for line in lines:
        _check_unchanged(applied, line)
        missing = [migration.title for migration in line if (migration.component, migration.number) not in applied]
        if missing:
            raise MigrationError(f"migrations are missing: {', '.join(missing)}; run python -m libs.migrate {service}")


async def connect(dsn: Secret | str) -> "asyncpg.Connection[asyncpg.Record]":
    """Returns a connection of its own; raises `unavailable` when the database is away, MigrationError when too old."""
    try:
        connection = await asyncpg.connect(dsn.reveal() if isinstance(dsn, Secret) else dsn, timeout=10)
    except (OSError, asyncpg.CannotConnectNowError, asyncpg.TooManyConnectionsError) as error:
        raise errors.unavailable("database_unavailable", "The database is away for a moment.") from error
    major = connection.get_server_version().major
    if not OLDEST_VERSION <= major <= NEWEST_VERSION:
        await connection.close()
        raise MigrationError(f"PostgreSQL {major} is not among the supported {OLDEST_VERSION} to {NEWEST_VERSION}")
    return connection


async def _create_record(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    async with connection.transaction():
        schema = await connection.fetchval("SELECT current_schema()")
        if schema is None or schema == "public":
            raise MigrationError(
                "the role has no schema of its own: run bootstrap first, and migrate as <service>_owner"
            )
        await _lock(connection)
        if await connection.fetchval("SELECT to_regclass('schema_migration')") is not None:
            return
        await connection.execute(
            """
            CREATE TABLE schema_migration (
                component           text        NOT NULL,
                number              integer     NOT NULL,
                name                text        NOT NULL,
                kind                text        NOT NULL,
                min_compatible_code integer     NOT NULL,
                sha256              bytea       NOT NULL,
                code_version        integer     NOT NULL,
                applied_at          timestamptz NOT NULL,
                PRIMARY KEY (component, number)
            );
            DO $$
            DECLARE
                column_name text;
            BEGIN
                EXECUTE format('REVOKE ALL ON schema_migration FROM %I', current_schema() || '_app');
                EXECUTE format('GRANT SELECT ON schema_migration TO %I', current_schema() || '_app');
                FOR column_name IN SELECT attname FROM pg_attribute
                    WHERE attrelid = 'schema_migration'::regclass AND attnum > 0
                LOOP
                    EXECUTE format('COMMENT ON COLUMN schema_migration.%I IS %L', column_name, 'pii: none');
                END LOOP;
            END
            $$
            """
        )


async def _apply_one(
    connection: "asyncpg.Connection[asyncpg.Record]",
    line: Sequence[Migration],
    migration: Migration,
    code_version: int,
    clock: WallClock,
) -> bool:
    async with connection.transaction():
        await _lock(connection)
        applied = await _applied(connection)
        _check_code(applied, code_version)
        _check_unchanged(applied, line)
        if (migration.component, migration.number) in applied:
            return False
        if migration.min_compatible_code > code_version:
            raise MigrationError(
                f"{migration.title} is for code {migration.min_compatible_code}, this is {code_version}"
            )
        await connection.execute(_LIMITS)
        try:
            await connection.execute(migration.sql)
        except asyncpg.PostgresError as error:
            raise MigrationError(f"{migration.title} failed and left no trace: {error}") from error
        await connection.execute(
            """
            INSERT INTO schema_migration
                (component, number, name, kind, min_compatible_code, sha256, code_version, applied_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
            """,
            migration.component,
            migration.number,
            migration.name,
            migration.kind,
            migration.min_compatible_code,
            migration.sha256,
            code_version,
            clock.wall(),
        )
    return True


async def _lock(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    await connection.execute(_LOCK_WAIT)
    try:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
    except asyncpg.LockNotAvailableError as error:
        raise MigrationError("another process has been migrating this database for two minutes") from error


async def _applied(connection: "Connection | asyncpg.Connection[asyncpg.Record]") -> dict[tuple[str, int], Applied]:
    if await connection.fetchval("SELECT to_regclass('schema_migration')") is None:
        return {}
    rows = await connection.fetch(
        "SELECT component, number, name, sha256, min_compatible_code FROM schema_migration ORDER BY component, number"
    )
    return {
        (row["component"], row["number"]): Applied(
            f"{row['component']}/{row['number']:04}_{row['name']}", row["sha256"], row["min_compatible_code"]
        )
        for row in rows
    }


def _check_code(applied: Mapping[tuple[str, int], Applied], code_version: int) -> None:
    for row in applied.values():
        if row.min_compatible_code > code_version:
            raise MigrationError(
                f"the schema is too new: {row.title} needs code {row.min_compatible_code} or newer,"
                f" this is {code_version}"
            )


def _check_unchanged(applied: Mapping[tuple[str, int], Applied], line: Sequence[Migration]) -> None:
    for migration in line:
        row = applied.get((migration.component, migration.number))
        if row is not None and row.sha256 != migration.sha256:
            raise MigrationError(
                f"{migration.title} was changed after it was applied as {row.title}: undo that, and write a new one"
            )
