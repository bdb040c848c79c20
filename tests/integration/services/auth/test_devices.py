"""Devices: what people see of their sessions, who ends which, and when idle and old ones end by themselves."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from gatefold.auth.v1 import device_pb2, session_pb2, subscriber_session_pb2, team_pb2
from gatefold.privacy.v1 import subject_data_pb2

from libs import caller, ids
from libs.caller import Caller
from libs.clock import FixedClock
from libs.errors import GatefoldError
from libs.privacy import SubjectDataServicer
from libs.vault import Vault
from services.auth.__main__ import PERSONAL_TABLES
from services.auth.domain import roles
from tests.support.auth import PASSWORD, AuthHouse

BROWSER = "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"
ADDRESS = "203.0.113.77"


async def reader_of(house: AuthHouse) -> tuple[UUID, str, UUID]:
    publisher = await house.publisher()
    email = house.fresh()
    return publisher.live, email, await house.reader(publisher.live, email)


async def sign_in_from(house: AuthHouse, account: UUID, email: str) -> session_pb2.Tokens:
    who = replace(house.page(account), user_agent=BROWSER, address=ADDRESS)
    request = subscriber_session_pb2.SignInRequest(email=email, password=PASSWORD)
    answer = await house.call(who, house.readers.SignIn, request)
    assert isinstance(answer, session_pb2.Tokens)
    return answer


async def devices(house: AuthHouse, who: Caller) -> list[device_pb2.SignedInDevice]:
    answer = await house.call(who, house.devices.ListDevices, device_pb2.ListDevicesRequest())
    assert isinstance(answer, device_pb2.ListDevicesResponse)
    return list(answer.data)


async def alive(house: AuthHouse, tokens: session_pb2.Tokens) -> bool:
    try:
        tokens.CopyFrom(await house.refresh(tokens.refresh_token))
    except GatefoldError:
        return False
    else:
        return True


def advance(house: AuthHouse, by: timedelta) -> None:
    assert isinstance(house.clock, FixedClock)
    house.clock.advance(by)


@pytest.mark.case("auth-50")
async def test_a_reader_sees_where_they_are_signed_in_and_ends_one_of_them(house: AuthHouse) -> None:
    account, email, _ = await reader_of(house)
    old = await sign_in_from(house, account, email)
    advance(house, timedelta(minutes=3))
    new = await house.sign_in(account, email)
    who = await house.holder(new)
    newest, oldest = await devices(house, who)
    assert (newest.current, oldest.current) == (True, False)
    assert (oldest.user_agent, oldest.address) == (BROWSER, ADDRESS)
    assert oldest.account_id == ids.encode("acct", account)
    assert newest.signed_in_at.ToDatetime() - oldest.signed_in_at.ToDatetime() >= timedelta(minutes=3)
    assert oldest.expires_at.ToDatetime() - oldest.last_used_at.ToDatetime() == timedelta(days=30)
    await house.call(who, house.devices.EndDevice, device_pb2.EndDeviceRequest(id=oldest.id))
    assert [one.id for one in await devices(house, who)] == [newest.id]
    assert not await alive(house, old)
    assert await alive(house, new)


async def test_the_last_use_is_the_last_refresh(house: AuthHouse) -> None:
    account, email, _ = await reader_of(house)
    tokens = await house.sign_in(account, email)
    advance(house, timedelta(hours=5))
    assert await alive(house, tokens)
    (one,) = await devices(house, await house.holder(tokens))
    assert one.last_used_at.ToDatetime() - one.signed_in_at.ToDatetime() >= timedelta(hours=5)


@pytest.mark.case("auth-50")
async def test_all_others_end_and_the_one_in_use_stays(house: AuthHouse) -> None:
    account, email, _ = await reader_of(house)
    others = [await house.sign_in(account, email) for _ in range(3)]
    own = await house.sign_in(account, email)
    answer = await house.call(
        await house.holder(own), house.devices.EndOtherDevices, device_pb2.EndOtherDevicesRequest()
    )
    assert isinstance(answer, device_pb2.EndedSessions)
    assert answer.ended == 3
    assert [await alive(house, one) for one in (*others, own)] == [False, False, False, True]


@pytest.mark.case("auth-49")
async def test_signing_out_ends_the_session_in_use_alone(house: AuthHouse) -> None:
    account, email, _ = await reader_of(house)
    other, own = await house.sign_in(account, email), await house.sign_in(account, email)
    await house.call(await house.holder(own), house.devices.SignOut, device_pb2.SignOutRequest())
    assert [await alive(house, one) for one in (other, own)] == [True, False]


@pytest.mark.case("auth-50")
async def test_staff_see_and_end_their_sessions_in_every_account_they_work_in(house: AuthHouse) -> None:
    one, other = await house.publisher(), await house.publisher()
    invitation = team_pb2.InviteMemberRequest(email=one.owner_email, role=team_pb2.ROLE_SUPPORT)
    await house.call(house.staff(other.live), house.team.InviteMember, invitation)
    await house.accept(await house.token(other.live, "invite_member"))
    tokens = [
        await house.sign_in_staff(one.owner_email, account=account)
        for account in (one.live, one.test, other.live, one.live)
    ]
    who = await house.holder(tokens[-1])
    assert [device.account_id for device in await devices(house, who)] == [
        ids.encode("acct", account) for account in (one.live, other.live, one.test, one.live)
    ]
    # Staff of another publisher are in nobody's way.
    stranger = await house.sign_in_staff(other.owner_email)
    await house.call(who, house.devices.EndOtherDevices, device_pb2.EndOtherDevicesRequest())
    assert [await alive(house, token) for token in tokens] == [False, False, False, True]
    assert await alive(house, stranger)


@pytest.mark.case("auth-50")
async def test_support_ends_all_sessions_of_a_reader(house: AuthHouse) -> None:
    account, email, subject = await reader_of(house)
    neighbour = house.fresh()
    await house.reader(account, neighbour)
    tokens = [await house.sign_in(account, email), await house.sign_in(account, email)]
    beside = await house.sign_in(account, neighbour)
    request = device_pb2.EndSubscriberSessionsRequest(subscriber_id=ids.encode("subj", subject))
    method = house.devices.EndSubscriberSessions
    with pytest.raises(GatefoldError, match="scope_missing"):
        await house.call(house.staff(account, roles.READ_ONLY), method, request)
    answer = await house.call(house.staff(account, roles.SUPPORT), method, request)
    assert isinstance(answer, device_pb2.EndedSessions)
    assert answer.ended == 2
    assert [await alive(house, one) for one in (*tokens, beside)] == [False, False, True]


@pytest.mark.case("auth-50")
async def test_all_sessions_of_a_member_end_here_alone_and_an_owners_by_owners(
    house: AuthHouse,
) -> None:
    one, other = await house.publisher(), await house.publisher()
    invitation = team_pb2.InviteMemberRequest(email=one.owner_email, role=team_pb2.ROLE_SUPPORT)
    await house.call(house.staff(other.live), house.team.InviteMember, invitation)
    await house.accept(await house.token(other.live, "invite_member"))
    here = [await house.sign_in_staff(one.owner_email, account=account) for account in (one.live, one.test)]
    there = await house.sign_in_staff(one.owner_email, account=other.live)
    request = device_pb2.EndMemberSessionsRequest(member_id=ids.encode("mem", one.member))
    method = house.devices.EndMemberSessions
    with pytest.raises(GatefoldError, match="scope_missing"):
        await house.call(house.staff(one.live, roles.SUPPORT), method, request)
    with pytest.raises(GatefoldError, match="member_not_found"):
        await house.call(house.staff(other.live, roles.ADMIN), method, request)
    with pytest.raises(GatefoldError, match="role_above_own"):
        await house.call(house.staff(one.live, roles.ADMIN), method, request)
    assert [await alive(house, token) for token in (*here, there)] == [True, True, True]
    await house.call(house.staff(one.live), method, request)
    assert [await alive(house, token) for token in (*here, there)] == [False, False, True]
    async with house.app.tenant(other.live, "look", read_only=True) as conn:
        member = await conn.fetchval("SELECT id FROM membership WHERE role = 'support'")
    request = device_pb2.EndMemberSessionsRequest(member_id=ids.encode("mem", member))
    await house.call(house.staff(other.live, roles.ADMIN), method, request)
    assert not await alive(house, there)


@pytest.mark.case("auth-48")
async def test_staff_who_leave_for_an_hour_sign_in_again(house: AuthHouse) -> None:
    publisher = await house.publisher()
    tokens = await house.sign_in_staff(publisher.owner_email)
    advance(house, timedelta(minutes=59, seconds=59))
    assert await alive(house, tokens)
    advance(house, timedelta(hours=1))
    assert not await alive(house, tokens)


@pytest.mark.case("auth-48")
async def test_staff_sign_in_every_day_and_no_token_outlives_the_session(house: AuthHouse) -> None:
    publisher = await house.publisher()
    tokens = await house.sign_in_staff(publisher.owner_email)
    for _ in range(47):
        advance(house, timedelta(minutes=30))
        assert await alive(house, tokens)
    advance(house, timedelta(minutes=29))
    assert await alive(house, tokens)
    claims = await house.claims(tokens.access_token)
    assert 0 < int(str(claims["exp"])) - int(str(claims["iat"])) <= 60
    advance(house, timedelta(minutes=1))
    assert not await alive(house, tokens)


async def test_a_session_left_idle_is_not_listed(house: AuthHouse) -> None:
    publisher = await house.publisher()
    await house.sign_in_staff(publisher.owner_email)
    advance(house, timedelta(hours=2))
    own = await house.sign_in_staff(publisher.owner_email)
    assert len(await devices(house, await house.holder(own))) == 1


async def test_the_database_holds_no_device_in_the_clear(house: AuthHouse) -> None:
    account, email, _ = await reader_of(house)
    await sign_in_from(house, account, email)
    async with house.app.tenant(account, "dump", read_only=True) as conn:
        dumped = " ".join(row[0] for row in await conn.fetch("SELECT session::text FROM session"))
    for text in (BROWSER, ADDRESS):
        assert text not in dumped
        assert text.encode().hex() not in dumped
    assert ADDRESS not in house.log.getvalue()


async def test_a_download_of_ones_data_holds_the_devices_and_an_erasure_takes_them(
    house: AuthHouse, vault: Vault
) -> None:
    account, email, subject = await reader_of(house)
    await sign_in_from(house, account, email)
    port = SubjectDataServicer("auth", house.app, vault, PERSONAL_TABLES, clock=house.clock)
    text = ids.encode("subj", subject)
    with caller.serving(house.service("compliance", account)):
        exported = b"".join(
            [part.json_lines async for part in port.Export(subject_data_pb2.ExportRequest(subject_id=text), None)]  # type: ignore[arg-type]
        ).decode()
        assert BROWSER in exported
        assert ADDRESS in exported
        plan = await port.PlanErase(subject_data_pb2.PlanEraseRequest(subject_id=text), None)  # type: ignore[arg-type]
        await port.Erase(subject_data_pb2.EraseRequest(subject_id=text, plan_hash=plan.plan_hash), None)  # type: ignore[arg-type]
    async with house.app.tenant(account, "count", read_only=True) as conn:
        assert await conn.fetchval("SELECT count(*) FROM session WHERE subject_id = $1", subject) == 0
