"""Attacks on signing in with another provider: what it says, whose answer it is, where it leads, what it opens."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web
from gatefold.auth.v1 import (
    device_pb2,
    federated_session_pb2,
    identity_provider_pb2,
    recovery_pb2,
)
from gatefold.edge.v1 import policy_pb2
from google.protobuf import descriptor_pool, message_factory

from infra.local.valkey import ValkeyServer
from libs import ids
from libs.caller import CallerKind
from libs.clock import FixedClock
from libs.config import Secret
from libs.errors import GatefoldError
from libs.postgres import PLATFORM
from services.auth.clients.openid import ASKED_AGAIN_AFTER, KEPT_FOR
from services.auth.domain import roles
from services.auth.domain.openid import LIFETIME
from tests.conftest import ServiceDb
from tests.support import openid_provider
from tests.support.auth import AuthHouse, running
from tests.support.federation import PAGE, STAFF, Abroad, Sent, abroad
from tests.support.openid_provider import CLIENT_ID


@pytest.fixture(scope="module")
async def world(
    service_db: ServiceDb,
    keys_dsn: Secret,
    valkey_server: ValkeyServer,
    key_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Abroad]:
    folder = tmp_path_factory.mktemp("auth")
    database = await service_db("auth")
    async with abroad(database, keys_dsn.reveal(), valkey_server.url().reveal(), key_file, folder) as found:
        yield found


@pytest.fixture(scope="module")
async def public_house(
    service_db: ServiceDb,
    keys_dsn: Secret,
    valkey_server: ValkeyServer,
    key_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[AuthHouse]:
    """As it runs for others: with no way into this machine or network."""
    folder = tmp_path_factory.mktemp("public")
    database, url = await service_db("auth"), valkey_server.url().reveal()
    async with running(database, keys_dsn.reveal(), url, key_file, folder, FixedClock()) as found:
        yield found


@pytest.fixture(autouse=True)
def honest(request: pytest.FixtureRequest) -> None:
    if "world" in request.fixturenames:
        request.getfixturevalue("world").provider.honest()


async def refusal(awaited: Any) -> tuple[str, str]:
    with pytest.raises(GatefoldError) as raised:
        await awaited
    return raised.value.reason, raised.value.detail


def somebody(world: Abroad, **claims: Any) -> str:
    """Has somebody new signed in at the provider, with a verified address; returns the address."""
    email = world.house.fresh("abroad")
    world.provider.person = {"sub": f"sub-{email}", "email": email, "email_verified": True, **claims}
    return email


# What a token may be wrong in, and the check that sees it. `None` leaves a claim out.
TOKENS: dict[str, tuple[dict[str, Any], str]] = {
    "another issuer": ({"lies": {"iss": "https://accounts.google.com"}}, "iss"),
    "no issuer": ({"lies": {"iss": None}}, "iss"),
    "another client": ({"lies": {"aud": "somebody-elses"}}, "aud"),
    "several clients, not this one": ({"lies": {"aud": ["a", "b"], "azp": CLIENT_ID}}, "aud"),
    "several clients, for nobody": ({"lies": {"aud": [CLIENT_ID, "other"]}}, "azp"),
    "several clients, for another": ({"lies": {"aud": [CLIENT_ID, "other"], "azp": "other"}}, "azp"),
    "for another": ({"lies": {"azp": "other"}}, "azp"),
    "no subject": ({"lies": {"sub": None}}, "sub"),
    "an empty subject": ({"lies": {"sub": ""}}, "sub"),
    "a number as subject": ({"lies": {"sub": 7}}, "sub"),
    "another sign-in's nonce": ({"lies": {"nonce": "n" * 43}}, "nonce"),
    "no nonce": ({"lies": {"nonce": None}}, "nonce"),
    "expired": ({"lies": {"exp": 1_000_000_000}}, "exp"),
    "no end": ({"lies": {"exp": None}}, "exp"),
    "a text as end": ({"lies": {"exp": "4102444800"}}, "exp"),
    "an end beyond time": ({"lies": {"exp": 1e300}}, "exp"),
    "issued long ago": ({"lies": {"iat": 1_000_000_000}}, "iat"),
    "issued in the future": ({"lies": {"iat": 4_102_444_800}}, "iat"),
    "not yet good": ({"lies": {"nbf": 4_102_444_800}}, "nbf"),
    "another access token's": ({"lies": {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}}, "at_hash"),
    "not signed": ({"header": {"alg": "none"}}, "alg"),
    "signed with the public key as a secret": ({"public_as_secret": True}, "alg"),
    "an algorithm nobody has heard of": ({"header": {"alg": "none", "crit": ["x"]}}, "alg"),
    "signed with a key of nobody's": ({"unknown_key": True}, "signature"),
    "signed as another kind of key": ({"algorithm": "ES256", "unknown_key": True}, "signature"),
    "a key that is not there": ({"header": {"kid": "../../etc/passwd"}}, "kid"),
    "a key of another kind": ({"header": {"kid": "ec"}}, "kid"),
    "a number as key": ({"header": {"kid": 7}}, "kid"),
    "with what must be understood and is not": ({"header": {"crit": ["exp"], "exp": 1}}, "signature"),
}


@pytest.mark.case("auth-64")
@pytest.mark.parametrize("wrong", TOKENS)
async def test_a_token_that_is_wrong_in_one_thing_signs_nobody_in(world: Abroad, wrong: str) -> None:
    publisher = await world.house.publisher()
    provider = await world.set_up(publisher.live)
    somebody(world)
    changes, check = TOKENS[wrong]
    for name, value in changes.items():
        setattr(world.provider, name, value)
    if world.provider.header.get("kid") == "ec":
        world.provider.header = {"kid": world.provider.keys["ES256"].kid}
    sent = await world.send(publisher.live, provider)
    told = await refusal(world.finish(sent))
    assert told == ("id_token_invalid", f"What the provider says cannot be relied on: {check}.")
    assert await world.alive(publisher.live) == 0
    # The same person with a right token: nothing but the one thing was wrong.
    world.provider.honest()
    await world.finish(await world.send(publisher.live, provider))
    assert await world.alive(publisher.live) == 1


# Half a pair of UTF-16: JSON can write it, and UTF-8 cannot.
HALF = "\ud800"


@pytest.mark.case("auth-64")
@pytest.mark.parametrize("claim", ["sub", "nonce", "aud", "azp", "at_hash"])
async def test_a_claim_that_is_no_text_is_refused(world: Abroad, claim: str) -> None:
    publisher = await world.house.publisher()
    provider = await world.set_up(publisher.live)
    somebody(world)
    world.provider.lies = {claim: HALF}
    told = await refusal(world.finish(await world.send(publisher.live, provider)))
    assert told == ("id_token_invalid", f"What the provider says cannot be relied on: {claim}.")


@pytest.mark.case("auth-39")
async def test_an_address_that_is_no_text_opens_nothing_and_a_name_that_is_none_keeps_nobody_out(world: Abroad) -> None:
    publisher = await world.house.publisher()
    provider = await world.set_up(publisher.live)
    somebody(world)
    world.provider.lies = {"email": f"{HALF}@example.com"}
    told = await refusal(world.finish(await world.send(publisher.live, provider)))
    assert told[0] == "identity_email_unverified"
    world.provider.lies = {"name": f"Ada{HALF}"}
    await world.finish(await world.send(publisher.live, provider))
    assert await world.alive(publisher.live) == 1


@pytest.mark.case("auth-64")
async def test_claims_nested_without_end_and_a_key_of_no_known_curve_are_refused(world: Abroad) -> None:
    publisher = await world.house.publisher()
    async with openid_provider.serving(world.house.clock) as at:
        provider = await world.set_up(publisher.live, at=at)
        at.person, at.payload = {"sub": "x"}, b"[" * 5_000
        told = await refusal(world.finish(await world.send(publisher.live, provider, at)))
        assert told[1].endswith(": signature.")
        at.payload, at.algorithm = b"", "ES256"
        world.house.clock.advance(KEPT_FOR)
        key = {"kty": "EC", "crv": "brainpoolP256r1", "x": "AA", "y": "AA", "kid": at.keys["ES256"].kid}
        at.answers["/jwks"] = web.json_response({"keys": [key]})
        told = await refusal(world.finish(await world.send(publisher.live, provider, at)))
        assert told[1].endswith(": signature.")


@pytest.mark.case("auth-64")
@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "PS256", "EdDSA"])
async def test_each_algorithm_with_a_key_pair_is_taken(world: Abroad, algorithm: str) -> None:
    publisher = await world.house.publisher()
    provider = await world.set_up(publisher.live)
    somebody(world)
    world.provider.algorithm = algorithm
    world.provider.lies = {"aud": [CLIENT_ID], "azp": CLIENT_ID}
    world.provider.header = {"x5t": "what others write", "typ": "JWT"}
    await world.finish(await world.send(publisher.live, provider))
    assert await world.alive(publisher.live) == 1


@pytest.mark.case("auth-64")
async def test_keys_come_from_the_issuer_alone_wherever_a_token_points(world: Abroad) -> None:
    publisher = await world.house.publisher()
    provider = await world.set_up(publisher.live)
    somebody(world)
    async with openid_provider.serving(world.house.clock) as mallory:
        forged = mallory.keys["RS256"]
        world.provider.keys["RS256"], right = forged, world.provider.keys["RS256"]
        world.provider.header = {
            "jku": f"{mallory.url}/jwks",
            "x5u": f"{mallory.url}/jwks",
            "jwk": forged.as_dict(private=False),
        }
        sent = await world.send(publisher.live, provider)
        # What the provider publishes is its own key, under the id that the token names.
        published = {"keys": [{**right.as_dict(private=False), "use": "sig", "kid": forged.kid}]}
        world.provider.answers["/jwks"] = web.json_response(published)
        assert (await refusal(world.finish(sent)))[1].endswith(": signature.")
        assert mallory.asked == []
        # A key set that leads elsewhere is no key set.
        world.provider.rotate()
        world.house.clock.advance(KEPT_FOR)
        world.provider.answers["/jwks"] = web.Response(status=302, headers={"Location": f"{mallory.url}/jwks"})
        sent = await world.send(publisher.live, provider)
        assert (await refusal(world.finish(sent)))[0] == "provider_unavailable"
        assert mallory.asked == []


@pytest.mark.case("auth-64")
async def test_a_key_that_is_not_known_is_looked_for_once_a_minute_and_no_more(world: Abroad) -> None:
    publisher = await world.house.publisher()
    async with openid_provider.serving(world.house.clock) as at:
        provider = await world.set_up(publisher.live, at=at)
        at.person = {"sub": "x", "email": world.house.fresh(), "email_verified": True}
        await world.finish(await world.send(publisher.live, provider, at))
        assert at.asked.count("/jwks") == 1
        # Tokens of whoever makes up keys cost no look at the set within the minute.
        world.house.clock.advance(ASKED_AGAIN_AFTER)
        at.header = {"kid": "made-up"}
        for _ in range(5):
            sent = await world.send(publisher.live, provider, at)
            assert (await refusal(world.finish(sent)))[1].endswith(": kid.")
        assert at.asked.count("/jwks") == 2
        # A provider that replaced its keys is believed again as soon as that minute is over.
        at.honest()
        at.rotate()
        world.house.clock.advance(ASKED_AGAIN_AFTER)
        await world.finish(await world.send(publisher.live, provider, at))
        assert at.asked.count("/jwks") == 3


@pytest.mark.case("auth-63")
async def test_an_answer_works_once_and_in_the_browser_that_was_sent_away_alone(world: Abroad) -> None:
    publisher = await world.house.publisher()
    provider = await world.set_up(publisher.live)
    somebody(world)
    sent, other = await world.send(publisher.live, provider), await world.send(publisher.live, provider)
    for changes in (
        {"browser_secret": other.departure.browser_secret},
        {"browser_secret": sent.departure.browser_secret[:-1]},
        {"state": other.back.state},
        {"state": sent.back.state[:-2]},
        {"state": sent.back.state + "A"},
        {"state": "gfst_"},
    ):
        assert (await refusal(world.finish(sent, **changes)))[0] == "federated_state_invalid"
    # The code has gone nowhere yet, and the right browser's answer still works: of many at once one.
    assert world.provider.asked[-1] == "/authorize"
    answers = await asyncio.gather(*(world.finish(sent) for _ in range(5)), return_exceptions=True)
    refused = [one.reason for one in answers if isinstance(one, GatefoldError)]
    assert refused == ["federated_state_invalid"] * 4
    assert (await refusal(world.finish(sent)))[0] == "federated_state_invalid"


@pytest.mark.case("auth-63")
async def test_a_stolen_code_is_of_no_use_in_another_sign_in(world: Abroad) -> None:
    publisher = await world.house.publisher()
    provider = await world.set_up(publisher.live)
    somebody(world)
    victim = await world.send(publisher.live, provider)
    mallory = await world.send(publisher.live, provider)
    # By PKCE the provider refuses it; one that does not look is seen by the nonce.
    assert (await refusal(world.finish(mallory, code=victim.back.code)))[0] == "code_refused"
    mallory = await world.send(publisher.live, provider)
    victim = await world.send(publisher.live, provider)
    world.provider.codes[victim.back.code]["code_challenge"] = world.provider.codes[mallory.back.code]["code_challenge"]
    assert (await refusal(world.finish(mallory, code=victim.back.code)))[1].endswith(": nonce.")


@pytest.mark.case("auth-63")
async def test_an_answer_is_over_after_ten_minutes(world: Abroad) -> None:
    publisher = await world.house.publisher()
    provider = await world.set_up(publisher.live)
    somebody(world)
    sent = await world.send(publisher.live, provider)
    world.house.clock.advance(LIFETIME)
    assert (await refusal(world.finish(sent)))[0] == "federated_state_invalid"


@pytest.mark.case("auth-63")
async def test_of_two_providers_neither_gets_the_others_code(world: Abroad) -> None:
    publisher = await world.house.publisher()
    async with openid_provider.serving(world.house.clock) as mallory:
        right = await world.set_up(publisher.live)
        wrong = await world.set_up(publisher.live, at=mallory, name="Mallory's")
        somebody(world)
        mallory.person = {"sub": "m", "email": world.house.fresh(), "email_verified": True}
        # Mallory's provider sends the browser on to the right one, whose code would then be Mallory's to spend.
        sent = await world.send(publisher.live, wrong, mallory)
        other = await world.send(publisher.live, right)
        told = await refusal(world.finish(sent, code=other.back.code, iss=other.back.iss))
        assert told[0] == "issuer_mismatch"
        # One that names itself always does.
        sent = await world.send(publisher.live, wrong, mallory)
        assert (await refusal(world.finish(sent, code=other.back.code, iss="")))[0] == "issuer_mismatch"
        assert "/token" not in mallory.asked


@pytest.mark.case("auth-63")
async def test_of_two_providers_that_do_not_name_themselves_the_page_tells_whose_answer_it_is(world: Abroad) -> None:
    publisher = await world.house.publisher()
    async with openid_provider.serving(world.house.clock) as mallory:
        mallory.names_itself = world.provider.names_itself = False
        right = await world.set_up(publisher.live, redirect_uris=[f"{PAGE}/right"])
        wrong = await world.set_up(publisher.live, at=mallory, name="Mallory's")
        somebody(world)
        mallory.person = {"sub": "m", "email": world.house.fresh(), "email_verified": True}
        # Mallory's provider sends the browser on, with Mallory's own challenge, and its state comes to the other page.
        sent = await world.send(publisher.live, wrong, mallory)
        departure = await world.begin(publisher.live, right, f"{PAGE}/right")
        other = world.note(Sent(departure, await world.provider.browse(departure.authorization_url)))
        told = await refusal(world.finish(sent, code=other.back.code, redirect_uri=other.back.page))
        assert told[0] == "issuer_mismatch"
        assert "/token" not in mallory.asked
        # The right page is believed.
        departure = await world.begin(publisher.live, right, f"{PAGE}/right")
        sent = world.note(Sent(departure, await world.provider.browse(departure.authorization_url)))
        await world.finish(sent, redirect_uri=sent.back.page)
        assert await world.alive(publisher.live) == 1


@pytest.mark.case("auth-63")
@pytest.mark.parametrize(
    "page",
    [
        "",
        PAGE + "/",
        PAGE + "?x=1",
        PAGE + ".",
        PAGE.replace("https", "http"),
        PAGE.replace("daily.example", "daily.example:443"),
        PAGE.replace("daily.example", "daily.example."),
        PAGE.replace("daily.example", "daily.example@mallory.example"),
        PAGE.replace("callback", "%63allback"),
        PAGE.replace("sign-in", "Sign-in"),
        PAGE.replace("sign-in/", "sign-in/%2e%2e/sign-in/"),
        "https://mallory.example/sign-in/callback",
    ],
)
async def test_nobody_is_sent_back_to_another_page(world: Abroad, page: str) -> None:
    publisher = await world.house.publisher()
    provider = await world.set_up(publisher.live)
    assert (await refusal(world.begin(publisher.live, provider, page)))[0] == "redirect_uri_not_allowed"


@pytest.mark.case("auth-39")
@pytest.mark.parametrize("verified", [False, "false", "true", 1, None, [True]])
@pytest.mark.parametrize("trusted", [True, False])
async def test_an_address_that_is_not_stated_as_verified_opens_nothing(
    world: Abroad, verified: Any, *, trusted: bool
) -> None:
    publisher = await world.house.publisher()
    provider = await world.set_up(publisher.live, trust_verified_email=trusted)
    victim = world.house.fresh("victim")
    subject = await world.house.reader(publisher.live, victim)
    before = await world.alive(publisher.live)
    for email in (victim, victim.upper(), world.house.fresh("nobody")):
        world.provider.person = {"sub": "mallory", "email": email, "email_verified": verified}
        sent = await world.send(publisher.live, provider)
        assert (await refusal(world.finish(sent)))[0] == "identity_email_unverified"
    assert await world.alive(publisher.live) == before
    tokens = await world.house.sign_in(publisher.live, victim)
    assert tokens.principal_id == ids.encode("subj", subject)
    assert await world.identities(await world.house.holder(tokens)) == []


@pytest.mark.case("auth-39")
async def test_a_verified_address_takes_over_nobody_whose_owner_did_not_add_the_provider(world: Abroad) -> None:
    publisher = await world.house.publisher()
    provider = await world.set_up(publisher.live)
    victim = world.house.fresh("victim")
    await world.house.reader(publisher.live, victim)
    before = await world.alive(publisher.live)
    for email in (victim, f" {victim} ", victim.upper()):
        world.provider.person = {"sub": "mallory", "email": email, "email_verified": True}
        sent = await world.send(publisher.live, provider)
        assert (await refusal(world.finish(sent)))[0] == "identity_link_needed"
    assert await world.alive(publisher.live) == before
    reader = await world.house.holder(await world.house.sign_in(publisher.live, victim))
    assert await world.identities(reader) == []


@pytest.mark.case("auth-39")
async def test_a_profile_whose_sign_in_has_another_address_is_taken_over_by_nobody(world: Abroad) -> None:
    # The subscriber service says who an address belongs to; here it says somebody who signs in with another one.
    publisher = await world.house.publisher()
    provider = await world.set_up(publisher.live, trust_verified_email=True)
    victim = world.house.fresh("victim")
    subject = await world.house.reader(publisher.live, victim)
    email = somebody(world)
    world.house.subscriber.subjects[(publisher.live, email)] = ids.encode("subj", subject)
    sent = await world.send(publisher.live, provider)
    assert (await refusal(world.finish(sent)))[0] == "identity_link_needed"
    tokens = await world.house.sign_in(publisher.live, victim)
    assert tokens.principal_id == ids.encode("subj", subject)


@pytest.mark.case("auth-39")
async def test_a_registration_that_waits_gets_no_word_in_a_sign_in_that_a_provider_made(world: Abroad) -> None:
    publisher = await world.house.publisher()
    provider = await world.set_up(publisher.live)
    email = somebody(world)
    await world.house.register(publisher.live, email, "a password of mallory's")
    token = await world.house.token(publisher.live, "verify_registration")
    tokens = await world.finish(await world.send(publisher.live, provider))
    assert (await refusal(world.house.verify(publisher.live, token)))[0] == "token_invalid"
    assert (await refusal(world.house.sign_in(publisher.live, email, "a password of mallory's")))[
        0
    ] == "credentials_invalid"
    assert (await world.house.refresh(tokens.refresh_token)).access_token


async def test_a_provider_that_is_switched_off_at_this_moment_begins_nothing(world: Abroad) -> None:
    publisher = await world.house.publisher()
    provider = await world.set_up(publisher.live)
    somebody(world)
    sent = await world.send(publisher.live, provider)
    held = world.house.subscriber.hold()
    finishing = asyncio.create_task(refusal(world.finish(sent)))
    await world.house.subscriber.arrivals.get()
    await world.update(publisher.live, provider, enabled=False)
    world.house.subscriber.release(held)
    assert (await finishing)[0] == "provider_not_found"
    assert await world.alive(publisher.live) == 0


@pytest.mark.case("auth-17")
async def test_no_password_is_right_for_who_has_none_at_the_work_of_a_wrong_one(world: Abroad) -> None:
    publisher = await world.house.publisher()
    provider = await world.set_up(publisher.live)
    known, email = world.house.fresh(), somebody(world)
    await world.house.reader(publisher.live, known)
    await world.finish(await world.send(publisher.live, provider))
    worked = []
    for address in (known, email, world.house.fresh()):
        before = world.house.units()
        told = await refusal(world.house.sign_in(publisher.live, address, "not the right password"))
        worked.append((told, world.house.units() - before))
    assert worked[0] == worked[1] == worked[2]
    assert worked[0][1] > 0
    # A mail sets one, as for anybody.
    await world.house.call(
        world.house.page(publisher.live),
        world.house.recovery.RequestPasswordReset,
        recovery_pb2.RequestPasswordResetRequest(email=email),
    )
    await world.house.complete_reset(await world.house.token(publisher.live, "reset_password"), "now with a password")
    assert (await world.house.sign_in(publisher.live, email, "now with a password")).access_token


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/jwks", "/token", "/userinfo"])
@pytest.mark.parametrize("kind", ["giant", "redirect", "slow", "no JSON", "a list", "deep", "an error"])
async def test_documents_that_are_too_large_lead_elsewhere_or_say_nothing_are_no_documents(
    world: Abroad, path: str, kind: str
) -> None:
    publisher = await world.house.publisher()
    async with openid_provider.serving(world.house.clock) as at, openid_provider.serving(world.house.clock) as other:
        at.person = {"sub": "x"}
        at.userinfo = {"email": world.house.fresh(), "email_verified": True}
        planted = {
            "redirect": web.Response(status=307, headers={"Location": other.url + path}),
            "no JSON": web.Response(text="<html>"),
            "a list": web.json_response([1]),
            "deep": web.Response(text="[" * 100_000, content_type="application/json"),
            "an error": web.json_response({"error": "x"}, status=500),
        }
        first = path.startswith("/.well-known")
        if not first:
            provider = await world.set_up(publisher.live, at=at)
        if kind == "slow":
            at.silent.add(path)
        elif kind == "giant":
            at.giant.add(path)
        else:
            at.answers[path] = planted[kind]
        if first:
            assert (await refusal(world.set_up(publisher.live, at=at)))[0] == "discovery_failed"
        else:
            sent = await world.send(publisher.live, provider, at)
            assert (await refusal(world.finish(sent)))[0] in {"provider_unavailable", "id_token_invalid"}
            assert await world.alive(publisher.live) == 0
        assert other.asked == []


DISCOVERIES: dict[str, dict[str, Any]] = {
    "speaks for another issuer": {"issuer": "https://accounts.google.com"},
    "speaks for nobody": {"issuer": None},
    "its issuer with a slash": {"issuer": "/"},
    "keys by another scheme": {"jwks_uri": "file:///etc/passwd"},
    "keys inside": {"jwks_uri": "http://169.254.169.254/latest/meta-data"},
    "a token endpoint with a user": {"token_endpoint": "https://accounts.google.com@mallory.example/token"},
    "a script to go to": {"authorization_endpoint": "javascript:alert(1)"},
    "userinfo in clear": {"userinfo_endpoint": "http://mallory.example/"},
    "no keys": {"jwks_uri": None},
    "tokens that are not signed": {"id_token_signing_alg_values_supported": ["none", "HS256"]},
    "PKCE in clear": {"code_challenge_methods_supported": ["plain"]},
    "a client proof that is not spoken here": {"token_endpoint_auth_methods_supported": ["private_key_jwt"]},
}


@pytest.mark.case("auth-64")
@pytest.mark.parametrize("wrong", DISCOVERIES)
async def test_a_discovery_document_that_cannot_be_relied_on_sets_nothing_up(world: Abroad, wrong: str) -> None:
    publisher = await world.house.publisher()
    changes = {
        name: world.provider.url + value if value == "/" else value for name, value in DISCOVERIES[wrong].items()
    }
    world.provider.discovery = changes
    reason, detail = await refusal(world.set_up(publisher.live))
    assert (reason, detail) == (
        "discovery_failed",
        f"The issuer's discovery document cannot be used: {next(iter(changes))}.",
    )


INSIDE = [
    "http://127.0.0.1:8080",
    "https://127.0.0.1",
    "https://localhost",
    "https://[::1]",
    "https://[::ffff:10.0.0.1]",
    "https://10.0.0.1",
    "https://169.254.169.254",
    "https://0.0.0.0",
    "https://2130706433",
    "http://accounts.example.com",
    "https://user@accounts.example.com",
    "https://accounts.example.com?x=1",
    "https://accounts.example.com#x",
    "ftp://accounts.example.com",
    "accounts.example.com",
]


@pytest.mark.parametrize("issuer", INSIDE)
async def test_no_issuer_leads_into_this_machine_or_network(public_house: AuthHouse, issuer: str) -> None:
    publisher = await public_house.publisher()
    request = identity_provider_pb2.CreateIdentityProviderRequest(
        kind=identity_provider_pb2.IDENTITY_PROVIDER_KIND_OIDC,
        audience=identity_provider_pb2.IDENTITY_PROVIDER_AUDIENCE_READERS,
        issuer=issuer,
        settings=identity_provider_pb2.IdentityProviderSettings(
            name="Inside", client_id="x", redirect_uris=[PAGE], enabled=True
        ),
    )
    who = public_house.staff(publisher.live)
    reason, detail = await refusal(
        public_house.call(who, public_house.identity_providers.CreateIdentityProvider, request)
    )
    inside = "The issuer leads into a private network."
    unreadable = "The issuer's discovery document cannot be read: InvalidUrlClientError."
    assert reason == "issuer_invalid" or (reason == "discovery_failed" and detail in {inside, unreadable})


async def team_of_two_publishers(world: Abroad) -> tuple[Any, Any, str, UUID]:
    """Returns two publishers and a person with a password who works for both: finance at the first, owner at none."""
    first, second = await world.house.publisher(), await world.house.publisher()
    email = world.house.fresh("employee")
    person = await world.member(first, email, roles.FINANCE)
    assert await world.member(second, email, roles.ADMIN) == person
    return first, second, email, person


async def test_a_provider_opens_its_account_and_nothing_that_is_the_persons_own(world: Abroad) -> None:
    first, second, email, person = await team_of_two_publishers(world)
    provider = await world.set_up(first.live, STAFF, trust_verified_email=True)
    world.provider.person = {"sub": "employee", "email": email, "email_verified": True}
    tokens = await world.finish(await world.send_staff(first.live))
    who = await world.house.holder(tokens)
    assert (who.kind, who.person, who.account, who.role) == (CallerKind.STAFF, person, first.live, roles.FINANCE)
    assert who.federated
    assert tokens.device_token == "", "with one a sign-in the person's own password could be guessed without a wait"
    # Whoever owns the first account's provider is not let near the person's password, address, factors, devices.
    tried = set()
    pool = descriptor_pool.Default()
    for stub, name in stubs(world.house):
        for method in pool.FindServiceByName(name).methods:
            policy = method.GetOptions().Extensions[policy_pb2.policy]
            if policy.plane != policy_pb2.PLANE_PERSONAL or policy_pb2.CALLER_KIND_STAFF not in policy.callers:
                continue
            if method.full_name == "gatefold.auth.v1.DeviceService.SignOut":
                continue
            empty = message_factory.GetMessageClass(method.input_type)()
            told = await refusal(world.house.call(who, getattr(stub, method.name), empty))
            assert told[0] == "federated_session", method.full_name
            tried.add(method.name)
    assert {"ChangePassword", "RequestEmailChange", "BeginTotp", "StepUp", "ListDevices", "BeginIdentityLink"} <= tried
    # Nor into the second account, by any door.
    request = federated_session_pb2.BeginStaffFederatedSessionRequest(
        account_id=ids.encode("acct", second.live), provider_id=provider.id, redirect_uri=PAGE
    )
    told = await refusal(world.house.call(world.house.anonymous(), begin_staff(world), request))
    assert told[0] == "provider_not_found"
    refreshed = await world.house.claims((await world.house.refresh(tokens.refresh_token)).access_token)
    assert (refreshed["account"], refreshed["federated"]) == (ids.encode("acct", first.live), True)
    # Signing out of it is theirs.
    await world.house.call(who, world.house.devices.SignOut, device_pb2.SignOutRequest())
    assert (await refusal(world.house.refresh(tokens.refresh_token)))[0] == "invalid_grant"


def begin_staff(world: Abroad) -> Any:
    return world.house.federated.BeginStaffFederatedSession


def stubs(house: AuthHouse) -> list[tuple[Any, str]]:
    package = "gatefold.auth.v1"
    return [
        (house.passwords, f"{package}.PasswordService"),
        (house.recovery, f"{package}.RecoveryService"),
        (house.factors, f"{package}.FactorService"),
        (house.devices, f"{package}.DeviceService"),
        (house.federated, f"{package}.FederatedSessionService"),
        (house.team, f"{package}.TeamService"),
    ]


async def test_nobody_becomes_an_owner_or_somebody_of_another_team_by_a_providers_word(world: Abroad) -> None:
    first, second, email, person = await team_of_two_publishers(world)
    third = await world.house.publisher()
    await world.set_up(
        third.live,
        STAFF,
        trust_verified_email=True,
        email_domains=["example.com"],
        default_role=roles.ADMIN,
    )
    # The third account's provider may say what it likes of people who work elsewhere, and of its own owner.
    for claimed in (email, first.owner_email, third.owner_email):
        world.provider.person = {"sub": f"as-{claimed}", "email": claimed, "email_verified": True}
        assert (await refusal(world.finish(await world.send_staff(third.live))))[0] == "identity_link_needed"
    assert await world.alive(third.live) == 0
    tokens = await world.house.sign_in_staff(email, account=second.live)
    assert tokens.principal_id == ids.encode("per", person)


async def test_whoever_is_no_owner_decides_not_who_people_are(world: Abroad) -> None:
    publisher = await world.house.publisher()
    for role in (roles.ADMIN, roles.DEVELOPER):
        who = world.house.staff(publisher.live, role)
        assert (await refusal(world.set_up(publisher.live, STAFF, who=who)))[0] in {"role_above_own", "scope_missing"}
    provider = await world.set_up(publisher.live, STAFF)
    delete = identity_provider_pb2.DeleteIdentityProviderRequest(id=provider.id)
    update = identity_provider_pb2.UpdateIdentityProviderRequest(id=provider.id, settings=provider.settings)
    admin = world.house.staff(publisher.live, roles.ADMIN)
    rpc = world.house.identity_providers
    assert (await refusal(world.house.call(admin, rpc.DeleteIdentityProvider, delete)))[0] == "role_above_own"
    assert (await refusal(world.house.call(admin, rpc.UpdateIdentityProvider, update)))[0] == "role_above_own"
    # Nobody of another account sees it, or may use it for theirs.
    other = await world.house.publisher()
    stranger = world.house.staff(other.live)
    assert (await refusal(world.house.call(stranger, rpc.DeleteIdentityProvider, delete)))[0] == "provider_not_found"
    assert (await refusal(world.begin(other.live, provider)))[0] == "provider_not_found"
    # A provider for staff signs in no reader, nor the other way round.
    assert (await refusal(world.begin(publisher.live, provider)))[0] == "provider_not_found"


async def test_an_address_that_a_provider_made_up_is_still_its_owners(world: Abroad) -> None:
    """A publisher's provider makes a person of an address that is not its to give: the mailbox gets everything back."""
    publisher, elsewhere = await world.house.publisher(), await world.house.publisher()
    victim = world.house.fresh("victim")
    await world.set_up(
        publisher.live, STAFF, trust_verified_email=True, email_domains=["example.com"], default_role=roles.SUPPORT
    )
    world.provider.person = {"sub": "mallory", "email": victim, "email_verified": True, "name": "Mallory"}
    tokens = await world.finish(await world.send_staff(publisher.live))
    assert (await world.house.holder(tokens)).role == roles.SUPPORT
    assert (await refusal(world.house.sign_in_staff(victim)))[0] == "credentials_invalid"
    await world.house.call(
        world.house.anonymous(),
        world.house.recovery.RequestStaffPasswordReset,
        recovery_pb2.RequestStaffPasswordResetRequest(email=victim),
    )
    await world.house.complete_reset(await world.house.token(PLATFORM, "reset_password"), "the victim's own password")
    # Everything that began before is over; what begins by the provider later opens nothing else.
    assert (await refusal(world.house.refresh(tokens.refresh_token)))[0] == "invalid_grant"
    request = federated_session_pb2.BeginStaffFederatedSessionRequest(
        account_id=ids.encode("acct", elsewhere.live), redirect_uri=PAGE
    )
    told = await refusal(world.house.call(world.house.anonymous(), begin_staff(world), request))
    assert told[0] == "provider_not_found"


async def test_a_person_whom_a_provider_made_takes_an_invitation_as_anybody_new(world: Abroad) -> None:
    publisher, elsewhere = await world.house.publisher(), await world.house.publisher()
    victim = world.house.fresh("victim")
    await world.set_up(
        publisher.live, STAFF, trust_verified_email=True, email_domains=["example.com"], default_role=roles.SUPPORT
    )
    world.provider.person = {"sub": "squatter", "email": victim, "email_verified": True}
    await world.finish(await world.send_staff(publisher.live))
    # The mail of the invitation shows whose address it is; there is no password of theirs to ask for.
    person = await world.member(elsewhere, victim, roles.FINANCE)
    tokens = await world.house.sign_in_staff(victim, account=elsewhere.live)
    assert tokens.principal_id == ids.encode("per", person)
    # From now on there is: whoever reads the next invitation has to know it.
    third = await world.house.publisher()
    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await world.member(third, victim, roles.FINANCE, password="a password of mallory's")


async def test_an_identity_is_not_added_to_who_did_not_ask_for_it(world: Abroad) -> None:
    publisher = await world.house.publisher()
    provider = await world.set_up(publisher.live)
    victim_email, mallory_email = world.house.fresh("victim"), world.house.fresh("mallory")
    await world.house.reader(publisher.live, victim_email)
    await world.house.reader(publisher.live, mallory_email)
    victim = await world.house.holder(await world.house.sign_in(publisher.live, victim_email))
    mallory = await world.house.holder(await world.house.sign_in(publisher.live, mallory_email))
    again = await world.house.holder(await world.house.sign_in(publisher.live, mallory_email))
    somebody(world)
    # Mallory's answer, handed to the victim with everything that belongs to it: as a link and as a sign-in.
    planted = await world.send_to_link(mallory, provider)
    for who in (victim, again):
        assert (await refusal(world.finish_link(who, planted)))[0] == "federated_state_invalid"
    assert (await refusal(world.finish(planted)))[0] == "federated_state_invalid"
    sent = await world.send(publisher.live, provider)
    assert (await refusal(world.finish_link(victim, sent)))[0] == "federated_state_invalid"
    assert await world.identities(victim) == []
    # Where it was asked for it works; and then it is nobody else's.
    await world.finish_link(mallory, planted)
    sent = await world.send_to_link(victim, provider)
    assert (await refusal(world.finish_link(victim, sent)))[0] == "identity_taken"


async def test_a_posted_form_signs_nobody_in_and_leads_to_the_page_that_was_asked_for(world: Abroad) -> None:
    publisher = await world.house.publisher()
    provider = await world.set_up(publisher.live)
    somebody(world)
    sent = await world.send(publisher.live, provider)
    rpc, pb = world.house.federated.ReceiveFormPost, federated_session_pb2
    for state in ("", "gfst_", sent.back.state[:-3], sent.back.state.replace("gfst_", "gfsi_")):
        request = pb.ReceiveFormPostRequest(state=state, code="c")
        told = await refusal(world.house.call(world.house.anonymous(), rpc, request))
        assert told[0] == "federated_state_invalid"
    request = pb.ReceiveFormPostRequest(state=sent.back.state, code="x#@\r\nSet-Cookie: a=b&state=other")
    answer = await world.house.call(world.house.anonymous(), rpc, request)
    location: str = answer.location  # type: ignore[attr-defined]
    page, _, fragment = location.partition("#")
    assert page == PAGE
    assert "\n" not in fragment
    assert fragment.startswith(f"state={sent.back.state}&code=x%23")
    assert await world.alive(publisher.live) == 0


async def test_a_userinfo_answer_about_somebody_else_is_refused(world: Abroad) -> None:
    publisher = await world.house.publisher()
    provider = await world.set_up(publisher.live)
    world.provider.person = {"sub": "mallory"}
    world.provider.userinfo = {"sub": "victim", "email": world.house.fresh(), "email_verified": True}
    sent = await world.send(publisher.live, provider)
    assert (await refusal(world.finish(sent)))[1].endswith(": userinfo sub.")
    del world.provider.userinfo["sub"]
    assert (await world.finish(await world.send(publisher.live, provider))).access_token


async def test_secrets_of_providers_are_shown_to_nobody(world: Abroad) -> None:
    publisher = await world.house.publisher()
    provider = await world.set_up(publisher.live)
    assert openid_provider.CLIENT_SECRET not in str(provider)
    listed = await world.house.call(
        world.house.staff(publisher.live),
        world.house.identity_providers.ListIdentityProviders,
        identity_provider_pb2.ListIdentityProvidersRequest(),
    )
    # The house looks for it in every log and table when it closes.
    assert openid_provider.CLIENT_SECRET not in str(listed)
