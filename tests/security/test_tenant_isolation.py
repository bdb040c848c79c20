"""Another tenant's rows are invisible and out of reach even to a statement that forgets its filter."""

from uuid import UUID

import asyncpg
import pytest

from libs.ids import IdMaker
from libs.postgres import PLATFORM
from tests.conftest import ServiceDb
from tests.support.stores import ServiceDatabase

OWN_TABLES = ("subscriber", "entitlement", "entitlement_head", "site", "import_job", "import_problem")
SHARED_TABLES = (
    "idempotency_key",
    "consumer_position",
    "dead_letter",
    "erased_subject",
    "erasure_receipt",
    "held_verdict",
)
TABLES = (*OWN_TABLES, *SHARED_TABLES)


@pytest.fixture
async def databases(service_db: ServiceDb) -> ServiceDatabase:
    return await service_db("subscriber")


async def test_the_tables_tried_here_are_all_of_the_services_tenant_tables(databases: ServiceDatabase) -> None:
    async with databases.app.transaction("read_tables", read_only=True) as conn:
        rows = await conn.fetch(
            """
            SELECT relname FROM pg_class
            WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
              AND relkind IN ('r', 'p') AND relrowsecurity AND relforcerowsecurity
            """
        )
    assert {row["relname"] for row in rows} == set(TABLES)


async def filled(databases: ServiceDatabase, ids: IdMaker) -> tuple[UUID, UUID]:
    """Puts one row of each of two accounts into every tenant table of the subscriber service."""
    accounts = ids.new(), ids.new()
    for account in accounts:
        subject, import_id = ids.new(), ids.new()
        async with databases.app.tenant(account, "fill") as conn:
            await conn.execute(
                "INSERT INTO subscriber (account_id, subject_id, sequence, email_index, email_sealed,"
                " subscribed_to_emails, complimentary, labels, source, created_at, updated_at)"
                " VALUES ($1, $2, 1, decode(repeat('00', 16), 'hex'), 'sealed', true, false, '{}', 'api',"
                " '2026-01-01', '2026-01-01')",
                account,
                subject,
            )
            await conn.execute(
                "INSERT INTO entitlement (account_id, subject_id, feature, source_id, complimentary, active_from)"
                " VALUES ($1, $2, 'premium', $2, true, '2026-01-01')",
                account,
                subject,
            )
            await conn.execute("INSERT INTO entitlement_head VALUES ($1, $2, 1, '{premium}')", account, subject)
            await conn.execute(
                "INSERT INTO site (account_id, id, name, origin, created_at)"
                " VALUES ($1, $2, 'News', 'https://news.example', '2026-01-01')",
                account,
                ids.new(),
            )
            await conn.execute(
                "INSERT INTO import_job (account_id, id, sequence, state, live, complimentary_feature, total, created,"
                " updated, unchanged, duplicates, refused, refused_by_reason, ignored_columns, failure, created_at)"
                " VALUES ($1, $2, 0, 'queued', true, 'premium', 0, 0, 0, 0, 0, 0, '{}', '{}', '', '2026-01-01')",
                account,
                import_id,
            )
            await conn.execute(
                "INSERT INTO import_problem (account_id, import_id, line, reason, column_name)"
                " VALUES ($1, $2, 2, 'email_invalid', 'email')",
                account,
                import_id,
            )
            await conn.execute(
                "INSERT INTO idempotency_key (account_id, caller, method, key, request_hash, state, created_at,"
                " locked_until, expires_at) VALUES ($1, 'key_1', 'm', 'k', 'hash', 'started', '2026-01-01',"
                " '2026-01-01', '2026-01-01')",
                account,
            )
            await conn.execute(
                "INSERT INTO consumer_position VALUES ($1, 'billing', 'subscription', 'sub_1', 1)", account
            )
            await conn.execute(
                "INSERT INTO held_verdict (account_id, verdict_id, scope, entity_hash, until, lifted, revision,"
                " kept_until)"
                " VALUES ($1, $2, 'actor', decode(repeat('00', 16), 'hex'), '2026-01-01', false, 1, '2026-01-01')",
                account,
                ids.new(),
            )
            await conn.execute("INSERT INTO erased_subject VALUES ($1, $2, '2026-01-01')", account, subject)
            await conn.execute(
                "INSERT INTO erasure_receipt (account_id, subject_id, receipt, erased_at)"
                " VALUES ($1, $2, 'receipt', '2026-01-01')",
                account,
                subject,
            )
            await conn.execute(
                "INSERT INTO dead_letter (account_id, id, producer, aggregate_type, aggregate_id, sequence, type,"
                " envelope, error, attempts, failed_at)"
                " VALUES ($1, $2, 'billing', 'subscription', 'sub_1', 1, 'x', 'x', 'x', 1, '2026-01-01')",
                account,
                ids.new(),
            )
    return accounts


@pytest.mark.parametrize("table", TABLES)
async def test_a_query_without_a_filter_sees_its_own_tenants_rows_only(
    databases: ServiceDatabase, ids: IdMaker, table: str
) -> None:
    mine, _ = await filled(databases, ids)
    async with databases.app.tenant(mine, "read") as conn:
        rows = await conn.fetch(f"SELECT account_id FROM {table}")
    assert [row["account_id"] for row in rows] == [mine]


@pytest.mark.parametrize("table", TABLES)
async def test_a_query_that_forgot_its_tenant_sees_nothing(
    databases: ServiceDatabase, ids: IdMaker, table: str
) -> None:
    await filled(databases, ids)
    async with databases.app.transaction("read") as conn:
        assert await conn.fetchval(f"SELECT count(*) FROM {table}") == 0


@pytest.mark.parametrize("table", TABLES)
async def test_a_statement_without_a_filter_changes_and_deletes_its_own_tenants_rows_only(
    databases: ServiceDatabase, ids: IdMaker, table: str
) -> None:
    mine, others = await filled(databases, ids)
    async with databases.app.tenant(mine, "change") as conn:
        assert await conn.execute(f"UPDATE {table} SET account_id = account_id") == "UPDATE 1"
        assert await conn.execute(f"DELETE FROM {table}") == "DELETE 1"
    async with databases.app.tenant(others, "read") as conn:
        assert await conn.fetchval(f"SELECT count(*) FROM {table}") == 1


async def test_a_row_cannot_be_written_into_another_tenant(databases: ServiceDatabase, ids: IdMaker) -> None:
    mine, others = await filled(databases, ids)
    for statement in (
        "INSERT INTO site (account_id, id, name, origin, created_at) VALUES ($1, $1, 'x', 'https://x', '2026-01-01')",
        "UPDATE site SET account_id = $1",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with databases.app.tenant(mine, "write") as conn:
                await conn.execute(statement, others)


@pytest.mark.parametrize("table", OWN_TABLES)
async def test_the_jobs_role_reads_no_readers(databases: ServiceDatabase, ids: IdMaker, table: str) -> None:
    await filled(databases, ids)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with databases.jobs.transaction("read") as conn:
            await conn.fetch(f"SELECT account_id FROM {table}")


async def test_the_app_role_cannot_lift_row_level_security(databases: ServiceDatabase, ids: IdMaker) -> None:
    mine, _ = await filled(databases, ids)
    for statement in (
        "ALTER TABLE subscriber DISABLE ROW LEVEL SECURITY",
        "DROP POLICY tenant ON subscriber",
        "SET LOCAL ROLE subscriber_owner",
        "SET LOCAL row_security = off; SELECT subject_id FROM subscriber",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with databases.app.tenant(mine, "lift") as conn:
                await conn.execute(statement)


async def test_what_holds_for_the_platform_is_seen_by_every_tenant_and_changed_by_none(
    databases: ServiceDatabase, ids: IdMaker
) -> None:
    mine, verdict = ids.new(), ids.new()
    add = (
        "INSERT INTO held_verdict (account_id, verdict_id, scope, entity_hash, until, lifted, revision, kept_until)"
        " VALUES ($1, $2, 'actor', decode(repeat('00', 16), 'hex'), '2026-01-01', false, 1, '2026-01-01')"
    )
    async with databases.app.tenant(PLATFORM, "fill") as conn:
        await conn.execute(add, PLATFORM, verdict)
    try:
        async with databases.app.tenant(mine, "try") as conn:
            seen = await conn.fetchval("SELECT count(*) FROM held_verdict WHERE verdict_id = $1", verdict)
            assert seen == 1
            assert await conn.execute("UPDATE held_verdict SET lifted = true, revision = revision + 1") == "UPDATE 0"
            assert await conn.execute("DELETE FROM held_verdict") == "DELETE 0"
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with databases.app.tenant(mine, "write") as conn:
                await conn.execute(add, PLATFORM, ids.new())
    finally:
        async with databases.app.tenant(PLATFORM, "clean") as conn:
            await conn.execute("DELETE FROM held_verdict")


async def test_a_verdict_never_goes_back_to_an_earlier_state(databases: ServiceDatabase, ids: IdMaker) -> None:
    mine, _ = await filled(databases, ids)
    for change in ("revision = 0", "until = '2025-12-31'", "lifted = true", "kept_until = '2025-12-31'", "scope = 'x'"):
        with pytest.raises(asyncpg.CheckViolationError):
            async with databases.app.tenant(mine, "change") as conn:
                await conn.execute(f"UPDATE held_verdict SET {change}")
