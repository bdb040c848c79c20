"""Attacks on passwords: in parallel, in a row, from one address, from everywhere, and locking others out."""

import asyncio
import io
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
from gatefold.activity.v1 import activity_pb2
from gatefold.auth.v1 import (
    password_pb2,
    recovery_pb2,
    session_pb2,
    sign_in_pb2,
    subscriber_session_pb2,
    team_pb2,
)
from gatefold.privacy.v1 import subject_data_pb2

from infra.local.valkey import ValkeyServer
from libs import caller, ids, redis_client
from libs.activity import FIELD, SHARDS, Pseudonyms, stream_of
from libs.caller import Caller, CallerKind
from libs.clock import FixedClock
from libs.config import Secret
from libs.errors import GatefoldError
from libs.ids import IdMaker
from libs.postgres import PLATFORM
from libs.privacy import SubjectDataServicer
from libs.redis_client import RedisConfig
from libs.telemetry import Telemetry
from libs.vault import Vault
from services.auth.__main__ import PERSONAL_TABLES
from services.auth.clients.attempt_store import CHALLENGE_KEY, AttemptStore
from services.auth.domain import roles, session
from services.auth.domain.attempts import MOST_NETWORKS, Rule
from services.auth.domain.sign_in import Door
from services.auth.repository import people
from services.auth.usecases.attempts import Attempts, Limits, Target
from services.auth.usecases.secrets import TokenSecrets
from tests.conftest import ServiceDb
from tests.support.auth import COST, PASSWORD, AuthHouse, Publisher, running

FREE = 10
HASH = 2**COST
WRONG = "wrong horse battery"
NEW = "an entirely different phrase"


@pytest.fixture(scope="module")
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
async def houses(
    service_db: ServiceDb,
    keys_dsn: Secret,
    valkey_server: ValkeyServer,
    key_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
    stack: AsyncExitStack,
) -> list[AuthHouse]:
    """Two replicas on the same stores and clock."""
    database, clock, url = await service_db("auth"), FixedClock(), valkey_server.url().reveal()
    # Room for all who try at once: what a busy machine refuses for its queue is counted nowhere.
    settings = {"GATEFOLD_HASH_QUEUE": "200"}
    made = []
    for name in ("one", "two"):
        folder = tmp_path_factory.mktemp(name)
        replica = running(database, keys_dsn.reveal(), url, key_file, folder, clock, settings)
        made.append(await stack.enter_async_context(replica))
    return made


@pytest.fixture(scope="module")
async def house(houses: list[AuthHouse]) -> AuthHouse:
    return houses[0]


async def attempt(
    house: AuthHouse, who: Caller, email: str, password: str = WRONG, device: str = ""
) -> session_pb2.Tokens | GatefoldError:
    """Returns the tokens or the error."""
    request: Any
    method: Any
    if who.kind is CallerKind.ANONYMOUS:
        method, request = house.sessions.SignInStaff, session_pb2.SignInStaffRequest
    else:
        method, request = house.readers.SignIn, subscriber_session_pb2.SignInRequest
    try:
        return cast(
            "session_pb2.Tokens",
            await house.call(who, method, request(email=email, password=password, device_token=device)),
        )
    except GatefoldError as error:
        return error


def reasons(answers: list[session_pb2.Tokens | GatefoldError]) -> Counter[str]:
    return Counter(one.reason if isinstance(one, GatefoldError) else "" for one in answers)


def page(house: AuthHouse, account: UUID, address: str | None = None) -> Caller:
    return replace(house.page(account), address=address)


async def lock(house: AuthHouse, who: Caller, email: str) -> None:
    answers = [await attempt(house, who, email) for _ in range(FREE)]
    assert reasons(answers) == {"credentials_invalid": FREE}
    assert reasons([await attempt(house, who, email)]) == {"sign_in_delayed": 1}


async def reset(house: AuthHouse, account: UUID, email: str, password: str, who: Caller, whose: str) -> None:
    """Sets a new password by mail, from where `who` is."""
    method: Any = house.recovery.RequestStaffPasswordReset
    request: Any = recovery_pb2.RequestStaffPasswordResetRequest(email=email)
    if whose == "reader":
        method = house.recovery.RequestPasswordReset
        request = recovery_pb2.RequestPasswordResetRequest(email=email)
    await house.call(who, method, request)
    token = await house.token(account if whose == "reader" else PLATFORM, "reset_password")
    complete = recovery_pb2.CompletePasswordResetRequest(token=token, password=password)
    await house.call(replace(house.anonymous(), address=who.address), house.recovery.CompletePasswordReset, complete)


@pytest.mark.case("auth-23")
@pytest.mark.case("auth-30")
@pytest.mark.parametrize("whose", ["reader", "staff", "nobody"])
async def test_of_two_hundred_parallel_wrong_passwords_ten_are_looked_at(houses: list[AuthHouse], whose: str) -> None:
    house, other = houses
    publisher = await house.publisher()
    email = publisher.owner_email if whose == "staff" else house.fresh()
    if whose == "reader":
        await house.reader(publisher.live, email)
    who = house.anonymous() if whose == "staff" else house.page(publisher.live)
    before = house.units() + other.units()
    answers = await asyncio.gather(*(attempt(houses[n % 2], who, email) for n in range(200)))
    assert reasons(answers) == {"credentials_invalid": FREE, "sign_in_delayed": 200 - FREE}
    assert house.units() + other.units() == before + FREE * HASH


@pytest.mark.case("auth-22")
async def test_waits_are_answered_with_their_length_grow_and_end_at_a_hundred(house: AuthHouse) -> None:
    clock = cast("FixedClock", house.clock)
    publisher = await house.publisher()
    who, email = house.page(publisher.live), house.fresh()
    await house.reader(publisher.live, email)
    await lock(house, who, email)
    waits = []
    for _ in range(FREE, 100):
        refused = await attempt(house, who, email)
        assert isinstance(refused, GatefoldError)
        waits.append(refused.retry_after_seconds or 0)
        clock.advance(timedelta(seconds=waits[-1]))
        assert reasons([await attempt(house, who, email)]) == {"credentials_invalid": 1}
    assert waits[:8] == [30, 60, 120, 240, 480, 960, 1920, 3600]
    assert set(waits[8:]) == {3600}
    clock.advance(timedelta(hours=23))
    units = house.units()
    assert reasons([await attempt(house, who, email, PASSWORD)]) == {"sign_in_delayed": 1}
    assert house.units() == units
    clock.advance(timedelta(hours=1))
    assert isinstance(await attempt(house, who, email, PASSWORD), session_pb2.Tokens), "no lock is for ever"


@pytest.mark.case("auth-24")
@pytest.mark.parametrize("whose", ["reader", "staff"])
async def test_a_known_device_signs_in_while_strangers_keep_the_door_shut(house: AuthHouse, whose: str) -> None:
    publisher = await house.publisher()
    email = publisher.owner_email if whose == "staff" else house.fresh()
    if whose == "reader":
        await house.reader(publisher.live, email)
    who = house.anonymous() if whose == "staff" else house.page(publisher.live)
    first = await attempt(house, who, email, PASSWORD)
    assert isinstance(first, session_pb2.Tokens)
    await lock(house, who, email)
    again = await attempt(house, who, email, PASSWORD, first.device_token)
    assert isinstance(again, session_pb2.Tokens)
    assert reasons([await attempt(house, who, email, PASSWORD)]) == {"sign_in_delayed": 1}, "that was one bucket alone"
    # A device counts by itself, and is no way around.
    answers = [await attempt(house, who, email, WRONG, again.device_token) for _ in range(FREE + 1)]
    assert reasons(answers) == {"credentials_invalid": FREE, "sign_in_delayed": 1}


async def test_somebody_elses_device_opens_no_bucket(house: AuthHouse) -> None:
    publisher = await house.publisher()
    who, mallory, victim = house.page(publisher.live), house.fresh("mallory"), house.fresh()
    await house.reader(publisher.live, mallory)
    await house.reader(publisher.live, victim)
    own = await attempt(house, who, mallory, PASSWORD)
    assert isinstance(own, session_pb2.Tokens)
    await lock(house, who, victim)
    assert reasons([await attempt(house, who, victim, PASSWORD, own.device_token)]) == {"sign_in_delayed": 1}


@pytest.mark.case("auth-17")
@pytest.mark.case("auth-20")
@pytest.mark.case("auth-25")
async def test_known_and_unknown_right_and_wrong_are_answered_alike_before_and_during_a_lock(house: AuthHouse) -> None:
    publisher = await house.publisher()
    known = house.fresh()
    await house.reader(publisher.live, known)
    courses = []
    for email in (known, house.fresh("nobody"), publisher.owner_email):
        course = []
        for number in range(FREE + 3):
            units = house.units()
            # During the lock the right password is tried.
            answer = await attempt(house, house.page(publisher.live), email, PASSWORD if number > FREE else WRONG)
            assert isinstance(answer, GatefoldError)
            told = (answer.kind, answer.reason, answer.detail, answer.retry_after_seconds, answer.metadata)
            course.append((told, house.units() - units))
        courses.append(course)
    assert courses[0] == courses[1] == courses[2]


@pytest.mark.case("auth-26")
@pytest.mark.case("auth-27")
@pytest.mark.parametrize(
    "addresses",
    [["198.51.100.7"], [f"2001:db8:7:7::{n:x}" for n in range(1, 60)]],
    ids=["one address", "one /64"],
)
async def test_one_client_is_throttled_whomever_it_tries_and_an_own_account_helps_nothing(
    house: AuthHouse, addresses: list[str]
) -> None:
    publisher = await house.publisher()
    own = house.fresh("mallory")
    await house.reader(publisher.live, own)
    answers = []
    for number in range(60):
        who = page(house, publisher.live, addresses[number % len(addresses)])
        if number % 10 == 0 and number < 50:
            assert isinstance(await attempt(house, who, own, PASSWORD), session_pb2.Tokens)
        answers.append(await attempt(house, who, house.fresh("victim")))
    assert reasons(answers) == {"credentials_invalid": 50, "sign_in_delayed": 10}
    elsewhere = page(house, publisher.live, "203.0.113.9")
    assert isinstance(await attempt(house, elsewhere, own, PASSWORD), session_pb2.Tokens)


async def test_readers_behind_a_publishers_server_do_not_share_its_address(house: AuthHouse) -> None:
    publisher = await house.publisher()
    server = replace(page(house, publisher.live, "203.0.113.50"), kind=CallerKind.SECRET_KEY)
    answers = [await attempt(house, server, house.fresh("reader")) for _ in range(60)]
    assert reasons(answers) == {"credentials_invalid": 60}


@pytest.mark.case("auth-28")
async def test_a_thousand_accounts_tried_from_a_thousand_addresses_raise_the_alarm(house: AuthHouse) -> None:
    store = redis_client.connect(RedisConfig(Secret(house.environ["GATEFOLD_REDIS_URL"])))
    publisher = await house.publisher()

    def alarms(scope: str) -> float:
        return house.telemetry.registry.get_sample_value("gatefold_sign_in_alarms_total", {"scope": scope}) or 0

    # A window of its own.
    cast("FixedClock", house.clock).advance(timedelta(hours=1))
    await store.delete(CHALLENGE_KEY)
    before = alarms("everywhere"), alarms("network")
    units = house.units()
    for start in range(0, 1000, 20):
        await asyncio.gather(
            *(
                attempt(house, page(house, publisher.live, f"10.{n // 250}.{n % 250}.1"), house.fresh("victim"))
                for n in range(start, start + 20)
            )
        )
        if start == 100:
            assert alarms("everywhere") == before[0]
            assert not await store.exists(CHALLENGE_KEY)
    assert alarms("everywhere") > before[0]
    assert alarms("network") == before[1], "no two came from one network"
    assert house.units() == units + 1000 * HASH, "nobody is shut out for it"
    assert await store.exists(CHALLENGE_KEY), "the edge can tell"
    until = house.telemetry.registry.get_sample_value("gatefold_sign_in_challenge_until_seconds") or 0
    assert until > house.clock.wall().timestamp()
    await store.aclose()


@pytest.mark.case("auth-32")
@pytest.mark.parametrize("whose", ["reader", "staff"])
async def test_a_new_password_by_mail_opens_the_door_again(house: AuthHouse, whose: str) -> None:
    publisher = await house.publisher()
    email = publisher.owner_email if whose == "staff" else house.fresh()
    who = house.anonymous() if whose == "staff" else house.page(publisher.live)
    if whose == "reader":
        await house.reader(publisher.live, email)
    first = await attempt(house, who, email, PASSWORD)
    assert isinstance(first, session_pb2.Tokens)
    await lock(house, who, email)
    for _ in range(FREE):
        await attempt(house, who, email, WRONG, first.device_token)
    await reset(house, publisher.live, email, NEW, who, whose)
    assert isinstance(await attempt(house, who, email, NEW), session_pb2.Tokens)
    assert isinstance(await attempt(house, who, email, NEW, first.device_token), session_pb2.Tokens)


async def unlock_mails(house: AuthHouse, account: UUID, since: int = 0) -> list[UUID]:
    """Returns the challenges of mails that lift a lock."""
    async with house.app.tenant(account, "read_unlocks", read_only=True) as conn:
        rows = await conn.fetch(
            "SELECT id FROM challenge WHERE account_id = $1 AND purpose = 'unlock' ORDER BY id OFFSET $2",
            account,
            since,
        )
    return [row["id"] for row in rows]


@pytest.mark.case("auth-32")
@pytest.mark.parametrize("whose", ["reader", "staff"])
async def test_whoever_is_locked_out_gets_one_mail_whose_link_opens_the_door(house: AuthHouse, whose: str) -> None:
    publisher = await house.publisher()
    email = publisher.owner_email if whose == "staff" else house.fresh()
    if whose == "reader":
        await house.reader(publisher.live, email)
    who = house.anonymous() if whose == "staff" else house.page(publisher.live)
    account = PLATFORM if whose == "staff" else publisher.live
    before = len(await unlock_mails(house, account))
    await lock(house, who, email)
    for _ in range(3):
        cast("FixedClock", house.clock).advance(timedelta(minutes=9))
        assert reasons([await attempt(house, who, email)]) == {"credentials_invalid": 1}
    (mail,) = await unlock_mails(house, account, before)
    letter = await house.describe(mail)
    assert (letter.purpose, letter.email) == ("unlock", email)
    request = recovery_pb2.UnlockRequest(token=await house.token(account, "unlock"))
    await house.call(house.anonymous(), house.recovery.Unlock, request)
    assert isinstance(await attempt(house, who, email, PASSWORD), session_pb2.Tokens)
    await lock(house, who, email)
    assert len(await unlock_mails(house, account, before)) == 2, "another lock is told anew"


@pytest.mark.case("auth-17")
@pytest.mark.case("auth-32")
@pytest.mark.parametrize("place", ["readers", "staff"])
async def test_a_lock_of_an_address_that_nobody_has_leaves_the_same_rows_and_no_mail(
    house: AuthHouse, place: str
) -> None:
    publisher = await house.publisher()
    email = house.fresh("nobody")
    who = house.anonymous() if place == "staff" else house.page(publisher.live)
    account = PLATFORM if place == "staff" else publisher.live
    before = len(await unlock_mails(house, account))
    await lock(house, who, email)
    (mail,) = await unlock_mails(house, account, before)
    with pytest.raises(GatefoldError, match="challenge_over"):
        await house.describe(mail)


async def test_whoever_locks_an_address_again_and_again_sends_one_mail_an_hour(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    await house.reader(publisher.live, email)
    first = await house.sign_in(publisher.live, email)
    await lock(house, house.page(publisher.live), email)
    mails = await unlock_mails(house, publisher.live)
    for _ in range(FREE):
        await attempt(house, house.page(publisher.live), email, WRONG, first.device_token)
    assert await unlock_mails(house, publisher.live) == mails
    assert len(mails) == 1


@pytest.mark.case("auth-32")
@pytest.mark.parametrize("whose", ["reader", "staff"])
async def test_a_lock_ends_by_itself(house: AuthHouse, whose: str) -> None:
    publisher = await house.publisher()
    email = publisher.owner_email if whose == "staff" else house.fresh()
    if whose == "reader":
        await house.reader(publisher.live, email)
    who = house.anonymous() if whose == "staff" else house.page(publisher.live)
    await lock(house, who, email)
    cast("FixedClock", house.clock).advance(timedelta(seconds=30))
    assert isinstance(await attempt(house, who, email, PASSWORD), session_pb2.Tokens)


def unlocking(house: AuthHouse, publisher: Publisher, subject: UUID | None) -> Callable[..., Any]:
    """Returns what support does for a reader, or an owner for a member."""

    async def unlock(member: str = "", role: str | None = None) -> None:
        request: Any
        if subject is None:
            request = team_pb2.UnlockMemberRequest(id=member)
            await house.call(house.staff(publisher.live, role or roles.OWNER), house.team.UnlockMember, request)
        else:
            request = sign_in_pb2.UnlockSubscriberSignInRequest(subscriber_id=ids.encode("subj", subject))
            who = house.staff(publisher.live, role or roles.SUPPORT)
            await house.call(who, house.sign_ins.UnlockSubscriberSignIn, request)

    return unlock


@pytest.mark.case("auth-32")
@pytest.mark.parametrize("whose", ["reader", "staff"])
async def test_staff_end_a_wait_and_give_nobody_more_guesses(house: AuthHouse, whose: str) -> None:
    publisher = await house.publisher()
    email = publisher.owner_email if whose == "staff" else house.fresh()
    subject = await house.reader(publisher.live, email) if whose == "reader" else None
    who = house.anonymous() if whose == "staff" else house.page(publisher.live)
    unlock, member = unlocking(house, publisher, subject), ids.encode("mem", publisher.member)
    await lock(house, who, email)
    await unlock(member)
    assert isinstance(await attempt(house, who, email, PASSWORD), session_pb2.Tokens)
    await lock(house, who, email)
    await unlock(member)
    assert reasons([await attempt(house, who, email)]) == {"credentials_invalid": 1}
    delayed = await attempt(house, who, email)
    assert isinstance(delayed, GatefoldError)
    assert delayed.retry_after_seconds == 60, "wrong ones stay counted"
    # Whoever may unlock guesses no more than anybody.
    units = house.units()
    for _ in range(FREE + 1, 100):
        await unlock(member)
        assert reasons([await attempt(house, who, email)]) == {"credentials_invalid": 1}
    assert house.units() == units + (99 - FREE) * HASH
    with pytest.raises(GatefoldError, match="sign_in_shut"):
        await unlock(member)
    assert reasons([await attempt(house, who, email, PASSWORD)]) == {"sign_in_delayed": 1}


async def test_an_admin_unlocks_no_owner_and_no_stranger(house: AuthHouse) -> None:
    publisher, other = await house.publisher(), await house.publisher()
    foreign = await house.reader(other.live, house.fresh())
    with pytest.raises(GatefoldError, match="role_above_own"):
        await unlocking(house, publisher, None)(ids.encode("mem", publisher.member), roles.ADMIN)
    with pytest.raises(GatefoldError, match="member_not_found"):
        await unlocking(house, publisher, None)(ids.encode("mem", other.member))
    with pytest.raises(GatefoldError, match="sign_in_not_found"):
        await unlocking(house, publisher, foreign)()


@pytest.mark.case("auth-24")
@pytest.mark.parametrize(
    ("before", "now"),
    [("192.0.2.10", "192.0.2.10"), ("2001:db8:a:b::1", "2001:db8:a:b:ffff::2")],
    ids=["one address", "one /64"],
)
@pytest.mark.parametrize("whose", ["reader", "staff"])
async def test_who_signed_in_from_here_lately_signs_in_while_strangers_keep_the_door_shut(
    house: AuthHouse, whose: str, before: str, now: str
) -> None:
    publisher = await house.publisher()
    email = publisher.owner_email if whose == "staff" else house.fresh()
    if whose == "reader":
        await house.reader(publisher.live, email)

    def at(address: str) -> Caller:
        return replace(house.anonymous() if whose == "staff" else house.page(publisher.live), address=address)

    assert isinstance(await attempt(house, at(before), email, PASSWORD), session_pb2.Tokens)
    stranger = at("203.0.113.66")
    await lock(house, stranger, email)
    assert reasons([await attempt(house, at("192.0.2.11"), email, PASSWORD)]) == {"sign_in_delayed": 1}
    assert isinstance(await attempt(house, at(now), email, PASSWORD), session_pb2.Tokens)
    assert reasons([await attempt(house, stranger, email, PASSWORD)]) == {"sign_in_delayed": 1}
    # A network counts by itself, and is no way around.
    answers = [await attempt(house, at(now), email) for _ in range(FREE + 1)]
    assert reasons(answers) == {"credentials_invalid": FREE, "sign_in_delayed": 1}


@pytest.mark.case("auth-24")
@pytest.mark.parametrize("whose", ["reader", "staff"])
async def test_what_a_thief_hoarded_with_the_former_password_gives_no_guesses_at_the_new_one(
    house: AuthHouse, whose: str
) -> None:
    publisher = await house.publisher()
    email = publisher.owner_email if whose == "staff" else house.fresh()
    if whose == "reader":
        await house.reader(publisher.live, email)

    def at(address: str) -> Caller:
        return replace(house.anonymous() if whose == "staff" else house.page(publisher.live), address=address)

    thief, home = at("203.0.113.80"), at("192.0.2.80")
    hoard = [await attempt(house, thief, email, PASSWORD) for _ in range(3)]
    await reset(house, publisher.live, email, NEW, home, whose)
    strangers = at("203.0.113.81")
    await lock(house, strangers, email)
    assert reasons([await attempt(house, thief, email)]) == {"sign_in_delayed": 1}, "the thief's network"
    for one in hoard:
        assert isinstance(one, session_pb2.Tokens)
        assert reasons([await attempt(house, strangers, email, WRONG, one.device_token)]) == {"sign_in_delayed": 1}
    mine = await attempt(house, home, email, NEW)
    assert isinstance(mine, session_pb2.Tokens), "strangers keep nobody out of where the password was set"
    elsewhere = await attempt(house, strangers, email, NEW, mine.device_token)
    assert isinstance(elsewhere, session_pb2.Tokens), "and the device is known anew"
    changed = password_pb2.ChangePasswordRequest(current_password=NEW, new_password=PASSWORD, keep_sessions=True)
    away = "192.0.2.81"
    await house.call(replace(await house.holder(mine), address=away), house.passwords.ChangePassword, changed)
    assert reasons([await attempt(house, strangers, email, PASSWORD, mine.device_token)]) == {"sign_in_delayed": 1}
    assert reasons([await attempt(house, home, email, PASSWORD)]) == {"sign_in_delayed": 1}
    assert isinstance(await attempt(house, at(away), email, PASSWORD), session_pb2.Tokens)


async def test_a_network_is_known_for_thirty_days_to_its_own_principal_alone(house: AuthHouse) -> None:
    publisher = await house.publisher()
    here = page(house, publisher.live, "192.0.2.90")
    mallory, victim = house.fresh("mallory"), house.fresh()
    await house.reader(publisher.live, mallory)
    await house.reader(publisher.live, victim)
    assert isinstance(await attempt(house, here, mallory, PASSWORD), session_pb2.Tokens)
    await lock(house, page(house, publisher.live, "203.0.113.67"), victim)
    assert reasons([await attempt(house, here, victim, PASSWORD)]) == {"sign_in_delayed": 1}
    cast("FixedClock", house.clock).advance(timedelta(days=30))
    await lock(house, page(house, publisher.live, "203.0.113.68"), mallory)
    assert reasons([await attempt(house, here, mallory, PASSWORD)]) == {"sign_in_delayed": 1}


async def test_networks_are_kept_unreadable_and_few_and_go_with_the_reader(house: AuthHouse, vault: Vault) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    subject = await house.reader(publisher.live, email)
    server = replace(page(house, publisher.live, "203.0.113.51"), kind=CallerKind.SECRET_KEY)
    assert isinstance(await attempt(house, server, email, PASSWORD), session_pb2.Tokens)

    async def kept() -> list[bytes]:
        async with house.app.tenant(publisher.live, "read_networks", read_only=True) as conn:
            return [row["network"] for row in await conn.fetch("SELECT network FROM known_network")]

    assert await kept() == [], "that is where the publisher's server is"
    for number in range(MOST_NETWORKS + 2):
        who = page(house, publisher.live, f"192.0.2.{number}")
        assert isinstance(await attempt(house, who, email, PASSWORD), session_pb2.Tokens)
        cast("FixedClock", house.clock).advance(timedelta(seconds=1))
    held = await kept()
    assert (len(held), {len(one) for one in held}) == (MOST_NETWORKS, {32})
    port = SubjectDataServicer("auth", house.app, vault, PERSONAL_TABLES, clock=house.clock)
    text = ids.encode("subj", subject)
    with caller.serving(house.service("compliance", publisher.live)):
        plan = await port.PlanErase(subject_data_pb2.PlanEraseRequest(subject_id=text), None)  # type: ignore[arg-type]
        await port.Erase(subject_data_pb2.EraseRequest(subject_id=text, plan_hash=plan.plan_hash), None)  # type: ignore[arg-type]
    assert await kept() == []


@pytest.mark.parametrize("whose", ["reader", "staff"])
async def test_a_stolen_session_guesses_no_password_and_locks_nobody_else(house: AuthHouse, whose: str) -> None:
    publisher = await house.publisher()
    email = publisher.owner_email if whose == "staff" else house.fresh()
    if whose == "reader":
        await house.reader(publisher.live, email)
    who = house.anonymous() if whose == "staff" else house.page(publisher.live)
    stolen, own = [await attempt(house, who, email, PASSWORD) for _ in range(2)]
    assert isinstance(stolen, session_pb2.Tokens)
    assert isinstance(own, session_pb2.Tokens)

    async def change(tokens: session_pb2.Tokens, current: str) -> str:
        request = password_pb2.ChangePasswordRequest(
            current_password=current, new_password="an entirely different phrase"
        )
        try:
            await house.call(await house.holder(tokens), house.passwords.ChangePassword, request)
        except GatefoldError as error:
            return error.reason
        return ""

    units = house.units()
    guesses = await asyncio.gather(*(change(stolen, WRONG) for _ in range(30)))
    assert Counter(guesses) == {"current_password_wrong": FREE, "sign_in_delayed": 30 - FREE}
    assert house.units() == units + FREE * HASH
    assert await change(stolen, PASSWORD) == "sign_in_delayed", "right or wrong"
    assert isinstance(await attempt(house, who, email, PASSWORD), session_pb2.Tokens)
    await lock(house, who, email)
    assert await change(own, PASSWORD) == ""


async def test_an_invitation_lets_nobody_guess_the_password_of_whom_it_went_to(house: AuthHouse) -> None:
    known, other = await house.publisher(), await house.publisher()
    invite = team_pb2.InviteMemberRequest(email=known.owner_email, role=team_pb2.ROLE_SUPPORT)
    await house.call(house.staff(other.live), house.team.InviteMember, invite)
    token = await house.token(other.live, "invite_member")
    units = house.units()
    guesses = await asyncio.gather(*(house.accept(token, WRONG) for _ in range(15)), return_exceptions=True)
    told = Counter(one.reason for one in guesses if isinstance(one, GatefoldError))
    assert told == {"credentials_invalid": FREE, "sign_in_delayed": 5}
    assert house.units() == units + FREE * HASH
    assert reasons([await attempt(house, house.anonymous(), known.owner_email, PASSWORD)]) == {"sign_in_delayed": 1}
    cast("FixedClock", house.clock).advance(timedelta(seconds=30))
    assert (await house.accept(token)).active


@pytest.mark.case("auth-30")
@pytest.mark.parametrize("store", ["there", "away"])
async def test_counts_outlive_a_replica_with_the_store_or_without(
    service_db: ServiceDb,
    keys_dsn: Secret,
    valkey_server: ValkeyServer,
    key_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
    store: str,
) -> None:
    database, clock = await service_db("auth"), FixedClock()
    url = valkey_server.url().reveal() if store == "there" else "redis://127.0.0.1:1/0"
    looked, email, live = 0, "reader@example.com", UUID(int=0)
    for name, wrong in (("before", 6), ("after", 20)):
        folder = tmp_path_factory.mktemp(name)
        async with running(database, keys_dsn.reveal(), url, key_file, folder, clock) as replica:
            if name == "before":
                live = (await replica.publisher()).live
                await replica.reader(live, email)
            units = replica.units()
            who = replica.page(live)
            answers = await asyncio.gather(*(attempt(replica, who, email) for _ in range(wrong)))
            looked += reasons(answers)["credentials_invalid"]
            assert replica.units() - units == reasons(answers)["credentials_invalid"] * HASH
            failures = replica.telemetry.registry.get_sample_value("gatefold_attempt_store_failures_total") or 0
            assert (failures > 0) == (store == "away")
    assert looked == FREE


@pytest.mark.case("auth-30")
async def test_without_the_store_the_database_counts_the_same_and_is_not_open(house: AuthHouse) -> None:
    seconds = 1000
    limits = Limits(
        Rule(3, 5, 30 * seconds, 60 * seconds, 3600 * seconds), Rule(9, 99, 30_000, 60_000, 60_000), 9, 9, 9
    )
    clock, told, offered = FixedClock(), list[activity_pb2.Activity](), list[redis_client.Store]()
    publisher = await house.publisher()
    async with house.app.transaction("read_person", read_only=True) as conn:
        index = await people.index_of(conn, publisher.owner)
    assert index is not None
    away = redis_client.connect(RedisConfig(Secret("redis://127.0.0.1:1/0")))
    here = redis_client.connect(RedisConfig(Secret(house.environ["GATEFOLD_REDIS_URL"])))

    class Told:
        def record(self, activity: activity_pb2.Activity) -> None:
            told.append(activity)

    def guard(store: redis_client.Store) -> Attempts:
        secrets = TokenSecrets.derive(os.urandom(32).hex())
        quiet = Telemetry("tests", stream=io.StringIO())
        made = IdMaker(clock, os.urandom)

        async def offer(owner: UUID, email_index: bytes) -> None:
            offered.append(store)

        return Attempts(
            house.app,
            AttemptStore(store),
            limits,
            secrets,
            Told(),
            offer,
            Pseudonyms("pepper"),
            lambda address: None,
            clock,
            made,
            quiet,
        )

    async def course(attempts: Attempts) -> list[object]:
        looked = 0
        target = Target(PLATFORM, index, None, "", "/v1/staff/sessions")

        async def wrong() -> None:
            nonlocal looked
            looked += 1
            await asyncio.sleep(0)

        async def right() -> str:
            return "found"

        async def one(check: Any) -> object:
            with caller.serving(replace(house.anonymous(), address="192.0.2.1")):
                try:
                    return await attempts.guarded(target, check)
                except GatefoldError as error:
                    return error.retry_after_seconds

        seen: list[object] = sorted(await asyncio.gather(*(one(wrong) for _ in range(20))), key=str)
        seen.append(looked)
        clock.advance(timedelta(seconds=30))
        seen += [await one(wrong), await one(wrong)]
        door = Door(session.STAFF, publisher.live, live=True, principal=publisher.owner)
        await attempts.release(door)
        seen += [await one(wrong)]
        with pytest.raises(GatefoldError, match="sign_in_shut"):
            await attempts.release(door)
        seen += [await one(right)]
        clock.advance(timedelta(hours=1))
        seen += [await one(wrong), await one(wrong), await one(wrong), await one(wrong)]
        clock.advance(timedelta(seconds=30))
        seen += [await one(right), await one(wrong), await one(wrong), await one(wrong), await one(right)]
        await attempts.lift(door)
        return [*seen, await one(right)]

    try:
        counted = await course(guard(away))
        assert counted == await course(guard(here))
    finally:
        await away.aclose()
        await here.aclose()
    assert counted[:21] == [*[30] * 17, None, None, None, 3]
    released, forgotten = [None, 60, None, 3600], [None, None, None, 30]
    assert counted[21:] == [*released, *forgotten, "found", None, None, None, 30, "found"]
    assert Counter(offered) == {away: 4, here: 4}, "when a wait begins, and when the door is shut"
    assert {one.http_response_status_code for one in told} == {200, 401, 429}


@pytest.mark.case("auth-72")
async def test_every_attempt_is_told_to_the_abuse_service_without_saying_who(house: AuthHouse) -> None:
    store = redis_client.connect(RedisConfig(Secret(house.environ["GATEFOLD_REDIS_URL"])))
    publisher = await house.publisher()
    email = house.fresh()
    subject = await house.reader(publisher.live, email)
    tries = [page(house, publisher.live, "192.0.2.77") for _ in range(2)]
    await attempt(house, tries[0], email)
    await attempt(house, tries[1], email, PASSWORD)
    wanted = {who.request_id for who in tries}
    found: dict[str, activity_pb2.Activity] = {}
    while not wanted <= found.keys():
        for _, fields in [entry for shard in range(SHARDS) for entry in await store.xrange(stream_of(shard))]:
            raw = fields[FIELD]
            for text in (email, "192.0.2.77", PASSWORD, WRONG):
                assert text.encode() not in raw
            for one in activity_pb2.ActivityBatch.FromString(raw).activities:
                found[one.request_id] = one
        await asyncio.sleep(0.05)
    wrong, right = (found[who.request_id] for who in tries)
    assert (wrong.http_response_status_code, wrong.problem_reason) == (401, "credentials_invalid")
    assert right.http_response_status_code == 200
    assert wrong.target_hash == right.target_hash != subject.bytes
    assert len(wrong.client_address_hash) == len(wrong.client_network_hash) == 16
    await store.aclose()
