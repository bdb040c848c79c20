"""Accounts and the clock of test accounts."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from gatefold.auth.v1 import account_pb2
from gatefold.clock.v1 import clock_pb2

from libs import caller, ids
from libs.errors import GatefoldError, Kind
from libs.outbox import outbox_waiting
from services.auth.domain import roles
from tests.support.auth import AuthHouse


def opening(house: AuthHouse, **changes: str) -> account_pb2.CreateAccountRequest:
    values = {"name": "The Daily", "owner_email": house.fresh("owner"), "reader_url": "https://daily.example/in"}
    return account_pb2.CreateAccountRequest(**{**values, **changes})


async def create(
    house: AuthHouse, request: account_pb2.CreateAccountRequest, key: str | None = None
) -> account_pb2.Account:
    answer = await house.call(house.operator(key), house.accounts.CreateAccount, request)
    assert isinstance(answer, account_pb2.Account)
    return answer


async def show(house: AuthHouse, account: UUID, *, live: bool = True) -> account_pb2.Account:
    who = house.page(account, live=live)
    answer = await house.call(who, house.accounts.GetAccount, account_pb2.GetAccountRequest())
    assert isinstance(answer, account_pb2.Account)
    return answer


async def advance(
    house: AuthHouse, account: UUID, seconds: int, *, live: bool = False
) -> account_pb2.AdvanceTestClockResponse:
    who = house.staff(account, live=live)
    request = account_pb2.AdvanceTestClockRequest(seconds=seconds)
    answer = await house.call(who, house.accounts.AdvanceTestClock, request)
    assert isinstance(answer, account_pb2.AdvanceTestClockResponse)
    return answer


async def test_an_account_opens_with_its_test_sibling_and_an_invitation_for_its_owner(house: AuthHouse) -> None:
    opened = await create(house, opening(house, time_zone="Europe/Paris"))
    live, test = ids.decode("acct", opened.id), ids.decode("acct", opened.sibling_id)
    assert (opened.live, opened.name, opened.time_zone) == (True, "The Daily", "Europe/Paris")
    sibling = await show(house, test, live=False)
    assert (sibling.id, sibling.sibling_id, sibling.live) == (opened.sibling_id, opened.id, False)
    assert await show(house, live) == opened
    assert await house.events(live) == ["challenge.requested", "account.created"]
    assert await house.events(test) == ["account.created"]
    described = await house.call(
        house.service("notify", live), house.accounts.DescribeAccount, account_pb2.DescribeAccountRequest()
    )
    assert described == opened


async def test_an_account_is_opened_once_for_one_key(house: AuthHouse) -> None:
    request = opening(house)
    answers = await asyncio.gather(*(create(house, request, "open-1") for _ in range(3)), return_exceptions=True)
    opened = [answer for answer in answers if isinstance(answer, account_pb2.Account)]
    assert opened
    assert {error.reason for error in answers if isinstance(error, GatefoldError)} <= {"idempotency_in_flight"}
    again = await create(house, request, "open-1")
    assert {answer.id for answer in opened} == {again.id}
    assert (await house.events(ids.decode("acct", again.id))).count("challenge.requested") == 1
    with pytest.raises(GatefoldError, match="idempotency_key_reused"):
        await create(house, opening(house), "open-1")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": " "}, "name_invalid"),
        ({"name": "Daily\nNews"}, "name_invalid"),
        ({"owner_email": "nobody"}, "email_invalid"),
        ({"time_zone": "Mars/Olympus"}, "time_zone_unknown"),
        ({"time_zone": "../../etc/passwd"}, "time_zone_unknown"),
        ({"reader_url": "javascript:alert(1)"}, "reader_url_invalid"),
        ({"reader_url": "https://daily.example@evil.example/"}, "reader_url_invalid"),
        ({"reader_url": "/welcome"}, "reader_url_invalid"),
    ],
)
async def test_settings_that_cannot_be_used_are_refused(house: AuthHouse, change: dict[str, str], reason: str) -> None:
    with pytest.raises(GatefoldError) as raised:
        await create(house, opening(house, **change))
    assert (raised.value.kind, raised.value.reason) == (Kind.INVALID, reason)


async def test_the_operator_lists_accounts_newest_first_and_nobody_else_does(house: AuthHouse) -> None:
    opened = [await create(house, opening(house)) for _ in range(3)]
    seen: list[str] = []
    cursor = ""
    while len(seen) < 6:
        request = account_pb2.ListAccountsRequest(limit=2, cursor=cursor)
        answer = await house.call(house.operator(), house.accounts.ListAccounts, request)
        assert isinstance(answer, account_pb2.ListAccountsResponse)
        seen += [one.id for one in answer.data]
        cursor = answer.next_cursor
    # The sibling's identifier is made right after the live one's.
    expected = [one for account in reversed(opened) for one in (account.sibling_id, account.id)]
    assert seen[:6] == expected
    account = ids.decode("acct", opened[0].id)
    for who in (house.staff(account), house.page(account), house.anonymous()):
        with pytest.raises(GatefoldError) as raised:
            await house.call(who, house.accounts.ListAccounts, account_pb2.ListAccountsRequest())
        assert raised.value.kind is Kind.FORBIDDEN


async def test_a_test_clock_moves_in_every_service_and_answers_when_all_is_quiet(house: AuthHouse) -> None:
    publisher = await house.publisher()
    house.clocks["billing"].waiting[:] = [3, 1, 0, 2]
    answer = await advance(house, publisher.test, 86_400)
    assert answer.drained
    assert answer.now.ToDatetime() == (house.clock.wall() + timedelta(days=1)).replace(tzinfo=None)
    assert house.clocks["billing"].waiting == []
    assert await outbox_waiting(house.database.jobs, publisher.test) == 0
    answer = await advance(house, publisher.test, 3_600)
    for peer in house.clocks.values():
        assert peer.offsets[publisher.test] == timedelta(days=1, hours=1)
    assert answer.now.ToDatetime() == (house.clock.wall() + timedelta(days=1, hours=1)).replace(tzinfo=None)
    # Events of the account carry its own time.
    response = await house.call(
        house.service("auth", publisher.test, live=False), house.own_clock.Drained, clock_pb2.DrainedRequest()
    )
    assert isinstance(response, clock_pb2.DrainedResponse)
    assert response.drained


async def test_a_repeated_advance_moves_the_clock_once(house: AuthHouse) -> None:
    publisher = await house.publisher()
    who = replace(house.staff(publisher.test, live=False), idempotency_key="a month")
    request = account_pb2.AdvanceTestClockRequest(seconds=3_600)
    for _ in range(2):
        await house.call(who, house.accounts.AdvanceTestClock, request)
    assert {peer.offsets[publisher.test] for peer in house.clocks.values()} == {timedelta(hours=1)}
    await advance(house, publisher.test, 60)
    await house.call(who, house.accounts.AdvanceTestClock, request)
    assert {peer.offsets[publisher.test] for peer in house.clocks.values()} == {timedelta(hours=1, seconds=60)}


async def test_work_that_does_not_end_is_reported_within_the_deadline(house: AuthHouse) -> None:
    publisher = await house.publisher()
    house.clocks["notify"].waiting[:] = [1] * 10_000
    try:
        request = account_pb2.AdvanceTestClockRequest(seconds=60)
        with caller.acting(house.staff(publisher.test, live=False)):
            answer = await house.accounts.AdvanceTestClock(request, timeout=1.5)
        assert not answer.drained
    finally:
        house.clocks["notify"].waiting.clear()


async def test_a_live_clock_does_not_move(house: AuthHouse) -> None:
    publisher = await house.publisher()
    with pytest.raises(GatefoldError, match="live_clock"):
        await advance(house, publisher.live, 60, live=True)
    assert publisher.live not in house.clocks["billing"].offsets


@pytest.mark.parametrize("seconds", [0, -1, 63_072_001, 2**62])
async def test_a_clock_moves_by_a_second_to_two_years(house: AuthHouse, seconds: int) -> None:
    publisher = await house.publisher()
    with pytest.raises(GatefoldError, match="seconds_invalid"):
        await advance(house, publisher.test, seconds)


async def test_a_role_without_the_scope_does_not_move_the_clock(house: AuthHouse) -> None:
    publisher = await house.publisher()
    who = house.staff(publisher.test, roles.SUPPORT, live=False)
    with pytest.raises(GatefoldError, match="scope_missing"):
        await house.call(who, house.accounts.AdvanceTestClock, account_pb2.AdvanceTestClockRequest(seconds=1))
