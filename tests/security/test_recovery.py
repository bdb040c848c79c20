"""Attacks on the ways back in: who is registered, whose mailbox, whose host, what a scanner opens."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from gatefold.auth.v1 import recovery_pb2
from google.api import annotations_pb2

from infra.local.valkey import ValkeyServer
from libs import ids
from libs.clock import FixedClock
from libs.config import Secret
from libs.errors import GatefoldError
from libs.postgres import PLATFORM
from tests.conftest import ServiceDb
from tests.support.auth import AuthHouse, running

HOURLY, DAILY = 5, 20
NEW = "an entirely different phrase"


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


def ways(house: AuthHouse, account: UUID) -> dict[str, Any]:
    """Returns each way to have a mail sent to an address."""
    page = house.page(account)

    def asking(who: Any, method: Any, request: Any) -> Any:
        return lambda email: house.call(who, method, request(email=email))

    rpc, pb = house.recovery, recovery_pb2
    return {
        "reset": asking(page, rpc.RequestPasswordReset, pb.RequestPasswordResetRequest),
        "staff": asking(house.anonymous(), rpc.RequestStaffPasswordReset, pb.RequestStaffPasswordResetRequest),
        "resend": asking(page, rpc.ResendVerification, pb.ResendVerificationRequest),
        "magic": asking(page, rpc.RequestMagicLink, pb.RequestMagicLinkRequest),
    }


STEPS = {"ask", "send_again", "find_credential", "find_person", "find_account", "read_address", "read_persons"}


def worked(house: AuthHouse) -> dict[tuple[str, str], float]:
    """Returns how many transactions ended, by label and outcome; what goes on in the background is left out."""
    samples = [one for family in house.telemetry.registry.collect() for one in family.samples]
    return {
        (one.labels["label"], one.labels["outcome"]): one.value
        for one in samples
        if one.name == "gatefold_postgres_transaction_seconds_count" and one.labels["label"] in STEPS
    }


@pytest.mark.case("auth-19")
@pytest.mark.parametrize("way", ["reset", "staff", "resend", "magic"])
async def test_asking_for_a_mail_tells_nothing_of_who_has_the_address(house: AuthHouse, way: str) -> None:
    publisher = await house.publisher()
    known, waiting = house.fresh(), house.fresh()
    await house.reader(publisher.live, known)
    await house.register(publisher.live, waiting)
    ask = ways(house, publisher.live)[way]
    await ask(house.fresh("warm"))
    answers, work = [], []
    for email in (known, waiting, publisher.owner_email, house.fresh("nobody"), known):
        before, units = worked(house), house.units()
        answer = await ask(email)
        assert house.units() == units, "nothing is hashed"
        work.append(
            {key: value - before.get(key, 0) for key, value in worked(house).items() if value != before.get(key)}
        )
        assert len(answer.ListFields()) == (1 if way == "magic" else 0)
        answers.append(answer.ByteSize())
    assert len(set(answers)) == 1
    assert all(one == work[0] for one in work), work
    assert work[0], "the work is counted"


@pytest.mark.case("auth-19")
@pytest.mark.parametrize("way", ["reset", "staff", "magic"])
async def test_only_who_has_the_address_is_written_to(house: AuthHouse, way: str) -> None:
    publisher = await house.publisher()
    known, waiting = house.fresh(), house.fresh()
    await house.reader(publisher.live, known)
    await house.register(publisher.live, waiting)
    has = publisher.owner_email if way == "staff" else known
    account = PLATFORM if way == "staff" else publisher.live
    for email in (known, waiting, publisher.owner_email, house.fresh("nobody")):
        await ways(house, publisher.live)[way](email)
        challenge = await house.newest_challenge(account)
        if email == has:
            assert (await house.describe(challenge)).email == email
            continue
        with pytest.raises(GatefoldError, match="challenge_over"):
            await house.describe(challenge)


async def mailed(house: AuthHouse, account: UUID) -> int:
    """How many mails were asked of notify for an account."""
    return (await house.events(account)).count("challenge.requested")


@pytest.mark.case("auth-18")
@pytest.mark.case("auth-19")
@pytest.mark.parametrize("whose", ["reader", "nobody"])
async def test_a_mailbox_gets_few_mails_whoever_asks_for_them_and_however(house: AuthHouse, whose: str) -> None:
    publisher = await house.publisher()
    email, clock = house.fresh(), cast("FixedClock", house.clock)
    if whose == "reader":
        await house.reader(publisher.live, email)
        clock.advance(timedelta(days=1))
    before = await mailed(house, publisher.live)
    ask = ways(house, publisher.live)

    async def register(email: str) -> None:
        await house.register(publisher.live, email, key=house.request_id())

    several = (ask["magic"], ask["resend"], register)
    answers = [await each(email) for each in several for _ in range(3)]
    assert await mailed(house, publisher.live) - before == HOURLY, "in a row"
    assert len({answer.ByteSize() for answer in answers[:3]}) == 1
    clock.advance(timedelta(hours=1))
    await asyncio.gather(*(each(email) for each in several for _ in range(4)))
    assert await mailed(house, publisher.live) - before == 2 * HOURLY, "in parallel"
    for _ in range(4):
        clock.advance(timedelta(hours=1))
        await asyncio.gather(*(ask["magic"](email) for _ in range(HOURLY + 1)))
    assert await mailed(house, publisher.live) - before == DAILY
    other = house.fresh()
    await ask["magic"](other)
    assert await mailed(house, publisher.live) - before == DAILY + 1, "a mailbox by itself"
    clock.advance(timedelta(days=1))
    await ask["magic"](email)
    assert await mailed(house, publisher.live) - before == DAILY + 2


async def test_staffs_mailboxes_get_few_mails_too(house: AuthHouse) -> None:
    publisher = await house.publisher()
    before = await mailed(house, PLATFORM)
    await asyncio.gather(*(ways(house, publisher.live)["staff"](publisher.owner_email) for _ in range(HOURLY + 3)))
    assert await mailed(house, PLATFORM) - before == HOURLY


@pytest.mark.case("auth-32")
async def test_who_uses_up_the_mails_of_a_mailbox_keeps_its_owner_from_no_new_password(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    await house.reader(publisher.live, email)
    ask = ways(house, publisher.live)
    for _ in range(HOURLY):
        await ask["magic"](email)
    await ask["reset"](email)
    token = await house.token(publisher.live, "reset_password")
    before = await mailed(house, publisher.live)
    await ask["reset"](email)
    assert await mailed(house, publisher.live) == before, "the one that was sent is to be used"
    await house.complete_reset(token, NEW)


async def test_a_registration_whose_mail_was_one_too_many_is_mailed_when_asked_for_later(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    for _ in range(HOURLY):
        await ways(house, publisher.live)["magic"](email)
    before = await mailed(house, publisher.live)
    await house.register(publisher.live, email)
    assert await mailed(house, publisher.live) == before
    cast("FixedClock", house.clock).advance(timedelta(hours=1))
    await ways(house, publisher.live)["resend"](email)
    async with house.database.jobs.transaction("read_outbox") as conn:
        newest = await conn.fetchval(
            "SELECT sequence FROM outbox WHERE account_id = $1 ORDER BY position DESC LIMIT 1", publisher.live
        )
    assert newest == 1, "consumers wait for no event that never was"
    await house.verify(publisher.live, await house.token(publisher.live, "verify_registration"))


async def test_nobody_floods_a_mailbox_by_moving_their_own_account_to_it(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email, victim = house.fresh("mallory"), house.fresh()
    await house.reader(publisher.live, email)
    who = await house.holder(await house.sign_in(publisher.live, email))
    before = await mailed(house, publisher.live)
    for _ in range(HOURLY + 3):
        request = recovery_pb2.RequestEmailChangeRequest(email=victim)
        await house.call(replace(who, request_id=house.request_id()), house.recovery.RequestEmailChange, request)
    assert await mailed(house, publisher.live) - before == HOURLY


async def test_a_mail_goes_to_the_proven_address_and_not_to_one_that_is_found_alike(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = "melissa@example.com"
    await house.reader(publisher.live, email)
    # The long s folds to s: another mailbox, the same look-up value.
    await ways(house, publisher.live)["reset"]("meli\u017fsa@example.com")
    assert (await house.describe(await house.newest_challenge(publisher.live))).email == email


async def test_a_token_made_for_nobody_opens_nothing_even_when_the_address_is_registered_later(
    house: AuthHouse,
) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    await ways(house, publisher.live)["reset"](email)
    challenge = await house.newest_challenge(publisher.live)
    await house.reader(publisher.live, email)
    with pytest.raises(GatefoldError, match="challenge_over"):
        await house.describe(challenge)


@pytest.mark.case("auth-35")
async def test_a_link_leads_where_the_publisher_said_with_its_token_out_of_sight_of_servers(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    await house.reader(publisher.live, email)
    for way, account, host in (("reset", publisher.live, "daily.example"), ("magic", publisher.live, "daily.example")):
        await ways(house, publisher.live)[way](email)
        link = (await house.describe(await house.newest_challenge(account))).link
        parts = urlsplit(link)
        assert (parts.scheme, parts.netloc, parts.query) == ("https", host, "from=mail")
        assert "gfct_" in parts.fragment
        assert "gfct_" not in link.partition("#")[0]


@pytest.mark.case("auth-35")
def test_no_get_takes_a_token() -> None:
    service = recovery_pb2.DESCRIPTOR.services_by_name["RecoveryService"]
    routes = [method.GetOptions().Extensions[annotations_pb2.http] for method in service.methods]
    assert {route.WhichOneof("pattern") for route in routes} == {"post"}
    assert all(route.body == "*" and "{" not in route.post for route in routes)


async def test_a_reset_ends_sign_ins_that_wait_for_more(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    subject = await house.reader(publisher.live, email)
    async with house.app.tenant(publisher.live, "wait") as conn:
        await conn.execute(
            "INSERT INTO sign_in (account_id, id, kind, live, principal_id, proven, next, methods, expires_at)"
            " VALUES ($1, $2, 'SUBSCRIBER', true, $3, '{password}', 'second_factor', '{totp}', $4)",
            publisher.live,
            UUID(int=5),
            subject,
            house.clock.wall(),
        )
    await ways(house, publisher.live)["reset"](email)
    await house.complete_reset(await house.token(publisher.live, "reset_password"), NEW)
    async with house.app.tenant(publisher.live, "look", read_only=True) as conn:
        assert await conn.fetchval("SELECT count(*) FROM sign_in") == 0


async def test_nothing_secret_is_logged_or_told(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh("recovered")
    await house.reader(publisher.live, email)
    secret = (await ways(house, publisher.live)["magic"](email)).browser_secret
    link = await house.token(publisher.live, "magic_link")
    await ways(house, publisher.live)["reset"](email)
    token = await house.token(publisher.live, "reset_password")
    refused = ""
    await house.complete_reset(token, "a phrase to be found in logs")
    for call in (house.complete_reset(token, NEW), house.complete_reset("gfct_invented", NEW)):
        with pytest.raises(GatefoldError) as raised:
            await call
        refused += str(raised.value)
    async with house.database.jobs.transaction("read_outbox") as conn:
        events = b"".join(row["envelope"] for row in await conn.fetch("SELECT envelope FROM outbox"))
    for word in (email, secret, link, token, "to be found in logs", NEW):
        assert word not in house.log.getvalue()
        assert word not in refused
        assert word.encode() not in events
    assert ids.encode("chal", await house.newest_challenge(publisher.live)).encode() in events


async def test_a_mail_that_comes_too_late_tells_no_more_of_who_has_the_address(house: AuthHouse) -> None:
    publisher = await house.publisher()
    known = house.fresh()
    await house.reader(publisher.live, known)
    asked = []
    for email in (known, house.fresh("nobody")):
        await ways(house, publisher.live)["reset"](email)
        asked.append(await house.newest_challenge(publisher.live))
    assert isinstance(house.clock, FixedClock)
    house.clock.advance(timedelta(hours=2))
    for challenge, reason in zip(asked, ("challenge_expired", "challenge_over"), strict=True):
        with pytest.raises(GatefoldError, match=reason):
            await house.describe(challenge)
