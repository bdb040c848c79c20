"""Recovery codes, codes by mail, wrong tries, step-up, and what an erasure takes."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest
from gatefold.auth.v1 import factor_pb2, session_pb2
from gatefold.privacy.v1 import subject_data_pb2

from libs import caller, ids
from libs.caller import Caller
from libs.errors import GatefoldError
from libs.postgres import PLATFORM
from libs.privacy import SubjectDataServicer
from libs.privacy.erasure import place_tombstone
from libs.vault import Vault
from services.auth.__main__ import PERSONAL_TABLES
from services.auth.domain import roles, session
from tests.support.auth import PASSWORD, AuthHouse
from tests.support.factors import (
    begin,
    complete,
    confirm,
    later,
    listed,
    mailed,
    purposes,
    reader,
    recovery_codes,
    remove,
    send_code,
    step_up,
    with_mailbox,
    with_phone,
)


@pytest.mark.case("auth-38")
async def test_recovery_codes_are_shown_once_stored_hashed_and_each_works_once(house: AuthHouse) -> None:
    someone, _ = await with_phone(house)
    codes = await recovery_codes(house, someone.caller)
    assert len(set(codes)) == 10
    assert all(len(code.replace("-", "")) == 16 for code in codes)
    connection = await asyncpg.connect(house.database.owner_dsn.reveal())
    try:
        stored = " ".join(row[0] for row in await connection.fetch("SELECT recovery_code::text FROM recovery_code"))
    finally:
        await connection.close()
    for code in codes:
        for text in (code, code.replace("-", "")):
            assert text not in stored + house.log.getvalue()
            assert text.encode().hex() not in stored

    waiting = await someone.sign_in()
    assert list(waiting.pending.methods) == ["totp", "recovery_code"]
    done = await complete(house, waiting, codes[3].upper().replace("-", " "), "recovery_code")
    assert (await house.claims(done.access_token))["acr"] == session.AAL2
    assert (done.HasField("recovery_codes_left"), done.recovery_codes_left) == (True, 9)
    letter = await house.describe(await house.newest_challenge(someone.publisher.live))
    assert (letter.purpose, letter.email, letter.details["left"]) == ("recovery_code_used", someone.email, "9")
    assert (await listed(house, someone.caller)).recovery_codes_left == 9
    with pytest.raises(GatefoldError, match="second_factor_wrong"):
        await complete(house, await someone.sign_in(), codes[3], "recovery_code")


@pytest.mark.case("auth-38")
async def test_a_new_set_of_recovery_codes_ends_the_one_before_however_many_are_made_at_once(house: AuthHouse) -> None:
    someone, _ = await with_phone(house)
    former = await recovery_codes(house, someone.caller)
    sets = await asyncio.gather(*(recovery_codes(house, someone.caller) for _ in range(3)))
    assert (await listed(house, someone.caller)).recovery_codes_left == 10
    answers = [
        (
            await asyncio.gather(
                complete(house, await someone.sign_in(), codes[0], "recovery_code"), return_exceptions=True
            )
        )[0]
        for codes in (former, *sets)
    ]
    assert isinstance(answers[0], GatefoldError)
    (winner,) = (codes for codes, one in zip(sets, answers[1:], strict=True) if isinstance(one, session_pb2.Tokens))
    for code in winner[1:]:
        await complete(house, await someone.sign_in(), code, "recovery_code")
    waiting = await someone.sign_in()
    assert list(waiting.pending.methods) == ["totp"]


async def test_recovery_codes_stand_in_for_a_factor_and_go_with_the_last_one(house: AuthHouse) -> None:
    someone = await reader(house)
    with pytest.raises(GatefoldError, match="factor_missing"):
        await recovery_codes(house, someone.caller)
    someone, phone = await with_phone(house)
    await recovery_codes(house, someone.caller)
    await remove(house, someone.caller, phone.id)
    assert (await listed(house, someone.caller)).recovery_codes_left == 0
    assert (await someone.sign_in()).access_token


async def test_a_code_by_mail_is_a_second_factor_of_readers_who_want_it(house: AuthHouse) -> None:
    someone = await with_mailbox(house)
    assert [one.name for one in (await listed(house, someone.caller)).data] == ["E-mail"]
    waiting = await someone.sign_in()
    assert list(waiting.pending.methods) == ["email_code"]
    await send_code(house, waiting)
    code = await mailed(house, someone)
    assert len(code) == 8
    assert code.isdecimal()
    done = await complete(house, waiting, code, "email_code")
    assert (await house.claims(done.access_token))["acr"] == session.AAL2
    with pytest.raises(GatefoldError, match="sign_in_expired"):
        await complete(house, waiting, code, "email_code")
    assert code not in house.log.getvalue()


async def test_switching_codes_by_mail_on_twice_is_once(house: AuthHouse) -> None:
    someone, _ = await with_phone(house)
    request = factor_pb2.EnableEmailCodesRequest()
    found = await asyncio.gather(*(house.call(someone.caller, house.factors.EnableEmailCodes, request) for _ in "abc"))
    assert len({str(one) for one in found}) == 1
    assert (await purposes(house, someone)).count("factor_added") == 2


async def test_no_code_is_mailed_for_a_sign_in_that_takes_none(house: AuthHouse) -> None:
    someone, _ = await with_phone(house)
    waiting = await someone.sign_in()
    with pytest.raises(GatefoldError, match="factor_missing"):
        await send_code(house, waiting)
    with pytest.raises(GatefoldError, match="sign_in_expired"):
        await send_code(house, session_pb2.Tokens(pending=session_pb2.PendingSignIn(token="gfsi_AAAA")))


@pytest.mark.case("auth-61")
async def test_a_session_without_factors_is_proven_anew_by_the_password(house: AuthHouse) -> None:
    someone = await reader(house)
    before = await house.claims(someone.tokens.access_token)
    later(house, timedelta(minutes=20))
    with pytest.raises(GatefoldError, match="authentication_insufficient"):
        await begin(house, someone.caller)
    with pytest.raises(GatefoldError, match="password_required"):
        await step_up(house, someone.caller)
    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await step_up(house, someone.caller, password="not the password at all")
    renewed = await step_up(house, someone.caller, password=PASSWORD)
    claims = await house.claims(renewed.access_token)
    assert (claims["sid"], claims["acr"], renewed.refresh_token) == (before["sid"], session.AAL1, "")
    assert claims["auth_time"] == int(house.clock.wall().timestamp())
    await begin(house, await someone.as_caller(renewed))


@pytest.mark.case("auth-61")
@pytest.mark.case("auth-62")
async def test_a_session_with_a_factor_is_proven_anew_by_the_factor_and_not_by_the_password(house: AuthHouse) -> None:
    someone, phone = await with_phone(house)
    tokens = await complete(house, await someone.sign_in(), phone.code())
    later(house, timedelta(minutes=20))
    tokens = await house.refresh(tokens.refresh_token)
    who = await someone.as_caller(tokens)
    with pytest.raises(GatefoldError, match="authentication_insufficient"):
        await remove(house, who, phone.id)
    for password in ("", PASSWORD):
        waiting = await step_up(house, who, password=password)
        assert (waiting.access_token, list(waiting.pending.methods)) == ("", ["totp"])
    with pytest.raises(GatefoldError, match="second_factor_wrong"):
        await step_up(house, who, password=PASSWORD, method="totp", code=phone.wrong())
    done = await complete(house, waiting, phone.code())
    claims = await house.claims(done.access_token)
    assert (claims["acr"], claims["sid"]) == (session.AAL2, (await house.claims(tokens.access_token))["sid"])
    assert claims["auth_time"] == int(house.clock.wall().timestamp())
    at_once = await step_up(house, who, method="totp", code=phone.next_code())
    # A refresh afterwards keeps the time of the proof.
    proven = (await house.claims(at_once.access_token))["auth_time"]
    later(house, timedelta(minutes=5))
    again = await house.refresh(tokens.refresh_token)
    assert (await house.claims(again.access_token))["auth_time"] == proven
    await remove(house, await someone.as_caller(again), phone.id)


async def test_a_change_of_factors_ends_the_other_sessions_and_keeps_this_one(house: AuthHouse) -> None:
    someone = await reader(house)
    other = await someone.sign_in()
    phone = await begin(house, someone.caller)
    tokens = await confirm(house, someone.caller, phone)
    with pytest.raises(GatefoldError, match="invalid_grant"):
        await house.refresh(other.refresh_token)
    mine = await house.refresh(someone.tokens.refresh_token)
    other = await complete(house, await someone.sign_in(), phone.next_code())
    await remove(house, await someone.as_caller(tokens), phone.id)
    with pytest.raises(GatefoldError, match="invalid_grant"):
        await house.refresh(other.refresh_token)
    await house.refresh(mine.refresh_token)


async def test_a_persons_notices_go_to_the_person_and_the_operator_has_factors_too(house: AuthHouse) -> None:
    publisher = await house.publisher()
    who = await house.person("per", await house.sign_in_staff(publisher.owner_email), account=publisher.live)
    phone = await begin(house, who)
    tokens = await confirm(house, who, phone)
    who = await house.person("per", tokens, account=publisher.live)
    codes = await recovery_codes(house, who)
    waiting = await house.sign_in_staff(publisher.owner_email, account=publisher.test)
    done = await complete(house, waiting, codes[0], "recovery_code")
    assert (await house.claims(done.access_token))["role"] == roles.OWNER
    assert done.recovery_codes_left == 9
    letter = await house.describe(await house.newest_challenge(PLATFORM))
    assert (letter.purpose, letter.email) == ("recovery_code_used", publisher.owner_email)
    operator = Caller(
        who.kind.PLATFORM_OPERATOR,
        who.actor,
        person=who.person,
        session=who.session,
        acr=session.AAL2,
        auth_time=who.auth_time,
        request_id=house.request_id(),
    )
    assert [one.id for one in (await listed(house, operator)).data] == [phone.id]


async def test_factors_are_exported_without_secrets_and_erased_with_the_reader(house: AuthHouse, vault: Vault) -> None:
    someone, phone = await with_phone(house)
    neighbour, other = await with_phone(house, someone.publisher)
    codes = await recovery_codes(house, someone.caller)
    with pytest.raises(GatefoldError, match="second_factor_wrong"):
        await complete(house, await someone.sign_in(), phone.wrong())
    port = SubjectDataServicer("auth", house.app, vault, PERSONAL_TABLES, clock=house.clock)
    text = ids.encode("subj", someone.subject)
    with caller.serving(house.service("compliance", someone.publisher.live)):
        parts = [part async for part in port.Export(subject_data_pb2.ExportRequest(subject_id=text), None)]  # type: ignore[arg-type]
        exported = b"".join(part.json_lines for part in parts).decode()
        assert {"factor", "recovery_code", "factor_attempt"} <= {part.table for part in parts}
        assert "My phone" in exported
        for word in ("secret_sealed", "code_hash", phone.secret, *codes):
            assert word not in exported
        plan = await port.PlanErase(subject_data_pb2.PlanEraseRequest(subject_id=text), None)  # type: ignore[arg-type]
        rows = {one.table: one.rows for one in plan.tables}
        assert (rows["factor"], rows["recovery_code"], rows["factor_attempt"]) == (1, 10, 1)
        request = subject_data_pb2.EraseRequest(subject_id=text, plan_hash=plan.plan_hash)
        await port.Erase(request, None)  # type: ignore[arg-type]
        left = await port.Verify(subject_data_pb2.VerifyRequest(subject_id=text), None)  # type: ignore[arg-type]
        assert (left.residual, left.retained) == (0, 0)
    # A token that still lives brings nothing back.
    for method, again in (
        (house.factors.BeginTotp, factor_pb2.BeginTotpRequest(name="Back")),
        (house.factors.EnableEmailCodes, factor_pb2.EnableEmailCodesRequest()),
        (house.factors.RegenerateRecoveryCodes, factor_pb2.RegenerateRecoveryCodesRequest()),
    ):
        with pytest.raises(GatefoldError):
            await house.call(someone.caller, method, again)
    with caller.serving(house.service("compliance", someone.publisher.live)):
        left = await port.Verify(subject_data_pb2.VerifyRequest(subject_id=text), None)  # type: ignore[arg-type]
        assert left.residual == 0
    await complete(house, await neighbour.sign_in(), other.code())


async def test_an_erasure_that_comes_in_between_is_not_undone(house: AuthHouse) -> None:
    someone, _ = await with_phone(house)
    begun = await begin(house, someone.caller, "Begun")
    async with house.app.tenant(someone.publisher.live, "erase") as conn:
        await place_tombstone(conn, someone.publisher.live, someone.subject, house.clock.wall())
    for method, request in (
        (house.factors.BeginTotp, factor_pb2.BeginTotpRequest(name="Back")),
        (house.factors.ConfirmTotp, factor_pb2.ConfirmTotpRequest(id=begun.id, code=begun.code())),
        (house.factors.EnableEmailCodes, factor_pb2.EnableEmailCodesRequest()),
        (house.factors.RegenerateRecoveryCodes, factor_pb2.RegenerateRecoveryCodesRequest()),
    ):
        with pytest.raises(GatefoldError, match="subject_erased"):
            await house.call(someone.caller, method, request)
