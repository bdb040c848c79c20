"""Attacks with passwords that others have lost: refused when chosen, and of no use where one had been chosen."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
from gatefold.auth.v1 import password_pb2, recovery_pb2, session_pb2, team_pb2
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from infra.local.valkey import ValkeyServer
from libs import ids
from libs.caller import Caller, CallerKind
from libs.clock import FixedClock
from libs.config import Secret
from libs.errors import GatefoldError, Kind
from libs.postgres import PLATFORM
from services.auth.clients.breach_corpus import BreachCorpus
from services.auth.clients.breach_range import RangeSource
from services.auth.config import BreachConfig
from services.auth.usecases.password_policy import Breaches
from tests.conftest import ServiceDb
from tests.support.auth import PASSWORD, AuthHouse, running
from tests.support.range_server import RangeServer, serving
from tests.support.waiting import until

BREACHED = "qwertyuiopasdfgh"
NEW = "another horse battery"


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[RangeServer]:
    async with serving() as found:
        yield found


@pytest.fixture(scope="module")
async def house(
    service_db: ServiceDb,
    keys_dsn: Secret,
    valkey_server: ValkeyServer,
    key_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
    server: RangeServer,
) -> AsyncIterator[AuthHouse]:
    database, folder = await service_db("auth"), tmp_path_factory.mktemp("auth")
    url = valkey_server.url().reveal()
    settings = {"GATEFOLD_BREACH_RANGE_URL": server.url}
    async with running(database, keys_dsn.reveal(), url, key_file, folder, FixedClock(), settings) as found:
        yield found


@pytest.mark.case("auth-9")
def test_the_list_that_ships_knows_the_commonest_and_the_long_weak_ones() -> None:
    corpus = BreachCorpus(BreachConfig().breach_corpus)
    commonest = [password for password in FREQUENCY_LISTS["passwords"][:3000] if len(password) >= 8]
    long = ["passwordpassword", "123456789012345", "Password12345678", "aaaaaaaaaaaaaaa", BREACHED, "iloveyouiloveyou"]
    assert len(commonest) > 500
    missing = [each for each in [*commonest, *long] if not corpus.holds(hashlib.sha1(each.encode()).digest())]
    assert missing == []
    assert not corpus.holds(hashlib.sha1(PASSWORD.encode()).digest())


@pytest.mark.case("auth-9")
async def test_a_breached_password_is_refused_wherever_one_is_chosen(house: AuthHouse) -> None:
    publisher = await house.publisher()
    with pytest.raises(GatefoldError) as raised:
        await house.register(publisher.live, house.fresh(), BREACHED)
    assert (raised.value.kind, raised.value.reason) == (Kind.INVALID, "password_breached")
    assert raised.value.violations[0].field == "password"
    await house.call(
        house.staff(publisher.live),
        house.team.InviteMember,
        team_pb2.InviteMemberRequest(email=house.fresh("staff"), role=team_pb2.ROLE_SUPPORT),
    )
    token = await house.token(publisher.live, "invite_member")
    accept = team_pb2.AcceptInvitationRequest(token=token, name="Stan", password=BREACHED)
    with pytest.raises(GatefoldError, match="password_breached"):
        await house.call(house.anonymous(), house.team.AcceptInvitation, accept)
    email = house.fresh()
    who = await signed_in(house, publisher.live, email)
    with pytest.raises(GatefoldError, match="password_breached"):
        await change(house, who, PASSWORD, BREACHED)
    await house.sign_in(publisher.live, email)
    asked = recovery_pb2.RequestPasswordResetRequest(email=email)
    await house.call(house.page(publisher.live), house.recovery.RequestPasswordReset, asked)
    reset = await house.token(publisher.live, "reset_password")
    with pytest.raises(GatefoldError, match="password_breached"):
        await house.complete_reset(reset, BREACHED)
    await house.complete_reset(reset, NEW)


@pytest.mark.case("auth-9")
async def test_the_remote_list_is_asked_by_prefix_and_with_padding(house: AuthHouse, server: RangeServer) -> None:
    publisher = await house.publisher()
    server.learn("only the remote list knows")
    server.asked.clear()
    with pytest.raises(GatefoldError, match="password_breached"):
        await house.register(publisher.live, house.fresh(), "only the remote list knows")
    prefix = hashlib.sha1(b"only the remote list knows").hexdigest()[:5].upper()
    assert server.asked == [(prefix, True)]


@pytest.mark.case("auth-10")
@pytest.mark.parametrize("password", ["the daily the daily", "gatefold1234567!", "welcome.daily.example"])
async def test_the_sites_and_the_readers_own_words_are_refused(house: AuthHouse, password: str) -> None:
    publisher = await house.publisher()
    with pytest.raises(GatefoldError, match="password_says_too_much"):
        await house.register(publisher.live, house.fresh(), password)
    with pytest.raises(GatefoldError, match="password_says_too_much"):
        await house.register(publisher.live, "rita.reader.of.things@example.com", "rita.reader.of.things")


@pytest.mark.case("auth-11")
async def test_a_password_that_was_lost_since_gets_no_token_until_it_is_changed(
    house: AuthHouse, server: RangeServer
) -> None:
    publisher = await house.publisher()
    email, lost = house.fresh(), "it was good when chosen"
    await house.reader(publisher.live, email, lost)
    elsewhere = await house.sign_in(publisher.live, email, lost)
    server.learn(lost)
    waiting = await house.sign_in(publisher.live, email, lost)
    assert (waiting.access_token, waiting.refresh_token, waiting.pending.next) == ("", "", "change_password")
    letter = await house.describe(await house.newest_challenge(publisher.live))
    assert (letter.purpose, letter.email, letter.link) == ("password_breached", email, ""), "the owner learns at once"
    server.known.clear()
    again = await house.sign_in(publisher.live, email, lost)
    assert again.pending.next == "change_password", "that it was lost is remembered"
    assert (await house.events(publisher.live)).count("password.breached") == 1, "once a password"

    with pytest.raises(GatefoldError, match="password_breached"):
        await complete(house, waiting.pending.token, BREACHED)
    tokens = await complete(house, waiting.pending.token, NEW)
    assert tokens.access_token
    with pytest.raises(GatefoldError, match="sign_in_expired"):
        await complete(house, waiting.pending.token, "yet another horse battery")
    with pytest.raises(GatefoldError, match="invalid_grant"):
        await house.refresh(elsewhere.refresh_token)
    assert (await house.describe(await house.newest_challenge(publisher.live))).purpose == "password_changed"
    assert (await house.sign_in(publisher.live, email, NEW)).access_token
    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await house.sign_in(publisher.live, email, lost)


@pytest.mark.case("auth-11")
async def test_of_a_lost_password_its_owner_is_told_once_and_nobody_of_a_wrong_one(
    house: AuthHouse, server: RangeServer
) -> None:
    publisher = await house.publisher()
    email, lost = house.fresh(), "it was good until today"
    await house.reader(publisher.live, email, lost)
    server.learn(lost, "a wrong one that is known")
    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await house.sign_in(publisher.live, email, "a wrong one that is known")
    assert "password.breached" not in await house.events(publisher.live)
    several = await asyncio.gather(*(house.sign_in(publisher.live, email, lost) for _ in range(4)))
    assert {each.pending.next for each in several} == {"change_password"}
    assert (await mails(house, publisher.live)).count("password_breached") == 1
    assert (await house.events(publisher.live)).count("password.breached") == 1
    await complete(house, several[0].pending.token, NEW)
    server.learn(NEW)
    await house.sign_in(publisher.live, email, NEW)
    server.known.clear()
    assert (await mails(house, publisher.live)).count("password_breached") == 2, "another password, another mail"


@pytest.mark.case("auth-11")
async def test_staff_change_a_lost_password_too(house: AuthHouse, server: RangeServer) -> None:
    publisher = await house.publisher()
    server.learn(PASSWORD)
    waiting = await house.sign_in_staff(publisher.owner_email)
    await house.sign_in_staff(publisher.owner_email)
    server.known.clear()
    assert (waiting.access_token, waiting.pending.next) == ("", "change_password")
    letter = await house.describe(await house.newest_challenge(PLATFORM))
    assert (letter.purpose, letter.email, letter.name) == ("password_breached", publisher.owner_email, "Ada Owner")
    assert (await house.events(PLATFORM)).count("password.breached") == 1
    tokens = await complete(house, waiting.pending.token, NEW)
    assert (await house.claims(tokens.access_token))["role"] == "owner"
    assert (await house.sign_in_staff(publisher.owner_email, NEW)).access_token


@pytest.mark.case("auth-12")
async def test_while_the_remote_list_is_away_those_on_disk_decide(house: AuthHouse, server: RangeServer) -> None:
    publisher = await house.publisher()
    server.broken = True
    try:
        before = house.telemetry.registry.get_sample_value("gatefold_breach_source_failures_total") or 0
        email = house.fresh()
        await house.reader(publisher.live, email)
        assert (await house.sign_in(publisher.live, email)).access_token
        with pytest.raises(GatefoldError, match="password_breached"):
            await house.register(publisher.live, house.fresh(), BREACHED)
        after = house.telemetry.registry.get_sample_value("gatefold_breach_source_failures_total") or 0
        assert after - before == 2
    finally:
        server.broken = False


@pytest.mark.case("auth-12")
async def test_who_wants_certainty_gets_no_new_password_while_it_is_away_and_signs_in(server: RangeServer) -> None:
    source = RangeSource("http://127.0.0.1:9", 0.5)
    strict = Breaches([BreachCorpus(BreachConfig().breach_corpus)], source, fail_closed=True)
    with pytest.raises(GatefoldError) as raised:
        await strict.hold(PASSWORD)
    assert (raised.value.kind, raised.value.reason) == (Kind.UNAVAILABLE, "breach_source_away")
    assert not await strict.hold(PASSWORD, fail_closed=False)
    await source.close()


@pytest.mark.case("auth-12")
async def test_two_spellings_of_a_password_are_looked_up_side_by_side(server: RangeServer) -> None:
    source = RangeSource(server.url, 10)
    breaches = Breaches([], source)
    ligature = "the o\ufb03ce of a horse"
    server.gate = asyncio.Barrier(2)
    try:
        for known in (ligature, "the office of a horse"):
            server.learn(known)
            assert await breaches.hold(ligature), "each is answered when the other is asked too"
            server.known.clear()
        assert not await breaches.hold(ligature)
    finally:
        server.gate = None
        await source.close()


@pytest.mark.case("auth-12")
@pytest.mark.case("auth-31")
async def test_a_slow_remote_list_keeps_no_places_from_those_who_sign_in(
    service_db: ServiceDb, keys_dsn: Secret, valkey_server: ValkeyServer, key_file: Path, tmp_path: Path
) -> None:
    database, url = await service_db("auth"), valkey_server.url().reveal()
    async with serving() as slow:
        settings = {
            "GATEFOLD_HASH_QUEUE": "1",
            "GATEFOLD_BREACH_RANGE_URL": slow.url,
            "GATEFOLD_BREACH_SECONDS": "10",
        }
        running_one = running(database, keys_dsn.reveal(), url, key_file, tmp_path, FixedClock(), settings)
        async with running_one as narrow:
            publisher = await narrow.publisher()
            slow.asked.clear()
            slow.gate = asyncio.Event()
            places = (os.cpu_count() or 1) + 1
            registering = [
                asyncio.create_task(narrow.register(publisher.live, narrow.fresh(), key=narrow.request_id()))
                for _ in range(places)
            ]
            await until(lambda: len(slow.asked) == places)
            with pytest.raises(GatefoldError, match="credentials_invalid"):
                await narrow.sign_in(publisher.live, narrow.fresh(), "wrong horse battery")
            slow.gate.set()
            await asyncio.gather(*registering)


@pytest.mark.case("auth-14")
async def test_a_change_needs_the_present_password_ends_other_sessions_and_is_told(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    who = await signed_in(house, publisher.live, email)
    other = await house.sign_in(publisher.live, email)
    with pytest.raises(GatefoldError) as raised:
        await change(house, who, "not the password here", NEW)
    assert (raised.value.reason, raised.value.violations[0].field) == ("current_password_wrong", "current_password")
    await change(house, who, PASSWORD, NEW)
    assert (await house.describe(await house.newest_challenge(publisher.live))).purpose == "password_changed"
    with pytest.raises(GatefoldError, match="invalid_grant"):
        await house.refresh(other.refresh_token)
    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await house.sign_in(publisher.live, email)
    kept = await house.sign_in(publisher.live, email, NEW)
    await change(house, who, NEW, "a third horse battery", keep=True)
    assert (await house.refresh(kept.refresh_token)).access_token


async def test_two_changes_at_once_leave_one_password(house: AuthHouse) -> None:
    publisher = await house.publisher()
    who = await signed_in(house, publisher.live, house.fresh())
    results = await asyncio.gather(
        *(change(house, who, PASSWORD, f"{word} horse battery") for word in ("another", "a third", "a fourth")),
        return_exceptions=True,
    )
    refused = [result for result in results if isinstance(result, GatefoldError)]
    assert len(refused) == 2
    assert {error.reason for error in refused} <= {"concurrent_change", "current_password_wrong"}


async def mails(house: AuthHouse, account: UUID) -> list[str]:
    """What mails of an account are about, as notify learns it."""
    async with house.app.tenant(account, "look", read_only=True) as conn:
        rows = await conn.fetch("SELECT purpose FROM challenge WHERE account_id = $1", account)
    return [row["purpose"] for row in rows]


async def signed_in(house: AuthHouse, account: UUID, email: str) -> Caller:
    """A reader with a session of their own, as the edge vouches for them."""
    subject = await house.reader(account, email)
    claims = await house.claims((await house.sign_in(account, email)).access_token)
    session = ids.decode("ses", str(claims["sid"]))
    who = ids.encode("subj", subject)
    return Caller(CallerKind.SUBSCRIBER, who, account, subject=subject, session=session, request_id=house.request_id())


async def change(house: AuthHouse, who: Caller, current: str, new: str, *, keep: bool = False) -> None:
    request = password_pb2.ChangePasswordRequest(current_password=current, new_password=new, keep_sessions=keep)
    await house.call(who, house.passwords.ChangePassword, request)


async def complete(house: AuthHouse, token: str, new: str) -> session_pb2.Tokens:
    request = password_pb2.CompletePasswordChangeRequest(pending_token=token, new_password=new)
    answer = await house.call(house.anonymous(), house.passwords.CompletePasswordChange, request)
    assert isinstance(answer, session_pb2.Tokens)
    return answer
