"""Attacks on second factors: guessing, replaying, borrowing them, and going round them."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from gatefold.auth.v1 import factor_pb2, recovery_pb2, session_pb2

from infra.local.valkey import ValkeyServer
from libs.clock import FixedClock
from libs.config import Secret
from libs.errors import GatefoldError, Kind
from services.auth.domain import session
from services.auth.domain.sign_in import Door
from services.auth.usecases.sessions import Sessions
from tests.conftest import ServiceDb
from tests.support.auth import PASSWORD, AuthHouse, running
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
    send_code,
    step_up,
    with_mailbox,
    with_phone,
)


@pytest.fixture(scope="module")
async def house(
    service_db: ServiceDb,
    keys_dsn: Secret,
    valkey_server: ValkeyServer,
    key_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[AuthHouse]:
    database, folder = await service_db("auth"), tmp_path_factory.mktemp("auth")
    url = valkey_server.url().reveal()
    async with running(database, keys_dsn.reveal(), url, key_file, folder, FixedClock()) as found:
        yield found


@pytest.mark.case("auth-38")
async def test_one_recovery_code_in_parallel_opens_one_session(house: AuthHouse) -> None:
    someone, _ = await with_phone(house)
    codes = await recovery_codes(house, someone.caller)
    waiting = [await someone.sign_in() for _ in range(4)]
    answers = await asyncio.gather(
        *(complete(house, one, codes[0], "recovery_code") for one in waiting), return_exceptions=True
    )
    assert len([one for one in answers if isinstance(one, session_pb2.Tokens)]) == 1
    assert [one.reason for one in answers if isinstance(one, GatefoldError)] == ["second_factor_wrong"] * 3
    assert (await purposes(house, someone)).count("recovery_code_used") == 1


@pytest.mark.parametrize("factor", ["totp", "email_code"])
async def test_a_password_alone_begins_no_session_beside_a_factor_that_is_being_added(
    house: AuthHouse, monkeypatch: pytest.MonkeyPatch, factor: str
) -> None:
    someone = await reader(house)
    phone = await begin(house, someone.caller)
    begun, arrived, go = Sessions.begin, asyncio.Event(), asyncio.Event()

    async def slow(self: Sessions, door: Door, acr: str) -> session.Session:
        arrived.set()
        await go.wait()
        return await begun(self, door, acr)

    monkeypatch.setattr(Sessions, "begin", slow)
    signing_in = asyncio.create_task(someone.sign_in())
    await asyncio.wait_for(arrived.wait(), 10)
    if factor == "totp":
        await confirm(house, someone.caller, phone)
    else:
        await house.call(someone.caller, house.factors.EnableEmailCodes, factor_pb2.EnableEmailCodesRequest())
    go.set()
    with pytest.raises(GatefoldError) as raised:
        await signing_in
    assert (raised.value.kind, raised.value.reason) == (Kind.CONFLICT, "concurrent_change")
    assert list((await someone.sign_in()).pending.methods) == [factor]


async def test_staff_do_not_prove_by_mailbox(house: AuthHouse) -> None:
    publisher = await house.publisher()
    who = await house.person("per", await house.sign_in_staff(publisher.owner_email), account=publisher.live)
    with pytest.raises(GatefoldError, match="caller_kind_not_allowed"):
        await house.call(who, house.factors.EnableEmailCodes, factor_pb2.EnableEmailCodesRequest())


async def test_a_mailed_code_belongs_to_its_sign_in_and_only_the_newest_works_for_ten_minutes(house: AuthHouse) -> None:
    someone = await with_mailbox(house)
    one, other = await someone.sign_in(), await someone.sign_in()
    with pytest.raises(GatefoldError, match="second_factor_wrong"):
        await complete(house, one, "00000000", "email_code")
    await send_code(house, one)
    first = await mailed(house, someone)
    await send_code(house, other)
    with pytest.raises(GatefoldError, match="second_factor_wrong"):
        await complete(house, other, first, "email_code")
    await send_code(house, one)
    second = await mailed(house, someone)
    with pytest.raises(GatefoldError, match="second_factor_wrong"):
        await complete(house, one, first, "email_code")
    await complete(house, one, second, "email_code")

    waiting = await someone.sign_in()
    for _ in range(3):
        await send_code(house, waiting)
    code = await mailed(house, someone)
    with pytest.raises(GatefoldError) as raised:
        await send_code(house, waiting)
    assert (raised.value.kind, raised.value.reason) == (Kind.TOO_MANY, "codes_sent")
    later(house, timedelta(minutes=10))
    with pytest.raises(GatefoldError, match="sign_in_expired"):
        await complete(house, waiting, code, "email_code")


@pytest.mark.case("auth-29")
@pytest.mark.parametrize("method", ["totp", "recovery_code"])
async def test_five_wrong_codes_end_the_sign_in_and_a_mail_tells(house: AuthHouse, method: str) -> None:
    someone, phone = await with_phone(house)
    codes = await recovery_codes(house, someone.caller)
    waiting = await someone.sign_in()
    for _ in range(5):
        with pytest.raises(GatefoldError, match="second_factor_wrong"):
            await complete(house, waiting, phone.wrong(), method)
    letter = await house.describe(await house.newest_challenge(someone.publisher.live))
    assert (letter.purpose, letter.email) == ("sign_in_locked", someone.email)
    for right, way in ((phone.code(), "totp"), (codes[0], "recovery_code")):
        later(house, timedelta(minutes=1))
        with pytest.raises(GatefoldError, match="sign_in_expired"):
            await complete(house, waiting, right, way)
    assert (await purposes(house, someone)).count("sign_in_locked") == 1
    # With the password again there is another chance.
    await complete(house, await someone.sign_in(), phone.code())


@pytest.mark.case("auth-29")
async def test_wrong_codes_are_counted_over_all_sign_ins_of_a_principal(house: AuthHouse) -> None:
    someone, phone = await with_phone(house)
    codes = await recovery_codes(house, someone.caller)
    for wait in (30, 60, 120):
        for _ in range(5):
            with pytest.raises(GatefoldError, match="second_factor_wrong"):
                await complete(house, await someone.sign_in(), phone.wrong())
        # The right code is no better than a wrong one now, so that nobody learns which it was.
        for code in (phone.code(), phone.wrong()):
            with pytest.raises(GatefoldError) as raised:
                await complete(house, await someone.sign_in(), code)
            assert (raised.value.kind, raised.value.reason) == (Kind.TOO_MANY, "second_factor_locked")
            assert raised.value.retry_after_seconds == wait
        later(house, timedelta(seconds=wait))
    # What nobody guesses opens the door all the same, and ends the row.
    for _ in range(5):
        with pytest.raises(GatefoldError, match="second_factor_wrong"):
            await complete(house, await someone.sign_in(), phone.wrong())
    await complete(house, await someone.sign_in(), codes[0], "recovery_code")
    await complete(house, await someone.sign_in(), phone.code())


@pytest.mark.case("auth-29")
async def test_a_hundred_wrong_codes_in_a_row_shut_the_way_for_a_day_or_until_more_is_proven(house: AuthHouse) -> None:
    someone, phone = await with_phone(house)
    codes = await recovery_codes(house, someone.caller)

    async def tries(number: int) -> None:
        waiting = await someone.sign_in()
        for place in range(number):
            with pytest.raises(GatefoldError, match="second_factor_wrong"):
                await complete(house, waiting, phone.wrong())
            if place % 5 == 4:
                waiting = await someone.sign_in()

    async def refused() -> int | None:
        with pytest.raises(GatefoldError, match="second_factor_locked") as raised:
            await complete(house, await someone.sign_in(), phone.code())
        return raised.value.retry_after_seconds

    async def shut() -> None:
        for _ in range(19):
            await tries(5)
            later(house, timedelta(minutes=15))
        await tries(5)
        assert await refused() == 86_400

    await shut()
    later(house, timedelta(days=1))
    await tries(1)
    await complete(house, await someone.sign_in(), phone.code())
    await shut()
    await complete(house, await someone.sign_in(), codes[0], "recovery_code")
    await complete(house, await someone.sign_in(), phone.next_code())
    await shut()
    asked = recovery_pb2.RequestPasswordResetRequest(email=someone.email)
    await house.call(house.page(someone.publisher.live), house.recovery.RequestPasswordReset, asked)
    # The same once more, so that the helpers go on signing in with it.
    await house.complete_reset(await house.token(someone.publisher.live, "reset_password"), PASSWORD)
    await tries(5)
    assert await refused() == 30, "a mailbox ends no shorter wait"


@pytest.mark.case("auth-29")
@pytest.mark.case("auth-37")
async def test_five_wrong_mailed_codes_end_the_sign_in_and_the_right_one_with_it(house: AuthHouse) -> None:
    someone = await with_mailbox(house)
    waiting = await someone.sign_in()
    await send_code(house, waiting)
    code = await mailed(house, someone)
    wrong = "00000000" if code != "00000000" else "11111111"
    for _ in range(5):
        with pytest.raises(GatefoldError, match="second_factor_wrong"):
            await complete(house, waiting, wrong, "email_code")
    letter = await house.describe(await house.newest_challenge(someone.publisher.live))
    assert (letter.purpose, letter.email) == ("sign_in_locked", someone.email)
    later(house, timedelta(minutes=1))
    with pytest.raises(GatefoldError, match="sign_in_expired"):
        await complete(house, waiting, code, "email_code")
    assert (await purposes(house, someone)).count("sign_in_locked") == 1


@pytest.mark.case("auth-29")
@pytest.mark.case("auth-37")
async def test_mailed_codes_are_counted_over_all_sign_ins_beside_the_passwords_own_count(house: AuthHouse) -> None:
    someone = await with_mailbox(house)
    for _ in range(5):
        waiting = await someone.sign_in()
        with pytest.raises(GatefoldError, match="second_factor_wrong"):
            await complete(house, waiting, "00000000", "email_code")
    waiting = await someone.sign_in()
    assert waiting.pending.next == "second_factor", "passwords are not counted with them"
    with pytest.raises(GatefoldError) as raised:
        await complete(house, waiting, "00000000", "email_code")
    assert (raised.value.kind, raised.value.reason) == (Kind.TOO_MANY, "second_factor_locked")


@pytest.mark.case("auth-29")
async def test_wrong_codes_in_parallel_are_no_more_tries_than_in_a_row(house: AuthHouse) -> None:
    someone, phone = await with_phone(house)
    waiting = [await someone.sign_in() for _ in range(4)]
    answers = await asyncio.gather(
        *(complete(house, waiting[number % 4], phone.wrong()) for number in range(40)), return_exceptions=True
    )
    reasons = [one.reason for one in answers if isinstance(one, GatefoldError)]
    assert (len(reasons), reasons.count("second_factor_wrong")) == (40, 5)
    assert set(reasons) == {"second_factor_wrong", "second_factor_locked"}


async def test_another_readers_tries_and_factors_are_their_own(house: AuthHouse) -> None:
    victim, phone = await with_phone(house)
    attacker, _ = await with_phone(house, victim.publisher)
    codes = await recovery_codes(house, victim.caller)
    for code, method in ((phone.code(), "totp"), (codes[0], "recovery_code")):
        with pytest.raises(GatefoldError, match="second_factor_wrong"):
            await complete(house, await attacker.sign_in(), code, method)
    for method, request in (
        (house.factors.RemoveFactor, factor_pb2.RemoveFactorRequest(id=phone.id)),
        (house.factors.RenameFactor, factor_pb2.RenameFactorRequest(id=phone.id, name="Mine")),
        (house.factors.ConfirmTotp, factor_pb2.ConfirmTotpRequest(id=phone.id, code=phone.code())),
    ):
        with pytest.raises(GatefoldError) as raised:
            await house.call(attacker.caller, method, request)
        assert (raised.value.kind, raised.value.reason) == (Kind.NOT_FOUND, "factor_not_found")
    await complete(house, await victim.sign_in(), codes[0], "recovery_code")


@pytest.mark.case("auth-34")
async def test_a_new_password_by_mail_leaves_the_second_factor_asked_for(house: AuthHouse) -> None:
    someone, phone = await with_phone(house)
    await house.call(
        house.page(someone.publisher.live),
        house.recovery.RequestPasswordReset,
        recovery_pb2.RequestPasswordResetRequest(email=someone.email),
    )
    token = await house.token(someone.publisher.live, "reset_password")
    await house.complete_reset(token, "another horse battery")
    waiting = await house.sign_in(someone.publisher.live, someone.email, "another horse battery")
    assert (waiting.access_token, list(waiting.pending.methods)) == ("", ["totp"])
    assert (await complete(house, waiting, phone.code())).access_token


async def test_a_code_by_mail_proves_a_session_anew_only_beside_the_password(house: AuthHouse) -> None:
    someone = await with_mailbox(house)
    alone = await step_up(house, someone.caller)
    assert list(alone.pending.methods) == []
    with pytest.raises(GatefoldError, match="factor_missing"):
        await send_code(house, alone)
    both = await step_up(house, someone.caller, password=PASSWORD)
    await send_code(house, both)
    done = await complete(house, both, await mailed(house, someone), "email_code")
    assert (await house.claims(done.access_token))["acr"] == session.AAL2


async def test_passwords_are_not_guessed_by_a_stolen_session(house: AuthHouse) -> None:
    someone = await reader(house)
    before = house.units()
    reasons = []
    for attempt in range(12):
        with pytest.raises(GatefoldError) as raised:
            await step_up(house, someone.caller, password=f"guess number {attempt} of many")
        reasons.append(raised.value.reason)
    assert reasons == ["credentials_invalid"] * 5 + ["second_factor_locked"] * 7
    assert house.units() - before == 5 * 2**4


async def test_a_session_that_ended_is_not_proven_anew(house: AuthHouse) -> None:
    someone, phone = await with_phone(house)
    waiting = await step_up(house, someone.caller)
    request = session_pb2.RevokeSessionRequest(refresh_token=someone.tokens.refresh_token)
    await house.call(house.anonymous(), house.sessions.RevokeSession, request)
    with pytest.raises(GatefoldError, match="sign_in_expired"):
        await complete(house, waiting, phone.code())
    # What was not taken in the end is not spent either.
    await complete(house, await someone.sign_in(), phone.code())


async def test_keys_and_strangers_have_no_factors(house: AuthHouse) -> None:
    publisher = await house.publisher()
    for who in (house.page(publisher.live), house.anonymous()):
        with pytest.raises(GatefoldError) as raised:
            await listed(house, who)
        assert raised.value.kind is Kind.FORBIDDEN
    # Somebody without a session (a forged caller) changes nothing.
    someone = await reader(house)
    with pytest.raises(GatefoldError, match="plane_not_allowed"):
        await begin(house, replace(someone.caller, session=None))
