"""Attacks on passwords that another system hashed: none is a sign-in, none is noticed, none costs too much."""

import asyncio
import io
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import argon2
import bcrypt
import pytest
from gatefold.auth.v1 import credential_pb2, recovery_pb2, session_pb2
from gatefold.privacy.v1 import subject_data_pb2

from infra.local.valkey import ValkeyServer
from libs import caller, ids
from libs.caller import Caller, CallerKind
from libs.clock import FixedClock
from libs.config import Secret
from libs.errors import GatefoldError
from libs.privacy import SubjectDataServicer
from libs.vault import Vault
from services.auth.__main__ import PERSONAL_TABLES
from services.auth.domain import roles
from services.auth.domain.password import StoredPassword
from services.auth.usecases.expiry import Expiry
from services.auth.usecases.passwords import PasswordHasher, Place, Verdict
from tests.conftest import ServiceDb
from tests.support.auth import COST, AuthHouse, running

OLD = "what I had there"
NEW = "an entirely different phrase"
HASH = bcrypt.hashpw(OLD.encode(), bcrypt.gensalt(COST)).decode()


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


def server(house: AuthHouse, account: UUID) -> Caller:
    """A publisher's server with a secret key."""
    scopes = frozenset({"credentials:write"})
    key = ids.encode("key", UUID(int=9))
    return Caller(CallerKind.SECRET_KEY, key, account, True, scopes, request_id=house.request_id())


async def bring(
    house: AuthHouse, account: UUID, *lines: tuple[str, str], who: Caller | None = None, days: int | None = None
) -> credential_pb2.ImportPasswordsResponse:
    request = credential_pb2.ImportPasswordsRequest(
        passwords=[credential_pb2.ForeignPassword(email=email, hash=text) for email, text in lines]
    )
    if days is not None:
        request.usable_until.FromDatetime(house.clock.wall() + timedelta(days=days))
    answer = await house.call(who or server(house, account), house.credentials.ImportPasswords, request)
    assert isinstance(answer, credential_pb2.ImportPasswordsResponse)
    return answer


async def attempt(house: AuthHouse, account: UUID, email: str, password: str = OLD) -> session_pb2.Tokens:
    answer = await house.sign_in(account, email, password)
    assert not answer.access_token
    return answer


async def imported(house: AuthHouse, account: UUID) -> list[dict[str, object]]:
    async with house.app.tenant(account, "read_imported") as conn:
        return [dict(row) for row in await conn.fetch("SELECT * FROM imported_password ORDER BY id")]


@pytest.mark.parametrize(
    "text",
    [
        HASH,
        HASH.replace("$2b$", "$2y$"),
        argon2.PasswordHasher(time_cost=1, memory_cost=256, parallelism=1).hash(OLD),
    ],
    ids=["bcrypt", "php", "argon2id"],
)
async def test_the_first_right_password_has_the_mailbox_proven_and_is_hashed_anew(house: AuthHouse, text: str) -> None:
    publisher = await house.publisher()
    email = house.fresh("brought")
    assert (await bring(house, publisher.live, (email, text))).taken == 1
    waiting = await attempt(house, publisher.live, email.upper())
    assert (waiting.pending.next, list(waiting.pending.methods)) == ("prove_mailbox", [])
    letter = await house.describe(await house.newest_challenge(publisher.live))
    assert (letter.purpose, letter.email) == ("verify_registration", email)
    token = await house.token(publisher.live, "verify_registration")
    subject = await house.verify(publisher.live, token, browser_secret=waiting.pending.token)
    assert (await house.sign_in(publisher.live, email, OLD)).principal_id == ids.encode("subj", subject)
    assert await imported(house, publisher.live) == []
    async with house.app.tenant(publisher.live, "read") as conn:
        row = await conn.fetchrow("SELECT password_scheme, password_hash FROM credential")
    assert row is not None
    assert row["password_scheme"] == "bcrypt-hmac-sha384"
    assert not bcrypt.checkpw(OLD.encode(), row["password_hash"].encode())


async def test_whoever_knows_the_old_password_but_not_the_mailbox_gets_nothing(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh("brought")
    await bring(house, publisher.live, (email, HASH))
    await attempt(house, publisher.live, email)
    token = await house.token(publisher.live, "verify_registration")
    with pytest.raises(GatefoldError, match="password_required"):
        await house.verify(publisher.live, token, browser_secret="")
    await house.verify(publisher.live, token, browser_secret="", password=NEW)
    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await house.sign_in(publisher.live, email, OLD)
    assert (await house.sign_in(publisher.live, email, NEW)).access_token


@pytest.mark.case("auth-17")
async def test_a_wrong_password_tells_nobody_that_one_was_imported(house: AuthHouse) -> None:
    publisher = await house.publisher()
    brought, known, nobody = house.fresh("brought"), house.fresh(), house.fresh("nobody")
    await bring(house, publisher.live, (brought, HASH))
    await house.reader(publisher.live, known)
    seen = []
    for email in (brought, known, nobody):
        before = house.units()
        with pytest.raises(GatefoldError) as raised:
            await house.sign_in(publisher.live, email, "wrong but long enough")
        seen.append((raised.value.reason, raised.value.detail, house.units() - before))
    assert len(set(seen)) == 1


async def test_lines_that_cannot_be_taken_are_named_and_the_others_taken(house: AuthHouse) -> None:
    publisher = await house.publisher()
    known, taken = house.fresh(), house.fresh("brought")
    await house.reader(publisher.live, known)
    lines = [
        ("nobody", HASH),
        (house.fresh(), "5f4dcc3b5aa765d61d8327deb882cf99"),
        (house.fresh(), f"$argon2id$v=19$m=4194304,t=3,p=4$c2FsdHNhbHQ${'A' * 43}"),
        (house.fresh(), f"pbkdf2_sha256$999999999$salt${'A' * 43}="),
        (house.fresh(), bcrypt.hashpw(b"x", bcrypt.gensalt(COST + 1)).decode()),
        (known, HASH),
        (taken, HASH),
        (taken.upper().replace("EXAMPLE.COM", "example.com"), HASH),
    ]
    answer = await bring(house, publisher.live, *lines)
    assert answer.taken == 1
    assert [(one.position, one.reason) for one in answer.refused] == [
        (0, "email_invalid"),
        (1, "hash_unknown"),
        (2, "hash_too_costly"),
        (3, "hash_too_costly"),
        (4, "hash_too_costly"),
        (5, "credential_exists"),
        (7, "duplicate"),
    ]
    # The credential is what it was.
    assert (await house.sign_in(publisher.live, known)).access_token
    assert (await bring(house, publisher.live, (taken, HASH))).taken == 1, "again is harmless"
    assert len(await imported(house, publisher.live)) == 1


async def test_an_import_that_raced_with_a_registration_changes_nothing(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh("brought")
    await house.register(publisher.live, email)
    token = await house.token(publisher.live, "verify_registration")
    held = house.subscriber.hold()
    bringing = asyncio.create_task(bring(house, publisher.live, (email, HASH)))
    await asyncio.wait_for(house.subscriber.arrivals.get(), 10)
    house.subscriber.held.clear()
    await house.verify(publisher.live, token)
    held.set()
    answer = await bringing
    assert [one.reason for one in answer.refused] == ["credential_exists"]
    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await house.sign_in(publisher.live, email, OLD)


async def test_after_the_deadline_only_a_reset_works_and_the_hash_is_gone(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh("brought")
    for days in (-1, 0, 732):
        with pytest.raises(GatefoldError, match="deadline_invalid"):
            await bring(house, publisher.live, (email, HASH), days=days)
    await bring(house, publisher.live, (email, HASH), days=2)
    assert isinstance(house.clock, FixedClock)
    house.clock.advance(timedelta(days=2, minutes=1))
    before = house.units()
    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await house.sign_in(publisher.live, email, OLD)
    assert house.units() - before == 1 << COST
    await Expiry(house.database.jobs, house.clock).clear()
    (row,) = await imported(house, publisher.live)
    assert (row["password_hash"], row["usable_until"]) == ("", None)
    request = recovery_pb2.RequestPasswordResetRequest(email=email)
    await house.call(house.page(publisher.live), house.recovery.RequestPasswordReset, request)
    assert (await house.describe(await house.newest_challenge(publisher.live))).email == email
    await house.complete_reset(await house.token(publisher.live, "reset_password"), NEW)
    assert (await house.sign_in(publisher.live, email, NEW)).access_token
    assert await imported(house, publisher.live) == []


async def test_a_reset_before_the_first_sign_in_ends_what_was_imported_and_the_mail_it_has_begun(
    house: AuthHouse,
) -> None:
    publisher = await house.publisher()
    email = house.fresh("brought")
    await bring(house, publisher.live, (email, HASH))
    waiting = await attempt(house, publisher.live, email)
    begun = await house.token(publisher.live, "verify_registration")
    request = recovery_pb2.RequestPasswordResetRequest(email=email)
    await house.call(house.page(publisher.live), house.recovery.RequestPasswordReset, request)
    await house.complete_reset(await house.token(publisher.live, "reset_password"), NEW)
    with pytest.raises(GatefoldError, match="token_invalid"):
        await house.verify(publisher.live, begun, browser_secret=waiting.pending.token)
    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await house.sign_in(publisher.live, email, OLD)


async def test_other_mails_find_nobody_before_the_mailbox_is_proven(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh("brought")
    await bring(house, publisher.live, (email, HASH))
    request = recovery_pb2.RequestMagicLinkRequest(email=email)
    await house.call(house.page(publisher.live), house.recovery.RequestMagicLink, request)
    with pytest.raises(GatefoldError, match="challenge_over"):
        await house.describe(await house.newest_challenge(publisher.live))


async def test_who_may_import_passwords(house: AuthHouse) -> None:
    publisher, other = await house.publisher(), await house.publisher()
    email = house.fresh("brought")
    staff = replace(house.staff(publisher.live), auth_time=house.clock.wall() - timedelta(minutes=5))
    assert (await bring(house, publisher.live, (email, HASH), who=staff)).taken == 1
    for stale in (None, house.clock.wall() - timedelta(minutes=16)):
        with pytest.raises(GatefoldError, match="authentication_insufficient"):
            await bring(house, publisher.live, (email, HASH), who=replace(staff, auth_time=stale))
    for who in (
        replace(staff, scopes=roles.scopes_of(roles.SUPPORT), role=roles.SUPPORT),
        replace(server(house, publisher.live), scopes=frozenset({"subscribers:write"})),
        house.page(publisher.live),
        house.anonymous(),
    ):
        with pytest.raises(GatefoldError) as raised:
            await bring(house, publisher.live, (email, HASH), who=who)
        assert raised.value.reason in {"scope_missing", "caller_kind_not_allowed"}
    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await house.sign_in(other.live, email, OLD)


async def test_what_was_imported_is_kept_sealed_and_goes_with_its_reader(house: AuthHouse, vault: Vault) -> None:
    publisher = await house.publisher()
    email = house.fresh("brought")
    await bring(house, publisher.live, (email, HASH))
    (row,) = await imported(house, publisher.live)
    kept = " ".join(str(value) for value in row.values())
    assert HASH[7:] not in kept
    assert email not in kept
    subject = ids.encode("subj", UUID(str(row["subject_id"])))
    port = SubjectDataServicer("auth", house.app, vault, PERSONAL_TABLES, clock=house.clock)
    with caller.serving(house.service("compliance", publisher.live)):
        exported = io.BytesIO()
        async for part in port.Export(subject_data_pb2.ExportRequest(subject_id=subject), None):  # type: ignore[arg-type]
            exported.write(part.json_lines)
        assert email in exported.getvalue().decode()
        plan = await port.PlanErase(subject_data_pb2.PlanEraseRequest(subject_id=subject), None)  # type: ignore[arg-type]
        erase = subject_data_pb2.EraseRequest(subject_id=subject, plan_hash=plan.plan_hash)
        await port.Erase(erase, None)  # type: ignore[arg-type]
    assert await imported(house, publisher.live) == []
    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await house.sign_in(publisher.live, email, OLD)
    answer = await bring(house, publisher.live, (email, HASH))
    assert [one.reason for one in answer.refused] == ["subject_erased"]


@pytest.mark.case("auth-16")
async def test_it_is_told_how_passwords_are_hashed_without_whose(house: AuthHouse) -> None:
    publisher, other = await house.publisher(), await house.publisher()
    await house.reader(publisher.live, house.fresh())
    await house.reader(publisher.live, house.fresh())
    await house.reader(other.live, house.fresh())
    await bring(house, publisher.live, (house.fresh("brought"), HASH))
    async with house.app.tenant(publisher.live, "age") as conn:
        await conn.execute(
            "UPDATE credential SET password_params = '5' WHERE id = (SELECT id FROM credential ORDER BY id LIMIT 1)"
        )
    request = credential_pb2.CountPasswordsRequest()
    found = await house.call(house.staff(publisher.live), house.credentials.CountPasswords, request)
    assert isinstance(found, credential_pb2.PasswordCounts)
    assert {(one.scheme, one.params, one.pepper_id, one.count, one.imported, one.stale) for one in found.data} == {
        ("bcrypt-hmac-sha384", str(COST), "", 1, False, False),
        ("bcrypt-hmac-sha384", "5", "", 1, False, True),
        ("bcrypt", f"cost={COST}", "", 1, True, True),
    }
    for who in (house.staff(publisher.live, roles.SUPPORT), house.page(publisher.live), house.anonymous()):
        with pytest.raises(GatefoldError) as raised:
            await house.call(who, house.credentials.CountPasswords, request)
        assert raised.value.reason in {"scope_missing", "caller_kind_not_allowed"}
    everyone = credential_pb2.CountPeoplesPasswordsRequest()
    people = await house.call(house.operator(), house.credentials.CountPeoplesPasswords, everyone)
    assert isinstance(people, credential_pb2.PasswordCounts)
    (own,) = [one for one in people.data if one.scheme == "bcrypt-hmac-sha384"]
    assert (own.params, own.pepper_id, own.stale) == (str(COST), "1", False)
    assert own.count >= 2
    with pytest.raises(GatefoldError, match="caller_kind_not_allowed"):
        await house.call(house.staff(publisher.live), house.credentials.CountPeoplesPasswords, everyone)


async def test_a_sign_in_with_the_imported_password_while_it_is_reset_mails_nothing(
    house: AuthHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = await house.publisher()
    email = house.fresh("brought")
    await bring(house, publisher.live, (email, HASH))
    request = recovery_pb2.RequestPasswordResetRequest(email=email)
    await house.call(house.page(publisher.live), house.recovery.RequestPasswordReset, request)
    token = await house.token(publisher.live, "reset_password")
    verify, arrived, go = PasswordHasher.verify, asyncio.Event(), asyncio.Event()

    async def slow(
        self: PasswordHasher, password: str, stored: StoredPassword | None, place: Place | None = None
    ) -> Verdict:
        verdict = await verify(self, password, stored, place)
        arrived.set()
        await go.wait()
        return verdict

    monkeypatch.setattr(PasswordHasher, "verify", slow)
    signing = asyncio.create_task(house.sign_in(publisher.live, email, OLD))
    await asyncio.wait_for(arrived.wait(), 10)
    await house.complete_reset(token, NEW)
    go.set()
    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await signing
    monkeypatch.undo()
    assert (await house.sign_in(publisher.live, email, NEW)).access_token
