"""Attacks on one-time tokens, refresh tokens and the RPCs that take them."""

import base64
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from gatefold.auth.v1 import session_pb2, subscriber_session_pb2

from infra.local.valkey import ValkeyServer
from libs import ids
from libs.clock import FixedClock
from libs.config import Secret
from libs.errors import GatefoldError, Kind
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


def parts(token: str) -> tuple[bytes, int, bytes]:
    raw = base64.urlsafe_b64decode(token.removeprefix("gfrt_") + "==")
    session, generation = struct.unpack_from(">16sI", raw)
    return session, generation, raw[20:]


def forged(session: bytes, generation: int, signature: bytes) -> str:
    raw = struct.pack(">16sI", session, generation) + signature
    return "gfrt_" + base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


async def test_a_refresh_token_of_one_session_opens_no_other(house: AuthHouse) -> None:
    publisher = await house.publisher()
    mine, theirs = house.fresh(), house.fresh()
    await house.reader(publisher.live, mine)
    await house.reader(publisher.live, theirs)
    one = (await house.sign_in(publisher.live, mine)).refresh_token
    other = (await house.sign_in(publisher.live, theirs)).refresh_token
    victim, generation, _ = parts(other)
    for attempt in (
        forged(victim, generation, parts(one)[2]),
        forged(victim, generation + 1, parts(other)[2]),
        forged(victim, 0, parts(other)[2]),
        forged(victim, generation, b"\0" * 32),
    ):
        with pytest.raises(GatefoldError, match="invalid_grant"):
            await house.refresh(attempt)
    # A forgery is no reuse: it must not let a stranger end somebody's session.
    await house.refresh(other)


@pytest.mark.case("auth-56")
async def test_tokens_of_one_kind_are_refused_as_another(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    await house.register(publisher.live, email)
    mailed = await house.token(publisher.live, "verify_registration")
    with pytest.raises(GatefoldError, match="invalid_grant"):
        await house.refresh(mailed)
    with pytest.raises(GatefoldError, match="token_invalid"):
        await house.accept(mailed)
    await house.verify(publisher.live, mailed)
    tokens = await house.sign_in(publisher.live, email)
    with pytest.raises(GatefoldError, match="invalid_grant"):
        await house.refresh(tokens.access_token[:400])
    for wrong in (tokens.refresh_token, tokens.access_token[:200]):
        with pytest.raises(GatefoldError, match="token_invalid"):
            await house.verify(publisher.live, wrong)
        request = session_pb2.BootstrapOperatorRequest(
            token=wrong, email=house.fresh(), name="Mallory", password="a password of Mallory"
        )
        with pytest.raises(GatefoldError, match="token_invalid"):
            await house.call(house.anonymous(), house.sessions.BootstrapOperator, request)


async def test_only_notify_learns_what_a_mail_says(house: AuthHouse) -> None:
    publisher = await house.publisher()
    await house.register(publisher.live, house.fresh())
    challenge = await house.newest_challenge(publisher.live)
    request = subscriber_session_pb2.DescribeChallengeRequest(challenge_id=ids.encode("chal", challenge))
    for who in (
        house.service("billing", publisher.live),
        house.staff(publisher.live),
        house.page(publisher.live),
        house.anonymous(),
        house.operator(),
    ):
        with pytest.raises(GatefoldError) as raised:
            await house.call(who, house.readers.DescribeChallenge, request)
        # The client reports a peer that is not trusted as a fault of the platform's.
        assert raised.value.reason in {"caller_kind_not_allowed", "service_distrusted"}


@pytest.mark.case("auth-33")
async def test_one_time_tokens_are_256_bits_and_stored_hashed(house: AuthHouse) -> None:
    publisher = await house.publisher()
    await house.register(publisher.live, house.fresh())
    token = await house.token(publisher.live, "verify_registration")
    assert len(base64.urlsafe_b64decode(token.removeprefix("gfct_") + "=")) == 32
    async with house.app.transaction("dump") as conn:
        rows = await conn.fetch("SELECT challenge_route::text FROM challenge_route")
    raw = base64.urlsafe_b64decode(token.removeprefix("gfct_") + "=").hex()
    assert rows
    assert all(token not in row[0] and raw not in row[0] for row in rows)


async def test_a_tenant_credential_reaches_no_sign_in_of_the_platform(house: AuthHouse) -> None:
    publisher = await house.publisher()
    request = session_pb2.SignInStaffRequest(email=publisher.owner_email, password="correct horse battery")
    for who in (house.page(publisher.live), house.staff(publisher.live)):
        with pytest.raises(GatefoldError) as raised:
            await house.call(who, house.sessions.SignInStaff, request)
        assert raised.value.kind is Kind.FORBIDDEN
