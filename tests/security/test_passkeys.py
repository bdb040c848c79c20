"""Attacks on passkeys: forged, replayed, borrowed, copied and endless answers, and asking who has one."""

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from gatefold.auth.v1 import passkey_pb2, session_pb2

from infra.local.valkey import ValkeyServer
from libs.clock import FixedClock
from libs.config import Secret
from libs.errors import GatefoldError, Kind
from libs.telemetry import Telemetry
from services.auth.domain import session
from services.auth.repository import passkeys
from services.auth.usecases.passkey_proofs import PasskeyProofs
from services.auth.usecases.second_factors import second_factor_wrong
from tests.conftest import ServiceDb
from tests.support.auth import AuthHouse, running
from tests.support.factors import later, listed, purposes, reader, remove, step_up
from tests.support.passkeys import (
    HOST,
    Forged,
    Key,
    add,
    begin,
    begin_proof,
    begin_sign_in,
    begin_staff,
    binary,
    complete,
    new_key,
    sign_in,
    sign_in_staff,
    text,
    with_passkey,
)


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


def changed(answer: str, **response: object) -> str:
    """An answer with other fields in its response."""
    said = json.loads(answer)
    said["response"].update(response)
    return json.dumps(said)


FORGERIES: dict[str, Forged] = {
    "another origin": Forged(origin="https://gatefold.evil.example"),
    "another port": Forged(origin=f"https://{HOST}:8443"),
    "without TLS": Forged(origin=f"http://{HOST}"),
    "an origin that begins alike": Forged(origin=f"https://{HOST}.evil.example"),
    "another relying party": Forged(host="evil.example"),
    "a relying party above": Forged(host="gatefold.example"),
    "in a frame of another site": Forged(cross_origin=True),
    "a challenge nobody made": Forged(challenge=text(b"c" * 32)),
    "an empty challenge": Forged(challenge=""),
    "nobody there": Forged(present=False),
    "not verified": Forged(verified=False),
    "backed up but not eligible": Forged(eligible=False, backed_up=True),
    "eligible all at once": Forged(eligible=True),
    "a signature of nothing": Forged(signature=b"\x30\x06\x02\x01\x01\x02\x01\x01"),
    "no signature": Forged(signature=b"x"),
    "another handle": Forged(user_handle=b"h" * 64),
    "the other ceremony": Forged(type="webauthn.create"),
    "payment": Forged(type="payment.get"),
}


@pytest.mark.case("auth-42")
@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_forged_answer_opens_nothing_and_spends_its_challenge(house: AuthHouse, forgery: str) -> None:
    someone, key = await with_passkey(house)
    account = someone.publisher.live
    options = await begin_sign_in(house, account)
    with pytest.raises(GatefoldError) as raised:
        await sign_in(house, account, key.sign(options, FORGERIES[forgery]))
    assert (raised.value.kind, raised.value.reason) == (Kind.UNAUTHENTICATED, "passkey_refused")
    if FORGERIES[forgery].challenge is None:
        with pytest.raises(GatefoldError, match="passkey_refused"):
            await sign_in(house, account, key.sign(options))
    waiting = await someone.sign_in()
    with pytest.raises(GatefoldError) as raised:
        await complete(house, waiting, key.sign(await begin_proof(house, waiting), FORGERIES[forgery]))
    assert (raised.value.kind, raised.value.reason) == (Kind.UNAUTHENTICATED, "second_factor_wrong")
    # A forgery is no evidence against the key.
    assert not (await listed(house, someone.caller)).data[0].HasField("clone_suspected_at")
    assert (await sign_in(house, account, key.sign(await begin_sign_in(house, account)))).access_token


OF_ANSWERS_ALONE = {"eligible all at once", "another handle", "payment", "a signature of nothing", "no signature"}


@pytest.mark.case("auth-42")
@pytest.mark.parametrize("forgery", [one for one in FORGERIES if one not in OF_ANSWERS_ALONE])
async def test_a_forged_registration_adds_nothing(house: AuthHouse, forgery: str) -> None:
    someone = await reader(house)
    options = await begin(house, someone.caller)
    forged = FORGERIES[forgery]
    if forged.type:
        forged = replace(forged, type="webauthn.get")
    with pytest.raises(GatefoldError) as raised:
        await add(house, someone.caller, new_key(options).made(options, forged))
    assert (raised.value.kind, raised.value.reason) == (Kind.INVALID, "passkey_invalid")
    assert len((await listed(house, someone.caller)).data) == 0
    assert (await someone.sign_in()).access_token


STRANGE_KEYS: dict[str, Callable[[str], str]] = {
    "P-384, which was not offered": lambda options: new_key(options, ec.generate_private_key(ec.SECP384R1())).made(
        options
    ),
    "RSA of 1024 bits": lambda options: new_key(options, rsa.generate_private_key(65537, 1024)).made(options),
    "a short id": lambda options: new_key(options).made(options, Forged(credential_id=b"short")),
    "an endless id": lambda options: new_key(options).made(options, Forged(credential_id=b"i" * 1024)),
    "an attestation with certificates": lambda options: new_key(options).made(
        options, Forged(attestation=("packed", {"alg": -7, "sig": b"s", "x5c": [b"c"]}))
    ),
    "a maker's attestation that holds": lambda options: new_key(options).made(
        options, Forged(attestation=("fido-u2f", {}))
    ),
    "a TPM's attestation": lambda options: new_key(options).made(
        options, Forged(attestation=("tpm", {"ver": "2.0", "sig": b"s"}))
    ),
    "an attestation nobody knows": lambda options: new_key(options).made(options, Forged(attestation=("own", {}))),
    "a self-attestation that does not hold": lambda options: new_key(options).made(
        options, Forged(attestation=("packed", {"alg": -7, "sig": b"s"}))
    ),
}


@pytest.mark.case("auth-42")
@pytest.mark.parametrize("strange", STRANGE_KEYS)
async def test_keys_that_were_not_asked_for_are_not_added(house: AuthHouse, strange: str) -> None:
    someone = await reader(house)
    options = await begin(house, someone.caller)
    with pytest.raises(GatefoldError, match="passkey_invalid"):
        await add(house, someone.caller, STRANGE_KEYS[strange](options))


async def test_a_key_that_is_no_point_of_the_curve_is_not_added(house: AuthHouse) -> None:
    someone = await reader(house)
    options = await begin(house, someone.caller)
    key = new_key(options)
    assert isinstance(key.private, ec.EllipticCurvePrivateKey)
    x = key.private.public_key().public_numbers().x.to_bytes(32, "big")
    said = json.loads(key.made(options))
    attestation = binary(said["response"]["attestationObject"])
    bent = attestation.replace(x, x[:-1] + bytes((x[-1] ^ 1,)))
    assert bent != attestation
    with pytest.raises(GatefoldError, match="passkey_invalid"):
        await add(house, someone.caller, changed(json.dumps(said), attestationObject=text(bent)))


RUBBISH: dict[str, str] = {
    "nothing": "",
    "a number": "7",
    "a list": "[]",
    "no response": "{}",
    "a null": '{"rawId": null, "response": {"clientDataJSON": null}}',
    "numbers": '{"id": 1, "rawId": 2, "type": "public-key", "response": {"clientDataJSON": 3}}',
    "deep": "[" * 16_000,
    "deep inside": json.dumps({"rawId": "AAAA", "response": {"clientDataJSON": text(b"[" * 11_000)}}),
    "endless digits": '{"rawId": ' + "9" * 10_000 + "}",
    "too much": json.dumps({"rawId": "A" * 20_000, "response": {}}),
    "not Unicode": json.dumps({"rawId": "AAAA", "response": {"clientDataJSON": text(b"\xff\xfe{}")}}),
    "half a surrogate": '{"rawId": "\\ud800", "response": {"clientDataJSON": "\\ud800"}}',
}


@pytest.mark.parametrize("rubbish", RUBBISH)
async def test_rubbish_is_refused_and_not_a_failure_of_ours(house: AuthHouse, rubbish: str) -> None:
    publisher = await house.publisher()
    with pytest.raises(GatefoldError, match="passkey_refused"):
        await sign_in(house, publisher.live, RUBBISH[rubbish])
    with pytest.raises(GatefoldError, match="passkey_refused"):
        await sign_in_staff(house, RUBBISH[rubbish])
    someone = await reader(house, publisher)
    with pytest.raises(GatefoldError, match="passkey_invalid"):
        await add(house, someone.caller, RUBBISH[rubbish])


async def test_an_endless_answer_is_not_looked_at_though_it_is_right(house: AuthHouse) -> None:
    someone, key = await with_passkey(house)
    account = someone.publisher.live
    answer = key.sign(await begin_sign_in(house, account))
    with pytest.raises(GatefoldError, match="passkey_refused"):
        await sign_in(house, account, answer + " " * 16_384)
    assert (await sign_in(house, account, answer)).access_token


async def test_an_answer_with_any_part_bent_is_refused_and_not_a_failure_of_ours(house: AuthHouse) -> None:
    someone, key = await with_passkey(house)
    account = someone.publisher.live
    for part in ("clientDataJSON", "authenticatorData", "signature", "userHandle"):
        whole = json.loads(key.sign(await begin_sign_in(house, account)))["response"][part]
        for bent in (whole[: len(whole) // 2], text(binary(whole) + b"x"), text(binary(whole)[:-1]), "=", "💥", 7, {}):
            answer = changed(key.sign(await begin_sign_in(house, account)), **{part: bent})
            with pytest.raises(GatefoldError, match="passkey_refused"):
                await sign_in(house, account, answer)
    for missing in ("clientDataJSON", "authenticatorData", "signature"):
        said = json.loads(key.sign(await begin_sign_in(house, account)))
        del said["response"][missing]
        with pytest.raises(GatefoldError, match="passkey_refused"):
            await sign_in(house, account, json.dumps(said))


@pytest.mark.case("auth-42")
async def test_an_answer_works_once_however_many_send_it_at_once(house: AuthHouse) -> None:
    someone, key = await with_passkey(house, counts=False)
    account = someone.publisher.live
    answer = key.sign(await begin_sign_in(house, account))
    answers = await asyncio.gather(*(sign_in(house, account, answer) for _ in range(6)), return_exceptions=True)
    assert len([one for one in answers if isinstance(one, session_pb2.Tokens)]) == 1
    assert [one.reason for one in answers if isinstance(one, GatefoldError)] == ["passkey_refused"] * 5
    waiting = await someone.sign_in()
    answer = key.sign(await begin_proof(house, waiting))
    answers = await asyncio.gather(*(complete(house, waiting, answer) for _ in range(3)), return_exceptions=True)
    assert len([one for one in answers if isinstance(one, session_pb2.Tokens)]) == 1


@pytest.mark.case("auth-42")
async def test_a_challenge_lives_five_minutes(house: AuthHouse) -> None:
    someone, key = await with_passkey(house)
    account = someone.publisher.live
    waiting = await someone.sign_in()
    begun = await begin(house, someone.caller)
    alone, beside = await begin_sign_in(house, account), await begin_proof(house, waiting)
    later(house, timedelta(minutes=5))
    with pytest.raises(GatefoldError, match="passkey_refused"):
        await sign_in(house, account, key.sign(alone))
    with pytest.raises(GatefoldError, match="second_factor_wrong"):
        await complete(house, waiting, key.sign(beside))
    with pytest.raises(GatefoldError, match="passkey_invalid"):
        await add(house, someone.caller, new_key(begun).made(begun))


@pytest.mark.case("auth-42")
async def test_a_challenge_is_for_its_ceremony_alone(house: AuthHouse) -> None:
    someone, key = await with_passkey(house)
    account = someone.publisher.live
    waiting = await someone.sign_in()
    asked = {
        "registration": json.loads(await begin(house, someone.caller))["challenge"],
        "sign_in": json.loads(await begin_sign_in(house, account))["challenge"],
        "second_factor": json.loads(await begin_proof(house, waiting))["challenge"],
    }
    options = await begin_sign_in(house, account)
    for ceremony in ("registration", "second_factor"):
        with pytest.raises(GatefoldError, match="passkey_refused"):
            await sign_in(house, account, key.sign(options, Forged(challenge=asked[ceremony])))
    options = await begin_proof(house, waiting)
    for ceremony in ("registration", "sign_in"):
        with pytest.raises(GatefoldError, match="second_factor_wrong"):
            await complete(house, waiting, key.sign(options, Forged(challenge=asked[ceremony])))
    options = await begin(house, someone.caller)
    for ceremony in ("sign_in", "second_factor"):
        with pytest.raises(GatefoldError, match="passkey_invalid"):
            await add(house, someone.caller, new_key(options).made(options, Forged(challenge=asked[ceremony])))


@pytest.mark.case("auth-42")
async def test_a_challenge_is_for_its_person_its_sign_in_and_its_account_alone(house: AuthHouse) -> None:
    someone, key = await with_passkey(house)
    account = someone.publisher.live
    neighbour, other_key = await with_passkey(house, someone.publisher)
    # Another reader's registration.
    theirs = await begin(house, neighbour.caller)
    with pytest.raises(GatefoldError, match="passkey_invalid"):
        await add(house, someone.caller, new_key(theirs).made(theirs))
    # It was not spent by that either.
    fresh = new_key(theirs)
    await add(house, neighbour.caller, fresh.made(theirs))
    # Another sign-in that waits, even of the same reader.
    one, other = await someone.sign_in(), await someone.sign_in()
    options = await begin_proof(house, one)
    await begin_proof(house, other)
    with pytest.raises(GatefoldError, match="second_factor_wrong"):
        await complete(house, other, key.sign(options))
    # The neighbour's key for the reader's sign-in, and for the reader's address.
    with pytest.raises(GatefoldError, match="second_factor_wrong"):
        await complete(house, one, other_key.sign(options))
    with pytest.raises(GatefoldError, match="passkey_refused"):
        await sign_in(house, account, other_key.sign(await begin_sign_in(house, account, someone.email)))
    # Another account, its test sibling, and the platform's own people.
    elsewhere = await house.publisher()
    for place in (elsewhere.live, someone.publisher.test):
        with pytest.raises(GatefoldError, match="passkey_refused"):
            await sign_in(house, place, key.sign(await begin_sign_in(house, account)))
        with pytest.raises(GatefoldError, match="passkey_refused"):
            await sign_in(house, place, key.sign(await begin_sign_in(house, place)))
    with pytest.raises(GatefoldError, match="passkey_refused"):
        await sign_in_staff(house, key.sign(await begin_staff(house)))
    with pytest.raises(GatefoldError, match="passkey_refused"):
        await sign_in(house, account, key.sign(await begin_staff(house)))


@pytest.mark.case("auth-42")
async def test_only_the_newest_options_of_a_sign_in_work(house: AuthHouse) -> None:
    someone, key = await with_passkey(house)
    waiting = await someone.sign_in()
    former, newest = await begin_proof(house, waiting), await begin_proof(house, waiting)
    with pytest.raises(GatefoldError, match="second_factor_wrong"):
        await complete(house, waiting, key.sign(former))
    await complete(house, waiting, key.sign(newest))


async def test_a_key_of_another_account_is_not_added_again(house: AuthHouse) -> None:
    _, key = await with_passkey(house)
    thief = await reader(house)
    options = await begin(house, thief.caller)
    with pytest.raises(GatefoldError) as raised:
        await add(house, thief.caller, key.made(options))
    assert (raised.value.kind, raised.value.reason) == (Kind.PRECONDITION, "passkey_known")
    # Nor may the name of a known key be given to one's own.
    options = await begin(house, thief.caller)
    with pytest.raises(GatefoldError, match="passkey_known"):
        await add(house, thief.caller, new_key(options).made(options, Forged(credential_id=key.credential_id)))
    assert len((await listed(house, thief.caller)).data) == 0


@pytest.mark.case("auth-42")
@pytest.mark.case("auth-43")
@pytest.mark.parametrize("count", [0, 3, 4])
async def test_a_copy_that_counts_behind_is_refused_and_its_owner_is_told(house: AuthHouse, count: int) -> None:
    someone, key = await with_passkey(house)
    account = someone.publisher.live
    key.count = 3
    await sign_in(house, account, key.sign(await begin_sign_in(house, account)))
    assert key.count == 4
    before = house.telemetry.registry.get_sample_value("gatefold_passkeys_copied_total") or 0
    copy = key.copy()
    for refusal in range(2):
        with pytest.raises(GatefoldError, match="passkey_refused"):
            await sign_in(house, account, copy.sign(await begin_sign_in(house, account), Forged(count=count)))
        assert house.telemetry.registry.get_sample_value("gatefold_passkeys_copied_total") == before + refusal + 1
    waiting = await someone.sign_in()
    with pytest.raises(GatefoldError, match="second_factor_wrong"):
        await complete(house, waiting, copy.sign(await begin_proof(house, waiting), Forged(count=count)))
    (factor,) = (await listed(house, someone.caller)).data
    assert factor.clone_suspected_at.ToDatetime(house.clock.wall().tzinfo) == house.clock.wall()
    assert (await purposes(house, someone)).count("passkey_copied") == 1
    letter = await house.describe(await house.newest_challenge(account))
    assert (letter.purpose, letter.email, letter.link, letter.code) == ("passkey_copied", someone.email, "", "")
    assert "time" in letter.details
    # Its owner's own, which counts on, still works; they remove it.
    assert (await sign_in(house, account, key.sign(await begin_sign_in(house, account)))).access_token
    await remove(house, someone.caller, factor.id)


@pytest.mark.case("auth-43")
async def test_of_two_answers_with_one_count_at_once_one_is_taken_and_the_key_is_suspected(house: AuthHouse) -> None:
    someone, key = await with_passkey(house)
    account = someone.publisher.live
    copy = key.copy()
    one, other = await begin_sign_in(house, account), await begin_sign_in(house, account)
    answers = await asyncio.gather(
        sign_in(house, account, key.sign(one)), sign_in(house, account, copy.sign(other)), return_exceptions=True
    )
    assert [one.reason for one in answers if isinstance(one, GatefoldError)] == ["passkey_refused"]
    assert (await listed(house, someone.caller)).data[0].HasField("clone_suspected_at")


@pytest.mark.case("auth-43")
async def test_an_authenticator_that_counted_does_not_fall_back_to_zero(house: AuthHouse) -> None:
    someone, key = await with_passkey(house, counts=False)
    account = someone.publisher.live
    await sign_in(house, account, key.sign(await begin_sign_in(house, account)))
    await sign_in(house, account, key.sign(await begin_sign_in(house, account), Forged(count=1)))
    with pytest.raises(GatefoldError, match="passkey_refused"):
        await sign_in(house, account, key.sign(await begin_sign_in(house, account)))


@pytest.mark.case("auth-29")
async def test_five_wrong_answers_end_the_sign_in_and_a_mail_tells(house: AuthHouse) -> None:
    someone, key = await with_passkey(house)
    waiting = await someone.sign_in()
    for _ in range(4):
        with pytest.raises(GatefoldError, match="second_factor_wrong"):
            await complete(house, waiting, key.sign(await begin_proof(house, waiting), Forged(verified=False)))
    # What stands for itself costs a try as well.
    with pytest.raises(GatefoldError, match="second_factor_wrong"):
        await complete(house, waiting, "{}")
    with pytest.raises(GatefoldError, match="sign_in_expired"):
        await begin_proof(house, waiting)
    letter = await house.describe(await house.newest_challenge(someone.publisher.live))
    assert (letter.purpose, letter.email) == ("sign_in_locked", someone.email)


@pytest.mark.case("auth-44")
async def test_passkeys_are_changed_by_a_fresh_session_of_two_factors_alone(house: AuthHouse) -> None:
    someone, key = await with_passkey(house)
    account = someone.publisher.live
    options = await begin(house, someone.caller)
    answer = new_key(options).made(options)
    (factor,) = (await listed(house, someone.caller)).data
    weak = replace(someone.caller, acr=session.AAL1)
    later(house, timedelta(minutes=4))
    stale = replace(someone.caller, auth_time=house.clock.wall() - timedelta(minutes=16))
    for who in (weak, stale):
        for attempt in (begin(house, who), add(house, who, answer), remove(house, who, factor.id)):
            with pytest.raises(GatefoldError, match="authentication_insufficient"):
                await attempt
    # A link by mail and a key that is touched are two; a password and its own step-up are one.
    waiting = await step_up(house, someone.caller, password="correct horse battery")
    assert (waiting.access_token, list(waiting.pending.methods)) == ("", ["passkey"])
    await add(house, someone.caller, answer)
    assert (await sign_in(house, account, key.sign(await begin_sign_in(house, account)))).access_token


async def test_keys_and_strangers_have_no_passkeys(house: AuthHouse) -> None:
    publisher = await house.publisher()
    for who in (house.page(publisher.live), house.anonymous()):
        for method, request in (
            (house.passkeys.BeginPasskey, passkey_pb2.BeginPasskeyRequest()),
            (house.passkeys.AddPasskey, passkey_pb2.AddPasskeyRequest(name="Mine", credential="{}")),
        ):
            with pytest.raises(GatefoldError) as raised:
                await house.call(who, method, request)
            assert raised.value.kind is Kind.FORBIDDEN
    someone, _ = await with_passkey(house)
    options = await begin(house, someone.caller)
    with pytest.raises(GatefoldError, match="plane_not_allowed"):
        await add(house, replace(someone.caller, session=None), new_key(options).made(options))
    # A session that has ended adds nothing.
    request = session_pb2.RevokeSessionRequest(refresh_token=someone.tokens.refresh_token)
    await house.call(house.anonymous(), house.sessions.RevokeSession, request)
    with pytest.raises(GatefoldError, match="sign_in_expired"):
        await add(house, someone.caller, new_key(options).made(options))
    assert [one.name for one in (await listed(house, someone.caller)).data] == ["My laptop"]


async def test_a_passkey_that_was_removed_after_it_was_proven_opens_nothing(house: AuthHouse) -> None:
    someone, key = await with_passkey(house)
    account = someone.publisher.live
    nothing = cast("Any", None)
    proofs = PasskeyProofs(house.app, nothing, nothing, nothing, house.clock, os.urandom, Telemetry("tests"))
    async with house.app.tenant(account, "find", read_only=True) as conn:
        held = await passkeys.find(conn, account, key.credential_id)
    assert held is not None
    use = proofs.using(account, held, second_factor_wrong)
    (factor,) = (await listed(house, someone.caller)).data
    await remove(house, someone.caller, factor.id)
    with pytest.raises(GatefoldError, match="second_factor_wrong"):
        async with house.app.tenant(account, "go_on") as conn:
            await use(conn)


async def test_a_passkey_that_is_removed_while_it_signs_in_begins_no_session(house: AuthHouse) -> None:
    someone, key = await with_passkey(house)
    account = someone.publisher.live
    (factor,) = (await listed(house, someone.caller)).data
    waiting = await someone.sign_in()
    options = await begin_proof(house, waiting)
    answers = await asyncio.gather(
        remove(house, someone.caller, factor.id),
        complete(house, waiting, key.sign(options)),
        return_exceptions=True,
    )
    assert not isinstance(answers[0], BaseException)
    for one in answers:
        if isinstance(one, session_pb2.Tokens):
            # It was first: then its session ended with the removal.
            with pytest.raises(GatefoldError, match="invalid_grant"):
                await house.refresh(one.refresh_token)
    with pytest.raises(GatefoldError, match="passkey_refused"):
        await sign_in(house, account, key.sign(await begin_sign_in(house, account)))


async def test_a_removal_takes_what_a_sign_in_takes_in_the_same_order(house: AuthHouse) -> None:
    someone, _ = await with_passkey(house)
    account = someone.publisher.live
    (factor,) = (await listed(house, someone.caller)).data
    await someone.sign_in()
    async with house.app.tenant(account, "go_on") as conn:
        await conn.execute("SELECT FROM sign_in WHERE account_id = $1 FOR UPDATE", account)
        removing = asyncio.create_task(remove(house, someone.caller, factor.id))
        blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted AND transactionid = pg_current_xact_id()::xid"
        while not await conn.fetchval(blocked) and not removing.done():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert not removing.done()
        # Otherwise one of the two would give way, after a second.
        await conn.execute("SELECT FROM passkey WHERE account_id = $1 FOR UPDATE NOWAIT", account)
    await removing


@pytest.mark.case("auth-21")
async def test_options_tell_nobody_who_is_registered_or_has_a_passkey(house: AuthHouse) -> None:
    publisher = await house.publisher()
    someone, _ = await with_passkey(house, publisher)
    plain = await reader(house, publisher)
    touched, _ = await with_passkey(house, publisher, kind="security_key")
    unknown = "nobody.ever@example.com"
    seen = {}
    for email in (someone.email, plain.email, touched.email, unknown):
        before = work(house)
        seen[email] = json.loads(await begin_sign_in(house, publisher.live, email)), work(house) - before
    shapes = {
        (frozenset(options), options["userVerification"], options["rpId"], len(options["challenge"]))
        for options, _ in seen.values()
    }
    assert len(shapes) == 1
    assert len({tuple(sorted(done.items())) for _, done in seen.values()}) == 1
    for email, (options, _) in seen.items():
        again = json.loads(await begin_sign_in(house, publisher.live, email))
        assert again["allowCredentials"] == options["allowCredentials"] != []
        assert again["challenge"] != options["challenge"]
        for one in options["allowCredentials"]:
            assert set(one) == {"id", "type", "transports"}
            assert len(binary(one["id"])) in (16, 20, 32, 48, 64)
    # Another publisher's decoys are others, and so are the platform's; neither stands anywhere in the database.
    elsewhere = await house.publisher()
    three = [
        await begin_sign_in(house, publisher.live, unknown),
        await begin_sign_in(house, elsewhere.live, unknown),
        await begin_staff(house, unknown),
    ]
    assert len({json.dumps(json.loads(options)["allowCredentials"]) for options in three}) == 3
    known = json.loads(await begin_staff(house, publisher.owner_email))
    assert known["allowCredentials"] == json.loads(await begin_staff(house, publisher.owner_email))["allowCredentials"]


@pytest.mark.case("auth-21")
async def test_a_decoy_signs_nobody_in(house: AuthHouse) -> None:
    someone, key = await with_passkey(house)
    account = someone.publisher.live
    for email in ("nobody.here@example.com", someone.email):
        options = await begin_sign_in(house, account, email)
        decoy = binary(json.loads(options)["allowCredentials"][0]["id"])
        forger = Key(decoy, ec.generate_private_key(ec.SECP256R1()), os.urandom(64))
        with pytest.raises(GatefoldError, match="passkey_refused"):
            await sign_in(house, account, forger.sign(options))
    # And a challenge for an address that nobody has is answered by nobody's passkey.
    with pytest.raises(GatefoldError, match="passkey_refused"):
        await sign_in(house, account, key.sign(await begin_sign_in(house, account, "nobody.here@example.com")))


async def test_a_reader_who_turned_out_to_be_gone_is_not_signed_in(house: AuthHouse) -> None:
    someone, key = await with_passkey(house)
    account = someone.publisher.live
    async with house.app.tenant(account, "forget") as conn:
        await conn.execute("DELETE FROM credential WHERE account_id = $1", account)
    with pytest.raises(GatefoldError, match="passkey_refused"):
        await sign_in(house, account, key.sign(await begin_sign_in(house, account)))


def work(house: AuthHouse) -> Counter[str]:
    """How many transactions of each kind auth has run for requests."""
    done: Counter[str] = Counter()
    for family in house.telemetry.registry.collect():
        for sample in family.samples:
            if sample.name == "gatefold_postgres_transaction_seconds_count" and sample.labels["role"] == "app":
                done[f"{sample.labels['label']} {sample.labels['outcome']}"] += int(sample.value)
    # Of the background: clocks are looked at now and then.
    del done["read_account_clock commit"]
    return done
