"""Attacks by registering: with somebody else's address, for somebody else's account."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infra.local.valkey import ValkeyServer
from libs import ids
from libs.clock import FixedClock
from libs.config import Secret
from libs.errors import GatefoldError, Kind
from tests.conftest import ServiceDb
from tests.support.auth import PASSWORD, AuthHouse, running

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
