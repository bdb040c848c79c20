"""Migrations on a real database: applied once, in order, whole or not at all, and never to the wrong code."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from libs import migrate
from libs.clock import FixedClock
from libs.config import Secret
from libs.errors import GatefoldError, Kind
from libs.migrate import Component, MigrationError
from libs.migrate.__main__ import main
from libs.migrate.files import shared_components
from tests.conftest import ServiceDb
from tests.support.stores import TestPostgres, role_dsn

HEADER = "-- kind: {kind}\n-- min_compatible_code: {code}\n"
NAMES = iter(f"migrate_{number}" for number in range(1_000))


@pytest.fixture
async def owner_dsn(postgres_server: TestPostgres) -> Secret:
    """The owner of an empty schema."""
    return await postgres_server.empty_database(next(NAMES), "probe")


Write = Callable[..., None]


@pytest.fixture
def own(tmp_path: Path) -> Component:
    return Component("probe", tmp_path)


@pytest.fixture
def write(own: Component) -> Write:
    def write_file(name: str, sql: str, *, kind: str = "expand", code: int = 1) -> None:
        (own.folder / f"{name}.sql").write_text(HEADER.format(kind=kind, code=code) + sql)

    return write_file


async def fetch(dsn: Secret, query: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn.reveal())
    try:
        return list(await connection.fetch(query))
    finally:
        await connection.close()


async def table_names(dsn: Secret) -> set[str]:
    rows = await fetch(dsn, "SELECT tablename FROM pg_tables WHERE schemaname = 'probe'")
    return {row["tablename"] for row in rows}


class TestApply:
    async def test_everything_is_applied_once_in_order(self, owner_dsn: Secret, own: Component, write: Write) -> None:
        write("0001_create_one", "CREATE TABLE one (id integer);")
        write("0002_create_two", "CREATE TABLE two (id integer);")
        components = (*shared_components(), own)
        done = await migrate.apply_components(owner_dsn, components)
        assert done[0] == "functions/0001_create_functions"
        assert done[-2:] == ["probe/0001_create_one", "probe/0002_create_two"]
        assert await migrate.apply_components(owner_dsn, components) == []
        assert {"one", "two", "outbox"} <= await table_names(owner_dsn)

    async def test_what_was_applied_is_recorded(self, owner_dsn: Secret, own: Component, write: Write) -> None:
        write("0001_create_one", "CREATE TABLE one (id integer);")
        clock = FixedClock()
        clock.advance(timedelta(hours=2))
        await migrate.apply_components(owner_dsn, [own], code_version=7, clock=clock)
        (row,) = await fetch(
            owner_dsn,
            "SELECT component, number, name, kind, min_compatible_code, code_version, applied_at FROM schema_migration",
        )
        assert tuple(row) == ("probe", 1, "create_one", "expand", 1, 7, clock.wall())

    async def test_a_failing_migration_leaves_no_trace_and_the_ones_before_it(
        self, owner_dsn: Secret, own: Component, write: Write
    ) -> None:
        write("0001_create_one", "CREATE TABLE one (id integer);")
        write("0002_create_two", "CREATE TABLE two (id integer); SELECT 1 / 0;")
        with pytest.raises(MigrationError, match="probe/0002_create_two failed and left no trace: division by zero"):
            await migrate.apply_components(owner_dsn, [own])
        assert await table_names(owner_dsn) == {"schema_migration", "one"}
        write("0002_create_two", "CREATE TABLE two (id integer);")
        assert await migrate.apply_components(owner_dsn, [own]) == ["probe/0002_create_two"]

    async def test_a_file_that_changed_afterwards_is_refused(
        self, owner_dsn: Secret, own: Component, write: Write
    ) -> None:
        write("0001_create_one", "CREATE TABLE one (id integer);")
        await migrate.apply_components(owner_dsn, [own])
        write("0001_create_one", "CREATE TABLE one (id bigint);")
        write("0002_create_two", "CREATE TABLE two (id integer);")
        with pytest.raises(MigrationError, match="probe/0001_create_one was changed after it was applied"):
            await migrate.apply_components(owner_dsn, [own])
        assert "two" not in await table_names(owner_dsn)

    async def test_concurrent_runs_apply_each_migration_once(
        self, owner_dsn: Secret, own: Component, write: Write
    ) -> None:
        for number in range(1, 6):
            write(f"{number:04}_create_t{number}", f"CREATE TABLE t{number} (id integer);")
        done = await asyncio.gather(*(migrate.apply_components(owner_dsn, [own]) for _ in range(6)))
        titles = [title for run in done for title in run]
        assert sorted(titles) == [f"probe/{number:04}_create_t{number}" for number in range(1, 6)]

    async def test_a_migration_gives_up_on_a_table_that_is_locked(
        self, owner_dsn: Secret, own: Component, write: Write
    ) -> None:
        write("0001_create_one", "CREATE TABLE one (id integer);")
        await migrate.apply_components(owner_dsn, [own])
        # The limits hold from before the migration's own statements, which may tighten them.
        write(
            "0002_add_name",
            "DO $$ BEGIN ASSERT current_setting('lock_timeout') = '5s';"
            " ASSERT current_setting('statement_timeout') = '1min'; END $$;"
            " SET LOCAL lock_timeout = '20ms'; ALTER TABLE one ADD name text;",
        )
        holder = await asyncpg.connect(owner_dsn.reveal())
        await holder.execute("BEGIN; LOCK TABLE one IN ACCESS SHARE MODE")
        with pytest.raises(MigrationError, match="lock timeout"):
            await migrate.apply_components(owner_dsn, [own])
        await holder.close()
        assert await migrate.apply_components(owner_dsn, [own]) == ["probe/0002_add_name"]

    async def test_a_role_without_a_schema_is_told_to_bootstrap(self, postgres_server: TestPostgres) -> None:
        with pytest.raises(MigrationError, match="run bootstrap first"):
            await migrate.apply_components(postgres_server.server.dsn(), shared_components())

    async def test_a_server_that_is_away_is_unavailable(self) -> None:
        with pytest.raises(GatefoldError) as raised:
            await migrate.apply("postgresql://probe_owner:x@/probe?host=/nonexistent&port=5432", "billing")
        assert raised.value.kind is Kind.UNAVAILABLE


class TestCheck:
    async def test_older_code_serves_from_a_newer_schema(
        self, owner_dsn: Secret, own: Component, write: Write, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """N-1 code on schema N: it knows the first file alone."""
        older = Component("probe", tmp_path_factory.mktemp("older"))
        write("0001_create_one", "CREATE TABLE one (id integer);")
        (older.folder / "0001_create_one.sql").write_bytes((own.folder / "0001_create_one.sql").read_bytes())
        write("0002_create_two", "CREATE TABLE two (id integer);")
        await migrate.apply_components(owner_dsn, [own], code_version=2)
        await migrate.check(owner_dsn, "probe", 1, components=[older])
        assert await migrate.apply_components(owner_dsn, [older], code_version=1) == []

    async def test_code_is_refused_once_a_contract_took_away_what_it_needs(
        self, owner_dsn: Secret, own: Component, write: Write
    ) -> None:
        write("0001_create_one", "CREATE TABLE one (id integer);")
        await migrate.apply_components(owner_dsn, [own], code_version=2)
        await migrate.check(owner_dsn, "probe", 1, components=[own])
        write("0002_drop_one", "DROP TABLE one;", kind="contract", code=2)
        with pytest.raises(MigrationError, match="0002_drop_one is for code 2, this is 1"):
            await migrate.apply_components(owner_dsn, [own], code_version=1)
        await migrate.apply_components(owner_dsn, [own], code_version=2)
        await migrate.check(owner_dsn, "probe", 2, components=[own])
        with pytest.raises(MigrationError, match="schema is too new: probe/0002_drop_one needs code 2 or newer"):
            await migrate.check(owner_dsn, "probe", 1, components=[own])
        with pytest.raises(MigrationError, match="schema is too new"):
            await migrate.apply_components(owner_dsn, [own], code_version=1)

    async def test_missing_migrations_are_named(self, owner_dsn: Secret, own: Component, write: Write) -> None:
        write("0001_create_one", "CREATE TABLE one (id integer);")
        with pytest.raises(MigrationError, match="migrations are missing: probe/0001_create_one; run python -m"):
            await migrate.check(owner_dsn, "probe", components=[own])

    async def test_a_changed_file_is_refused(self, owner_dsn: Secret, own: Component, write: Write) -> None:
        write("0001_create_one", "CREATE TABLE one (id integer);")
        await migrate.apply_components(owner_dsn, [own])
        write("0001_create_one", "CREATE TABLE one (id bigint);")
        with pytest.raises(MigrationError, match="was changed after it was applied"):
            await migrate.check(owner_dsn, "probe", components=[own])

    async def test_a_service_checks_with_its_own_pool(self, service_db: ServiceDb) -> None:
        app, _, owner_dsn = await service_db("billing")
        await migrate.check(app, "billing")
        await migrate.check(role_dsn(owner_dsn, "billing_app"), "billing")


class TestCommand:
    def test_it_bootstraps_and_migrates_from_the_environment(
        self, postgres_server: TestPostgres, capsys: pytest.CaptureFixture[str]
    ) -> None:
        name = next(NAMES)
        asyncio.run(migrate.create_database(postgres_server.server.dsn(), name))
        admin = postgres_server.server.dsn(database=name).reveal()
        roles = [*migrate.roles_of("notify"), "keys_owner", "keys_backup", "notify_keys"]
        passwords = ", ".join(f'"{role}": "password-of-tests"' for role in roles)
        environ = {
            "GATEFOLD_POSTGRES_ADMIN_DSN": admin,
            "GATEFOLD_KEYS_ADMIN_DSN": admin,
            "GATEFOLD_POSTGRES_PASSWORDS": f"{{{passwords}}}",
        }
        assert main(["--bootstrap", "notify", "keys"], environ) == 0
        notify, keys = (postgres_server.dsn(name, role).reveal() for role in ("notify_owner", "keys_owner"))
        dsns = {"GATEFOLD_POSTGRES_OWNER_DSNS": f'{{"notify": "{notify}", "keys": "{keys}"}}'}
        assert main(["notify", "keys"], dsns) == 0
        output = capsys.readouterr().out
        assert "notify: schema and roles are there\nkeys: schema and roles are there\n" in output
        assert "notify: applied libs/0001_create_outbox\n" in output
        assert "keys: applied vault/0001_create_keys\n" in output
        assert main(["notify"], dsns) == 0
        assert capsys.readouterr().out == "notify: nothing to apply\n"

    def test_it_says_what_is_missing(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["billing"], {}) == 1
        assert "GATEFOLD_POSTGRES_OWNER_DSNS is missing" in capsys.readouterr().err
        assert main(["billing"], {"GATEFOLD_POSTGRES_OWNER_DSNS": "{}"}) == 1
        assert "holds no DSN for billing" in capsys.readouterr().err
        assert main(["billing"], {"GATEFOLD_POSTGRES_OWNER_DSNS": "x"}) == 1
        assert "must be a JSON object" in capsys.readouterr().err
