"""Attacks by registering: with somebody else's address, for somebody else's account."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from gatefold.auth.v1 import recovery_pb2

from infra.local.valkey import ValkeyServer
from libs import ids
from libs.caller import Caller
from libs.clock import FixedClock
from libs.config import Secret
from libs.errors import GatefoldError, Kind
from tests.conftest import ServiceDb
from tests.support.auth import PASSWORD, AuthHouse, running
from tests.support.factors import complete, with_phone

STRANGER = "the password of a stranger"


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


@pytest.mark.parametrize("kept", ["", "gfbs_", "gfbs_" + "a" * 43, "\u00e4"])
async def test_a_strangers_password_does_not_count_in_the_browser_of_whoever_reads_the_mail(
    house: AuthHouse, kept: str
) -> None:
    publisher = await house.publisher()
    email = house.fresh("victim")
    await house.register(publisher.live, email, STRANGER)
    token = await house.token(publisher.live, "verify_registration")
    with pytest.raises(GatefoldError) as raised:
        await house.verify(publisher.live, token, browser_secret=kept)
    assert (raised.value.kind, raised.value.reason) == (Kind.INVALID, "password_required")
    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await house.sign_in(publisher.live, email, STRANGER)
    # The refusal left the link as it was: the mailbox's owner chooses.
    subject = await house.verify(publisher.live, token, browser_secret=kept, password=PASSWORD)
    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await house.sign_in(publisher.live, email, STRANGER)
    assert (await house.sign_in(publisher.live, email)).principal_id == ids.encode("subj", subject)


async def test_what_another_registration_left_in_a_browser_lets_no_strangers_password_count(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh("victim")
    own = await house.register(publisher.live, email)
    other = await house.register(publisher.live, house.fresh())
    await house.register(publisher.live, email, STRANGER)
    token = await house.token(publisher.live, "verify_registration")
    for kept in (own, other):
        with pytest.raises(GatefoldError, match="password_required"):
            await house.verify(publisher.live, token, browser_secret=kept)


async def test_a_password_chosen_with_the_link_is_checked_like_any_other_and_leaves_the_link(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh("victim")
    await house.register(publisher.live, email, STRANGER)
    token = await house.token(publisher.live, "verify_registration")
    for refused, reason in (("too short", "password_too_short"), ("x" * 1025, "password_too_long")):
        with pytest.raises(GatefoldError, match=reason):
            await house.verify(publisher.live, token, browser_secret="", password=refused)
    await house.verify(publisher.live, token, browser_secret="", password=PASSWORD)


async def test_a_stranger_writes_no_words_into_the_mail_to_somebody_elses_mailbox(house: AuthHouse) -> None:
    publisher = await house.publisher()
    words = "Rita, your account is shut! Open https://evil.example"
    await house.register(publisher.live, house.fresh("victim"), STRANGER, words)
    letter = await house.describe(await house.newest_challenge(publisher.live))
    assert (letter.purpose, letter.name) == ("verify_registration", "")
    assert words not in str(letter)


@pytest.mark.case("auth-18")
async def test_what_the_browser_keeps_tells_nothing_and_is_the_same_for_a_repetition(house: AuthHouse) -> None:
    publisher = await house.publisher()
    known, new = house.fresh(), house.fresh()
    await house.reader(publisher.live, known)
    other = await house.register(publisher.live, known)
    first, again = [await house.register(publisher.live, new, key="lost-answer") for _ in range(2)]
    assert first == again
    assert first != other
    assert (len(first), first[:5]) == (len(other), other[:5])
    token = await house.token(publisher.live, "verify_registration")
    await house.verify(publisher.live, token, browser_secret=again)


async def ask_for_address(house: AuthHouse, who: Caller, email: str) -> str:
    request = recovery_pb2.RequestEmailChangeRequest(email=email)
    answer = await house.call(who, house.recovery.RequestEmailChange, request)
    assert isinstance(answer, recovery_pb2.RequestEmailChangeResponse)
    return answer.browser_secret


async def confirm_address(house: AuthHouse, token: str, *, kept: str = "", password: str = "") -> None:
    request = recovery_pb2.ConfirmEmailChangeRequest(token=token, browser_secret=kept, password=password)
    await house.call(house.anonymous(), house.recovery.ConfirmEmailChange, request)


@pytest.mark.case("auth-36")
async def test_whoever_reads_the_mail_lends_their_address_to_no_strangers_account(house: AuthHouse) -> None:
    publisher = await house.publisher()
    stranger, victim = house.fresh("stranger"), house.fresh("victim")
    await house.reader(publisher.live, stranger, STRANGER)
    who = await house.holder(await house.sign_in(publisher.live, stranger, STRANGER))
    kept = await ask_for_address(house, who, victim)
    token = await house.token(publisher.live, "change_email")
    other = await house.register(publisher.live, house.fresh())
    for guess in ("", "gfbs_" + "a" * 43, other):
        with pytest.raises(GatefoldError) as raised:
            await confirm_address(house, token, kept=guess)
        assert (raised.value.kind, raised.value.reason) == (Kind.INVALID, "password_required")
    reasons = []
    for _ in range(6):
        with pytest.raises(GatefoldError) as raised:
            await confirm_address(house, token, password=PASSWORD)
        reasons.append(raised.value.reason)
    assert reasons == ["credentials_invalid"] * 5 + ["second_factor_locked"], "the password is not guessed here either"
    assert (await house.sign_in(publisher.live, stranger, STRANGER)).access_token
    # The link is as it was for who asked.
    await confirm_address(house, token, kept=kept)
    assert (await house.sign_in(publisher.live, victim, STRANGER)).access_token


@pytest.mark.case("auth-36")
async def test_a_new_address_is_confirmed_with_the_password_in_another_browser(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email, new = house.fresh(), house.fresh("new")
    await house.reader(publisher.live, email)
    who = await house.holder(await house.sign_in(publisher.live, email))
    taken = house.fresh()
    await house.reader(publisher.live, taken)
    known, unknown = await ask_for_address(house, who, taken), await ask_for_address(house, who, new)
    assert (len(known), known[:5]) == (len(unknown), unknown[:5]), "what is kept tells nothing of who has the address"
    token = await house.token(publisher.live, "change_email")
    await confirm_address(house, token, password=PASSWORD)
    assert (await house.sign_in(publisher.live, new)).access_token


async def test_a_sign_in_that_waits_dies_with_the_credential_that_another_replaces(house: AuthHouse) -> None:
    someone, phone = await with_phone(house)
    waiting = await someone.sign_in()
    present = house.fresh("present")
    house.subscriber.subjects[(someone.publisher.live, present)] = ids.encode("subj", someone.subject)
    await house.reader(someone.publisher.live, present, STRANGER)
    with pytest.raises(GatefoldError, match="sign_in_expired"):
        await complete(house, waiting, phone.next_code())
