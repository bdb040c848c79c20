"""The OpenID Connect provider: signing in to a site of the publisher's, tokens, userinfo, consents, logout."""

import base64
import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta

import jwt
import pytest
from authlib.oidc.discovery import OpenIDProviderMetadata
from gatefold.auth.v1 import device_pb2, oauth_client_pb2, oauth_pb2
from gatefold.privacy.v1 import subject_data_pb2

from libs import caller, ids
from libs.clock import FixedClock
from libs.privacy import SubjectDataServicer
from libs.vault import Vault
from services.auth.__main__ import PERSONAL_TABLES
from tests.support.auth import ISSUER, AuthHouse, Publisher
from tests.support.edge import Edge, running_edge
from tests.support.oauth import REDIRECT, Browser, client_of, parameters, subject_text


@pytest.fixture(scope="module")
async def edge(house: AuthHouse) -> AsyncIterator[Edge]:
    async with running_edge(house) as found:
        yield found


@pytest.fixture
async def publisher(house: AuthHouse) -> Publisher:
    return await house.publisher()


def advance(house: AuthHouse, by: timedelta) -> None:
    assert isinstance(house.clock, FixedClock)
    house.clock.advance(by)


async def claims_of(edge: Edge, token: str, audience: str) -> dict[str, object]:
    """Returns an ID token's claims as a client verifies them."""
    found = (await edge.ask("GET", "/.well-known/jwks.json")).json["keys"]
    header = jwt.get_unverified_header(token)
    assert (header["typ"], header["alg"]) == ("JWT", "ES256")
    key = jwt.PyJWK(next(one for one in found if one["kid"] == header["kid"]))
    options = {"verify_exp": False, "verify_iat": False}
    claims: dict[str, object] = jwt.decode(
        token,
        key.key,
        ["ES256"],
        audience=audience,
        issuer=ISSUER,
        options=options,  # type: ignore[arg-type]
    )
    return claims


@pytest.mark.case("auth-63")
async def test_a_reader_signs_in_to_a_site_which_learns_who_they_are(
    house: AuthHouse, edge: Edge, publisher: Publisher
) -> None:
    email = house.fresh()
    subject = await house.reader(publisher.live, email)
    client = await client_of(house, edge, publisher.live)
    browser = Browser(edge)
    begun = await client.begin()
    assert begun.json["publication"] == "The Daily"
    assert begun.json["client_name"] == "The Shop"
    handle = begun.json["handle"]
    # Nobody is signed in.
    assert (await browser.authorize(handle)).status == 401
    signed_in = await browser.sign_in(handle, email)
    assert signed_in.status == 200, signed_in.json
    assert signed_in.json["access_token"] == ""
    asked = await browser.authorize(handle)
    assert (asked.json["next"], asked.json["email"], asked.json["location"]) == ("consent", email, "")
    location = (await browser.authorize(handle, consent=True)).json["location"]
    back = parameters(location)
    assert location.startswith(f"{REDIRECT}?")
    assert (back["state"], back["iss"]) == ("state-of-the-shop", ISSUER)
    answer = await client.exchange(back["code"])
    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "no-store"
    tokens = answer.json
    assert (tokens["token_type"], tokens["scope"]) == ("Bearer", "openid profile email offline_access")
    claims = await claims_of(edge, tokens["id_token"], client.id)
    assert claims["sub"] == subject_text(subject)
    assert (claims["azp"], claims["nonce"], claims["acr"]) == (client.id, "nonce-of-the-shop", "aal1")
    half = hashlib.sha256(tokens["access_token"].encode()).digest()[:16]
    assert claims["at_hash"] == base64.urlsafe_b64encode(half).rstrip(b"=").decode()
    told = await client.userinfo(tokens["access_token"])
    assert told.json == {"sub": subject_text(subject), "email": email, "email_verified": True, "name": "Rita"}
    posted = await edge.ask("POST", "/oauth2/userinfo", credential=tokens["access_token"])
    assert posted.json == told.json
    # The second time nobody is asked, neither for the password nor for an agreement.
    again = (await client.begin()).json["handle"]
    assert "code" in parameters((await browser.authorize(again)).json["location"])


async def test_a_token_tells_what_was_agreed_to_and_no_more(house: AuthHouse, edge: Edge, publisher: Publisher) -> None:
    email = house.fresh()
    subject = await house.reader(publisher.live, email)
    client = await client_of(house, edge, publisher.live)
    browser = Browser(edge)
    tokens = await client.tokens(browser, email, scope="openid surprise")
    assert "refresh_token" not in tokens
    assert (await client.userinfo(tokens["access_token"])).json == {"sub": subject_text(subject)}
    # More is asked for: the reader is asked again.
    handle = (await client.begin(scope="openid email")).json["handle"]
    assert (await browser.authorize(handle)).json["next"] == "consent"


async def test_the_publishers_own_site_asks_for_no_agreement_unless_it_wants_one(
    house: AuthHouse, edge: Edge, publisher: Publisher
) -> None:
    email = house.fresh()
    await house.reader(publisher.live, email)
    client = await client_of(house, edge, publisher.live, first_party=True)
    browser = Browser(edge)
    handle = (await client.begin()).json["handle"]
    await browser.sign_in(handle, email)
    assert "code" in parameters((await browser.authorize(handle)).json["location"])
    wanted = (await client.begin(prompt="consent")).json["handle"]
    assert (await browser.authorize(wanted)).json["next"] == "consent"


async def test_prompt_and_age_decide_whether_the_reader_signs_in_anew(
    house: AuthHouse, edge: Edge, publisher: Publisher
) -> None:
    email = house.fresh()
    await house.reader(publisher.live, email)
    client = await client_of(house, edge, publisher.live, first_party=True)
    browser = Browser(edge)
    silent = (await client.begin(prompt="none")).json
    assert silent["silent"] is True
    refused = await browser.post("/v1/oauth2/authorizations/refuse", {"handle": silent["handle"]})
    assert parameters(refused.json["location"])["error"] == "login_required"
    await client.code(browser, email)
    advance(house, timedelta(minutes=5))
    for wanted in ({"prompt": "login"}, {"prompt": "select_account"}, {"max_age": "200"}, {"acr_values": "aal2"}):
        handle = (await client.begin(**wanted)).json["handle"]
        assert (await browser.authorize(handle)).json["next"] == "sign_in", wanted
        await browser.sign_in(handle, email)
        assert "code" in parameters((await browser.authorize(handle)).json["location"]), wanted
        advance(house, timedelta(minutes=5))
    for fine in ({"max_age": "400"}, {"acr_values": "aal1 aal2"}, {"prompt": "none"}):
        handle = (await client.begin(**fine)).json["handle"]
        assert "code" in parameters((await browser.authorize(handle)).json["location"]), fine
    handle = (await client.begin(prompt="none", max_age="10")).json["handle"]
    back = parameters((await browser.authorize(handle)).json["location"])
    assert (back["error"], back["state"], back["iss"]) == ("login_required", "state-of-the-shop", ISSUER)
    other = await client_of(house, edge, publisher.live)
    handle = (await other.begin(prompt="none")).json["handle"]
    assert parameters((await browser.authorize(handle)).json["location"])["error"] == "consent_required"


async def test_refresh_tokens_follow_one_another_and_end_with_the_sign_in(
    house: AuthHouse, edge: Edge, publisher: Publisher
) -> None:
    email = house.fresh()
    await house.reader(publisher.live, email)
    client = await client_of(house, edge, publisher.live)
    browser = Browser(edge)
    tokens = await client.tokens(browser, email)
    second = (await client.refresh(tokens["refresh_token"], scope="openid email")).json
    assert (second["scope"], second["refresh_token"] != tokens["refresh_token"]) == ("openid email", True)
    assert "nonce" not in await claims_of(edge, second["id_token"], client.id)
    # Two tabs: the same successor.
    assert (await client.refresh(tokens["refresh_token"])).json["refresh_token"] == second["refresh_token"]
    assert (await client.refresh(second["refresh_token"], scope="openid admin")).json["error"] == "invalid_scope"
    third = (await client.refresh(second["refresh_token"])).json
    assert third["scope"] == "openid profile email offline_access"
    out = await browser.post("/v1/session/sign_out", {})
    assert out.status == 200
    assert (await client.refresh(third["refresh_token"])).json["error"] == "invalid_grant"


async def test_introspection_tells_a_client_of_its_own_tokens_at_this_moment(
    house: AuthHouse, edge: Edge, publisher: Publisher
) -> None:
    email = house.fresh()
    subject = await house.reader(publisher.live, email)
    client, other = [await client_of(house, edge, publisher.live) for _ in range(2)]
    public = await client_of(house, edge, publisher.live, confidential=False)
    browser = Browser(edge)
    tokens = await client.tokens(browser, email)
    for token in (tokens["access_token"], tokens["refresh_token"]):
        found = (await client.ask("introspect", {"token": token})).json
        assert (found["active"], found["sub"], found["client_id"]) == (True, subject_text(subject), client.id)
        assert (await other.ask("introspect", {"token": token})).json == {"active": False}
        assert (await public.ask("introspect", {"token": token})).json["error"] == "invalid_client"
    for nothing in ("", "x", tokens["id_token"], tokens["refresh_token"][:-1]):
        assert (await client.ask("introspect", {"token": nothing or "-"})).json == {"active": False}
    assert (await other.ask("revoke", {"token": tokens["refresh_token"]})).status == 200
    assert (await client.ask("introspect", {"token": tokens["access_token"]})).json["active"] is True
    assert (await client.ask("revoke", {"token": tokens["access_token"]})).status == 200
    for token in (tokens["access_token"], tokens["refresh_token"]):
        assert (await client.ask("introspect", {"token": token})).json == {"active": False}


async def test_readers_see_whom_they_let_in_and_take_it_back(
    house: AuthHouse, edge: Edge, publisher: Publisher
) -> None:
    email = house.fresh()
    await house.reader(publisher.live, email)
    client, other = [await client_of(house, edge, publisher.live) for _ in range(2)]
    browser = Browser(edge)
    tokens = await client.tokens(browser, email)
    kept = await other.tokens(browser, email)
    who = await house.holder(await house.sign_in(publisher.live, email))
    listed = await house.call(who, house.oauth.ListConsents, oauth_pb2.ListConsentsRequest())
    assert isinstance(listed, oauth_pb2.ListConsentsResponse)
    assert [one.client_id for one in listed.data] == [other.id, client.id]
    assert list(listed.data[0].scopes) == ["email", "offline_access", "openid", "profile"]
    await house.call(who, house.oauth.RevokeConsent, oauth_pb2.RevokeConsentRequest(client_id=client.id))
    assert (await client.refresh(tokens["refresh_token"])).json["error"] == "invalid_grant"
    assert (await other.refresh(kept["refresh_token"])).status == 200
    handle = (await client.begin()).json["handle"]
    assert (await browser.authorize(handle)).json["next"] == "consent"


async def test_what_ends_a_readers_session_ends_the_tokens_of_clients(
    house: AuthHouse, edge: Edge, publisher: Publisher
) -> None:
    email = house.fresh()
    subject = await house.reader(publisher.live, email)
    client = await client_of(house, edge, publisher.live)
    tokens = await client.tokens(Browser(edge), email)
    request = device_pb2.EndSubscriberSessionsRequest(subscriber_id=ids.encode("subj", subject))
    await house.call(house.staff(publisher.live), house.devices.EndSubscriberSessions, request)
    assert (await client.refresh(tokens["refresh_token"])).json["error"] == "invalid_grant"
    assert (await client.ask("introspect", {"token": tokens["access_token"]})).json == {"active": False}


async def test_a_disabled_client_gets_nothing_and_its_tokens_are_over(
    house: AuthHouse, edge: Edge, publisher: Publisher
) -> None:
    email = house.fresh()
    await house.reader(publisher.live, email)
    client = await client_of(house, edge, publisher.live)
    browser = Browser(edge)
    tokens = await client.tokens(browser, email)
    waiting = (await client.begin()).json["handle"]
    update = oauth_client_pb2.UpdateOAuthClientRequest(
        id=client.id, name="The Shop", redirect_uris=[REDIRECT], scopes=["openid", "offline_access"]
    )
    await house.call(house.staff(publisher.live), house.oauth_clients.UpdateOAuthClient, update)
    assert (await client.begin()).json["reason"] == "oauth_client_unknown"
    assert (await browser.authorize(waiting)).json["reason"] == "authorization_request_invalid"
    assert (await client.refresh(tokens["refresh_token"])).json["error"] == "invalid_client"
    update.enabled = True
    await house.call(house.staff(publisher.live), house.oauth_clients.UpdateOAuthClient, update)
    assert (await client.refresh(tokens["refresh_token"])).json["error"] == "invalid_grant"


async def test_a_clients_secret_is_replaced_with_an_overlap(house: AuthHouse, edge: Edge, publisher: Publisher) -> None:
    client = await client_of(house, edge, publisher.live)
    request = oauth_client_pb2.RotateOAuthClientSecretRequest(id=client.id, overlap_seconds=3600)
    made = await house.call(house.staff(publisher.live), house.oauth_clients.RotateOAuthClientSecret, request)
    assert isinstance(made, oauth_client_pb2.CreateOAuthClientResponse)
    former, client.secret = client.secret, made.client_secret
    for secret in (former, made.client_secret):
        answer = await client.ask("introspect", {"token": "-", "client_secret": secret})
        assert answer.json == {"active": False}
    advance(house, timedelta(hours=1))
    refused = await client.ask("introspect", {"token": "-", "client_secret": former})
    assert (refused.status, refused.json["error"]) == (401, "invalid_client")
    assert refused.headers["WWW-Authenticate"].startswith("Basic ")
    basic = base64.b64encode(f"{client.id}:{client.secret}".encode()).decode()
    header = {"Authorization": f"Basic {basic}"}
    answer = await edge.ask("POST", "/oauth2/introspect", data={"token": "-"}, headers=header)
    assert answer.json == {"active": False}


async def test_the_discovery_document_is_complete_and_the_same_for_both_standards(edge: Edge) -> None:
    found = (await edge.ask("GET", "/.well-known/openid-configuration")).json
    assert found["issuer"] == ISSUER
    assert found["id_token_signing_alg_values_supported"] == ["ES256"]
    # All but this: the standard asks for RS256 as well, which no key here signs with (docs/adr/0017).
    OpenIDProviderMetadata({**found, "id_token_signing_alg_values_supported": ["RS256"]}).validate()
    assert (await edge.ask("GET", "/.well-known/oauth-authorization-server")).json == found
    assert found["code_challenge_methods_supported"] == ["S256"]
    for name in ("token", "revocation", "introspection"):
        path = found[f"{name}_endpoint"].removeprefix(ISSUER)
        assert (await edge.ask("POST", path, data={"client_id": "-"})).json["error"] in (
            "invalid_client",
            "unsupported_grant_type",
        )


async def test_logout_names_the_client_and_goes_back_to_its_own_address_alone(
    house: AuthHouse, edge: Edge, publisher: Publisher
) -> None:
    email = house.fresh()
    await house.reader(publisher.live, email)
    client, other = [await client_of(house, edge, publisher.live) for _ in range(2)]
    browser = Browser(edge)
    tokens = await client.tokens(browser, email)
    wanted = {"post_logout_redirect_uri": "https://shop.example/bye", "state": "s1"}
    hinted = await edge.ask("POST", "/v1/oauth2/logouts", json={"id_token_hint": tokens["id_token"], **wanted})
    assert hinted.json == {
        "publication": "The Daily",
        "client_name": "The Shop",
        "location": "https://shop.example/bye?state=s1",
    }
    # It only tells: the reader is signed in until they say otherwise.
    assert (await client.ask("introspect", {"token": tokens["access_token"]})).json["active"] is True
    wrong = [
        wanted,
        {"id_token_hint": tokens["access_token"], **wanted},
        {"id_token_hint": tokens["id_token"], "client_id": other.id, **wanted},
        {"client_id": client.id, "post_logout_redirect_uri": "https://shop.example/bye/"},
        {"client_id": client.id, "post_logout_redirect_uri": REDIRECT},
    ]
    for body in wrong:
        refused = await edge.ask("POST", "/v1/oauth2/logouts", json=body)
        assert refused.json["reason"] == "redirect_uri_mismatch", body
    assert (await edge.ask("POST", "/v1/oauth2/logouts", json={})).json["location"] == ""


async def test_an_export_shows_consents_and_an_erasure_takes_all_of_it(
    house: AuthHouse, edge: Edge, publisher: Publisher, vault: Vault
) -> None:
    email = house.fresh()
    subject = await house.reader(publisher.live, email)
    client = await client_of(house, edge, publisher.live)
    browser = Browser(edge)
    refresh = (await client.tokens(browser, email))["refresh_token"]
    port = SubjectDataServicer("auth", house.app, vault, PERSONAL_TABLES, clock=house.clock)
    text = ids.encode("subj", subject)
    with caller.serving(house.service("compliance", publisher.live)):
        exported = b"".join(
            [part.json_lines async for part in port.Export(subject_data_pb2.ExportRequest(subject_id=text), None)]  # type: ignore[arg-type]
        ).decode()
        assert "oauth_consent" in exported
        assert "oauth_authorization" in exported
        plan = await port.PlanErase(subject_data_pb2.PlanEraseRequest(subject_id=text), None)  # type: ignore[arg-type]
        await port.Erase(subject_data_pb2.EraseRequest(subject_id=text, plan_hash=plan.plan_hash), None)  # type: ignore[arg-type]
    async with house.app.tenant(publisher.live, "count", read_only=True) as conn:
        for table in ("oauth_consent", "oauth_authorization"):
            assert await conn.fetchval(f"SELECT count(*) FROM {table} WHERE subject_id = $1", subject) == 0
    assert (await client.refresh(refresh)).json["error"] == "invalid_grant"
