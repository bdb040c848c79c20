"""Attacks in the moment in which a password changes: whoever knows the old one must not slip in beside it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import asyncpg
import pytest
from gatefold.auth.v1 import device_pb2, password_pb2, recovery_pb2

from infra.local.valkey import ValkeyServer
from libs import ids
from libs.clock import FixedClock
from libs.config import Secret
from libs.errors import GatefoldError
from libs.postgres import PLATFORM
from services.auth.domain.password import StoredPassword
from services.auth.usecases.passwords import PasswordHasher, Place, Verdict, WorkMeter
from tests.conftest import ServiceDb
from tests.support.auth import COST, PASSWORD, AuthHouse, running
from tests.support.factors import Reader, complete, reader, step_up, with_mailbox, with_phone
from tests.support.waiting import blocked

NEW = "an entirely different phrase"
T = TypeVar("T")


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


class Held:
    """Verifications of the old password: each is decided, and its answer kept back."""

    def __init__(self) -> None:
        self.arrived = asyncio.Queue[bool]()
        self.go = asyncio.Event()
        self.go.set()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    found, verify = Held(), PasswordHasher.verify

    async def slow(
        self: PasswordHasher, password: str, stored: StoredPassword | None, place: Place | None = None
    ) -> Verdict:
        verdict = await verify(self, password, stored, place)
        if password == PASSWORD:
            found.arrived.put_nowait(verdict.matches)
            await found.go.wait()
        return verdict

    monkeypatch.setattr(PasswordHasher, "verify", slow)
    return found


async def beside(held: Held, attempt: Awaitable[T], change: Callable[[], Awaitable[object]]) -> T:
    """Has `change` take place after the attempt's password was found right and before anything follows from it."""
    held.arrived, held.go = asyncio.Queue(), asyncio.Event()
    task = asyncio.ensure_future(attempt)
    assert await asyncio.wait_for(held.arrived.get(), 10), "the old password was right"
    try:
        await change()
    finally:
        held.go.set()
    return await task


async def reset(house: AuthHouse, someone: Reader) -> None:
    request = recovery_pb2.RequestPasswordResetRequest(email=someone.email)
    await house.call(house.page(someone.publisher.live), house.recovery.RequestPasswordReset, request)
    await house.complete_reset(await house.token(someone.publisher.live, "reset_password"), NEW)


async def alive(house: AuthHouse, someone: Reader) -> int:
    async with house.app.tenant(someone.publisher.live, "read", read_only=True) as conn:
        sessions = "SELECT count(*) FROM session WHERE subject_id = $1 AND revoked_at IS NULL"
        waiting = "SELECT count(*) FROM sign_in WHERE principal_id = $1"
        return int(await conn.fetchval(sessions, someone.subject) + await conn.fetchval(waiting, someone.subject))


async def test_a_reader_signing_in_with_the_old_password_while_it_is_reset_gets_no_session(
    house: AuthHouse, held: Held
) -> None:
    someone = await reader(house)
    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await beside(held, someone.sign_in(), lambda: reset(house, someone))
    assert await alive(house, someone) == 0
    assert (await house.sign_in(someone.publisher.live, someone.email, NEW)).access_token


async def test_nor_does_a_sign_in_that_would_wait_for_a_second_factor(house: AuthHouse, held: Held) -> None:
    someone, phone = await with_phone(house)
    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await beside(held, someone.sign_in(), lambda: reset(house, someone))
    assert await alive(house, someone) == 0
    waiting = await house.sign_in(someone.publisher.live, someone.email, NEW)
    assert (await complete(house, waiting, phone.next_code())).access_token


async def test_a_member_signing_in_with_the_old_password_while_it_is_reset_gets_no_session(
    house: AuthHouse, held: Held
) -> None:
    publisher = await house.publisher()

    async def change() -> None:
        request = recovery_pb2.RequestStaffPasswordResetRequest(email=publisher.owner_email)
        await house.call(house.anonymous(), house.recovery.RequestStaffPasswordReset, request)
        await house.complete_reset(await house.token(PLATFORM, "reset_password"), NEW)

    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await beside(held, house.sign_in_staff(publisher.owner_email), change)
    tokens = await house.sign_in_staff(publisher.owner_email, NEW)
    who = await house.holder(tokens)
    listed = await house.call(who, house.devices.ListDevices, device_pb2.ListDevicesRequest())
    assert len(listed.data) == 1  # type: ignore[attr-defined]


async def change_password(house: AuthHouse, someone: Reader, *, keep: bool) -> None:
    request = password_pb2.ChangePasswordRequest(current_password=PASSWORD, new_password=NEW, keep_sessions=keep)
    await house.call(someone.caller, house.passwords.ChangePassword, request)


@pytest.mark.parametrize("keep", [False, True])
async def test_a_sign_in_that_waits_dies_with_the_password_that_began_it(house: AuthHouse, keep: bool) -> None:
    someone, phone = await with_phone(house)
    waiting = await someone.sign_in()
    await change_password(house, someone, keep=keep)
    with pytest.raises(GatefoldError, match="sign_in_expired"):
        await complete(house, waiting, phone.next_code())


async def test_a_step_up_with_the_old_password_renews_no_session_that_outlives_it(house: AuthHouse, held: Held) -> None:
    someone = await reader(house)
    stolen = await someone.as_caller(await someone.sign_in())
    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await beside(held, step_up(house, stolen, password=PASSWORD), lambda: moved(house, someone))


async def test_a_step_up_that_waits_for_a_code_by_mail_does_not_wait_with_the_old_password(
    house: AuthHouse, held: Held
) -> None:
    someone = await with_mailbox(house)
    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await beside(held, step_up(house, someone.caller, password=PASSWORD), lambda: moved(house, someone))


async def moved(house: AuthHouse, someone: Reader) -> None:
    """Gives the reader another password as `ChangePassword` does that keeps sessions."""
    other = PasswordHasher(
        {"1": house.environ["GATEFOLD_PASSWORD_PEPPER"].encode()},
        cost=COST,
        highest_cost=0,
        cores=1,
        queue=1,
        meter=WorkMeter(),
    )
    fresh = await other.hash(NEW)
    other.close()
    async with house.app.tenant(someone.publisher.live, "change") as conn:
        await conn.execute(
            "UPDATE credential SET password_hash = $2, password_version = password_version + 1 WHERE subject_id = $1",
            someone.subject,
            fresh.hash,
        )


@asynccontextmanager
async def owner(house: AuthHouse) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(house.database.owner_dsn.reveal())
    try:
        yield connection
    finally:
        await connection.close()


async def test_a_second_factor_finished_at_the_moment_of_a_reset_leaves_no_session(house: AuthHouse) -> None:
    someone, phone = await with_phone(house)
    waiting = await someone.sign_in()
    code = phone.next_code()
    request = recovery_pb2.RequestPasswordResetRequest(email=someone.email)
    await house.call(house.page(someone.publisher.live), house.recovery.RequestPasswordReset, request)
    token = await house.token(someone.publisher.live, "reset_password")
    async with owner(house) as lock, owner(house) as watch:
        key = ids.decode("fac", phone.id)
        async with lock.transaction():
            await lock.execute("SELECT id FROM factor WHERE id = $1 FOR UPDATE", key)
            finishing = asyncio.create_task(complete(house, waiting, code))
            await blocked(watch, 1)
            resetting = asyncio.create_task(house.complete_reset(token, NEW))
            await blocked(watch, 2)
        await finishing
        await resetting
    assert await alive(house, someone) == 0


async def test_sign_ins_at_once_with_a_hash_of_another_cost_all_succeed(house: AuthHouse) -> None:
    someone = await reader(house)
    costly = PasswordHasher(
        {"1": house.environ["GATEFOLD_PASSWORD_PEPPER"].encode()},
        cost=COST + 1,
        highest_cost=0,
        cores=1,
        queue=1,
        meter=WorkMeter(),
    )
    stored = await costly.hash(PASSWORD)
    costly.close()
    async with house.app.tenant(someone.publisher.live, "age") as conn:
        await conn.execute(
            "UPDATE credential SET password_params = $2, password_hash = $3 WHERE subject_id = $1",
            someone.subject,
            stored.params,
            stored.hash,
        )
    assert len(await asyncio.gather(*(someone.sign_in() for _ in range(6)))) == 6
