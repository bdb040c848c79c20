"""What gateways learn of sessions that end: from the stream, and from auth while there is none."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from gatefold.auth.v1 import device_pb2, session_pb2
from gatefold.privacy.v1 import subject_data_pb2

from libs import caller, ids, redis_client
from libs.clock import FixedClock
from libs.config import Secret
from libs.errors import GatefoldError
from libs.kill_points import KillPoints
from libs.privacy import SubjectDataServicer
from libs.redis_client import RedisConfig
from libs.telemetry import Telemetry
from libs.vault import Vault
from services.auth.__main__ import PERSONAL_TABLES
from services.auth.clients.session_feed import SessionFeed
from services.auth.usecases.expiry import Expiry
from services.auth.usecases.session_ends import SessionEnds
from services.gateway.http import session_ends as gateway
from tests.support.auth import AuthHouse
from tests.support.edge import Edge, listed_ends, running_edge, until_refused


@pytest.fixture(scope="module")
async def edges(house: AuthHouse) -> AsyncIterator[tuple[Edge, Edge]]:
    """Two gateways in front of one auth."""
    async with running_edge(house) as one, running_edge(house) as other:
        yield one, other


async def reader_of(house: AuthHouse) -> tuple[UUID, str, UUID]:
    publisher = await house.publisher()
    email = house.fresh()
    return publisher.live, email, await house.reader(publisher.live, email)


async def session_of(house: AuthHouse, tokens: session_pb2.Tokens) -> str:
    return str((await house.claims(tokens.access_token))["sid"])


@pytest.mark.case("auth-49")
async def test_every_gateway_refuses_the_access_token_of_a_session_that_was_ended(
    house: AuthHouse, edges: tuple[Edge, Edge]
) -> None:
    account, email, _ = await reader_of(house)
    ended, kept = await house.sign_in(account, email), await house.sign_in(account, email)
    for edge in edges:
        assert (await edge.devices(ended.access_token)).status == 200
    answer = await edges[0].ask("POST", "/v1/session/sign_out", credential=ended.access_token, json={})
    assert answer.status == 200
    for edge in edges:
        refused = await until_refused(edge, ended.access_token)
        assert refused.reason == "session_ended"
        assert 'error="invalid_token"' in refused.headers["WWW-Authenticate"]
        assert (await edge.devices(kept.access_token)).status == 200


@pytest.mark.case("auth-49")
async def test_signing_out_everywhere_ends_by_staff_and_reuse_reach_the_gateways(
    house: AuthHouse, edges: tuple[Edge, Edge]
) -> None:
    account, email, subject = await reader_of(house)
    first, second, third = [await house.sign_in(account, email) for _ in range(3)]
    who = await house.holder(second)
    await house.call(who, house.devices.EndOtherDevices, device_pb2.EndOtherDevicesRequest())
    for tokens in (first, third):
        await until_refused(edges[1], tokens.access_token)
    request = device_pb2.EndSubscriberSessionsRequest(subscriber_id=ids.encode("subj", subject))
    await house.call(house.staff(account), house.devices.EndSubscriberSessions, request)
    await until_refused(edges[1], second.access_token)
    spent = await house.sign_in(account, email)
    successor = await house.refresh(spent.refresh_token)
    assert isinstance(house.clock, FixedClock)
    house.clock.advance(timedelta(seconds=11))
    with pytest.raises(GatefoldError, match="invalid_grant"):
        await house.refresh(spent.refresh_token)
    await until_refused(edges[0], successor.access_token)


@pytest.mark.case("auth-49")
async def test_an_erased_readers_token_is_refused(house: AuthHouse, edges: tuple[Edge, Edge], vault: Vault) -> None:
    account, email, subject = await reader_of(house)
    tokens = await house.sign_in(account, email)
    assert (await edges[0].devices(tokens.access_token)).status == 200
    port = SubjectDataServicer("auth", house.app, vault, PERSONAL_TABLES, clock=house.clock)
    text = ids.encode("subj", subject)
    with caller.serving(house.service("compliance", account)):
        plan = await port.PlanErase(subject_data_pb2.PlanEraseRequest(subject_id=text), None)  # type: ignore[arg-type]
        await port.Erase(subject_data_pb2.EraseRequest(subject_id=text, plan_hash=plan.plan_hash), None)  # type: ignore[arg-type]
    for edge in edges:
        assert (await until_refused(edge, tokens.access_token)).reason == "session_ended"


@pytest.mark.case("auth-49")
async def test_a_gateway_that_starts_refuses_what_ended_before_also_without_a_stream(house: AuthHouse) -> None:
    account, email, _ = await reader_of(house)
    ended, kept = await house.sign_in(account, email), await house.sign_in(account, email)
    await house.call(await house.holder(ended), house.devices.SignOut, device_pb2.SignOutRequest())
    async with running_edge(house, redis_url="redis://127.0.0.1:1/0") as edge:
        # The very first request: nothing is believed before auth was asked.
        assert (await edge.devices(ended.access_token)).reason == "session_ended"
        assert (await edge.devices(kept.access_token)).status == 200
        await house.call(await house.holder(kept), house.devices.SignOut, device_pb2.SignOutRequest())
        assert (await until_refused(edge, kept.access_token)).reason == "session_ended"


async def test_the_stream_alone_tells_a_gateway(house: AuthHouse) -> None:
    asked: list[str] = []

    async def nothing(cursor: str, request_id: str) -> tuple[list[UUID], str]:
        asked.append(cursor)
        return [], cursor

    account, email, _ = await reader_of(house)
    tokens = await house.sign_in(account, email)
    session = ids.decode("ses", await session_of(house, tokens))
    async with following(house.environ["GATEFOLD_REDIS_URL"], nothing) as ends:
        await ends.check(session)
        await house.call(await house.holder(tokens), house.devices.SignOut, device_pb2.SignOutRequest())
        await until_known(ends, session)


async def test_a_store_that_hangs_makes_a_gateway_ask_auth_over_and_over(house: AuthHouse) -> None:
    told: list[UUID] = []
    asked = asyncio.Queue[str]()

    async def fetch(cursor: str, request_id: str) -> tuple[list[UUID], str]:
        asked.put_nowait(cursor)
        return ([told.pop()], "1.1") if told else ([], cursor)

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()

    hung = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = hung.sockets[0].getsockname()[1]
    async with hung, following(f"redis://127.0.0.1:{port}/0", fetch) as ends:
        async with asyncio.timeout(20):
            for _ in range(3):
                await asked.get()
        told.append(UUID(int=77))
        await until_known(ends, UUID(int=77))


@contextlib.asynccontextmanager
async def following(url: str, fetch: gateway.Fetch) -> AsyncIterator[gateway.SessionEnds]:
    """A gateway's knowledge of ended sessions, with its loop, over a store at `url`."""
    store = redis_client.connect(RedisConfig(Secret(url)), blocking_seconds=1, most_connections=1)
    ends = gateway.SessionEnds(store, fetch, monotonic=time.monotonic, telemetry=Telemetry("tests"))
    stop = asyncio.Event()
    loop = asyncio.create_task(ends.follow(stop))
    try:
        yield ends
    finally:
        stop.set()
        await loop
        await store.aclose()


async def until_known(ends: gateway.SessionEnds, session: UUID) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await ends.check(session)
            except GatefoldError as error:
                if error.reason == "session_ended":
                    return
                raise
            await asyncio.sleep(0.02)


async def test_what_a_stream_lost_is_found_by_asking(house: AuthHouse) -> None:
    account, email, _ = await reader_of(house)
    first, second = await house.sign_in(account, email), await house.sign_in(account, email)
    known = (await listed_ends(house)).next_cursor
    await house.call(await house.holder(first), house.devices.SignOut, device_pb2.SignOutRequest())
    await house.call(await house.holder(second), house.devices.SignOut, device_pb2.SignOutRequest())
    found = await listed_ends(house, known)
    assert list(found.session_ids) == [await session_of(house, first), await session_of(house, second)]
    again = await listed_ends(house, found.next_cursor)
    assert (list(again.session_ids), again.next_cursor) == ([], found.next_cursor)


async def test_a_cursor_of_another_cluster_starts_over_and_a_malformed_one_is_refused(house: AuthHouse) -> None:
    account, email, _ = await reader_of(house)
    tokens = await house.sign_in(account, email)
    await house.call(await house.holder(tokens), house.devices.SignOut, device_pb2.SignOutRequest())
    assert await session_of(house, tokens) in (await listed_ends(house, "9999999999999.1")).session_ids
    with pytest.raises(GatefoldError, match="cursor_malformed"):
        await listed_ends(house, "1 OR 1=1")


async def test_only_a_gateway_asks_for_ends(house: AuthHouse) -> None:
    for who in (house.service("notify"), house.anonymous(), house.operator()):
        with pytest.raises(GatefoldError, match=r"service_distrusted|peer_not_allowed|caller_kind_not_allowed"):
            await house.call(who, house.sessions.ListSessionEnds, session_pb2.ListSessionEndsRequest())


class _KilledError(Exception):
    pass


class _KillPoints(KillPoints):
    """Dies where it is told."""

    def __init__(self, when: str) -> None:
        super().__init__("auth")
        self._when = when

    def at(self, kind: str, when: str, label: str) -> None:
        if (kind, when) == ("publish", self._when):
            raise _KilledError


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_announcer_that_dies_is_made_good_by_the_next(house: AuthHouse, when: str) -> None:
    stopped = "UPDATE session_end SET published_at = NULL WHERE session_id = $1"
    account, email, _ = await reader_of(house)
    tokens = await house.sign_in(account, email)
    session = ids.decode("ses", await session_of(house, tokens))
    store = redis_client.connect(RedisConfig(Secret(house.environ["GATEFOLD_REDIS_URL"])))
    feed = SessionFeed(store)
    try:
        dying = SessionEnds(house.app, house.database.jobs, feed, house.clock, _KillPoints(when))
        async with house.app.tenant(account, "end") as conn:
            await conn.execute("UPDATE session SET revoked_at = $1, revoked_reason = 'test'", house.clock.wall())
        before = await _told(store, session)
        async with house.app.transaction("unpublish") as conn:
            await conn.execute(stopped, session)
        with contextlib.suppress(_KilledError):
            await dying.announce()
        await SessionEnds(house.app, house.database.jobs, feed, house.clock, KillPoints("auth")).announce()
        assert await _told(store, session) > before
    finally:
        await store.aclose()


async def _told(store: Any, session: UUID) -> int:
    entries = await store.xrange(gateway.STREAM)
    return sum(session.bytes in fields[gateway.FIELD] for _, fields in entries)


async def test_ends_are_cleared_away_when_no_access_token_is_left(house: AuthHouse) -> None:
    account, email, _ = await reader_of(house)
    tokens = await house.sign_in(account, email)
    await house.call(await house.holder(tokens), house.devices.SignOut, device_pb2.SignOutRequest())
    session = ids.decode("ses", await session_of(house, tokens))
    expiry = Expiry(house.database.jobs, house.clock)

    async def kept() -> int:
        async with house.app.transaction("count", read_only=True) as conn:
            count: int = await conn.fetchval("SELECT count(*) FROM session_end WHERE session_id = $1", session)
        return count

    await expiry.clear()
    assert await kept() == 1
    assert isinstance(house.clock, FixedClock)
    house.clock.advance(timedelta(minutes=16))
    await expiry.clear()
    assert await kept() == 0


async def test_clearing_old_sessions_away_tells_nobody(house: AuthHouse) -> None:
    account, email, _ = await reader_of(house)
    tokens = await house.sign_in(account, email)
    session = ids.decode("ses", await session_of(house, tokens))
    assert isinstance(house.clock, FixedClock)
    house.clock.advance(timedelta(days=32))
    await Expiry(house.database.jobs, house.clock).clear()
    async with house.app.tenant(account, "count", read_only=True) as conn:
        assert await conn.fetchval("SELECT count(*) FROM session WHERE id = $1", session) == 0
        assert await conn.fetchval("SELECT count(*) FROM session_end WHERE session_id = $1", session) == 0
