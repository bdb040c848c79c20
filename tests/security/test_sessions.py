"""Attacks on sessions: seeing and ending those of others, and holding on to one that is over."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from gatefold.auth.v1 import device_pb2

from infra.local.valkey import ValkeyServer
from libs import ids
from libs.clock import FixedClock
from libs.config import Secret
from libs.errors import GatefoldError
from tests.conftest import ServiceDb
from tests.support.auth import AuthHouse, running


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


async def session_of(house: AuthHouse, access_token: str) -> str:
    return str((await house.claims(access_token))["sid"])


@pytest.mark.case("auth-50")
async def test_nobody_ends_or_sees_a_session_of_somebody_else(house: AuthHouse) -> None:
    one, other = await house.publisher(), await house.publisher()
    mine, theirs, abroad = house.fresh(), house.fresh(), house.fresh()
    for account, email in ((one.live, mine), (one.live, theirs), (other.live, abroad)):
        await house.reader(account, email)
    attacker = await house.holder(await house.sign_in(one.live, mine))
    staff = await house.sign_in_staff(other.owner_email)
    victims = [await house.sign_in(one.live, theirs), await house.sign_in(other.live, abroad), staff]
    method = house.devices.EndDevice
    for victim in victims:
        request = device_pb2.EndDeviceRequest(id=await session_of(house, victim.access_token))
        with pytest.raises(GatefoldError, match="session_not_found"):
            await house.call(attacker, method, request)
    unknown = device_pb2.EndDeviceRequest(id=ids.encode("ses", UUID(int=9)))
    with pytest.raises(GatefoldError, match="session_not_found"):
        await house.call(attacker, method, unknown)
    listed = await house.call(attacker, house.devices.ListDevices, device_pb2.ListDevicesRequest())
    assert isinstance(listed, device_pb2.ListDevicesResponse)
    assert [one.current for one in listed.data] == [True]
    await house.call(attacker, house.devices.EndOtherDevices, device_pb2.EndOtherDevicesRequest())
    for victim in victims:
        await house.refresh(victim.refresh_token)


async def test_a_reader_with_the_identifier_of_a_person_ends_no_staff_session(house: AuthHouse) -> None:
    publisher = await house.publisher()
    staff = await house.sign_in_staff(publisher.owner_email)
    email = house.fresh()
    await house.reader(publisher.live, email)
    reader = await house.holder(await house.sign_in(publisher.live, email))
    posing = replace(reader, subject=publisher.owner)
    request = device_pb2.EndDeviceRequest(id=await session_of(house, staff.access_token))
    with pytest.raises(GatefoldError, match="session_not_found"):
        await house.call(posing, house.devices.EndDevice, request)
    await house.refresh(staff.refresh_token)


@pytest.mark.case("auth-50")
async def test_keys_and_strangers_see_no_devices(house: AuthHouse) -> None:
    publisher = await house.publisher()
    for who in (house.page(publisher.live), house.anonymous(), house.staff(publisher.live)):
        for method, request in (
            (house.devices.ListDevices, device_pb2.ListDevicesRequest()),
            (house.devices.EndOtherDevices, device_pb2.EndOtherDevicesRequest()),
            (house.devices.SignOut, device_pb2.SignOutRequest()),
        ):
            with pytest.raises(GatefoldError, match=r"caller_kind_not_allowed|plane_not_allowed"):
                await house.call(who, method, request)


@pytest.mark.case("auth-50")
async def test_staff_end_no_readers_sessions_at_another_publisher(house: AuthHouse) -> None:
    one, other = await house.publisher(), await house.publisher()
    email = house.fresh()
    subject = await house.reader(one.live, email)
    tokens = await house.sign_in(one.live, email)
    request = device_pb2.EndSubscriberSessionsRequest(subscriber_id=ids.encode("subj", subject))
    answer = await house.call(house.staff(other.live), house.devices.EndSubscriberSessions, request)
    assert isinstance(answer, device_pb2.EndedSessions)
    assert answer.ended == 0
    await house.refresh(tokens.refresh_token)


@pytest.mark.case("auth-50")
async def test_nobody_has_more_sessions_than_can_be_listed_and_a_further_one_ends_the_oldest(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    await house.reader(publisher.live, email)
    first = await house.sign_in(publisher.live, email)
    second = await house.sign_in(publisher.live, email)
    for _ in range(12):
        # No more at once than wrong passwords are free: right ones are told from them only once they are hashed.
        await asyncio.gather(*(house.sign_in(publisher.live, email) for _ in range(8)))
    last = [await house.sign_in(publisher.live, email) for _ in range(3)]
    with pytest.raises(GatefoldError, match="invalid_grant"):
        await house.refresh(first.refresh_token)
    for tokens in (second, *last):
        assert (await house.refresh(tokens.refresh_token)).access_token
    who = await house.holder(last[-1])
    listed = await house.call(who, house.devices.ListDevices, device_pb2.ListDevicesRequest())
    assert isinstance(listed, device_pb2.ListDevicesResponse)
    assert len(listed.data) == 100
    # Somebody else's are not counted.
    other = house.fresh()
    await house.reader(publisher.live, other)
    await house.sign_in(publisher.live, other)
    assert (await house.refresh((await house.sign_in(publisher.live, email)).refresh_token)).access_token
