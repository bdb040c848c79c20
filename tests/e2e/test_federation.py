"""Signing in with another provider over the whole product: set up, sent away, back, and out again, over HTTP."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from gatefold.auth.v1 import federated_session_pb2, identity_provider_pb2, session_pb2

from infra.local.director import MailView
from infra.local.journey import Api, Cast
from infra.local.journey.steps import OWNER, PASSWORD, token_of
from infra.local.valkey import ValkeyServer
from libs.clock import FixedClock, SystemClock
from libs.config import Secret
from tests.conftest import ServiceDb
from tests.support import openid_provider, waiting
from tests.support.auth import AuthHouse, running
from tests.support.openid_provider import CLIENT_ID, CLIENT_SECRET, OpenIdProvider
from tests.support.stack import StackProcess

PAGE = "https://news.example/sign-in/callback"


@pytest.fixture
async def provider() -> AsyncIterator[OpenIdProvider]:
    async with openid_provider.serving(SystemClock()) as found:
        yield found


@pytest.mark.case("auth-64")
async def test_a_reader_signs_in_with_a_provider_keeps_a_cookie_and_is_known_again(
    stack: StackProcess, session: aiohttp.ClientSession, api: Api, cast: Cast, provider: OpenIdProvider
) -> None:
    body: dict[str, Any] = {
        "kind": "oidc",
        "audience": "readers",
        "issuer": provider.url,
        "settings": {"name": "Provider", "client_id": CLIENT_ID, "redirect_uris": [PAGE], "enabled": True},
        "credentials": {"client_secret": CLIENT_SECRET},
    }
    refused = await api.call("POST", "/v1/identity_providers", token=cast.secret_key, json=body)
    assert refused.status in {401, 403}
    made = await api.ok("POST", "/v1/identity_providers", token=cast.staff, json=body)
    assert CLIENT_SECRET not in str(made)
    shown = await api.ok("GET", "/v1/sign_in_providers", token=cast.publishable_key)
    assert shown["data"] == [{"id": made["id"], "kind": "oidc", "name": "Provider"}]

    async def back() -> dict[str, str]:
        asked = {"provider_id": made["id"], "redirect_uri": PAGE}
        gone = await api.ok("POST", "/v1/federated_sessions/begin", token=cast.publishable_key, json=asked)
        came = await provider.browse(gone["authorization_url"])
        assert came.page == PAGE
        return {"state": came.state, "code": came.code, "iss": came.iss, "browser_secret": gone["browser_secret"]}

    provider.person = {"sub": "e2e-reader", "email": "provided@example.com", "email_verified": True, "name": "Petra"}
    tokens = await api.ok("POST", "/v1/federated_sessions", json=await back())
    me = await api.ok("GET", "/v1/me", token=tokens["access_token"])
    assert (me["email"], me["id"]) == ("provided@example.com", tokens["principal_id"])
    listed = await api.ok("GET", "/v1/session/identities", token=tokens["access_token"])
    assert [(one["provider_id"], one["issuer"]) for one in listed["data"]] == [(made["id"], provider.url)]
    # A page on this origin keeps a cookie instead of tokens, as with every other way in.
    gateway = stack.endpoints["gateway"]
    headers = {"Gatefold-Session": "cookie", "Origin": gateway, "Sec-Fetch-Site": "same-origin"}
    async with session.post(f"{gateway}/v1/federated_sessions", json=await back(), headers=headers) as answer:
        assert answer.status == 200
        assert (await answer.json())["principal_id"] == tokens["principal_id"]
        assert "__Host-gatefold_session" in answer.headers.getall("Set-Cookie")[0]
    answer_again = await api.call(
        "POST", "/v1/federated_sessions", json={**await back(), "browser_secret": "gfbs_other"}
    )
    assert (answer_again.status, answer_again.reason) == (401, "federated_state_invalid")


@pytest.mark.case("auth-63")
async def test_a_form_that_another_site_posts_leads_to_the_page_and_nowhere_else(
    stack: StackProcess, session: aiohttp.ClientSession, api: Api, cast: Cast, provider: OpenIdProvider
) -> None:
    body: dict[str, Any] = {
        "kind": "oidc",
        "audience": "readers",
        "issuer": provider.url,
        "settings": {"name": "Poster", "client_id": CLIENT_ID, "redirect_uris": [PAGE], "enabled": True},
    }
    made = await api.ok("POST", "/v1/identity_providers", token=cast.staff, json=body)
    asked = {"provider_id": made["id"], "redirect_uri": PAGE}
    gone = await api.ok("POST", "/v1/federated_sessions/begin", token=cast.publishable_key, json=asked)
    state = parse_qs(urlsplit(gone["authorization_url"]).query)["state"][0]
    url = stack.endpoints["gateway"] + "/v1/federated_sessions/form_post"
    foreign = {"Origin": "https://appleid.apple.com", "Sec-Fetch-Site": "cross-site"}
    form = {"state": state, "code": "c&x=#y", "user": "{}"}
    async with session.post(url, data=form, headers=foreign, allow_redirects=False) as answer:
        assert answer.status == 303
        assert answer.headers["Location"] == f"{PAGE}#state={state}&code=c%26x%3D%23y"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Set-Cookie" not in answer.headers
    form["state"] = "gfst_" + "A" * 86
    async with session.post(url, data=form, headers=foreign, allow_redirects=False) as answer:
        assert answer.status == 401
        assert "Location" not in answer.headers


async def test_staff_of_a_provider_work_in_its_account_and_touch_nothing_of_their_own(
    api: Api, cast: Cast, provider: OpenIdProvider
) -> None:
    proof = {"email": OWNER, "password": PASSWORD, "account_id": cast.account}
    owner = (await api.ok("POST", "/v1/staff/sessions", json=proof))["access_token"]
    body: dict[str, Any] = {
        "kind": "oidc",
        "audience": "staff",
        "issuer": provider.url,
        "settings": {
            "name": "Directory",
            "client_id": CLIENT_ID,
            "redirect_uris": [PAGE],
            "email_domains": ["example.com"],
            "trust_verified_email": True,
            "default_role": "support",
            "enabled": True,
        },
        "credentials": {"client_secret": CLIENT_SECRET},
    }
    made = await api.ok("POST", "/v1/identity_providers", token=owner, json=body)
    provider.person = {"sub": "e2e-staff", "email": "staff@example.com", "email_verified": True, "name": "Sam"}
    asked = {"account_id": cast.account, "redirect_uri": PAGE}
    gone = await api.ok("POST", "/v1/staff/federated_sessions/begin", json=asked)
    came = await provider.browse(gone["authorization_url"])
    back = {"state": came.state, "code": came.code, "iss": came.iss, "browser_secret": gone["browser_secret"]}
    tokens = await api.ok("POST", "/v1/federated_sessions", json=back)
    found = await api.call("GET", "/v1/subscribers?email=nobody@example.com", token=tokens["access_token"])
    assert found.status == 200
    change = {"current_password": PASSWORD, "new_password": "an entirely different phrase"}
    for method, path, given in (
        ("POST", "/v1/session/change_password", change),
        ("POST", "/v1/session/email", {"email": "mallory@example.com"}),
        ("GET", "/v1/session/devices", None),
        ("GET", "/v1/session/identities", None),
    ):
        refused = await api.call(method, path, token=tokens["access_token"], json=given)
        assert (refused.status, refused.reason) == (403, "federated_session"), path
    gone_again = await api.call("DELETE", f"/v1/identity_providers/{made['id']}", token=owner)
    assert gone_again.status == 200

    async def refused_at_the_edge() -> bool:
        return (await api.call("GET", "/v1/account", token=tokens["access_token"])).reason == "session_ended"

    await waiting.until(refused_at_the_edge)
    refreshed = await api.call("POST", "/v1/sessions/refresh", json={"refresh_token": tokens["refresh_token"]})
    assert refreshed.reason == "invalid_grant"


@pytest.fixture
async def second(
    service_db: ServiceDb,
    keys_dsn: Secret,
    valkey_server: ValkeyServer,
    key_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[AuthHouse]:
    """Another instance, with stores of its own; its clock is right."""
    database, folder = await service_db("auth"), tmp_path_factory.mktemp("second")
    url, settings = valkey_server.url().reveal(), {"GATEFOLD_FEDERATION_PRIVATE": "true"}
    clock = FixedClock(SystemClock().wall())
    async with running(database, keys_dsn.reveal(), url, key_file, folder, clock, settings) as found:
        yield found


@pytest.mark.case("auth-63")
@pytest.mark.case("auth-64")
async def test_a_reader_of_one_instance_signs_in_at_another(
    stack: StackProcess,
    session: aiohttp.ClientSession,
    api: Api,
    cast: Cast,
    mailbox: MailView,
    second: AuthHouse,
) -> None:
    gateway, email = stack.endpoints["gateway"], "both@example.com"
    body = {"email": email, "password": PASSWORD}
    kept = await api.ok("POST", "/v1/registrations", token=cast.publishable_key, key="both", json=body)
    token = token_of(await mailbox.wait(email, "Confirm your address", 60))
    shown = {"token": token, "browser_secret": kept["browser_secret"]}
    subject = await api.ok("POST", "/v1/registrations/verify", token=cast.publishable_key, json=shown)
    wanted = {
        "name": "The second instance",
        "redirect_uris": [PAGE],
        "confidential": True,
        "scopes": ["openid", "email"],
        "first_party": True,
    }
    client = await api.ok("POST", "/v1/oauth_clients", token=cast.staff, json=wanted)

    # The second instance knows the first by its issuer alone.
    publisher = await second.publisher()
    request = identity_provider_pb2.CreateIdentityProviderRequest(
        kind=identity_provider_pb2.IDENTITY_PROVIDER_KIND_OIDC,
        audience=identity_provider_pb2.IDENTITY_PROVIDER_AUDIENCE_READERS,
        issuer=gateway,
        settings=identity_provider_pb2.IdentityProviderSettings(
            name="The first instance", client_id=client["client"]["id"], redirect_uris=[PAGE], enabled=True
        ),
        credentials=identity_provider_pb2.IdentityProviderCredentials(client_secret=client["client_secret"]),
    )
    made = await second.call(second.staff(publisher.live), second.identity_providers.CreateIdentityProvider, request)
    assert isinstance(made, identity_provider_pb2.IdentityProvider)

    async def there_and_back() -> session_pb2.Tokens:
        begin = federated_session_pb2.BeginFederatedSessionRequest(provider_id=made.id, redirect_uri=PAGE)
        gone = await second.call(second.page(publisher.live), second.federated.BeginFederatedSession, begin)
        assert isinstance(gone, federated_session_pb2.FederatedDeparture)
        # What the page of the first instance does: it begins, the reader signs in, it goes on.
        asked = {name: values[0] for name, values in parse_qs(urlsplit(gone.authorization_url).query).items()}
        handle = (await api.ok("POST", "/v1/oauth2/authorizations", json=asked))["handle"]
        path = "/v1/oauth2/authorizations/sign_in"
        signed_in = await api.ok("POST", path, json={"handle": handle, **body})
        path = "/v1/oauth2/authorizations/authorize"
        answer = await api.ok("POST", path, token=signed_in["access_token"], json={"handle": handle})
        location = urlsplit(answer["location"])
        assert location._replace(query="").geturl() == PAGE
        came = {name: values[0] for name, values in parse_qs(location.query).items()}
        assert came["iss"] == gateway
        finish = federated_session_pb2.FinishFederatedSessionRequest(
            state=came["state"], code=came["code"], iss=came["iss"], browser_secret=gone.browser_secret
        )
        second.secrecy.note(finish)
        tokens = await second.call(second.anonymous(), second.federated.FinishFederatedSession, finish)
        assert isinstance(tokens, session_pb2.Tokens)
        return tokens

    first = await there_and_back()
    assert (await there_and_back()).principal_id == first.principal_id
    reader = await second.holder(first)
    found = await second.call(reader, second.federated.ListIdentities, federated_session_pb2.ListIdentitiesRequest())
    assert isinstance(found, federated_session_pb2.ListIdentitiesResponse)
    assert [one.issuer for one in found.data] == [gateway]
    # The address came from there, where its mailbox was proven.
    assert second.subscriber.subjects[(publisher.live, email)] == first.principal_id
    assert subject["subject_id"] != first.principal_id
