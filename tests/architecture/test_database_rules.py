"""House rules on the schemas: tenants are kept apart, columns say whether they are personal, no role may too much."""

import importlib
from pathlib import Path

import asyncpg
import pytest

from libs.clock import FixedClock
from libs.migrate import roles_of
from libs.privacy import MarkError, SubjectDataServicer
from libs.vault import Vault
from tests.conftest import ServiceDb
from tests.support.stores import TestPostgres

ROOT = Path(__file__).resolve().parents[2]
SERVICES = sorted(path.parent.name for path in (ROOT / "services").glob("*/migrations"))

# The only tables without row-level security; each leads from something a stranger or a worker holds to an account.
ROUTING_TABLES = {
    "*": {"account_clock", "consumer_cursor", "due", "outbox", "schema_migration"},
    "abuse": {"detector_setting", "refused_request", "replica", "shard", "verdict_change"},
    "auth": {
        "account",
        "api_key_route",
        "attempt",
        "bootstrap_token",
        "challenge_route",
        "oauth_client_route",
        "obeyed_verdict",
        "person",
        "session_end",
        "session_route",
        "signing_key",
        "staff_route",
    },
    "billing": {"payment_connection_route", "stripe_event"},
    "gateway": {
        "entry_list",
        "entry_set",
        "head",
        "introduced_rule",
        "list_entry",
        "quota",
        "quota_override",
        "rule",
        "rule_hit",
        "version",
    },
    "subscriber": {"site_origin"},
    "notify": set[str](),
}

# What they keep is the platform's: no row is a tenant's, none is about a subject. They hold no key either.
PLATFORM_ONLY = {"gateway"}

# Where the jobs role holds a right on a whole table; elsewhere on single columns only.
JOBS_MAY_WRITE = {"consumer_cursor"}


@pytest.mark.parametrize("service", SERVICES)
async def test_only_routing_tables_are_without_row_level_security(service: str, service_db: ServiceDb) -> None:
    opened = await service_db(service)
    async with opened.app.transaction("read_tables", read_only=True) as conn:
        rows = await conn.fetch(
            """
            SELECT relname FROM pg_class
            WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
              AND relkind IN ('r', 'p') AND NOT (relrowsecurity AND relforcerowsecurity)
            """
        )
    assert {row["relname"] for row in rows} == ROUTING_TABLES["*"] | ROUTING_TABLES[service]


@pytest.mark.parametrize("service", SERVICES)
async def test_the_account_leads_the_key_of_every_tenant_table(service: str, service_db: ServiceDb) -> None:
    opened = await service_db(service)
    async with opened.app.transaction("read_keys", read_only=True) as conn:
        rows = await conn.fetch(
            """
            SELECT class.relname, attribute.attname FROM pg_class AS class
            LEFT JOIN pg_index AS index ON index.indrelid = class.oid AND index.indisprimary
            LEFT JOIN pg_attribute AS attribute
                ON attribute.attrelid = class.oid AND attribute.attnum = index.indkey[0]
            WHERE class.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
              AND class.relkind IN ('r', 'p') AND class.relrowsecurity
            """
        )
    assert rows
    assert {row["relname"]: row["attname"] for row in rows if row["attname"] != "account_id"} == {}


@pytest.mark.parametrize("service", SERVICES)
async def test_every_column_says_whether_it_is_personal_and_how_it_is_erased(
    service: str, service_db: ServiceDb, vault: Vault, clock: FixedClock
) -> None:
    tables = getattr(importlib.import_module(f"services.{service}.__main__"), "PERSONAL_TABLES", ())
    opened = await service_db(service)
    await SubjectDataServicer(service, opened.app, vault, tables, clock=clock).check()


async def test_a_planted_unmarked_column_keeps_a_service_from_starting(
    service_db: ServiceDb, vault: Vault, clock: FixedClock
) -> None:
    tables = importlib.import_module("services.notify.__main__").PERSONAL_TABLES
    opened = await service_db("notify")
    owner = await asyncpg.connect(opened.owner_dsn.reveal())
    await owner.execute("ALTER TABLE mail ADD COLUMN nickname text")
    try:
        with pytest.raises(MarkError, match=r"mail\.nickname has no pii mark"):
            await SubjectDataServicer("notify", opened.app, vault, tables, clock=clock).check()
    finally:
        await owner.execute("ALTER TABLE mail DROP COLUMN nickname")
        await owner.close()


@pytest.mark.parametrize("service", sorted(PLATFORM_ONLY))
async def test_a_service_of_the_platform_keeps_nothing_about_subjects(service: str, service_db: ServiceDb) -> None:
    opened = await service_db(service)
    async with opened.app.transaction("read_columns", read_only=True) as conn:
        rows = await conn.fetch(
            """
            SELECT class.relname FROM pg_class AS class JOIN pg_attribute AS attribute ON attribute.attrelid = class.oid
            WHERE class.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
              AND class.relkind = 'r' AND attribute.attname IN ('subject_id', 'person_id')
            """
        )
    assert {row["relname"] for row in rows} == {"erased_subject", "erasure_receipt"}  # what every schema has


@pytest.mark.parametrize("service", sorted(set(SERVICES) - PLATFORM_ONLY))
def test_a_service_with_personal_data_serves_the_privacy_port(service: str) -> None:
    root = (ROOT / "services" / service / "__main__.py").read_text()
    assert "service.holds_personal_data(PERSONAL_TABLES" in root


@pytest.mark.parametrize("service", SERVICES)
async def test_no_role_can_do_more_than_its_work(
    service: str, service_db: ServiceDb, postgres_server: TestPostgres
) -> None:
    opened = await service_db(service)
    async with opened.app.transaction("read_roles", read_only=True) as conn:
        rows = await conn.fetch(
            """
            SELECT rolname FROM pg_roles WHERE rolname = ANY($1)
              AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication)
            """,
            list(roles_of(service)),
        )
        writable = await conn.fetch(
            """
            SELECT relname FROM pg_class
            WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema()) AND relkind = 'r'
              AND (has_table_privilege($1, oid, 'INSERT') OR has_table_privilege($1, oid, 'UPDATE')
                   OR has_table_privilege($1, oid, 'TRUNCATE') OR has_table_privilege($2, oid, 'INSERT')
                   OR has_table_privilege($2, oid, 'UPDATE') OR has_table_privilege($2, oid, 'DELETE'))
            """,
            f"{service}_jobs",
            f"{service}_backup",
        )
    assert rows == []
    assert {row["relname"] for row in writable} <= JOBS_MAY_WRITE
