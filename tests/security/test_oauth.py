"""Attacks on the OpenID Connect provider: redirects, codes, PKCE, clients, consent, kinds of tokens, logout."""

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import jwt
import pytest
from gatefold.auth.v1 import device_pb2, oauth_client_pb2

from infra.local.valkey import ValkeyServer
from libs.clock import FixedClock
from libs.config import Secret
from libs.errors import GatefoldError
from services.auth.domain import roles
from tests.conftest import ServiceDb
from tests.support.auth import AuthHouse, Publisher, running
from tests.support.bending import bent
from tests.support.edge import Edge, running_edge, until_refused
from tests.support.oauth import REDIRECT, Browser, challenge_of, client_of, parameters

FOREIGN = "https://evil.example"


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


@pytest.fixture(scope="module")
async def edge(house: AuthHouse) -> AsyncIterator[Edge]:
    async with running_edge(house) as found:
        yield found


@pytest.fixture
async def publisher(house: AuthHouse) -> Publisher:
    return await house.publisher()


@pytest.fixture
async def email(house: AuthHouse, publisher: Publisher) -> str:
    address = house.fresh()
    await house.reader(publisher.live, address)
    return address


def advance(house: AuthHouse, by: timedelta) -> None:
    assert isinstance(house.clock, FixedClock)
    house.clock.advance(by)


@pytest.mark.case("auth-63")
@pytest.mark.parametrize(
    "uri",
    [
        "",
        "https://shop.example/back/",
        "https://shop.example/Back",
        "https://SHOP.example/back",
        "HTTPS://shop.example/back",
        "http://shop.example/back",
        "https://shop.example:443/back",
        "https://shop.example:8443/back",
        "https://shop.example./back",
        "https://shop.example/back?next=/",
        "https://shop.example/back?",
        "https://shop.example/back#",
        "https://shop.example/back#fragment",
        "https://shop.example/%62ack",
        "https://shop.example/x/%2e%2e/back",
        "https://shop.example/x/../back",
        "https://shop.example//back",
        "https://shop.example\\@evil.example/back",
        "https://shop.example@evil.example/back",
        "https://shop.example.evil.example/back",
        "https://evil.example/https://shop.example/back",
        " https://shop.example/back",
        "https://shop.example/back\n",
        "javascript:alert(1)",
    ],
)
async def test_only_the_registered_redirect_uri_is_ever_gone_to(
    house: AuthHouse, edge: Edge, publisher: Publisher, uri: str
) -> None:
    client = await client_of(house, edge, publisher.live)
    for changes in ({}, {"response_type": "token"}, {"scope": "nothing"}):
        answer = await client.begin(redirect_uri=uri, **changes)
        assert answer.status == 422
        assert answer.json["reason"] == "redirect_uri_mismatch"
        assert uri.strip() not in str(answer.json) or not uri


@pytest.mark.case("auth-63")
@pytest.mark.parametrize(
    "uri",
    [
        "http://shop.example/back",
        "https://shop.example/back#fragment",
        "https://user@shop.example/back",
        "https://shop.example./back",
        "https://Shop.example/back",
        "https://*.shop.example/../back",
        "https://shop.example/%2E%2e/back",
        "https://shop.example/back?code=1",
        "https://shop.example/back?state=x",
        "http://127.0.0.1.evil.example/back",
        "http://localhost@evil.example/back",
        "https://shop.example/ba ck",
        "https://shop.example/back\\",
        "https:///back",
        "https://shop.example:x/back",
        "javascript:alert(1)",
        "data:text/html,x",
        "shop:/back",
        "com.example.app://back",
        "//shop.example/back",
    ],
)
async def test_a_client_cannot_register_what_could_be_taken_for_something_else(
    house: AuthHouse, publisher: Publisher, uri: str
) -> None:
    for wanted in ({"redirect_uris": [uri]}, {"post_logout_redirect_uris": [uri]}):
        with pytest.raises(GatefoldError) as caught:
            await house.oauth_client(publisher.live, **wanted)
        assert caught.value.reason == "redirect_uri_invalid"


@pytest.mark.case("auth-63")
@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": "code id_token"}, "unsupported_response_type"),
        ({"response_mode": "form_post"}, "invalid_request"),
        ({"code_challenge": ""}, "invalid_request"),
        ({"code_challenge_method": ""}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": "s256"}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"scope": "email"}, "invalid_scope"),
        ({"scope": "openid offline_access"}, "invalid_scope"),
        ({"prompt": "none login"}, "invalid_request"),
        ({"prompt": "create"}, "invalid_request"),
        ({"max_age": "-1"}, "invalid_request"),
        ({"request": "e30.e30."}, "request_not_supported"),
        ({"request_uri": "https://shop.example/r"}, "request_uri_not_supported"),
    ],
)
async def test_a_bad_request_goes_back_to_the_client_without_a_handle(
    house: AuthHouse, edge: Edge, publisher: Publisher, changes: dict[str, str], error: str
) -> None:
    client = await client_of(house, edge, publisher.live, scopes=["openid", "email"], confidential=False)
    answer = await client.begin(**{"scope": "openid email", **changes})
    assert answer.json["handle"] == ""
    assert answer.json["location"].startswith(f"{REDIRECT}?")
    back = parameters(answer.json["location"])
    assert (back["error"], back["state"]) == (error, "state-of-the-shop")
    assert "iss" in back


async def test_what_a_client_sends_cannot_add_parameters_of_its_own_to_the_answer(
    house: AuthHouse, edge: Edge, publisher: Publisher
) -> None:
    client = await client_of(house, edge, publisher.live)
    location = (await client.begin(state="x&code=planted\r\nSet-Cookie: a=b", response_type="no")).json["location"]
    assert parameters(location)["state"] == "x&code=planted\r\nSet-Cookie: a=b"
    assert "code" not in parameters(location)
    assert "\r" not in location


@pytest.mark.case("auth-63")
async def test_a_code_that_comes_twice_ends_what_the_first_gave(
    house: AuthHouse, edge: Edge, publisher: Publisher, email: str
) -> None:
    client = await client_of(house, edge, publisher.live)
    code = await client.code(Browser(edge), email)
    tokens = (await client.exchange(code)).json
    assert (await client.userinfo(tokens["access_token"])).status == 200
    second = await client.exchange(code)
    assert (second.status, second.json["error"]) == (400, "invalid_grant")
    assert (await client.refresh(tokens["refresh_token"])).json["error"] == "invalid_grant"
    async with asyncio.timeout(10):
        # The gateway tells nobody what it has read; its answers are all there is to see.
        while (await client.userinfo(tokens["access_token"])).status != 401:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@pytest.mark.case("auth-63")
async def test_of_ten_parallel_uses_of_a_code_one_is_answered(
    house: AuthHouse, edge: Edge, publisher: Publisher, email: str
) -> None:
    client = await client_of(house, edge, publisher.live)
    code = await client.code(Browser(edge), email)
    answers = await asyncio.gather(*(client.exchange(code) for _ in range(10)))
    assert sorted(answer.status for answer in answers) == [200] + [400] * 9


@pytest.mark.case("auth-63")
async def test_a_code_lives_for_a_minute(house: AuthHouse, edge: Edge, publisher: Publisher, email: str) -> None:
    client = await client_of(house, edge, publisher.live)
    code = await client.code(Browser(edge), email)
    advance(house, timedelta(seconds=60))
    assert (await client.exchange(code)).json["error"] == "invalid_grant"


@pytest.mark.case("auth-63")
async def test_a_code_is_good_for_its_client_its_verifier_and_its_address_alone(
    house: AuthHouse, edge: Edge, publisher: Publisher, email: str
) -> None:
    client, other = [
        await client_of(house, edge, publisher.live, redirect_uris=[REDIRECT, f"{REDIRECT}/2"]) for _ in range(2)
    ]
    elsewhere = await client_of(house, edge, (await house.publisher()).live)
    code = await client.code(Browser(edge), email)
    wrong = {
        "another verifier": {"code_verifier": "v" * 43},
        "the challenge itself": {"code_verifier": challenge_of(client.verifier)},
        "no verifier": {"code_verifier": ""},
        "a longer verifier": {"code_verifier": client.verifier + "x"},
        "another address": {"redirect_uri": f"{REDIRECT}/2"},
        "no address": {"redirect_uri": ""},
        "half a code": {"code": code[:-4]},
        "another end": {"code": bent(code)},
        "no code": {"code": ""},
    }
    for name, changes in wrong.items():
        answer = await client.exchange(**{"code": code, **changes})
        assert (answer.status, answer.json["error"]) == (400, "invalid_grant"), name
    for thief in (other, elsewhere):
        thief.verifier = client.verifier
        assert (await thief.exchange(code)).json["error"] == "invalid_grant"
    # None of that has spent it, or ended anything.
    assert (await client.exchange(code)).status == 200


@pytest.mark.case("auth-63")
async def test_a_confidential_client_proves_itself_in_one_way(
    house: AuthHouse, edge: Edge, publisher: Publisher, email: str
) -> None:
    client, other = [await client_of(house, edge, publisher.live) for _ in range(2)]
    public = await client_of(house, edge, publisher.live, confidential=False)
    code = await client.code(Browser(edge), email)

    def basic(name: str, secret: str) -> dict[str, str]:
        return {"Authorization": "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()}

    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": REDIRECT,
        "code_verifier": client.verifier,
    }
    bad = [
        ({"client_id": client.id}, {}),
        ({"client_id": client.id, "client_secret": other.secret}, {}),
        ({"client_id": client.id, "client_secret": "x"}, {}),
        ({"client_id": public.id, "client_secret": client.secret}, {}),
        ({"client_id": "cli_nobody", "client_secret": client.secret}, {}),
        ({}, {}),
        ({}, basic(client.id, other.secret)),
        ({}, basic(client.id, "")),
        ({}, {"Authorization": f"Bearer {client.secret}"}),
        ({}, {"Authorization": "Basic !!!!"}),
    ]
    for extra, headers in bad:
        answer = await edge.ask("POST", "/oauth2/token", data={**form, **extra}, headers=headers)
        assert (answer.status, answer.json["error"]) == (401, "invalid_client"), (extra, headers)
    both = await edge.ask(
        "POST",
        "/oauth2/token",
        data={**form, "client_id": client.id, "client_secret": client.secret},
        headers=basic(client.id, client.secret),
    )
    assert (both.status, both.json["error"]) == (400, "invalid_request")
    assert (await edge.ask("POST", "/oauth2/token", data=form, headers=basic(client.id, client.secret))).status == 200
    for grant in ("password", "client_credentials", "implicit", ""):
        assert (await client.ask("token", {**form, "grant_type": grant})).json["error"] == "unsupported_grant_type"


async def test_a_spent_refresh_token_ends_the_family_after_the_grace(
    house: AuthHouse, edge: Edge, publisher: Publisher, email: str
) -> None:
    client, other = [await client_of(house, edge, publisher.live) for _ in range(2)]
    browser = Browser(edge)
    tokens, kept = await client.tokens(browser, email), await other.tokens(browser, email)
    newest = (await client.refresh(tokens["refresh_token"])).json
    assert (await other.refresh(newest["refresh_token"])).json["error"] == "invalid_grant"
    advance(house, timedelta(seconds=11))
    assert (await client.refresh(tokens["refresh_token"])).json["error"] == "invalid_grant"
    assert (await client.refresh(newest["refresh_token"])).json["error"] == "invalid_grant"
    # The other client's tokens and the reader's own session go on.
    assert (await other.refresh(kept["refresh_token"])).status == 200
    assert (await browser.authorize((await client.begin()).json["handle"])).status == 200


async def test_a_refresh_token_cannot_be_made_or_bent(
    house: AuthHouse, edge: Edge, publisher: Publisher, email: str
) -> None:
    client = await client_of(house, edge, publisher.live)
    browser = Browser(edge)
    token = (await client.tokens(browser, email))["refresh_token"]
    raw = bytearray(base64.urlsafe_b64decode(token.removeprefix("gfor_") + "=="))
    raw[35] += 1
    later = "gfor_" + base64.urlsafe_b64encode(bytes(raw)).rstrip(b"=").decode()
    session = await house.sign_in(publisher.live, email)
    for wrong in (later, bent(token), session.refresh_token, ""):
        assert (await client.refresh(wrong)).json["error"] == "invalid_grant"
    # Nor is it one of ours.
    answer = await edge.ask("POST", "/v1/sessions/refresh", json={"refresh_token": token})
    assert answer.json["reason"] == "invalid_grant"


@pytest.mark.case("auth-53")
@pytest.mark.case("auth-55")
@pytest.mark.case("auth-56")
async def test_no_kind_of_token_passes_for_another(
    house: AuthHouse, edge: Edge, publisher: Publisher, email: str
) -> None:
    client = await client_of(house, edge, publisher.live)
    tokens = await client.tokens(Browser(edge), email)
    own = await house.sign_in(publisher.live, email)
    for token in (tokens["id_token"], tokens["refresh_token"], own.refresh_token, client.secret):
        assert (await client.userinfo(token)).json["error"] == "invalid_token"
        assert (await edge.devices(token)).json["reason"] == "access_token_invalid"
    for token in (own.access_token, own.refresh_token, tokens["id_token"]):
        assert (await client.ask("introspect", {"token": token})).json == {"active": False}
    # A client's token opens userinfo, and nothing else that there is; the reader's own opens no userinfo.
    assert (await client.userinfo(own.access_token)).json["error"] == "access_denied"
    assert (await client.userinfo(own.access_token)).status == 403
    for verb, path in (
        ("GET", "/v1/session/devices"),
        ("GET", "/v1/session/consents"),
        ("GET", "/v1/me"),
        ("GET", "/v1/factors"),
        ("GET", "/v1/oauth_clients"),
        ("POST", "/v1/session/sign_out"),
    ):
        answer = await edge.ask(
            verb, path, credential=tokens["access_token"], **({"json": {}} if verb == "POST" else {})
        )
        assert answer.status == 403, path
        assert answer.json["reason"] == "caller_kind_not_allowed", path
    handle = (await client.begin()).json["handle"]
    answer = await edge.ask(
        "POST", "/v1/oauth2/authorizations/authorize", credential=tokens["access_token"], json={"handle": handle}
    )
    assert answer.json["reason"] == "caller_kind_not_allowed"
    # Bent ones.
    header, claims = (
        jwt.get_unverified_header(tokens["access_token"]),
        jwt.decode(tokens["access_token"], options={"verify_signature": False}),
    )
    bent = [
        jwt.encode(
            {**claims, "aud": "gatefold", "kind": "SUBSCRIBER"},
            None,
            algorithm="none",
            headers={**header, "alg": "none"},
        ),
        jwt.encode(claims, "s" * 64, algorithm="HS256", headers={**header, "alg": "HS256"}),
    ]
    for token in bent:
        assert (await client.userinfo(token)).json["error"] == "invalid_token"
        assert (await client.ask("introspect", {"token": token})).json == {"active": False}
    advance(house, timedelta(minutes=10))
    assert (await client.userinfo(tokens["access_token"])).json["error"] == "invalid_token"


@pytest.mark.case("auth-63")
async def test_a_request_of_another_browser_is_not_agreed_to(
    house: AuthHouse, edge: Edge, publisher: Publisher, email: str
) -> None:
    client = await client_of(house, edge, publisher.live)
    attacker_email = house.fresh("attacker")
    await house.reader(publisher.live, attacker_email)
    victim, attacker = Browser(edge), Browser(edge)
    await victim.sign_in((await client.begin()).json["handle"], email)
    await attacker.sign_in((await client.begin()).json["handle"], attacker_email)
    advance(house, timedelta(minutes=1))
    handle = (await client.begin()).json["handle"]
    # Nobody agrees to what they were not shown.
    refused = await victim.authorize(handle, consent=True)
    assert refused.json["reason"] == "authorization_request_invalid"
    assert (await attacker.authorize(handle)).json["next"] == "consent"
    for consent in (False, True):
        refused = await victim.authorize(handle, consent=consent)
        assert refused.json["reason"] == "authorization_request_invalid"
    assert "code" in parameters((await attacker.authorize(handle, consent=True)).json["location"])
    # A request is decided once.
    again = await attacker.authorize(handle, consent=True)
    assert again.json["reason"] == "authorization_request_invalid"


@pytest.mark.case("auth-51")
@pytest.mark.case("auth-63")
async def test_no_other_site_makes_a_reader_agree(
    house: AuthHouse, edge: Edge, publisher: Publisher, email: str
) -> None:
    client = await client_of(house, edge, publisher.live)
    browser = Browser(edge)
    handle = (await client.begin()).json["handle"]
    await browser.sign_in(handle, email)
    assert (await browser.authorize(handle)).json["next"] == "consent"
    forged = [{"Origin": FOREIGN}, {"Sec-Fetch-Site": "cross-site"}, {"X-CSRF-Token": "x"}, {"X-CSRF-Token": ""}]
    for headers in forged:
        answer = await browser.authorize(handle, consent=True, **headers)
        assert (answer.status, answer.json["reason"]) == (403, "csrf_refused"), headers
    foreign = await browser.post("/v1/oauth2/authorizations/sign_in", {}, {"Origin": FOREIGN})
    assert foreign.json["reason"] == "csrf_refused"
    form = await edge.ask(
        "POST",
        "/v1/oauth2/authorizations/authorize",
        data={"handle": handle, "consent": "true"},
        headers={"Cookie": "; ".join(f"{name}={value}" for name, value in browser.cookies.items()), "Origin": FOREIGN},
    )
    assert form.json["reason"] == "csrf_refused"
    signed_out = await browser.post("/v1/session/sign_out", {}, {"Origin": FOREIGN})
    assert signed_out.json["reason"] == "csrf_refused"
    assert "code" in parameters((await browser.authorize(handle, consent=True)).json["location"])


@pytest.mark.case("auth-63")
async def test_a_reader_of_another_publisher_gets_no_code(
    house: AuthHouse, edge: Edge, publisher: Publisher, email: str
) -> None:
    elsewhere = await house.publisher()
    client, foreign = await client_of(house, edge, publisher.live), await client_of(house, edge, elsewhere.live)
    browser = Browser(edge)
    await browser.sign_in((await client.begin()).json["handle"], email)
    handle = (await foreign.begin()).json["handle"]
    assert (await browser.authorize(handle)).json["next"] == "sign_in"
    assert (await browser.authorize(handle, consent=True)).json["next"] == "sign_in"
    # The address is nobody's there.
    wrong = await browser.sign_in(handle, email)
    assert (wrong.status, wrong.json["reason"]) == (401, "credentials_invalid")
    # The test account's readers are others as well.
    test = await client_of(house, edge, publisher.test)
    assert (await browser.authorize((await test.begin()).json["handle"])).json["next"] == "sign_in"
    for path in ("", "/rotate_secret"):
        verb = "POST" if path else "GET"
        owner = await house.sign_in_staff(elsewhere.owner_email)
        answer = await edge.ask(
            verb,
            f"/v1/oauth_clients/{client.id}{path}",
            credential=owner.access_token,
            **({"json": {}} if path else {}),
        )
        assert (answer.status, answer.json["reason"]) == (404, "oauth_client_not_found")


async def test_clients_are_made_by_people_who_may_and_never_by_a_key(house: AuthHouse, publisher: Publisher) -> None:
    assert "oauth_clients:write" not in roles.KEY_SCOPES
    request = oauth_client_pb2.CreateOAuthClientRequest(name="Shop", redirect_uris=[REDIRECT])
    for role in (roles.SUPPORT, roles.FINANCE, roles.READ_ONLY):
        with pytest.raises(GatefoldError) as caught:
            await house.call(house.staff(publisher.live, role), house.oauth_clients.CreateOAuthClient, request)
        assert caught.value.reason == "scope_missing"


async def test_what_a_client_may_no_longer_ask_for_is_not_given_on(
    house: AuthHouse, edge: Edge, publisher: Publisher, email: str
) -> None:
    client = await client_of(house, edge, publisher.live)
    browser = Browser(edge)
    tokens = await client.tokens(browser, email)
    assert "email" in tokens["scope"].split()
    code = await client.code(browser, email)
    handle = (await client.begin()).json["handle"]
    update = oauth_client_pb2.UpdateOAuthClientRequest(
        id=client.id, name="Shop", redirect_uris=[REDIRECT], scopes=["openid", "offline_access"], enabled=True
    )
    await house.call(house.staff(publisher.live), house.oauth_clients.UpdateOAuthClient, update)
    refreshed = (await client.refresh(tokens["refresh_token"])).json
    assert refreshed["scope"] == (await client.exchange(code)).json["scope"] == "openid offline_access"
    assert "email" not in (await client.userinfo(refreshed["access_token"])).json
    wider = await client.refresh(refreshed["refresh_token"], scope="openid email")
    assert wider.json["error"] == "invalid_scope"
    # Nor is a code brought to an address that is the client's no more.
    update.redirect_uris[:] = [f"{REDIRECT}/2"]
    update.scopes[:] = ["openid"]
    await house.call(house.staff(publisher.live), house.oauth_clients.UpdateOAuthClient, update)
    assert (await browser.authorize(handle)).json["reason"] == "authorization_request_invalid"
    assert (await client.refresh(refreshed["refresh_token"])).json["error"] == "invalid_grant"


async def test_signing_out_everywhere_is_refused_at_the_edge_within_a_second(
    house: AuthHouse, edge: Edge, publisher: Publisher, email: str
) -> None:
    client = await client_of(house, edge, publisher.live)
    browser = Browser(edge)
    tokens = await client.tokens(browser, email)
    own = await house.sign_in(publisher.live, email)
    await browser.post("/v1/session/sign_out", {})
    async with asyncio.timeout(10):
        while (await client.userinfo(tokens["access_token"])).status != 401:  # noqa: ASYNC110 — as above
            await asyncio.sleep(0.02)
    assert (await edge.devices(own.access_token)).status == 200
    await house.call(await house.holder(own), house.devices.SignOut, device_pb2.SignOutRequest())
    await until_refused(edge, own.access_token)


async def test_single_page_apps_read_what_is_theirs_and_nothing_that_a_cookie_opens(
    house: AuthHouse, edge: Edge, publisher: Publisher, email: str
) -> None:
    client = await client_of(house, edge, publisher.live, confidential=False)
    code = await client.code(Browser(edge), email)
    origin = {"Origin": "https://shop.example"}
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": REDIRECT,
        "code_verifier": client.verifier,
    }
    tokens = await client.ask("token", form, origin)
    assert tokens.status == 200
    for answer in (
        tokens,
        await client.userinfo(tokens.json["access_token"], **origin),
        await client.ask("token", form, origin),
        await edge.ask("GET", "/.well-known/openid-configuration", headers=origin),
        await edge.ask("GET", "/.well-known/jwks.json", headers=origin),
        await edge.ask("OPTIONS", "/oauth2/userinfo", headers={**origin, "Access-Control-Request-Method": "GET"}),
    ):
        assert answer.headers["Access-Control-Allow-Origin"] == "https://shop.example"
        assert "Access-Control-Allow-Credentials" not in answer.headers
    for path in ("/v1/oauth2/authorizations/authorize", "/v1/session/sign_out", "/v1/oauth2/authorizations"):
        asked = {**origin, "Access-Control-Request-Method": "POST"}
        answer = await edge.ask("OPTIONS", path, headers=asked)
        assert answer.status != 204
        assert "Access-Control-Allow-Origin" not in answer.headers


async def test_forms_of_other_sites_reach_the_pages_as_links_do(edge: Edge) -> None:
    for page in ("authorize", "logout"):
        answer = await edge.ask(
            "POST", f"/oauth2/{page}", data={"client_id": "cli_x", "state": "a b&c"}, allow_redirects=False
        )
        assert answer.status == 303
        assert answer.headers["Location"] == f"/oauth2/{page}?client_id=cli_x&state=a+b%26c"
        for body in ("a=b\r\nLocation: https://evil.example", "a=" + "x" * 8000, "ä"):
            assert (await edge.ask("POST", f"/oauth2/{page}", data=body)).json["reason"] == "form_malformed"
        shown = await edge.ask("GET", f"/oauth2/{page}?anything=1")
        policy = shown.headers["Content-Security-Policy"]
        assert "script-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert b"<script>" not in shown.body
        assert shown.headers["Referrer-Policy"] == "no-referrer"
