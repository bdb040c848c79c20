"""Authenticator apps: adding one, and the codes that it shows."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest
from gatefold.auth.v1 import account_pb2, factor_pb2, session_pb2, team_pb2

from libs.errors import GatefoldError
from services.auth.domain import roles, session
from services.auth.usecases.expiry import Expiry
from tests.support.auth import PASSWORD, AuthHouse, Publisher
from tests.support.factors import (
    Phone,
    begin,
    complete,
    confirm,
    later,
    listed,
    reader,
    remove,
    step_up,
    with_phone,
)
from tests.support.waiting import blocked


async def require_factor(house: AuthHouse, publisher: Publisher) -> None:
    request = account_pb2.UpdateSecurityPolicyRequest(require_staff_factor=True)
    await house.call(house.staff(publisher.live), house.accounts.UpdateSecurityPolicy, request)


@pytest.mark.case("auth-41")
async def test_an_app_counts_once_a_code_of_it_was_shown_and_then_every_sign_in_asks_for_one(house: AuthHouse) -> None:
    someone = await reader(house)
    phone = await begin(house, someone.caller)
    assert len(phone.secret) == 32
    assert (await someone.sign_in()).access_token
    with pytest.raises(GatefoldError, match="second_factor_wrong"):
        await confirm(house, someone.caller, phone, phone.wrong())
    assert (await listed(house, someone.caller)).data == []

    tokens = await confirm(house, someone.caller, phone)
    claims = await house.claims(tokens.access_token)
    before = await house.claims(someone.tokens.access_token)
    assert (claims["acr"], claims["sid"], claims["auth_time"]) == (session.AAL2, before["sid"], before["auth_time"])
    assert tokens.refresh_token == ""
    assert (await house.claims((await house.refresh(someone.tokens.refresh_token)).access_token))["acr"] == session.AAL2

    waiting = await someone.sign_in()
    assert (waiting.access_token, waiting.refresh_token) == ("", "")
    assert (waiting.pending.next, list(waiting.pending.methods)) == ("second_factor", ["totp"])
    done = await complete(house, waiting, phone.next_code())
    assert (await house.claims(done.access_token))["acr"] == session.AAL2


@pytest.mark.case("auth-41")
async def test_the_secret_is_shown_once_and_stands_nowhere_in_the_clear(house: AuthHouse) -> None:
    someone = await reader(house)
    answer = await house.call(someone.caller, house.factors.BeginTotp, factor_pb2.BeginTotpRequest(name="My phone"))
    assert isinstance(answer, factor_pb2.BeginTotpResponse)
    phone = Phone(house, answer.id, answer.secret)
    assert answer.uri.startswith("otpauth://totp/The%20Daily:")
    assert f"secret={answer.secret}" in answer.uri
    tokens = await confirm(house, someone.caller, phone)
    answers = [
        str(await listed(house, someone.caller)),
        str(tokens),
        str(
            await house.call(
                await someone.as_caller(tokens),
                house.factors.RenameFactor,
                factor_pb2.RenameFactorRequest(id=phone.id, name="Other"),
            )
        ),
    ]
    connection = await asyncpg.connect(house.database.owner_dsn.reveal())
    try:
        rows = [row[0] for row in await connection.fetch("SELECT factor::text FROM factor")]
        events = [row["envelope"] for row in await connection.fetch("SELECT envelope FROM outbox")]
    finally:
        await connection.close()
    for text in (*answers, *rows, house.log.getvalue()):
        assert answer.secret not in text
        assert answer.secret.encode().hex() not in text
    assert all(answer.secret.encode() not in event for event in events)


async def test_a_later_beginning_replaces_the_one_before_and_waits_ten_minutes(house: AuthHouse) -> None:
    someone = await reader(house)
    former, phone = await begin(house, someone.caller), await begin(house, someone.caller)
    with pytest.raises(GatefoldError, match="factor_not_found"):
        await confirm(house, someone.caller, former)
    later(house, timedelta(minutes=10))
    with pytest.raises(GatefoldError, match="factor_not_found"):
        await confirm(house, someone.caller, phone)


async def test_an_app_that_was_never_confirmed_is_cleared_away_and_no_other(house: AuthHouse) -> None:
    someone, phone = await with_phone(house)
    expiry = Expiry(house.database.jobs, house.clock)

    async def names() -> list[str]:
        async with house.app.tenant(someone.publisher.live, "read_factors", read_only=True) as conn:
            return [row["name"] for row in await conn.fetch("SELECT name FROM factor ORDER BY id")]

    await begin(house, someone.caller, "Begun")
    await expiry.clear()
    assert await names() == ["My phone", "Begun"]
    later(house, timedelta(minutes=10, seconds=1))
    await expiry.clear()
    assert await names() == ["My phone"]
    await complete(house, await someone.sign_in(), phone.code())


async def test_an_app_is_confirmed_once_and_its_code_is_spent(house: AuthHouse) -> None:
    someone = await reader(house)
    phone = await begin(house, someone.caller)
    answers = await asyncio.gather(*(confirm(house, someone.caller, phone) for _ in range(3)), return_exceptions=True)
    assert len([one for one in answers if isinstance(one, session_pb2.Tokens)]) == 1
    with pytest.raises(GatefoldError, match="second_factor_wrong"):
        await complete(house, await someone.sign_in(), phone.code())


@pytest.mark.case("auth-40")
async def test_a_code_is_taken_once_and_none_older_than_it(house: AuthHouse) -> None:
    someone, phone = await with_phone(house)
    newer = phone.code(1)
    await complete(house, await someone.sign_in(), newer)
    for old in (newer, phone.code(), phone.code(-1)):
        with pytest.raises(GatefoldError, match="second_factor_wrong"):
            await complete(house, await someone.sign_in(), old)
    later(house, timedelta(seconds=60))
    await complete(house, await someone.sign_in(), phone.code())


@pytest.mark.case("auth-40")
async def test_one_code_in_parallel_opens_one_session(house: AuthHouse) -> None:
    someone, phone = await with_phone(house)
    waiting = [await someone.sign_in() for _ in range(4)]
    code = phone.code()
    answers = await asyncio.gather(*(complete(house, one, code) for one in waiting), return_exceptions=True)
    assert len([one for one in answers if isinstance(one, session_pb2.Tokens)]) == 1
    refused = [one.reason for one in answers if isinstance(one, GatefoldError)]
    assert refused == ["second_factor_wrong"] * 3


@pytest.mark.case("auth-41")
@pytest.mark.parametrize(("offset", "taken"), [(-2, False), (-1, True), (1, True), (2, False)])
async def test_a_code_is_taken_one_step_early_or_late(house: AuthHouse, offset: int, taken: bool) -> None:
    someone, phone = await with_phone(house)
    later(house, timedelta(seconds=120))
    waiting = await someone.sign_in()
    if taken:
        await complete(house, waiting, phone.code(offset))
        return
    with pytest.raises(GatefoldError, match="second_factor_wrong"):
        await complete(house, waiting, phone.code(offset))


async def test_a_persons_factor_is_asked_for_in_every_account_and_the_operators_too(house: AuthHouse) -> None:
    publisher = await house.publisher()
    tokens = await house.sign_in_staff(publisher.owner_email)
    who = await house.person("per", tokens, account=publisher.live)
    phone = await begin(house, who)
    claims = await house.claims((await confirm(house, who, phone)).access_token)
    assert (claims["acr"], claims["role"]) == (session.AAL2, roles.OWNER)
    waiting = await house.sign_in_staff(publisher.owner_email, account=publisher.test)
    assert list(waiting.pending.methods) == ["totp"]
    done = await house.claims((await complete(house, waiting, phone.next_code())).access_token)
    assert (done["acr"], done["live"], done["role"]) == (session.AAL2, False, roles.OWNER)


@pytest.mark.case("auth-45")
async def test_a_session_that_may_only_enrol_gets_its_role_with_the_first_factor(house: AuthHouse) -> None:
    publisher = await house.publisher()
    await require_factor(house, publisher)
    tokens = await house.sign_in_staff(publisher.owner_email)
    claims = await house.claims(tokens.access_token)
    assert (claims["acr"], claims["scope"], "role" in claims) == (session.ENROL, "", False)
    who = await house.person("per", tokens, account=publisher.live)
    phone = await begin(house, who)
    confirmed = await house.claims((await confirm(house, who, phone)).access_token)
    assert (confirmed["acr"], confirmed["role"], confirmed["sid"]) == (session.AAL2, roles.OWNER, claims["sid"])
    assert set(str(confirmed["scope"]).split()) == roles.SCOPES
    assert (await house.claims((await house.refresh(tokens.refresh_token)).access_token))["role"] == roles.OWNER


async def test_a_session_that_ended_meanwhile_adds_no_factor(house: AuthHouse) -> None:
    someone = await reader(house)
    phone = await begin(house, someone.caller)
    request = session_pb2.RevokeSessionRequest(refresh_token=someone.tokens.refresh_token)
    await house.call(house.anonymous(), house.sessions.RevokeSession, request)
    with pytest.raises(GatefoldError, match="sign_in_expired"):
        await confirm(house, someone.caller, phone)
    assert (await someone.sign_in()).access_token


async def test_there_are_five_apps_at_most_and_each_opens_the_door(house: AuthHouse) -> None:
    someone, phone = await with_phone(house)
    phones = [phone]
    for _ in range(4):
        added = await begin(house, someone.caller)
        await confirm(house, someone.caller, added)
        phones.append(added)
    with pytest.raises(GatefoldError, match="factors_too_many"):
        await begin(house, someone.caller)
    later(house, timedelta(seconds=60))
    for one in phones:
        await complete(house, await someone.sign_in(), one.code())
    assert [one.id for one in (await listed(house, someone.caller)).data] == [one.id for one in phones]


async def test_adding_renaming_and_removing_are_told_by_mail_where_they_matter(house: AuthHouse) -> None:
    someone, phone = await with_phone(house)
    letter = await house.describe(await house.newest_challenge(someone.publisher.live))
    assert (letter.purpose, letter.email, letter.details["factor"]) == ("factor_added", someone.email, "My phone")
    assert (letter.link, letter.code) == ("", "")
    request = factor_pb2.RenameFactorRequest(id=phone.id, name=" Old phone ")
    renamed = await house.call(someone.caller, house.factors.RenameFactor, request)
    assert isinstance(renamed, factor_pb2.Factor)
    assert (renamed.name, renamed.kind) == ("Old phone", factor_pb2.FACTOR_KIND_TOTP)
    await remove(house, someone.caller, phone.id)
    letter = await house.describe(await house.newest_challenge(someone.publisher.live))
    assert (letter.purpose, letter.details["factor"]) == ("factor_removed", "Old phone")
    assert (await someone.sign_in()).access_token
    with pytest.raises(GatefoldError, match="factor_not_found"):
        await remove(house, someone.caller, phone.id)


@pytest.mark.case("auth-44")
async def test_factors_are_changed_with_a_fresh_and_strong_proof_alone(house: AuthHouse) -> None:
    someone, phone = await with_phone(house)
    weak = replace(someone.caller, acr=session.AAL1)
    stale = replace(someone.caller, auth_time=house.clock.wall() - timedelta(minutes=16))
    changes = (
        (house.factors.RemoveFactor, factor_pb2.RemoveFactorRequest(id=phone.id)),
        (house.factors.BeginTotp, factor_pb2.BeginTotpRequest(name="Another")),
        (house.factors.RegenerateRecoveryCodes, factor_pb2.RegenerateRecoveryCodesRequest()),
        (house.factors.EnableEmailCodes, factor_pb2.EnableEmailCodesRequest()),
        (house.factors.ConfirmTotp, factor_pb2.ConfirmTotpRequest(id=phone.id, code=phone.code())),
    )
    for who in (weak, stale):
        for method, request in changes:
            with pytest.raises(GatefoldError) as raised:
                await house.call(who, method, request)
            assert raised.value.reason == "authentication_insufficient"
            assert raised.value.metadata["error"] == "insufficient_user_authentication"
            assert (raised.value.metadata["acr_values"], raised.value.metadata["max_age"]) == ("aal2", "900")
    assert len((await listed(house, weak)).data) == 1
    # Without a factor a fresh session of one factor is all there can be.
    other = await reader(house)
    with pytest.raises(GatefoldError) as raised:
        await begin(house, replace(other.caller, auth_time=house.clock.wall() - timedelta(minutes=16)))
    assert "acr_values" not in raised.value.metadata
    await begin(house, other.caller)


@pytest.mark.case("auth-45")
async def test_a_session_that_may_only_enrol_does_nothing_else(house: AuthHouse) -> None:
    publisher = await house.publisher()
    await require_factor(house, publisher)
    tokens = await house.sign_in_staff(publisher.owner_email)
    who = await house.person("per", tokens, account=publisher.live)
    # Not even with the scopes of an owner, which its token does not hold.
    for scopes in (frozenset[str](), roles.scopes_of(roles.OWNER)):
        with pytest.raises(GatefoldError, match="enrolment_required"):
            await house.call(replace(who, scopes=scopes), house.team.ListMembers, team_pb2.ListMembersRequest())
    # The password proves it anew and makes it no more than it was.
    renewed = await step_up(house, who, password=PASSWORD)
    claims = await house.claims(renewed.access_token)
    assert (claims["acr"], claims["scope"], "role" in claims) == (session.ENROL, "", False)


@pytest.mark.case("auth-44")
async def test_the_last_factor_stays_where_an_account_of_the_person_requires_one(house: AuthHouse) -> None:
    strict, lax = await house.publisher(), await house.publisher()
    request = team_pb2.InviteMemberRequest(email=strict.owner_email, role=team_pb2.ROLE_SUPPORT)
    await house.call(house.staff(lax.live), house.team.InviteMember, request)
    await house.accept(await house.token(lax.live, "invite_member"))
    await require_factor(house, strict)
    who = await house.person(
        "per", await house.sign_in_staff(strict.owner_email, account=strict.live), account=strict.live
    )
    phone = await begin(house, who)
    strong = await house.person("per", await confirm(house, who, phone), account=strict.live)
    with pytest.raises(GatefoldError, match="last_factor"):
        await remove(house, strong, phone.id)
    # Nor by way of an account that requires none.
    waiting = await house.sign_in_staff(strict.owner_email, account=lax.live)
    elsewhere = await house.person("per", await complete(house, waiting, phone.next_code()), account=lax.live)
    with pytest.raises(GatefoldError, match="last_factor"):
        await remove(house, elsewhere, phone.id)


@pytest.mark.case("auth-44")
async def test_of_two_removals_at_once_the_second_meets_the_last_factor(house: AuthHouse) -> None:
    publisher = await house.publisher()
    await require_factor(house, publisher)
    who = await house.person("per", await house.sign_in_staff(publisher.owner_email), account=publisher.live)
    phone = await begin(house, who)
    who = await house.person("per", await confirm(house, who, phone), account=publisher.live)
    spare = await begin(house, who, "Spare")
    await confirm(house, who, spare)
    await complete(house, await house.sign_in_staff(publisher.owner_email), phone.next_code())
    connection = await asyncpg.connect(house.database.owner_dsn.reveal())
    try:
        # Both are under way before either commits: what ends with a removal, the other sessions, is held back.
        async with connection.transaction():
            await connection.fetch("SELECT id FROM session WHERE person_id = $1 FOR UPDATE", publisher.owner)
            both = [asyncio.create_task(remove(house, who, one.id)) for one in (phone, spare)]
            await blocked(connection, 2)
        answers = await asyncio.gather(*both, return_exceptions=True)
    finally:
        await connection.close()
    assert [one.reason for one in answers if isinstance(one, GatefoldError)] == ["last_factor"]
    assert len((await listed(house, who)).data) == 1
