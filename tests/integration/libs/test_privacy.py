"""The privacy port on a real schema: describe, export, plan, erase and verify, by nothing but marks."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import pytest
from gatefold.privacy.v1 import subject_data_pb2

from libs import caller
from libs.clock import FixedClock
from libs.errors import GatefoldError
from libs.ids import IdMaker, encode
from libs.migrate import Component
from libs.migrate.files import shared_components
from libs.privacy import (
    MarkError,
    SubjectDataServicer,
    SubjectTable,
    Via,
    catalogue,
    unmarked_columns,
    years_after_year_end,
)
from libs.vault import KeyDestroyed, Vault
from tests.conftest import ServiceDb
from tests.support.stores import ServiceDatabase

SCHEMA = """-- kind: expand
-- min_compatible_code: 1
CREATE TABLE profile (
    account_id uuid NOT NULL, id uuid NOT NULL, subject_id uuid NOT NULL,
    email_sealed bytea NOT NULL, email_index bytea, address_sealed bytea, password_hash text, born_on date,
    preferences jsonb, score numeric, logo bytea, created_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, id), UNIQUE (account_id, email_index));
CREATE TABLE note (
    account_id uuid NOT NULL, subject_id uuid NOT NULL, number integer NOT NULL, text text NOT NULL,
    PRIMARY KEY (account_id, subject_id, number));
CREATE TABLE invoice (
    account_id uuid NOT NULL, id uuid NOT NULL, subject_id uuid NOT NULL, name_sealed bytea,
    total_minor bigint NOT NULL,
    issued_at timestamptz NOT NULL, PRIMARY KEY (account_id, id));
CREATE TABLE reading (
    account_id uuid NOT NULL, id uuid NOT NULL, session_id uuid NOT NULL, title text NOT NULL,
    PRIMARY KEY (account_id, id));
CREATE TABLE session (
    account_id uuid NOT NULL, id uuid NOT NULL, subject_id uuid NOT NULL, browser text, PRIMARY KEY (account_id, id));
SELECT gatefold_tenant_table(name) FROM unnest(ARRAY['profile', 'note', 'invoice', 'reading', 'session']) AS name;
SELECT gatefold_marks('profile', '{"account_id": "none", "id": "none", "score": "none", "logo": "none",
    "created_at": "none",
    "subject_id": "pseudonym; basis: contract; retention: until_erasure",
    "email_sealed": "contact; basis: contract; retention: until_erasure; sealed: profile; field: 1",
    "email_index": "contact; basis: contract; retention: until_erasure; index",
    "address_sealed": "contact; basis: contract; retention: until_erasure; sealed: profile; field: 2; json",
    "password_hash": "credential; basis: contract; retention: until_erasure",
    "born_on": "identity; basis: consent; retention: until_erasure",
    "preferences": "behaviour; basis: consent; retention: until_erasure"}'::jsonb);
SELECT gatefold_marks('note', '{"account_id": "none", "number": "none",
    "subject_id": "pseudonym; basis: contract; retention: until_erasure",
    "text": "content; basis: legitimate_interest; retention: until_erasure"}'::jsonb);
SELECT gatefold_marks('invoice', '{"account_id": "none", "id": "none", "total_minor": "none", "issued_at": "none",
    "subject_id": "pseudonym; basis: legal_obligation; retention: tax_law",
    "name_sealed": "identity; basis: legal_obligation; retention: tax_law; sealed: retained; field: 1"}'::jsonb);
SELECT gatefold_marks('reading', '{"account_id": "none", "id": "none", "session_id": "none",
    "title": "behaviour; basis: contract; retention: until_erasure"}'::jsonb);
SELECT gatefold_marks('session', '{"account_id": "none", "id": "none",
    "subject_id": "pseudonym; basis: contract; retention: until_erasure",
    "browser": "technical; basis: contract; retention: until_erasure"}'::jsonb);
"""

TABLES = (
    SubjectTable("reading", 905, via=Via("session_id", "session")),
    SubjectTable("session", 904),
    SubjectTable("note", 902),
    SubjectTable("profile", 901, erase="anonymise"),
    SubjectTable(
        "invoice",
        903,
        erase="retain",
        retain_reason="tax_law",
        retain_until=years_after_year_end(10),
        retain_from="issued_at",
    ),
)


@dataclass
class Port:
    """The port of one service, called as compliance calls it."""

    servicer: SubjectDataServicer
    database: ServiceDatabase
    vault: Vault
    ids: IdMaker
    account: UUID

    async def call(self, method: str, request: Any, account: UUID | None = None) -> Any:
        acting = caller.service_caller("compliance", account or self.account, request_id="test")
        with caller.serving(acting):
            return await getattr(self.servicer, method)(request, None)

    async def export(self, subject: UUID) -> list[subject_data_pb2.ExportResponse]:
        request = subject_data_pb2.ExportRequest(subject_id=encode("subj", subject))
        with caller.serving(caller.service_caller("compliance", self.account, request_id="test")):
            return [part async for part in self.servicer.Export(request, None)]  # type: ignore[arg-type]

    async def plan(self, subject: UUID) -> subject_data_pb2.PlanEraseResponse:
        answer: subject_data_pb2.PlanEraseResponse = await self.call(
            "PlanErase", subject_data_pb2.PlanEraseRequest(subject_id=encode("subj", subject))
        )
        return answer

    async def erase(self, subject: UUID, plan_hash: str) -> subject_data_pb2.EraseResponse:
        answer: subject_data_pb2.EraseResponse = await self.call(
            "Erase", subject_data_pb2.EraseRequest(subject_id=encode("subj", subject), plan_hash=plan_hash)
        )
        return answer

    async def verify(self, subject: UUID) -> tuple[int, int]:
        answer = await self.call("Verify", subject_data_pb2.VerifyRequest(subject_id=encode("subj", subject)))
        return answer.residual, answer.retained

    async def run(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        async with self.database.app.tenant(self.account, "test") as conn:
            return await conn.fetch(query, *arguments)

    async def person(self, notes: int = 2) -> UUID:
        """Writes a person with rows in every table."""
        subject, row, invoice, session = (self.ids.new() for _ in range(4))
        await self.vault.create_subjects(self.account, [subject])
        profile = await self.vault.cipher(self.account, subject)
        retained = await self.vault.cipher(self.account, subject, "retained")
        email = f"{subject.hex}@reader.example"
        await self.run(
            "INSERT INTO profile (account_id, id, subject_id, email_sealed, email_index, address_sealed, password_hash,"
            " born_on, preferences, score, logo, created_at)"
            " VALUES ($1, $2, $3, $4, $5, $6, 'hash', '1990-02-03', '{\"theme\": \"dark\"}', 1.5, '\\x00ff', $7)",
            self.account,
            row,
            subject,
            profile.seal(901, 1, row, email.encode()),
            await self.vault.blind_index(self.account, "email", email),
            profile.seal(901, 2, row, b'{"city": "Z\xc3\xbcrich"}'),
            datetime(2026, 1, 1, tzinfo=UTC),
        )
        await self.run(
            "INSERT INTO note (account_id, subject_id, number, text)"
            " SELECT $1, $2, number, 'note ' || number FROM generate_series(1, $3) AS number",
            self.account,
            subject,
            notes,
        )
        await self.run(
            "INSERT INTO invoice (account_id, id, subject_id, name_sealed, total_minor, issued_at)"
            " VALUES ($1, $2, $3, $4, 500, $5)",
            self.account,
            invoice,
            subject,
            retained.seal(903, 1, invoice, b"Jo Reader"),
            datetime(2026, 5, 1, tzinfo=UTC),
        )
        await self.run(
            "INSERT INTO session (account_id, id, subject_id, browser) VALUES ($1, $2, $3, 'Firefox')",
            self.account,
            session,
            subject,
        )
        await self.run(
            "INSERT INTO reading (account_id, id, session_id, title) VALUES ($1, $2, $3, 'An article')",
            self.account,
            self.ids.new(),
            session,
        )
        return subject


@pytest.fixture(scope="module")
async def database(service_db: ServiceDb, tmp_path_factory: pytest.TempPathFactory) -> ServiceDatabase:
    folder = tmp_path_factory.mktemp("migrations")
    (folder / "0001_create_tables.sql").write_text(SCHEMA)
    return await service_db("registry", components=(*shared_components(), Component("registry", folder)))


@pytest.fixture
def port(database: ServiceDatabase, vault: Vault, clock: FixedClock, ids: IdMaker) -> Port:
    servicer = SubjectDataServicer("registry", database.app, vault, TABLES, clock=clock, owns_keys=True)
    return Port(servicer, database, vault, ids, ids.new())


def lines(parts: list[subject_data_pb2.ExportResponse], table: str) -> list[dict[str, Any]]:
    of_table = b"".join(part.json_lines for part in parts if part.table == table)
    documents = [orjson.loads(line) for line in of_table.splitlines()]
    assert all(document["table"] == table for document in documents)
    return [document["columns"] for document in documents]


async def test_every_marked_column_is_described(port: Port) -> None:
    described = await port.call("Describe", subject_data_pb2.DescribeRequest())
    columns = {(column.table, column.column): column for column in described.columns}
    email = columns["profile", "email_sealed"]
    assert (email.category, email.basis, email.retention, email.sealed) == (
        "contact",
        "contract",
        "until_erasure",
        "profile",
    )
    assert columns["idempotency_key", "response"].retention == "hours_24"
    assert ("profile", "score") not in columns
    assert described.service == "registry"


async def test_an_export_holds_everything_in_clear_but_credentials_and_indexes(port: Port) -> None:
    subject = await port.person()
    await port.person()
    parts = await port.export(subject)
    (profile,) = lines(parts, "profile")
    assert profile == {
        "id": profile["id"],
        "subject_id": str(subject),
        "email": f"{subject.hex}@reader.example",
        "address": {"city": "Zürich"},
        "born_on": "1990-02-03",
        "preferences": {"theme": "dark"},
        "score": "1.5",
        "logo": "AP8=",
        "created_at": "2026-01-01T00:00:00Z",
    }
    assert [note["text"] for note in lines(parts, "note")] == ["note 1", "note 2"]
    assert lines(parts, "invoice")[0]["name"] == "Jo Reader"
    assert lines(parts, "reading")[0]["title"] == "An article"
    assert {part.schema_version for part in parts} == {1}


async def test_an_export_is_chained_by_hashes_over_pages_and_parts(port: Port) -> None:
    subject = await port.person(notes=2_500)
    await port.run("UPDATE note SET text = repeat('x', 300) WHERE subject_id = $1", subject)
    parts = await port.export(subject)
    assert len([part for part in parts if part.table == "note"]) > 2
    assert [note["number"] for note in lines(parts, "note")] == list(range(1, 2_501))
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.json_lines)
        assert part.sha256 == digest.digest()


async def test_a_plan_changes_nothing_and_says_what_is_kept_and_until_when(port: Port) -> None:
    subject = await port.person()
    plan = await port.plan(subject)
    tables = {table.table: table for table in plan.tables}
    assert {name: (table.disposition, table.rows) for name, table in tables.items()} == {
        "reading": (subject_data_pb2.DISPOSITION_DELETE, 1),
        "session": (subject_data_pb2.DISPOSITION_DELETE, 1),
        "note": (subject_data_pb2.DISPOSITION_DELETE, 2),
        "profile": (subject_data_pb2.DISPOSITION_ANONYMISE, 1),
        "invoice": (subject_data_pb2.DISPOSITION_RETAIN, 1),
    }
    assert tables["invoice"].reason == "tax_law"
    assert tables["invoice"].until.ToDatetime(tzinfo=UTC) == datetime(2037, 1, 1, tzinfo=UTC)
    assert (await port.plan(subject)).plan_hash == plan.plan_hash


async def test_a_plan_that_changed_is_refused_and_nothing_is_erased(port: Port) -> None:
    subject = await port.person()
    plan_hash = (await port.plan(subject)).plan_hash
    await port.run("UPDATE invoice SET issued_at = '2027-06-01' WHERE subject_id = $1", subject)
    with pytest.raises(GatefoldError) as refused:
        await port.erase(subject, plan_hash)
    assert refused.value.reason == "plan_changed"
    assert await port.run("SELECT subject_id FROM erased_subject WHERE subject_id = $1", subject) == []
    assert len(await port.run("SELECT number FROM note WHERE subject_id = $1", subject)) == 2


async def test_reading_on_does_not_change_the_plan(port: Port) -> None:
    subject = await port.person()
    plan_hash = (await port.plan(subject)).plan_hash
    await port.run("INSERT INTO note VALUES ($1, $2, 99, 'one more')", port.account, subject)
    assert (await port.erase(subject, plan_hash)).service == "registry"
    assert await port.run("SELECT number FROM note WHERE subject_id = $1", subject) == []


async def test_an_erasure_leaves_what_the_law_keeps_and_nothing_else(port: Port) -> None:
    subject, other = await port.person(), await port.person()
    residual_before, _ = await port.verify(subject)
    assert residual_before > 5
    await port.erase(subject, (await port.plan(subject)).plan_hash)
    assert await port.verify(subject) == (0, 1)
    (profile,) = await port.run(
        "SELECT email_sealed, email_index, address_sealed, password_hash, born_on, preferences, score"
        " FROM profile WHERE subject_id = $1",
        subject,
    )
    assert list(profile) == [b"", None, None, None, None, None, profile["score"]]
    assert profile["score"] is not None
    for query in ("SELECT 1 FROM note WHERE subject_id = $1", "SELECT 1 FROM session WHERE subject_id = $1"):
        assert await port.run(query, subject) == []
    assert len(await port.run("SELECT 1 FROM reading")) == 1, "the other person's"
    with pytest.raises(KeyDestroyed):
        await port.vault.cipher(port.account, subject)
    parts = await port.export(subject)
    assert lines(parts, "invoice")[0]["name"] == "Jo Reader"
    assert lines(parts, "profile")[0]["email"] is None
    assert lines(await port.export(other), "profile")[0]["email"] == f"{other.hex}@reader.example"


async def test_repeating_an_erasure_answers_the_first_receipt(port: Port, clock: FixedClock) -> None:
    subject = await port.person()
    plan_hash = (await port.plan(subject)).plan_hash
    first = await port.erase(subject, plan_hash)
    clock.set(datetime(2026, 12, 24, tzinfo=UTC))
    assert await port.erase(subject, plan_hash) == first
    assert await port.erase(subject, "another") == first


async def test_a_receipt_is_signed_by_the_service_over_all_its_fields(port: Port) -> None:
    subject = await port.person()
    receipt = await port.erase(subject, (await port.plan(subject)).plan_hash)
    signature = receipt.signature
    receipt.ClearField("signature")
    sign = await port.vault.signer(port.account, "erasure-receipt/registry")
    assert sign(receipt.SerializeToString(deterministic=True)) == signature
    other = await port.vault.signer(port.account, "erasure-receipt/billing")
    assert other(receipt.SerializeToString(deterministic=True)) != signature


async def test_a_key_that_a_crash_left_is_found_by_verify_and_destroyed_by_the_repetition(
    port: Port, vault: Vault, clock: FixedClock
) -> None:
    subject = await port.person()
    plan_hash = (await port.plan(subject)).plan_hash
    # The same port without the last step is what a crash after the commit leaves.
    crashing = SubjectDataServicer("registry", port.database.app, vault, TABLES, clock=clock, owns_keys=False)
    whole, port.servicer = port.servicer, crashing
    receipt = await port.erase(subject, plan_hash)
    port.servicer = whole
    assert await port.verify(subject) == (1, 1)
    assert await port.erase(subject, plan_hash) == receipt
    assert await port.verify(subject) == (0, 1)


async def test_rows_that_come_after_an_erasure_are_found_by_verify(port: Port) -> None:
    subject = await port.person()
    await port.erase(subject, (await port.plan(subject)).plan_hash)
    await port.run("INSERT INTO note VALUES ($1, $2, 1, 'late')", port.account, subject)
    assert await port.verify(subject) == (1, 1)


async def test_another_accounts_caller_reaches_nothing(port: Port) -> None:
    subject = await port.person()
    other = port.ids.new()
    plan = await port.call("PlanErase", subject_data_pb2.PlanEraseRequest(subject_id=encode("subj", subject)), other)
    assert list(plan.tables) == []
    await port.call(
        "Erase", subject_data_pb2.EraseRequest(subject_id=encode("subj", subject), plan_hash=plan.plan_hash), other
    )
    assert len(await port.export(subject)) == 5
    assert lines(await port.export(subject), "profile")[0]["email"] is not None


async def test_an_erasure_in_two_requests_at_once_happens_once(port: Port) -> None:
    subject = await port.person()
    plan_hash = (await port.plan(subject)).plan_hash
    first, second = await asyncio.gather(port.erase(subject, plan_hash), port.erase(subject, plan_hash))
    assert first == second


async def test_a_service_with_an_unmarked_column_does_not_start(database: ServiceDatabase) -> None:
    tables = {table.name: table for table in TABLES}
    async with changed(database, "ALTER TABLE note ADD COLUMN mood text") as conn:
        assert await unmarked_columns(conn) == ["note.mood"]
        found = catalogue.problems(await catalogue.columns(conn), list(tables.values()))
        assert found == ["note.mood has no pii mark"]


async def test_the_schema_of_these_tests_and_of_the_libs_is_accounted_for(database: ServiceDatabase) -> None:
    async with database.app.transaction("look", read_only=True) as conn:
        assert await unmarked_columns(conn) == []
        assert catalogue.problems(await catalogue.columns(conn), TABLES) == []


async def test_a_service_starts_only_when_its_personal_data_is_accounted_for(
    service_db: ServiceDb, vault: Vault, clock: FixedClock
) -> None:
    notify = await service_db("notify")
    with pytest.raises(MarkError, match="no SubjectTable says how it is erased"):
        await SubjectDataServicer("notify", notify.app, vault, (), clock=clock).check()


async def test_older_code_leaves_the_check_to_the_newer_whose_migrations_are_applied(
    service_db: ServiceDb, vault: Vault, clock: FixedClock
) -> None:
    notify = await service_db("notify")
    owner = await asyncpg.connect(notify.owner_dsn.reveal())
    await owner.execute(
        "INSERT INTO schema_migration (component, number, name, kind, min_compatible_code, sha256, code_version,"
        " applied_at) VALUES ('notify', 9999, 'newer', 'expand', 1, '', 1, '2027-01-01Z')"
    )
    await SubjectDataServicer("notify", notify.app, vault, (), clock=clock).check()
    await owner.execute("DELETE FROM schema_migration WHERE number = 9999")
    await owner.close()


@asynccontextmanager
async def changed(database: ServiceDatabase, statement: str) -> AsyncIterator[Any]:
    """A connection of the owner's on which the schema is changed; nothing of it stays."""
    connection = await asyncpg.connect(database.owner_dsn.reveal())
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(statement)
    yield connection
    await transaction.rollback()
    await connection.close()
