"""auth's schema: which tables are a tenant's, what the roles may do, what is erased, and what expires."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest
from gatefold.auth.v1 import subscriber_session_pb2
from gatefold.privacy.v1 import subject_data_pb2

from libs import caller, ids
from libs.clock import FixedClock
from libs.privacy import SubjectDataServicer
from libs.vault import Vault
from services.auth.__main__ import PERSONAL_TABLES
from services.auth.domain.session import LIFETIME
from services.auth.usecases.expiry import Expiry
from tests.support.auth import PASSWORD, AuthHouse
from tests.support.bending import bent


async def test_a_query_that_forgets_its_filter_sees_the_tenants_rows_alone(house: AuthHouse) -> None:
    one, other = await house.publisher(), await house.publisher()
    for publisher in (one, other):
        email = house.fresh()
        await house.reader(publisher.live, email)
        await house.sign_in(publisher.live, email)
    statements = {
        "credential": "SELECT DISTINCT account_id FROM credential",
        "challenge": "SELECT DISTINCT account_id FROM challenge",
        "membership": "SELECT DISTINCT account_id FROM membership",
        "session": "SELECT DISTINCT account_id FROM session",
    }
    for statement in statements.values():
        async with house.app.tenant(one.live, "forgetful", read_only=True) as conn:
            assert [row["account_id"] for row in await conn.fetch(statement)] == [one.live]
        async with house.app.transaction("no_tenant", read_only=True) as conn:
            assert await conn.fetch(statement) == []
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with house.app.tenant(one.live, "write_elsewhere") as conn:
            await conn.execute("INSERT INTO erased_subject VALUES ($1, $1, $2)", other.live, house.clock.wall())


@pytest.mark.parametrize("column", ["email_sealed", "password_hash", "name_sealed"])
async def test_the_jobs_role_reads_nothing_of_a_challenge_but_its_end(house: AuthHouse, column: str) -> None:
    statements = {
        "email_sealed": "SELECT email_sealed FROM challenge",
        "password_hash": "SELECT password_hash FROM challenge",
        "name_sealed": "SELECT name_sealed FROM challenge",
    }
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with house.database.jobs.transaction("spy", read_only=True) as conn:
            await conn.fetch(statements[column])


async def test_addresses_stand_nowhere_in_the_clear(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = "very.distinct.reader@example.com"
    await house.register(publisher.live, email, name="Distinctive Name")
    await house.reader(publisher.live, email)
    await house.sign_in(publisher.live, email)
    tables = ("credential", "challenge", "membership", "session", "person", "account", "challenge_route")
    connection = await asyncpg.connect(house.database.owner_dsn.reveal())
    try:
        for table in tables:
            dumped = " ".join(row[0] for row in await connection.fetch(f"SELECT t::text FROM {table} AS t"))
            for text in (email, "very.distinct", "Distinctive", publisher.owner_email):
                assert text not in dumped, table
                assert text.encode().hex() not in dumped, table
        envelopes = await connection.fetch("SELECT envelope FROM outbox")
        assert all(email.encode() not in row["envelope"] for row in envelopes)
    finally:
        await connection.close()


async def test_an_erasure_takes_all_auth_holds_of_a_reader(house: AuthHouse, vault: Vault) -> None:
    publisher = await house.publisher()
    email, neighbour = house.fresh(), house.fresh()
    subject = await house.reader(publisher.live, email)
    await house.reader(publisher.live, neighbour)
    tokens = await house.sign_in(publisher.live, email)
    await house.register(publisher.live, email)
    port = SubjectDataServicer("auth", house.app, vault, PERSONAL_TABLES, clock=house.clock)
    await port.check()
    text = ids.encode("subj", subject)
    with caller.serving(house.service("compliance", publisher.live)):
        exported = b"".join(
            [part.json_lines async for part in port.Export(subject_data_pb2.ExportRequest(subject_id=text), None)]  # type: ignore[arg-type]
        ).decode()
        assert email in exported
        assert "bcrypt" not in exported.replace("bcrypt-hmac-sha384", "")
        assert "$2b$" not in exported
        plan = await port.PlanErase(subject_data_pb2.PlanEraseRequest(subject_id=text), None)  # type: ignore[arg-type]
        assert {(one.table, one.rows) for one in plan.tables} == {("session", 1), ("challenge", 2), ("credential", 1)}
        request = subject_data_pb2.EraseRequest(subject_id=text, plan_hash=plan.plan_hash)
        await port.Erase(request, None)  # type: ignore[arg-type]
        left = await port.Verify(subject_data_pb2.VerifyRequest(subject_id=text), None)  # type: ignore[arg-type]
        assert (left.residual, left.retained) == (0, 0)
    with pytest.raises(Exception, match="credentials_invalid"):
        await house.sign_in(publisher.live, email)
    with pytest.raises(Exception, match="invalid_grant"):
        await house.refresh(tokens.refresh_token)
    await house.sign_in(publisher.live, neighbour)


async def test_what_is_over_is_cleared_away_and_nothing_else(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    await house.reader(publisher.live, email)
    request = subscriber_session_pb2.SignInRequest(email=email, password=PASSWORD)
    await house.call(replace(house.page(publisher.live), address="192.0.2.1"), house.readers.SignIn, request)
    expiry = Expiry(house.database.jobs, house.clock)

    async def counts() -> tuple[int, int, int, int]:
        async with house.app.tenant(publisher.live, "count", read_only=True) as conn:
            row = await conn.fetchrow(
                "SELECT (SELECT count(*) FROM challenge), (SELECT count(*) FROM session),"
                " (SELECT count(*) FROM challenge_route WHERE account_id = $1),"
                " (SELECT count(*) FROM session_route WHERE account_id = $1)",
                publisher.live,
            )
        assert row is not None
        return tuple(row)

    before = await counts()
    assert before == (2, 1, 2, 1)
    await expiry.clear()
    assert await counts() == before
    assert isinstance(house.clock, FixedClock)
    house.clock.advance(timedelta(days=11))
    await expiry.clear()
    assert await counts() == (0, 1, 0, 1)
    house.clock.advance(LIFETIME)
    assert not await expiry.clear()
    assert await counts() == (0, 0, 0, 0)
    async with house.app.tenant(publisher.live, "count", read_only=True) as conn:
        assert await conn.fetchval("SELECT count(*) FROM credential") == 1
        assert await conn.fetchval("SELECT count(*) FROM mailbox") == 0
        assert await conn.fetchval("SELECT count(*) FROM known_network") == 0


async def test_nothing_secret_or_personal_is_logged(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh("logged")
    await house.register(publisher.live, email, "a password to be found in logs")
    token = await house.token(publisher.live, "verify_registration")
    await house.verify(publisher.live, token)
    tokens = await house.sign_in(publisher.live, email, "a password to be found in logs")
    answers = await asyncio.gather(
        house.verify(publisher.live, token),
        house.sign_in(publisher.live, email, "another password for logs"),
        house.refresh(bent(tokens.refresh_token)),
        return_exceptions=True,
    )
    assert all(isinstance(answer, Exception) for answer in answers)
    logged = house.log.getvalue()
    refused = " ".join(map(str, answers))
    for secret in (email, "password to be found", "another password", token, tokens.refresh_token[-32:]):
        assert secret not in logged
        assert secret not in refused
    assert tokens.access_token not in logged
