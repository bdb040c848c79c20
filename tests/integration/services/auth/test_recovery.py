"""Forgotten passwords and mails that did not arrive, over gRPC on real stores."""

import asyncio
from datetime import timedelta

import pytest
from gatefold.auth.v1 import password_pb2, recovery_pb2

from libs import ids
from libs.clock import FixedClock
from libs.errors import GatefoldError, Kind
from libs.postgres import PLATFORM
from services.auth.domain import challenge as rules
from tests.support.auth import PASSWORD, AuthHouse

NEW = "an entirely different phrase"


async def ask(house: AuthHouse, account: object, email: str) -> None:
    request = recovery_pb2.RequestPasswordResetRequest(email=email)
    await house.call(house.page(account), house.recovery.RequestPasswordReset, request)  # type: ignore[arg-type]


async def ask_staff(house: AuthHouse, email: str) -> None:
    request = recovery_pb2.RequestStaffPasswordResetRequest(email=email)
    await house.call(house.anonymous(), house.recovery.RequestStaffPasswordReset, request)


async def test_a_reader_chooses_a_new_password_and_every_session_ends(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    await house.reader(publisher.live, email)
    before = await house.sign_in(publisher.live, email)
    await ask(house, publisher.live, email)
    letter = await house.describe(await house.newest_challenge(publisher.live))
    assert (letter.purpose, letter.email, letter.publication) == ("reset_password", email, "The Daily")
    await house.complete_reset(await house.token(publisher.live, "reset_password"), NEW)

    notice = await house.describe(await house.newest_challenge(publisher.live))
    assert (notice.purpose, notice.email, notice.link) == ("password_changed", email, "")
    with pytest.raises(GatefoldError, match="invalid_grant"):
        await house.refresh(before.refresh_token)
    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await house.sign_in(publisher.live, email, PASSWORD)
    assert (await house.sign_in(publisher.live, email, NEW)).access_token


async def test_staff_choose_a_new_password_and_sessions_end_in_every_account(house: AuthHouse) -> None:
    publisher = await house.publisher()
    live = await house.sign_in_staff(publisher.owner_email)
    test = await house.sign_in_staff(publisher.owner_email, account=publisher.test)
    await ask_staff(house, publisher.owner_email)
    letter = await house.describe(await house.newest_challenge(PLATFORM))
    assert (letter.email, letter.name, letter.publication) == (publisher.owner_email, "Ada Owner", "Gatefold")
    assert letter.link.startswith("https://staff.gatefold.example/recover#purpose=reset_password&token=gfct_")
    await house.complete_reset(await house.token(PLATFORM, "reset_password"), NEW)
    for tokens in (live, test):
        with pytest.raises(GatefoldError, match="invalid_grant"):
            await house.refresh(tokens.refresh_token)
    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await house.sign_in_staff(publisher.owner_email)
    assert (await house.sign_in_staff(publisher.owner_email, NEW)).access_token
    assert (await house.describe(await house.newest_challenge(PLATFORM))).purpose == "password_changed"


@pytest.mark.case("auth-33")
async def test_of_resets_at_once_with_one_token_exactly_one_sets_its_password(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    await house.reader(publisher.live, email)
    await ask(house, publisher.live, email)
    token = await house.token(publisher.live, "reset_password")
    passwords = [f"{NEW} number {number}" for number in range(5)]
    answers = await asyncio.gather(*(house.complete_reset(token, one) for one in passwords), return_exceptions=True)
    assert sorted(str(getattr(answer, "reason", "done")) for answer in answers) == ["done"] + ["token_spent"] * 4
    winner = passwords[[answer is None for answer in answers].index(True)]
    assert (await house.sign_in(publisher.live, email, winner)).access_token
    assert (await house.events(publisher.live)).count("challenge.requested") == 4, "owner, registration, reset, notice"


@pytest.mark.case("auth-33")
async def test_a_reset_token_has_256_bits_and_lives_for_an_hour(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    await house.reader(publisher.live, email)
    await ask(house, publisher.live, email)
    token = await house.token(publisher.live, "reset_password")
    assert len(token.removeprefix("gfct_")) == 43, "32 bytes in base64url"
    assert isinstance(house.clock, FixedClock)
    house.clock.advance(timedelta(hours=1))
    with pytest.raises(GatefoldError) as raised:
        await house.complete_reset(token, NEW)
    assert (raised.value.kind, raised.value.reason) == (Kind.NOT_FOUND, "token_expired")


@pytest.mark.case("auth-33")
async def test_a_reset_token_dies_with_a_new_request(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    await house.reader(publisher.live, email)
    await ask(house, publisher.live, email)
    older = await house.token(publisher.live, "reset_password")
    await ask(house, publisher.live, email)
    with pytest.raises(GatefoldError, match="token_invalid"):
        await house.complete_reset(older, NEW)
    await ask_staff(house, publisher.owner_email)
    older = await house.token(PLATFORM, "reset_password")
    await ask_staff(house, publisher.owner_email)
    with pytest.raises(GatefoldError, match="token_invalid"):
        await house.complete_reset(older, NEW)
    await house.complete_reset(await house.token(PLATFORM, "reset_password"), NEW)


@pytest.mark.case("auth-33")
async def test_a_reset_token_dies_with_the_password_it_was_to_replace(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    await house.reader(publisher.live, email)
    await ask(house, publisher.live, email)
    await ask_staff(house, publisher.owner_email)
    held = [
        (await house.sign_in(publisher.live, email), await house.token(publisher.live, "reset_password")),
        (await house.sign_in_staff(publisher.owner_email), await house.token(PLATFORM, "reset_password")),
    ]
    change = password_pb2.ChangePasswordRequest(current_password=PASSWORD, new_password="another horse battery")
    for tokens, reset in held:
        await house.call(await house.holder(tokens), house.passwords.ChangePassword, change)
        with pytest.raises(GatefoldError, match="token_invalid"):
            await house.complete_reset(reset, NEW)


@pytest.mark.case("auth-33")
async def test_a_reset_token_dies_with_the_address_it_went_to(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    await house.reader(publisher.live, email)
    await ask(house, publisher.live, email)
    token = await house.token(publisher.live, "reset_password")
    # As when another address is confirmed between the look-up and the mail: nothing voided this one.
    async with house.app.tenant(publisher.live, "meanwhile") as conn:
        await conn.execute("UPDATE credential SET email_index = substr(sha256('another'), 1, 16)")
    with pytest.raises(GatefoldError, match="token_invalid"):
        await house.complete_reset(token, NEW)


async def test_a_mail_is_not_sent_to_an_address_other_than_the_one_that_was_asked_for(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    await house.reader(publisher.live, email)
    await ask(house, publisher.live, email)
    # As when another address is confirmed before the mail is made.
    async with house.app.tenant(publisher.live, "meanwhile") as conn:
        await conn.execute(
            "UPDATE challenge SET email_index = substr(sha256('former'), 1, 16) WHERE purpose = 'reset_password'"
        )
    with pytest.raises(GatefoldError, match="challenge_over"):
        await house.describe(await house.newest_challenge(publisher.live))


async def test_a_password_that_is_refused_leaves_the_token_as_it_is(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    await house.reader(publisher.live, email)
    await ask(house, publisher.live, email)
    token = await house.token(publisher.live, "reset_password")
    for refused in ("short", "x" * 1025, "passwordpassword", f"{email}12"):
        with pytest.raises(GatefoldError) as raised:
            await house.complete_reset(token, refused)
        assert (raised.value.kind, raised.value.violations[0].field) == (Kind.INVALID, "password")
    await house.complete_reset(token, NEW)


async def test_a_repeat_of_the_same_request_is_answered_as_it_was(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    await house.reader(publisher.live, email)
    await ask(house, publisher.live, email)
    token = await house.token(publisher.live, "reset_password")
    await house.complete_reset(token, NEW, request_id="req_lost")
    await house.complete_reset(token, "a third and other phrase", request_id="req_lost")
    assert (await house.sign_in(publisher.live, email, NEW)).access_token
    with pytest.raises(GatefoldError, match="token_spent"):
        await house.complete_reset(token, NEW)


@pytest.mark.parametrize("purpose", ["verify_registration", "invite_member"])
async def test_a_token_for_something_else_resets_no_password(house: AuthHouse, purpose: str) -> None:
    publisher = await house.publisher()
    if purpose == "invite_member":
        account = ids.decode("acct", (await house.create_account()).id)
    else:
        account = publisher.live
        await house.register(account, house.fresh())
    with pytest.raises(GatefoldError, match="token_invalid"):
        await house.complete_reset(await house.token(account, purpose), NEW)


async def test_the_registrations_mail_comes_again_with_the_same_link(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    await house.register(publisher.live, email)
    first = await house.newest_challenge(publisher.live)
    request = recovery_pb2.ResendVerificationRequest(email=email.upper())
    for _ in range(2):
        await house.call(house.page(publisher.live), house.recovery.ResendVerification, request)
        assert await house.newest_challenge(publisher.live) == first
    async with house.database.jobs.transaction("read_outbox") as conn:
        text = ids.encode("chal", first)
        rows = await conn.fetch("SELECT sequence FROM outbox WHERE aggregate_id = $1 ORDER BY position", text)
    assert [row["sequence"] for row in rows] == [1, 2, 3]
    await house.verify(publisher.live, await house.token(publisher.live, "verify_registration"))
    assert (await house.sign_in(publisher.live, email)).access_token


async def test_a_stranger_who_registers_the_address_too_keeps_no_mail_from_coming_again(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    kept = await house.register(publisher.live, email)
    await house.register(publisher.live, email, "the password of a stranger")
    request = recovery_pb2.ResendVerificationRequest(email=email)
    await house.call(house.page(publisher.live), house.recovery.ResendVerification, request)
    token = await house.token(publisher.live, "verify_registration")
    with pytest.raises(GatefoldError, match="password_required"):
        await house.verify(publisher.live, token, browser_secret=kept)
    await house.verify(publisher.live, token, browser_secret=kept, password=PASSWORD)
    assert (await house.sign_in(publisher.live, email)).access_token


def test_what_dies_with_a_password_and_with_an_address() -> None:
    assert rules.BY_PASSWORD <= rules.BY_ADDRESS
    assert rules.REVERT_EMAIL not in rules.BY_ADDRESS, "else whoever changes the address twice keeps it"
