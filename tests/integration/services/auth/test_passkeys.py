"""Passkeys and security keys: adding them, signing in by them alone or with a password, and what becomes of them."""

import asyncio
import json
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from gatefold.auth.v1 import account_pb2, factor_pb2
from gatefold.privacy.v1 import subject_data_pb2

from libs import caller, ids
from libs.errors import GatefoldError
from libs.postgres import PLATFORM
from libs.privacy import SubjectDataServicer
from libs.privacy.erasure import place_tombstone
from libs.vault import Vault
from services.auth.__main__ import PERSONAL_TABLES
from services.auth.domain import roles, session
from services.auth.repository.factors import lock
from services.auth.usecases.expiry import Expiry
from tests.support import factors
from tests.support.auth import PASSWORD, AuthHouse
from tests.support.factors import later, listed, purposes, reader, recovery_codes, remove, step_up, with_phone
from tests.support.passkeys import (
    HOST,
    Forged,
    add,
    begin,
    begin_proof,
    begin_sign_in,
    begin_staff,
    complete,
    new_key,
    sign_in,
    sign_in_staff,
    with_passkey,
)


async def test_a_reader_signs_in_with_a_passkey_alone(house: AuthHouse) -> None:
    someone, key = await with_passkey(house)
    account = someone.publisher.live
    (factor,) = (await listed(house, someone.caller)).data
    assert (factor.kind, factor.name) == (factor_pb2.FACTOR_KIND_PASSKEY, "My laptop")
    assert not factor.HasField("last_used_at")
    later(house, timedelta(minutes=1))
    tokens = await sign_in(house, account, key.sign(await begin_sign_in(house, account)))
    claims = await house.claims(tokens.access_token)
    assert (claims["acr"], claims["sub"]) == (session.AAL2, ids.encode("subj", someone.subject))
    assert tokens.device_token
    (factor,) = (await listed(house, someone.caller)).data
    assert factor.last_used_at.ToDatetime(house.clock.wall().tzinfo) == house.clock.wall()
    # By address as well: the options name the key then.
    options = await begin_sign_in(house, account, someone.email)
    assert [one["transports"] for one in json.loads(options)["allowCredentials"]] == [["internal"]]
    assert (await sign_in(house, account, key.sign(options))).access_token


async def test_the_options_ask_for_what_a_passkey_and_what_a_security_key_is(house: AuthHouse) -> None:
    someone = await reader(house)
    options = json.loads(await begin(house, someone.caller))
    assert options["rp"] == {"name": "Gatefold", "id": HOST}
    assert options["user"]["name"] == f"{someone.email} (The Daily)"
    assert options["authenticatorSelection"] == {
        "residentKey": "required",
        "requireResidentKey": True,
        "userVerification": "required",
    }
    assert {one["alg"] for one in options["pubKeyCredParams"]} == {-7, -8, -257}
    assert (options["attestation"], options["timeout"]) == ("none", 300_000)
    touched = json.loads(await begin(house, someone.caller, "security_key"))
    assert touched["authenticatorSelection"]["userVerification"] == "discouraged"
    # The authenticator learns a random handle, not who it is here.
    assert someone.subject.hex not in options["user"]["id"]
    assert len(options["user"]["id"]) == 86
    assert touched["user"]["id"] != options["user"]["id"]


async def test_all_keys_of_one_person_have_one_handle_and_are_not_made_twice(house: AuthHouse) -> None:
    someone, key = await with_passkey(house)
    options = await begin(house, someone.caller)
    known = json.loads(options)
    assert new_key(options).user_handle == key.user_handle
    assert [one["id"] for one in known["excludeCredentials"]] == [json.loads(key.made(options))["id"]]
    with pytest.raises(GatefoldError, match="passkey_known"):
        await add(house, someone.caller, key.made(options))


@pytest.mark.parametrize("private", ["rsa", "ed25519", "packed"])
async def test_every_algorithm_that_is_offered_works(house: AuthHouse, private: str) -> None:
    someone = await reader(house)
    options = await begin(house, someone.caller)
    forged = Forged(attestation=("packed", {"self": True})) if private == "packed" else Forged()
    pair = {
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
        "packed": lambda: None,
    }[private]()
    key = new_key(options, pair)
    await add(house, someone.caller, key.made(options, forged))
    account = someone.publisher.live
    assert (await sign_in(house, account, key.sign(await begin_sign_in(house, account)))).access_token


@pytest.mark.case("auth-43")
async def test_a_synchronised_passkey_never_counts_and_works(house: AuthHouse) -> None:
    someone, key = await with_passkey(house, counts=False, eligible=True)
    account = someone.publisher.live
    for _ in range(3):
        await sign_in(house, account, key.sign(await begin_sign_in(house, account)))
    (factor,) = (await listed(house, someone.caller)).data
    assert factor.backed_up
    assert not factor.HasField("clone_suspected_at")
    # Whether it is backed up may change; whether it could be, not.
    await sign_in(house, account, key.sign(await begin_sign_in(house, account), Forged(backed_up=False)))
    (factor,) = (await listed(house, someone.caller)).data
    assert not factor.backed_up


async def test_passkey_comes_first_among_the_second_factors(house: AuthHouse) -> None:
    someone, key = await with_passkey(house)
    phone = await factors.begin(house, someone.caller)
    await factors.confirm(house, someone.caller, phone)
    await recovery_codes(house, someone.caller)
    waiting = await someone.sign_in()
    assert list(waiting.pending.methods) == ["passkey", "totp", "recovery_code"]
    tokens = await complete(house, waiting, key.sign(await begin_proof(house, waiting)))
    assert (await house.claims(tokens.access_token))["acr"] == session.AAL2


async def test_a_security_key_is_a_second_factor_and_no_way_in_by_itself(house: AuthHouse) -> None:
    someone, key = await with_passkey(house, kind="security_key")
    account = someone.publisher.live
    waiting = await someone.sign_in()
    assert list(waiting.pending.methods) == ["security_key"]
    options = await begin_proof(house, waiting, "security_key")
    assert json.loads(options)["userVerification"] == "discouraged"
    tokens = await complete(house, waiting, key.sign(options, Forged(verified=False)), "security_key")
    assert (await house.claims(tokens.access_token))["acr"] == session.AAL2
    # Not even when it verifies its user, and not by its address.
    for email in ("", someone.email):
        options = await begin_sign_in(house, account, email)
        assert json.loads(key.sign(options))["id"] not in options
        with pytest.raises(GatefoldError, match="passkey_refused"):
            await sign_in(house, account, key.sign(options))
    waiting = await someone.sign_in()
    with pytest.raises(GatefoldError, match="factor_missing"):
        await begin_proof(house, waiting, "passkey")


@pytest.mark.case("auth-61")
async def test_a_session_is_proven_anew_with_a_passkey(house: AuthHouse) -> None:
    someone, key = await with_passkey(house)
    account = someone.publisher.live
    tokens = await sign_in(house, account, key.sign(await begin_sign_in(house, account)))
    later(house, timedelta(minutes=20))
    who = await someone.as_caller(await house.refresh(tokens.refresh_token))
    with pytest.raises(GatefoldError, match="authentication_insufficient"):
        await begin(house, who)
    waiting = await step_up(house, who)
    assert list(waiting.pending.methods) == ["passkey"]
    renewed = await complete(house, waiting, key.sign(await begin_proof(house, waiting)))
    claims = await house.claims(renewed.access_token)
    assert (claims["sid"], claims["acr"]) == ((await house.claims(tokens.access_token))["sid"], session.AAL2)
    assert claims["auth_time"] == int(house.clock.wall().timestamp())
    await begin(house, await someone.as_caller(renewed))


async def test_passkeys_open_the_door_while_codes_and_passwords_wait(house: AuthHouse) -> None:
    someone, key = await with_passkey(house)
    account = someone.publisher.live
    phone = await factors.begin(house, someone.caller)
    await factors.confirm(house, someone.caller, phone)
    for _ in range(5):
        with pytest.raises(GatefoldError, match="second_factor_wrong"):
            await factors.complete(house, await someone.sign_in(), phone.wrong())
    waiting = await someone.sign_in()
    with pytest.raises(GatefoldError, match="second_factor_locked"):
        await factors.complete(house, waiting, phone.wrong())
    for _ in range(11):
        with pytest.raises(GatefoldError, match=r"credentials_invalid|sign_in_delayed"):
            await house.sign_in(account, someone.email, "somebody else's guess")
    with pytest.raises(GatefoldError, match="sign_in_delayed"):
        await house.sign_in(account, someone.email)
    await complete(house, waiting, key.sign(await begin_proof(house, waiting)))
    assert (await sign_in(house, account, key.sign(await begin_sign_in(house, account)))).access_token


async def test_staff_and_operators_choose_where_a_passkey_leads(house: AuthHouse) -> None:
    publisher = await house.publisher()
    tokens = await house.sign_in_staff(publisher.owner_email)
    who = await house.person("per", tokens, account=publisher.live)
    options = await begin(house, who)
    assert json.loads(options)["user"]["name"] == f"{publisher.owner_email} (Gatefold)"
    key = new_key(options)
    added = await add(house, who, key.made(options))
    assert (await house.claims(added.tokens.access_token))["role"] == roles.OWNER
    letter = await house.describe(await house.newest_challenge(PLATFORM))
    assert (letter.purpose, letter.email) == ("factor_added", publisher.owner_email)

    tokens = await sign_in_staff(house, key.sign(await begin_staff(house)))
    claims = await house.claims(tokens.access_token)
    assert (claims["acr"], claims["account"]) == (session.AAL2, ids.encode("acct", publisher.live))
    tokens = await sign_in_staff(house, key.sign(await begin_staff(house, publisher.owner_email)), publisher.test)
    claims = await house.claims(tokens.access_token)
    assert (claims["live"], claims["role"]) == (False, roles.OWNER)
    waiting = await house.sign_in_staff(publisher.owner_email, account=publisher.test)
    assert (await complete(house, waiting, key.sign(await begin_proof(house, waiting)))).access_token

    other = await house.publisher()
    with pytest.raises(GatefoldError, match="account_not_found"):
        await sign_in_staff(house, key.sign(await begin_staff(house)), other.live)
    async with house.app.transaction("make_operator") as conn:
        await conn.execute("UPDATE person SET operator = true WHERE id = $1", publisher.owner)
    operator = await sign_in_staff(house, key.sign(await begin_staff(house)))
    assert (operator.account_id, (await house.claims(operator.access_token))["role"]) == ("", roles.OPERATOR)


@pytest.mark.case("auth-44")
@pytest.mark.case("auth-45")
async def test_a_session_that_may_only_enrol_adds_a_passkey_and_the_last_one_stays(house: AuthHouse) -> None:
    publisher = await house.publisher()
    policy = account_pb2.UpdateSecurityPolicyRequest(require_staff_factor=True)
    await house.call(house.staff(publisher.live), house.accounts.UpdateSecurityPolicy, policy)
    tokens = await house.sign_in_staff(publisher.owner_email)
    claims = await house.claims(tokens.access_token)
    assert (claims["acr"], "role" in claims) == (session.ENROL, False)
    who = await house.person("per", tokens, account=publisher.live)
    options = await begin(house, who)
    key = new_key(options)
    added = await add(house, who, key.made(options))
    claims = await house.claims(added.tokens.access_token)
    assert (claims["acr"], claims["role"]) == (session.AAL2, roles.OWNER)
    strong = await house.person("per", added.tokens, account=publisher.live)
    with pytest.raises(GatefoldError, match="last_factor"):
        await remove(house, strong, added.factor.id)
    # The session before had aal1: not even another one's removal is allowed to it.
    with pytest.raises(GatefoldError, match="authentication_insufficient"):
        await remove(house, who, added.factor.id)
    options = await begin(house, strong)
    await add(house, strong, new_key(options).made(options))
    await remove(house, strong, added.factor.id)


async def test_adding_and_removing_a_passkey_ends_other_sessions_and_tells_by_mail(house: AuthHouse) -> None:
    someone = await reader(house)
    other = await someone.sign_in()
    options = await begin(house, someone.caller)
    key = new_key(options)
    added = await add(house, someone.caller, key.made(options))
    with pytest.raises(GatefoldError, match="invalid_grant"):
        await house.refresh(other.refresh_token)
    mine = await house.refresh(someone.tokens.refresh_token)
    who = await someone.as_caller(added.tokens)
    renamed = await house.call(
        who, house.factors.RenameFactor, factor_pb2.RenameFactorRequest(id=added.factor.id, name="Desk")
    )
    assert str(renamed) == str((await listed(house, who)).data[0])
    account = someone.publisher.live
    other = await sign_in(house, account, key.sign(await begin_sign_in(house, account)))
    await remove(house, who, added.factor.id)
    with pytest.raises(GatefoldError, match="invalid_grant"):
        await house.refresh(other.refresh_token)
    await house.refresh(mine.refresh_token)
    assert (await purposes(house, someone))[-2:] == ["factor_added", "factor_removed"]
    with pytest.raises(GatefoldError, match="passkey_refused"):
        await sign_in(house, account, key.sign(await begin_sign_in(house, account)))
    assert (await someone.sign_in()).access_token


async def test_there_are_ten_keys_at_most(house: AuthHouse) -> None:
    someone, _ = await with_passkey(house)
    for number in range(8):
        options = await begin(house, someone.caller)
        await add(house, someone.caller, new_key(options).made(options), f"Key {number}")
    options = await begin(house, someone.caller)
    await add(house, someone.caller, new_key(options).made(options))
    with pytest.raises(GatefoldError, match="factors_too_many"):
        await begin(house, someone.caller)
    assert len((await listed(house, someone.caller)).data) == 10


async def test_of_two_first_keys_that_are_begun_at_once_the_newest_counts(house: AuthHouse) -> None:
    someone = await reader(house)
    first, second = await asyncio.gather(begin(house, someone.caller), begin(house, someone.caller))
    answers = await asyncio.gather(
        *(add(house, someone.caller, new_key(options).made(options)) for options in (first, second)),
        return_exceptions=True,
    )
    (refused,) = (one.reason for one in answers if isinstance(one, GatefoldError))
    # Whoever comes after the first key was added needs more than a session without one.
    assert refused in {"passkey_invalid", "authentication_insufficient"}
    assert len((await listed(house, someone.caller)).data) == 1


async def test_of_two_first_keys_that_overlap_one_is_added_so_that_all_have_one_handle(house: AuthHouse) -> None:
    someone = await reader(house)
    account = someone.publisher.live
    first = await begin(house, someone.caller)
    async with house.app.tenant(account, "hold", read_only=True) as conn:
        await lock(conn, someone.subject)
        adding = asyncio.create_task(add(house, someone.caller, new_key(first).made(first)))
        statement = "SELECT count(*) FROM passkey_challenge WHERE principal_id = $1 AND ceremony = 'registration'"
        # The challenge is spent before the lock is asked for; a statement sees what others have committed.
        while await conn.fetchval(statement, someone.subject):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        second = await begin(house, someone.caller)
    added = await adding
    with pytest.raises(GatefoldError, match="passkey_invalid"):
        await add(house, await someone.as_caller(added.tokens), new_key(second).made(second))
    assert len((await listed(house, someone.caller)).data) == 1


async def test_an_erasure_that_comes_in_between_is_not_undone(house: AuthHouse) -> None:
    someone = await reader(house)
    options = await begin(house, someone.caller)
    async with house.app.tenant(someone.publisher.live, "erase") as conn:
        await place_tombstone(conn, someone.publisher.live, someone.subject, house.clock.wall())
    with pytest.raises(GatefoldError, match="subject_erased"):
        await add(house, someone.caller, new_key(options).made(options))


async def test_a_breached_password_matters_not_to_a_passkey(house: AuthHouse) -> None:
    someone, key = await with_passkey(house)
    account = someone.publisher.live
    async with house.app.tenant(account, "breach") as conn:
        await conn.execute("UPDATE credential SET password_must_change = true WHERE account_id = $1", account)
    assert (await sign_in(house, account, key.sign(await begin_sign_in(house, account)))).access_token
    waiting = await house.sign_in(account, someone.email, PASSWORD)
    then = await complete(house, waiting, key.sign(await begin_proof(house, waiting)))
    assert then.pending.next == "change_password"


async def test_passkeys_are_exported_without_keys_and_erased_with_the_reader(house: AuthHouse, vault: Vault) -> None:
    someone, key = await with_passkey(house)
    account = someone.publisher.live
    neighbour, other = await with_passkey(house, someone.publisher)
    begun = await begin(house, someone.caller)
    port = SubjectDataServicer("auth", house.app, vault, PERSONAL_TABLES, clock=house.clock)
    text = ids.encode("subj", someone.subject)
    with caller.serving(house.service("compliance", account)):
        parts = [part async for part in port.Export(subject_data_pb2.ExportRequest(subject_id=text), None)]  # type: ignore[arg-type]
        exported = b"".join(part.json_lines for part in parts).decode()
        assert "passkey" in {part.table for part in parts}
        assert "internal" in exported
        for word in ("credential_id", "public_key", "user_handle"):
            assert word not in exported
        plan = await port.PlanErase(subject_data_pb2.PlanEraseRequest(subject_id=text), None)  # type: ignore[arg-type]
        assert {one.table: one.rows for one in plan.tables}["passkey"] == 1
        request = subject_data_pb2.EraseRequest(subject_id=text, plan_hash=plan.plan_hash)
        await port.Erase(request, None)  # type: ignore[arg-type]
        left = await port.Verify(subject_data_pb2.VerifyRequest(subject_id=text), None)  # type: ignore[arg-type]
        assert (left.residual, left.retained) == (0, 0)
    with pytest.raises(GatefoldError, match="passkey_refused"):
        await sign_in(house, account, key.sign(await begin_sign_in(house, account)))
    # A token that still lives brings nothing back.
    with pytest.raises(GatefoldError):
        await add(house, someone.caller, new_key(begun).made(begun))
    assert (await sign_in(house, account, other.sign(await begin_sign_in(house, account)))).access_token
    assert neighbour.subject != someone.subject


async def test_challenges_that_nobody_answered_go(house: AuthHouse) -> None:
    publisher = await house.publisher()
    await begin_sign_in(house, publisher.live)
    await begin_staff(house)

    async def rows() -> int:
        async with house.database.jobs.transaction("look", read_only=True) as conn:
            return int(await conn.fetchval("SELECT count(expires_at) FROM passkey_challenge"))

    assert await rows() >= 2
    later(house, timedelta(minutes=6))
    await Expiry(house.database.jobs, house.clock).clear()
    assert await rows() == 0


async def test_other_peoples_waiting_sign_ins_are_not_asked_for(house: AuthHouse) -> None:
    someone, _ = await with_phone(house)
    waiting = await someone.sign_in()
    for method in ("passkey", "security_key"):
        with pytest.raises(GatefoldError, match="factor_missing"):
            await begin_proof(house, waiting, method)
    waiting.pending.token = "gfsi_AAAA"
    with pytest.raises(GatefoldError, match="sign_in_expired"):
        await begin_proof(house, waiting)
