"""Links that sign in: in the browser that asked, for ten minutes, once."""

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest
from gatefold.auth.v1 import recovery_pb2, session_pb2

from libs import ids
from libs.clock import FixedClock
from libs.errors import GatefoldError, Kind
from tests.support.auth import AuthHouse


async def ask(house: AuthHouse, account: UUID, email: str) -> str:
    request = recovery_pb2.RequestMagicLinkRequest(email=email)
    answer = await house.call(house.page(account), house.recovery.RequestMagicLink, request)
    assert isinstance(answer, recovery_pb2.RequestMagicLinkResponse)
    return answer.browser_secret


async def redeem(house: AuthHouse, account: UUID, token: str, secret: str) -> session_pb2.Tokens:
    request = recovery_pb2.RedeemMagicLinkRequest(token=token, browser_secret=secret)
    answer = await house.call(house.page(account), house.recovery.RedeemMagicLink, request)
    assert isinstance(answer, session_pb2.Tokens)
    return answer


@pytest.mark.case("auth-37")
async def test_a_link_signs_in_the_browser_that_asked_and_no_other(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    subject = await house.reader(publisher.live, email)
    secret = await ask(house, publisher.live, email)
    assert len(secret.removeprefix("gfbs_")) == 43
    letter = await house.describe(await house.newest_challenge(publisher.live))
    assert (letter.purpose, letter.email) == ("magic_link", email)
    assert secret not in letter.link
    token = await house.token(publisher.live, "magic_link")
    # Whoever reads the mail elsewhere, or asked for a link of their own, gets nowhere, and the link stays.
    mallory = house.fresh()
    await house.reader(publisher.live, mallory)
    for wrong in ("", "gfbs_", await ask(house, publisher.live, mallory), secret[:-2]):
        with pytest.raises(GatefoldError) as raised:
            await redeem(house, publisher.live, token, wrong)
        assert (raised.value.kind, raised.value.reason) == (Kind.NOT_FOUND, "token_invalid")
    tokens = await redeem(house, publisher.live, token, secret)
    assert tokens.principal_id == ids.encode("subj", subject)
    assert (await house.claims(tokens.access_token))["acr"] == "aal1"


@pytest.mark.case("auth-37")
async def test_of_redeemings_at_once_one_signs_in(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    await house.reader(publisher.live, email)
    secret = await ask(house, publisher.live, email)
    token = await house.token(publisher.live, "magic_link")
    answers = await asyncio.gather(
        *(redeem(house, publisher.live, token, secret) for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(answer, session_pb2.Tokens) for answer in answers) == 1
    assert {answer.reason for answer in answers if isinstance(answer, GatefoldError)} == {"token_spent"}
    assert (await house.events(publisher.live)).count("session.started") == 1


@pytest.mark.case("auth-37")
async def test_a_link_ends_after_ten_minutes_and_with_the_next_one(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    await house.reader(publisher.live, email)
    older = await ask(house, publisher.live, email), await house.token(publisher.live, "magic_link")
    newer = await ask(house, publisher.live, email), await house.token(publisher.live, "magic_link")
    with pytest.raises(GatefoldError, match="token_invalid"):
        await redeem(house, publisher.live, older[1], older[0])
    assert isinstance(house.clock, FixedClock)
    house.clock.advance(timedelta(minutes=10))
    with pytest.raises(GatefoldError, match="token_expired"):
        await redeem(house, publisher.live, newer[1], newer[0])


async def test_a_link_of_another_account_or_of_a_former_address_is_not_valid(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    await house.reader(publisher.live, email)
    secret = await ask(house, publisher.live, email)
    token = await house.token(publisher.live, "magic_link")
    with pytest.raises(GatefoldError, match="token_invalid"):
        await redeem(house, publisher.test, token, secret)
    async with house.app.tenant(publisher.live, "meanwhile") as conn:
        await conn.execute("UPDATE credential SET email_index = substr(sha256('another'), 1, 16)")
    with pytest.raises(GatefoldError, match="token_invalid"):
        await redeem(house, publisher.live, token, secret)


async def test_a_reset_token_is_no_link_to_sign_in_with(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    await house.reader(publisher.live, email)
    request = recovery_pb2.RequestPasswordResetRequest(email=email)
    await house.call(house.page(publisher.live), house.recovery.RequestPasswordReset, request)
    with pytest.raises(GatefoldError, match="token_invalid"):
        await redeem(house, publisher.live, await house.token(publisher.live, "reset_password"), "gfbs_")
