"""Who sees what: row-level security, roles and grants of the tables that every service has."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeAlias
from uuid import UUID

import asyncpg
import pytest

from libs.config import Secret
from libs.ids import IdMaker
from libs.postgres import as_tenant
from tests.conftest import ServiceDb
from tests.support.stores import ServiceDatabase, TestPostgres, role_dsn

TENANT_TABLES = (
    "consumer_position",
    "dead_letter",
    "erased_subject",
    "erasure_receipt",
    "held_verdict",
    "idempotency_key",
)
ROUTING_TABLES = ("account_clock", "consumer_cursor", "due", "outbox", "schema_migration")
INSERT = "INSERT INTO consumer_position VALUES ($1, 'billing', 'invoice', $2, 1)"
COUNT = "SELECT count(*) FROM consumer_position"
APPEND = """
    INSERT INTO outbox (id, account_id, aggregate_type, aggregate_id, sequence, type, envelope, recorded_at)
    VALUES ($1, $2, 'invoice', 'inv_1', 1, 'invoice.paid', '', '2026-01-01Z')
"""


@pytest.fixture(scope="module")
async def probe(service_db: ServiceDb) -> ServiceDatabase:
    return await service_db("probe")


@pytest.fixture
async def two_accounts(probe: ServiceDatabase, ids: IdMaker) -> tuple[UUID, UUID]:
    """Two accounts with three and with two rows."""
    accounts = ids.new(), ids.new()
    for account, rows in zip(accounts, (3, 2), strict=True):
        async with probe.app.tenant(account, "insert") as conn:
            for row in range(rows):
                await conn.execute(INSERT, account, str(row))
    return accounts


Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture
async def owner(probe: ServiceDatabase) -> AsyncIterator[Connection]:
    async for connection in connected(probe.owner_dsn):
        yield connection


@pytest.fixture
async def backup(probe: ServiceDatabase) -> AsyncIterator[Connection]:
    async for connection in connected(role_dsn(probe.owner_dsn, "probe_backup")):
        yield connection


async def connected(dsn: Secret) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(dsn.reveal())
    yield connection
    await connection.close()


class TestTenants:
    async def test_each_tenant_sees_its_own_rows(self, probe: ServiceDatabase, two_accounts: tuple[UUID, UUID]) -> None:
        for account, rows in zip(two_accounts, (3, 2), strict=True):
            async with probe.app.tenant(account, "count") as conn:
                assert await conn.fetchval(COUNT) == rows

    async def test_another_tenants_rows_are_not_there_even_when_asked_for(
        self, probe: ServiceDatabase, two_accounts: tuple[UUID, UUID]
    ) -> None:
        mine, others = two_accounts
        async with probe.app.tenant(mine, "peek") as conn:
            assert await conn.fetchval(f"{COUNT} WHERE account_id = $1", others) == 0
            assert (
                await conn.execute("UPDATE consumer_position SET sequence = 9 WHERE account_id = $1", others)
                == "UPDATE 0"
            )
            assert await conn.execute("DELETE FROM consumer_position WHERE account_id = $1", others) == "DELETE 0"

    async def test_a_row_cannot_be_written_into_another_tenant(
        self, probe: ServiceDatabase, two_accounts: tuple[UUID, UUID]
    ) -> None:
        mine, others = two_accounts
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with probe.app.tenant(mine, "intrude") as conn:
                await conn.execute(INSERT, others, "planted")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with probe.app.tenant(mine, "give_away") as conn:
                await conn.execute("UPDATE consumer_position SET account_id = $1", others)

    async def test_a_transaction_works_for_another_tenant_for_a_part_of_it_alone(
        self, probe: ServiceDatabase, two_accounts: tuple[UUID, UUID]
    ) -> None:
        one, other = two_accounts
        async with probe.app.tenant(one, "visit") as conn:
            async with as_tenant(conn, other):
                assert await conn.fetchval(COUNT) == 2
            assert await conn.fetchval(COUNT) == 3
        async with probe.app.transaction("visit") as conn:
            async with as_tenant(conn, other):
                assert await conn.fetchval(COUNT) == 2
            assert await conn.fetchval(COUNT) == 0
        async with probe.app.tenant(one, "visit") as conn:
            with pytest.raises(ZeroDivisionError):
                async with as_tenant(conn, other):
                    raise ZeroDivisionError
            assert await conn.fetchval(COUNT) == 3, "who goes on after an error is at home again"
        with pytest.raises(asyncpg.DivisionByZeroError):
            async with probe.app.tenant(one, "visit") as conn, as_tenant(conn, other):
                await conn.execute("SELECT 1 / 0")
        async with probe.app.transaction("after", read_only=True) as conn:
            assert await conn.fetchval(COUNT) == 0

    async def test_a_forgotten_tenant_sees_and_writes_nothing(
        self, probe: ServiceDatabase, two_accounts: tuple[UUID, UUID]
    ) -> None:
        async with probe.app.transaction("forgotten") as conn:
            assert await conn.fetchval(COUNT) == 0
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with probe.app.transaction("forgotten") as conn:
                await conn.execute(INSERT, two_accounts[0], "x")

    @pytest.mark.parametrize(
        ("statement", "refused"),
        [
            ("SET row_security = off; SELECT count(*) FROM consumer_position", asyncpg.InsufficientPrivilegeError),
            ("SET ROLE probe_owner", asyncpg.InsufficientPrivilegeError),
            ("SET SESSION AUTHORIZATION probe_backup", asyncpg.InsufficientPrivilegeError),
            ("ALTER TABLE consumer_position NO FORCE ROW LEVEL SECURITY", asyncpg.InsufficientPrivilegeError),
            ("DROP POLICY tenant ON consumer_position", asyncpg.InsufficientPrivilegeError),
            ("TRUNCATE consumer_position", asyncpg.InsufficientPrivilegeError),
            ("CREATE TABLE mine (id integer)", asyncpg.InsufficientPrivilegeError),
            ("CREATE TABLE public.mine (id integer)", asyncpg.InsufficientPrivilegeError),
            ("CREATE TEMPORARY TABLE mine (id integer)", asyncpg.InsufficientPrivilegeError),
            ("UPDATE schema_migration SET min_compatible_code = 1", asyncpg.InsufficientPrivilegeError),
            ("ALTER ROLE probe_app BYPASSRLS", asyncpg.InsufficientPrivilegeError),
        ],
    )
    async def test_the_app_role_cannot_get_round_it(
        self, probe: ServiceDatabase, statement: str, refused: type[Exception]
    ) -> None:
        with pytest.raises(refused):
            async with probe.app.transaction("bypass") as conn:
                await conn.execute(statement)

    async def test_the_app_role_runs_no_function_of_the_migrations(self, probe: ServiceDatabase) -> None:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="denied for function gatefold_jobs_table"):
            async with probe.app.transaction("bypass") as conn:
                await conn.execute("SELECT gatefold_jobs_table('consumer_position')")

    async def test_no_role_of_a_service_is_above_row_security(self, owner: Connection) -> None:
        rows = await owner.fetch("SELECT rolname FROM pg_roles WHERE rolname LIKE 'probe\\_%' AND rolcanlogin")
        assert {row["rolname"] for row in rows} == {"probe_owner", "probe_app", "probe_jobs", "probe_backup"}
        above = (
            "SELECT count(*) FROM pg_roles"
            " WHERE rolname LIKE 'probe\\_%' AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolreplication)"
        )
        assert await owner.fetchval(above) == 0

    async def test_every_table_is_either_forced_or_a_named_routing_table(self, owner: Connection) -> None:
        rows = await owner.fetch(
            "SELECT relname, relrowsecurity AND relforcerowsecurity AS forced FROM pg_class"
            " WHERE relnamespace = 'probe'::regnamespace AND relkind = 'r' ORDER BY relname"
        )
        assert tuple(row["relname"] for row in rows if row["forced"]) == TENANT_TABLES
        assert tuple(row["relname"] for row in rows if not row["forced"]) == ROUTING_TABLES

    async def test_every_column_of_every_table_is_marked(self, owner: Connection) -> None:
        unmarked = await owner.fetchval(
            "SELECT string_agg(attrelid::regclass || '.' || attname, ', ') FROM pg_attribute"
            " JOIN pg_class ON pg_class.oid = attrelid"
            " WHERE relnamespace = 'probe'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped"
            " AND coalesce(col_description(attrelid, attnum), '') NOT LIKE 'pii: %'"
        )
        assert unmarked is None

    async def test_a_column_that_is_left_unmarked_is_refused(self, owner: Connection) -> None:
        with pytest.raises(asyncpg.RaiseError, match="columns of half without a mark: name"):
            await owner.execute(
                "BEGIN; CREATE TABLE half (id uuid, name text); SELECT gatefold_marks('half', '{\"id\": \"none\"}')"
            )
        await owner.execute("ROLLBACK")


class TestOwnerAndBackup:
    async def test_backup_and_owner_see_all_rows(
        self, two_accounts: tuple[UUID, UUID], owner: Connection, backup: Connection
    ) -> None:
        for connection in (owner, backup):
            assert await connection.fetchval(f"{COUNT} WHERE account_id = ANY($1)", list(two_accounts)) == 5

    async def test_backup_reads_every_table_and_changes_none(self, backup: Connection) -> None:
        for table in (*TENANT_TABLES, *ROUTING_TABLES):
            assert await backup.fetchval(f"SELECT count(*) FROM {table}") >= 0
        await backup.execute("SET default_transaction_read_only = off")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await backup.execute("DELETE FROM consumer_position")

    async def test_a_dump_by_the_backup_role_holds_every_row_and_one_by_the_app_none(
        self, postgres_server: TestPostgres, probe: ServiceDatabase, two_accounts: tuple[UUID, UUID], owner: Connection
    ) -> None:
        rows = await owner.fetchval(COUNT)
        assert rows >= 5
        assert await dumped_rows(postgres_server, role_dsn(probe.owner_dsn, "probe_backup")) == rows
        assert await dumped_rows(postgres_server, role_dsn(probe.owner_dsn, "probe_app")) == 0


async def dumped_rows(postgres_server: TestPostgres, dsn: Secret) -> int:
    """Returns how many rows of consumer_position pg_dump writes as that role."""
    process = await asyncio.create_subprocess_exec(
        postgres_server.server.tool("pg_dump"),
        "--data-only",
        "--inserts",
        # Without it pg_dump refuses a role that policies apply to, rather than dumping silently less.
        "--enable-row-security",
        "--table=probe.consumer_position",
        dsn.reveal(),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.count(b"INSERT INTO")


class TestJobs:
    async def test_jobs_sees_no_tenant_table_that_was_not_opened_to_it(self, probe: ServiceDatabase) -> None:
        for table in ("consumer_position", "erased_subject", "dead_letter", "erasure_receipt"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with probe.jobs.transaction("peek") as conn:
                    await conn.fetchval(f"SELECT count(*) FROM {table}")

    @pytest.mark.parametrize(
        "statement",
        [
            "SELECT response FROM idempotency_key",
            "UPDATE idempotency_key SET expires_at = '2030-01-01Z'",
            "UPDATE outbox SET envelope = ''",
            "UPDATE outbox SET account_id = id",
            "INSERT INTO account_clock VALUES ('0190a5c8-0000-7000-8000-000000000000', 1)",
            "UPDATE due SET due_at = '2030-01-01Z'",
            "DELETE FROM due",
            "DELETE FROM schema_migration",
        ],
    )
    async def test_jobs_is_limited_to_its_columns(self, probe: ServiceDatabase, statement: str) -> None:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with probe.jobs.transaction("overreach") as conn:
                await conn.execute(statement)

    async def test_jobs_claims_publishes_and_deletes_outbox_rows_of_all_accounts(
        self, probe: ServiceDatabase, ids: IdMaker
    ) -> None:
        events = [ids.new(), ids.new()]
        for event in events:
            account = ids.new()
            async with probe.app.tenant(account, "append") as conn:
                await conn.execute(APPEND, event, account)
        async with probe.jobs.transaction("relay") as conn:
            rows = await conn.fetch(
                "SELECT id FROM outbox WHERE published_at IS NULL ORDER BY position FOR UPDATE SKIP LOCKED"
            )
            assert [row["id"] for row in rows] == events
            await conn.execute("UPDATE outbox SET published_at = '2026-01-01Z'")
            assert await conn.execute("DELETE FROM outbox") == "DELETE 2"


class TestOutbox:
    @pytest.mark.parametrize(
        "statement",
        ["SELECT count(*) FROM outbox", "UPDATE outbox SET published_at = '2026-01-01Z'", "DELETE FROM outbox"],
    )
    async def test_the_app_can_only_add(self, probe: ServiceDatabase, ids: IdMaker, statement: str) -> None:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with probe.app.tenant(ids.new(), "overreach") as conn:
                await conn.execute(statement)

    async def test_a_sequence_number_is_given_once(self, probe: ServiceDatabase, ids: IdMaker) -> None:
        account = ids.new()
        with pytest.raises(asyncpg.UniqueViolationError) as raised:
            async with probe.app.tenant(account, "append") as conn:
                await conn.execute(APPEND, ids.new(), account)
                await conn.execute(APPEND, ids.new(), account)
        assert raised.value.constraint_name == "outbox_sequence_key"
