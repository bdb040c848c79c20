"""Sessions: refresh tokens, their reuse, lifetime and end; and the key set."""

import asyncio
from datetime import timedelta
from uuid import UUID

import jwt
import pytest
from gatefold.auth.v1 import session_pb2

from libs import ids
from libs.clock import FixedClock
from libs.errors import GatefoldError, Kind
from tests.support.auth import PASSWORD, AuthHouse
from tests.support.waiting import blocked


@pytest.fixture(scope="module")
async def reader(house: AuthHouse) -> tuple[UUID, str]:
    publisher = await house.publisher()
    email = house.fresh()
    await house.reader(publisher.live, email)
    return publisher.live, email


def advance(house: AuthHouse, by: timedelta) -> None:
    assert isinstance(house.clock, FixedClock)
    house.clock.advance(by)


async def refused(house: AuthHouse, token: str) -> None:
    with pytest.raises(GatefoldError) as raised:
        await house.refresh(token)
    assert (raised.value.kind, raised.value.reason) == (Kind.MALFORMED, "invalid_grant")


async def revoke(house: AuthHouse, token: str) -> None:
    request = session_pb2.RevokeSessionRequest(refresh_token=token)
    await house.call(house.anonymous(), house.sessions.RevokeSession, request)


@pytest.mark.case("auth-58")
async def test_a_refresh_token_is_another_each_time_and_a_spent_one_ends_the_family(
    house: AuthHouse, reader: tuple[UUID, str]
) -> None:
    first = await house.sign_in(*reader)
    second = await house.refresh(first.refresh_token)
    third = await house.refresh(second.refresh_token)
    assert len({first.refresh_token, second.refresh_token, third.refresh_token}) == 3
    assert len({first.access_token, second.access_token}) == 2
    await refused(house, first.refresh_token)
    # Whoever holds the newest one signs in again: it cannot be told who is the thief.
    await refused(house, third.refresh_token)
    assert "a spent refresh token came back" in house.log.getvalue()


@pytest.mark.case("auth-59")
async def test_two_refreshes_at_once_get_the_same_successor(house: AuthHouse, reader: tuple[UUID, str]) -> None:
    other = await house.sign_in(*reader)
    first = await house.sign_in(*reader)
    session = ids.decode("ses", str((await house.claims(first.access_token))["sid"]))
    async with house.app.tenant(reader[0], "hold") as conn:
        await conn.execute("SELECT id FROM session WHERE id = $1 FOR UPDATE", session)
        calls = [asyncio.create_task(house.refresh(first.refresh_token)) for _ in range(3)]
        # All three stand at the row before the first goes on.
        await blocked(conn, 3)
    answers = await asyncio.gather(*calls)
    (successor,) = {answer.refresh_token for answer in answers}
    async with house.app.tenant(reader[0], "read_generation", read_only=True) as conn:
        assert await conn.fetchval("SELECT generation FROM session WHERE id = $1", session) == 2
    await house.refresh(successor)
    await house.refresh(other.refresh_token)


async def test_a_spent_token_is_answered_within_the_grace_and_not_after_it(
    house: AuthHouse, reader: tuple[UUID, str]
) -> None:
    first = await house.sign_in(*reader)
    second = await house.refresh(first.refresh_token)
    advance(house, timedelta(seconds=9))
    assert (await house.refresh(first.refresh_token)).refresh_token == second.refresh_token
    advance(house, timedelta(seconds=1))
    await refused(house, first.refresh_token)
    await refused(house, second.refresh_token)


@pytest.mark.case("auth-60")
async def test_the_absolute_lifetime_holds_in_spite_of_refreshing(house: AuthHouse, reader: tuple[UUID, str]) -> None:
    tokens = await house.sign_in(*reader)
    for _ in range(29):
        advance(house, timedelta(days=1))
        tokens = await house.refresh(tokens.refresh_token)
    advance(house, timedelta(days=1) - timedelta(seconds=1))
    tokens = await house.refresh(tokens.refresh_token)
    advance(house, timedelta(seconds=1))
    await refused(house, tokens.refresh_token)


@pytest.mark.case("auth-60")
async def test_no_refresh_after_signing_out(house: AuthHouse, reader: tuple[UUID, str]) -> None:
    other = await house.sign_in(*reader)
    first = await house.sign_in(*reader)
    second = await house.refresh(first.refresh_token)
    await revoke(house, first.refresh_token)
    await refused(house, second.refresh_token)
    await house.refresh(other.refresh_token)


@pytest.mark.case("auth-62")
async def test_refreshing_never_renews_auth_time(house: AuthHouse, reader: tuple[UUID, str]) -> None:
    first = await house.sign_in(*reader)
    signed_in = (await house.claims(first.access_token))["auth_time"]
    advance(house, timedelta(hours=1))
    claims = await house.claims((await house.refresh(first.refresh_token)).access_token)
    assert claims["auth_time"] == signed_in
    assert claims["iat"] == signed_in + 3600  # type: ignore[operator]
    assert claims["sid"] == (await house.claims(first.access_token))["sid"]


@pytest.mark.parametrize("token", ["", "gfrt_", "gfrt_" + "A" * 70, "gfrt_é", "x" * 399])
async def test_an_invented_refresh_token_is_refused_and_signing_out_with_it_says_nothing(
    house: AuthHouse, token: str
) -> None:
    await refused(house, token)
    await revoke(house, token)


async def test_a_token_that_is_altered_is_refused_and_harms_nobody(house: AuthHouse, reader: tuple[UUID, str]) -> None:
    first = await house.sign_in(*reader)
    kept, last = first.refresh_token[:-1], first.refresh_token[-1]
    for altered in (kept + ("A" if last != "A" else "Q"), kept, "gfrt_" + "B" * 20 + first.refresh_token[25:]):
        await refused(house, altered)
        await revoke(house, altered)
    await house.refresh(first.refresh_token)


async def test_the_database_holds_nothing_of_a_refresh_token(house: AuthHouse, reader: tuple[UUID, str]) -> None:
    token = (await house.sign_in(*reader)).refresh_token.removeprefix("gfrt_")
    async with house.app.tenant(reader[0], "dump") as conn:
        rows = await conn.fetch("SELECT session::text FROM session")
        routes = await conn.fetch("SELECT session_route::text FROM session_route")
    secret = jwt.utils.base64url_decode(token)[-32:]
    for row in (*rows, *routes):
        assert token not in row[0]
        assert secret.hex() not in row[0]


async def test_a_session_of_an_erased_reader_is_over(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    subject = await house.reader(publisher.live, email)
    first = await house.sign_in(publisher.live, email)
    async with house.app.tenant(publisher.live, "erase") as conn:
        await conn.execute("DELETE FROM credential WHERE subject_id = $1", subject)
    await refused(house, first.refresh_token)


async def test_staff_lose_their_session_with_their_membership_and_change_roles_at_the_next_refresh(
    house: AuthHouse,
) -> None:
    publisher = await house.publisher()
    first = await house.sign_in_staff(publisher.owner_email)
    assert (await house.claims(first.access_token))["role"] == "owner"
    async with house.app.tenant(publisher.live, "change_role") as conn:
        # A team keeps an owner: here is another one.
        await conn.execute(
            "INSERT INTO membership (account_id, id, role, person_id, invited_at, accepted_at)"
            " VALUES ($1, $2, 'owner', $2, $3, $3)",
            publisher.live,
            UUID(int=33),
            house.clock.wall(),
        )
        await conn.execute("UPDATE membership SET role = 'read_only' WHERE id = $1", publisher.member)
    second = await house.refresh(first.refresh_token)
    claims = await house.claims(second.access_token)
    assert claims["role"] == "read_only"
    assert "subscribers:write" not in str(claims["scope"])
    async with house.app.tenant(publisher.live, "remove") as conn:
        await conn.execute("DELETE FROM membership WHERE id = $1", publisher.member)
    await refused(house, second.refresh_token)


async def test_an_access_token_names_the_session_and_nothing_personal(
    house: AuthHouse, reader: tuple[UUID, str]
) -> None:
    tokens = await house.sign_in(*reader)
    claims = await house.claims(tokens.access_token)
    assert set(claims) == {
        "iss", "aud", "sub", "account", "live", "kind", "scope", "sid", "acr", "auth_time", "iat", "exp", "jti",
    }  # fmt: skip
    assert ids.decode("ses", str(claims["sid"]))
    assert reader[1] not in str(claims)
    assert PASSWORD not in str(claims)
