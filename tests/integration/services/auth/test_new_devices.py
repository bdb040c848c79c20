"""Mails about sign-ins: on devices that are new, and when somebody is signed out."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from gatefold.auth.v1 import account_pb2, device_pb2, session_pb2, subscriber_session_pb2
from gatefold.privacy.v1 import subject_data_pb2

from infra.local.valkey import ValkeyServer
from libs import caller, ids
from libs.caller import CallerKind
from libs.clock import FixedClock
from libs.config import Secret
from libs.errors import GatefoldError
from libs.postgres import PLATFORM
from libs.privacy import SubjectDataServicer
from libs.vault import Vault
from services.auth.__main__ import PERSONAL_TABLES
from services.auth.domain import device, roles, session
from tests.conftest import ServiceDb
from tests.support.auth import PASSWORD, AuthHouse, Publisher, running
from tests.support.places import write_places

LAPTOP = ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "203.0.113.77")
PHONE = ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605 Version/18 Safari/604", "198.51.100.9")

Reader = tuple[UUID, str, UUID]


@pytest.fixture
async def reader(house: AuthHouse) -> Reader:
    publisher = await house.publisher()
    email = house.fresh()
    return publisher.live, email, await house.reader(publisher.live, email)


async def sign_in(house: AuthHouse, someone: Reader, where: tuple[str, str]) -> session_pb2.Tokens:
    who = replace(house.page(someone[0]), user_agent=where[0], address=where[1])
    request = subscriber_session_pb2.SignInRequest(email=someone[1], password=PASSWORD)
    answer = await house.call(who, house.readers.SignIn, request)
    assert isinstance(answer, session_pb2.Tokens)
    return answer


async def sign_in_staff(house: AuthHouse, publisher: Publisher, where: tuple[str, str]) -> session_pb2.Tokens:
    who = replace(house.anonymous(), user_agent=where[0], address=where[1])
    request = session_pb2.SignInStaffRequest(
        email=publisher.owner_email, password=PASSWORD, account_id=ids.encode("acct", publisher.live)
    )
    answer = await house.call(who, house.sessions.SignInStaff, request)
    assert isinstance(answer, session_pb2.Tokens)
    return answer


async def mails(house: AuthHouse, owner: UUID, principal: UUID, purpose: str) -> int:
    async with house.app.tenant(owner, "count_mails", read_only=True) as conn:
        found: int = await conn.fetchval(
            "SELECT count(*) FROM challenge WHERE account_id = $1 AND subject_id = $2 AND purpose = $3",
            owner,
            principal,
            purpose,
        )
    return found


async def known(house: AuthHouse, owner: UUID, principal: UUID) -> int:
    async with house.app.tenant(owner, "count_sights", read_only=True) as conn:
        found: int = await conn.fetchval(
            "SELECT count(*) FROM device_sight WHERE account_id = $1 AND subject_id = $2", owner, principal
        )
    return found


def advance(house: AuthHouse, by: timedelta) -> None:
    assert isinstance(house.clock, FixedClock)
    house.clock.advance(by)


async def test_a_mail_tells_of_a_device_that_is_new_and_of_no_other(house: AuthHouse, reader: Reader) -> None:
    account, email, subject = reader
    await sign_in(house, reader, LAPTOP)
    await sign_in(house, reader, LAPTOP)
    assert await mails(house, account, subject, "new_device") == 0
    await sign_in(house, reader, PHONE)
    letter = await house.describe(await house.newest_challenge(account))
    assert (letter.purpose, letter.email) == ("new_device", email)
    assert (letter.details["device"], letter.details["address"]) == ("Safari on iPhone", "198.51.100.9")
    assert "UTC" in letter.details["time"]
    updated = (LAPTOP[0].replace("140.0", "141.0"), "203.0.200.1")
    for known in (PHONE, LAPTOP, updated):
        await sign_in(house, reader, known)
    assert await mails(house, account, subject, "new_device") == 1
    await sign_in(house, reader, (LAPTOP[0], PHONE[1]))
    assert await mails(house, account, subject, "new_device") == 2


@pytest.fixture(scope="module")
async def mapped(
    service_db: ServiceDb,
    keys_dsn: Secret,
    valkey_server: ValkeyServer,
    key_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[AuthHouse]:
    """auth whose operator has mounted a database of places."""
    folder = tmp_path_factory.mktemp("mapped")
    database = await service_db("auth")
    settings = {"GATEFOLD_PLACES_DATABASE": str(write_places(folder))}
    url = valkey_server.url().reveal()
    async with running(database, keys_dsn.reveal(), url, key_file, folder, FixedClock(), settings) as found:
        yield found


async def test_a_mail_tells_of_a_sign_in_from_farther_away_than_anybody_travels(mapped: AuthHouse) -> None:
    publisher = await mapped.publisher()
    account, email = publisher.live, mapped.fresh()
    someone = (account, email, await mapped.reader(account, email))
    await sign_in(mapped, someone, LAPTOP)
    advance(mapped, timedelta(hours=2))
    await sign_in(mapped, someone, PHONE)
    letter = await mapped.describe(await mapped.newest_challenge(account))
    assert (letter.purpose, letter.email) == ("impossible_travel", email)
    assert letter.details["place"] == "Sydney, Australia"
    assert await mails(mapped, account, someone[2], "new_device") == 0
    assert await mails(mapped, account, someone[2], "impossible_travel") == 1


async def test_who_had_the_time_to_travel_and_who_is_near_is_told_of_a_new_device_and_no_more(
    mapped: AuthHouse,
) -> None:
    publisher = await mapped.publisher()
    account, email = publisher.live, mapped.fresh()
    someone = (account, email, await mapped.reader(account, email))
    await sign_in(mapped, someone, LAPTOP)
    near = (PHONE[0], "203.0.200.7")
    await sign_in(mapped, someone, near)
    advance(mapped, timedelta(hours=19))
    await sign_in(mapped, someone, PHONE)
    advance(mapped, timedelta(minutes=1))
    await sign_in(mapped, someone, (PHONE[0], "10.1.2.3"))
    assert await mails(mapped, account, someone[2], "new_device") == 3
    assert await mails(mapped, account, someone[2], "impossible_travel") == 0


async def test_journeys_of_staff_are_told_of_as_well(mapped: AuthHouse) -> None:
    publisher = await mapped.publisher()
    await sign_in_staff(mapped, publisher, LAPTOP)
    await sign_in_staff(mapped, publisher, PHONE)
    assert await mails(mapped, PLATFORM, publisher.owner, "impossible_travel") == 1


async def test_a_device_not_used_for_90_days_is_new_again_and_one_in_use_is_not(
    house: AuthHouse, reader: Reader
) -> None:
    await sign_in(house, reader, LAPTOP)
    for _ in range(3):
        advance(house, timedelta(days=60))
        await sign_in(house, reader, LAPTOP)
    assert await mails(house, reader[0], reader[2], "new_device") == 0
    advance(house, device.KNOWN_FOR)
    await sign_in(house, reader, LAPTOP)
    assert await mails(house, reader[0], reader[2], "new_device") == 1


async def test_of_sign_ins_at_once_on_a_new_device_one_tells(house: AuthHouse, reader: Reader) -> None:
    await sign_in(house, reader, LAPTOP)
    await asyncio.gather(*(sign_in(house, reader, PHONE) for _ in range(4)))
    assert await mails(house, reader[0], reader[2], "new_device") == 1


async def test_only_so_many_devices_are_known(house: AuthHouse, reader: Reader) -> None:
    for number in range(device.MOST_KNOWN + 5):
        await sign_in(house, reader, (LAPTOP[0], f"10.{number}.0.1"))
        advance(house, timedelta(hours=1))
    assert await known(house, reader[0], reader[2]) == device.MOST_KNOWN


async def test_a_publishers_server_is_no_device_of_its_readers(house: AuthHouse, reader: Reader) -> None:
    await sign_in(house, reader, LAPTOP)
    who = replace(house.page(reader[0]), kind=CallerKind.SECRET_KEY, user_agent="python", address="192.0.2.1")
    request = subscriber_session_pb2.SignInRequest(email=reader[1], password=PASSWORD)
    await house.call(who, house.readers.SignIn, request)
    assert await mails(house, reader[0], reader[2], "new_device") == 0


async def test_staff_are_told_at_their_own_address_whichever_account_it_was(house: AuthHouse) -> None:
    publisher = await house.publisher()
    await sign_in_staff(house, publisher, LAPTOP)
    await sign_in_staff(house, publisher, PHONE)
    letter = await house.describe(await house.newest_challenge(PLATFORM))
    assert (letter.purpose, letter.email) == ("new_device", publisher.owner_email)


async def test_known_devices_are_erased_with_their_reader(house: AuthHouse, vault: Vault, reader: Reader) -> None:
    account, _, subject = reader
    await sign_in(house, reader, LAPTOP)
    await sign_in(house, reader, PHONE)
    assert await known(house, account, subject) == 2
    port = SubjectDataServicer("auth", house.app, vault, PERSONAL_TABLES, clock=house.clock)
    text = ids.encode("subj", subject)
    with caller.serving(house.service("compliance", account)):
        plan = await port.PlanErase(subject_data_pb2.PlanEraseRequest(subject_id=text), None)  # type: ignore[arg-type]
        await port.Erase(subject_data_pb2.EraseRequest(subject_id=text, plan_hash=plan.plan_hash), None)  # type: ignore[arg-type]
    assert await known(house, account, subject) == 0


async def end_own(house: AuthHouse, reader: Reader) -> None:
    old, new = [await house.sign_in(*reader[:2]) for _ in range(2)]
    claimed = await house.claims(old.access_token)
    who = await house.person("subj", new, account=reader[0])
    for _ in range(2):
        await house.call(who, house.devices.EndDevice, device_pb2.EndDeviceRequest(id=str(claimed["sid"])))


async def end_others(house: AuthHouse, reader: Reader) -> None:
    _, new = [await house.sign_in(*reader[:2]) for _ in range(2)]
    who = await house.person("subj", new, account=reader[0])
    for _ in range(2):
        await house.call(who, house.devices.EndOtherDevices, device_pb2.EndOtherDevicesRequest())


async def end_by_staff(house: AuthHouse, reader: Reader) -> None:
    await house.sign_in(*reader[:2])
    request = device_pb2.EndSubscriberSessionsRequest(subscriber_id=ids.encode("subj", reader[2]))
    for _ in range(2):
        await house.call(house.staff(reader[0], roles.SUPPORT), house.devices.EndSubscriberSessions, request)


async def spend_twice(house: AuthHouse, reader: Reader) -> None:
    first = await house.sign_in(*reader[:2])
    await house.refresh((await house.refresh(first.refresh_token)).refresh_token)
    for _ in range(2):
        with pytest.raises(GatefoldError, match="invalid_grant"):
            await house.refresh(first.refresh_token)


@pytest.mark.case("auth-50")
@pytest.mark.case("auth-58")
@pytest.mark.parametrize("end", [end_own, end_others, end_by_staff, spend_twice])
async def test_whoever_is_signed_out_by_another_is_told_once(
    house: AuthHouse, reader: Reader, end: Callable[[AuthHouse, Reader], Awaitable[None]]
) -> None:
    await end(house, reader)
    assert await mails(house, reader[0], reader[2], "session_ended") == 1
    letter = await house.describe(await house.newest_challenge(reader[0]))
    assert (letter.purpose, letter.email, letter.link) == ("session_ended", reader[1], "")


async def test_signing_out_oneself_is_no_news(house: AuthHouse, reader: Reader) -> None:
    tokens = await house.sign_in(*reader[:2])
    request = session_pb2.RevokeSessionRequest(refresh_token=tokens.refresh_token)
    await house.call(house.anonymous(), house.sessions.RevokeSession, request)
    assert await mails(house, reader[0], reader[2], "session_ended") == 0


async def test_a_member_whom_staff_sign_out_is_told(house: AuthHouse) -> None:
    publisher = await house.publisher()
    await house.sign_in_staff(publisher.owner_email, account=publisher.live)
    request = device_pb2.EndMemberSessionsRequest(member_id=ids.encode("mem", publisher.member))
    await house.call(house.staff(publisher.live), house.devices.EndMemberSessions, request)
    letter = await house.describe(await house.newest_challenge(PLATFORM))
    assert (letter.purpose, letter.email) == ("session_ended", publisher.owner_email)


async def require_factor(house: AuthHouse, publisher: Publisher, *, required: bool) -> None:
    request = account_pb2.UpdateSecurityPolicyRequest(require_staff_factor=required)
    await house.call(house.staff(publisher.live), house.accounts.UpdateSecurityPolicy, request)


@pytest.mark.case("auth-45")
async def test_a_policy_counts_for_sessions_that_began_before_it_from_their_next_refresh_on(house: AuthHouse) -> None:
    publisher = await house.publisher()
    tokens = await house.sign_in_staff(publisher.owner_email, account=publisher.live)
    assert (await house.claims(tokens.access_token))["acr"] == session.AAL1
    await require_factor(house, publisher, required=True)
    tokens = await house.refresh(tokens.refresh_token)
    claims = await house.claims(tokens.access_token)
    assert (claims["acr"], claims["scope"], "role" in claims) == (session.ENROL, "", False)
    await require_factor(house, publisher, required=False)
    claims = await house.claims((await house.refresh(tokens.refresh_token)).access_token)
    assert (claims["acr"], claims["role"]) == (session.AAL1, roles.OWNER)
