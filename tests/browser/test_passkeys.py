"""Passkeys in a real browser, with a virtual authenticator of Chromium's DevTools, on the gateway's own origin."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gatefold.auth.v1 import api_key_pb2
from playwright.async_api import Browser, BrowserContext, CDPSession, Page, async_playwright

from infra.local.settings import free_port
from infra.local.valkey import ValkeyServer
from libs.clock import FixedClock
from libs.config import Secret
from tests.conftest import ServiceDb
from tests.support.auth import PASSWORD, AuthHouse, Publisher, running
from tests.support.edge import Edge, running_edge

CHROMIUM = "/usr/bin/chromium"
PASSKEY = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}
TOUCHED = {
    "protocol": "u2f",
    "transport": "usb",
    "hasResidentKey": False,
    "hasUserVerification": False,
    "automaticPresenceSimulation": True,
}

# What a page does: nothing but the API, and the browser's own reading and writing of its JSON.
SCRIPT = """
globalThis.gatefold = {
  async ask(path, body, headers = {}) {
    const token = document.cookie.match(/__Host-gatefold_csrf=([^;]*)/);
    const answer = await fetch(path, {
      method: 'POST',
      headers: {
        'Content-Type': 'application/json',
        'Gatefold-Session': 'cookie',
        ...(token ? {'X-CSRF-Token': token[1]} : {}),
        ...headers,
      },
      body: JSON.stringify(body),
    });
    return {status: answer.status, body: await answer.json()};
  },
  async make(options) {
    const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(JSON.parse(options));
    return JSON.stringify((await navigator.credentials.create({publicKey})).toJSON());
  },
  async sign(options, changes = {}) {
    const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON({...JSON.parse(options), ...changes});
    return JSON.stringify((await navigator.credentials.get({publicKey})).toJSON());
  },
};
"""


@dataclass
class Site:
    """The platform on `localhost`, which browsers take for secure."""

    house: AuthHouse
    edge: Edge
    url: str


@pytest.fixture(scope="module")
async def site(
    service_db: ServiceDb,
    keys_dsn: Secret,
    valkey_server: ValkeyServer,
    key_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Site]:
    port = free_port()
    url = f"http://localhost:{port}"
    database, folder = await service_db("auth"), tmp_path_factory.mktemp("auth")
    redis_url = valkey_server.url().reveal()
    settings = {"GATEFOLD_PUBLIC_URL": url}
    async with (
        running(database, keys_dsn.reveal(), redis_url, key_file, folder, FixedClock(), settings) as house,
        running_edge(house, port=port) as edge,
    ):
        yield Site(house, edge, url)


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        await launched.close()


@pytest.fixture
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """A browser without cookies."""
    fresh = await browser.new_context()
    yield fresh
    await fresh.close()


@dataclass
class Authenticator:
    """A virtual authenticator of a page."""

    devtools: CDPSession
    id: str

    async def tell(self, command: str, **values: Any) -> Any:
        return await self.devtools.send(f"WebAuthn.{command}", {"authenticatorId": self.id, **values})

    async def counted(self) -> int:
        """How often its one key has signed."""
        (held,) = (await self.tell("getCredentials"))["credentials"]
        return int(held["signCount"])

    async def go_back(self, count: int) -> None:
        """Has its one key count from before, as a copy would."""
        (held,) = (await self.tell("getCredentials"))["credentials"]
        await self.tell("removeCredential", credentialId=held["credentialId"])
        await self.tell("addCredential", credential={**held, "signCount": count})


async def opened(site: Site, context: BrowserContext, options: dict[str, Any]) -> tuple[Page, Authenticator]:
    page = await context.new_page()
    await page.goto(f"{site.url}/problems")
    await page.evaluate(SCRIPT)
    devtools = await context.new_cdp_session(page)
    await devtools.send("WebAuthn.enable")
    made = await devtools.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    return page, Authenticator(devtools, made["authenticatorId"])


async def ask(page: Page, path: str, body: dict[str, Any], **headers: str) -> tuple[int, dict[str, Any]]:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await page.evaluate("([path, body, headers]) => gatefold.ask(path, body, headers)", [path, body, sent])
    return answer["status"], answer["body"]


async def make(page: Page, options: str) -> str:
    return str(await page.evaluate("options => gatefold.make(options)", options))


async def sign(page: Page, options: str, **changes: Any) -> str:
    return str(await page.evaluate("([options, changes]) => gatefold.sign(options, changes)", [options, changes]))


async def as_owner(page: Page, publisher: Publisher) -> tuple[int, dict[str, Any]]:
    """Signs the owner in with the password; the page gets a cookie."""
    body = {"email": publisher.owner_email, "password": PASSWORD}
    return await ask(page, "/v1/staff/sessions", body)


async def register(page: Page, kind: str) -> None:
    status, begun = await ask(page, "/v1/passkeys/begin", {"kind": kind})
    assert status == 200, begun
    body = {"name": "Chromium", "credential": await make(page, begun["options"])}
    status, added = await ask(page, "/v1/passkeys", body)
    assert (status, added["factor"]["name"]) == (200, "Chromium"), added


async def by_passkey(page: Page, body: dict[str, Any] | None = None, **changes: Any) -> tuple[int, dict[str, Any]]:
    """Signs staff in without a password."""
    _, begun = await ask(page, "/v1/staff/sessions/passkey/begin", body or {})
    credential = await sign(page, begun["options"], **changes)
    return await ask(page, "/v1/staff/sessions/passkey", {"credential": credential})


@pytest.mark.case("auth-42")
async def test_a_page_registers_a_passkey_and_signs_in_without_a_password(site: Site, context: BrowserContext) -> None:
    publisher = await site.house.publisher()
    page, authenticator = await opened(site, context, PASSKEY)
    assert (await as_owner(page, publisher))[0] == 200
    await register(page, "passkey")
    await context.clear_cookies()
    for named in ({}, {"email": publisher.owner_email}):
        status, signed_in = await by_passkey(page, named)
        assert (status, signed_in["principal_id"][:4]) == (200, "per_"), signed_in
    listed = await page.evaluate("fetch('/v1/factors').then(answer => answer.json())")
    (factor,) = listed["data"]
    assert factor["kind"] == "passkey"
    assert factor["last_used_at"]
    assert factor["clone_suspected_at"] is None
    assert await authenticator.counted() >= 2
    # A page elsewhere is no page of ours: the browser itself makes no answer there.
    options = (await ask(page, "/v1/staff/sessions/passkey/begin", {}))[1]["options"]
    await page.goto(site.url.replace("localhost", "127.0.0.1") + "/problems")
    await page.evaluate(SCRIPT)
    with pytest.raises(Exception, match="SecurityError"):
        await sign(page, options)


async def test_a_page_proves_the_second_factor_with_a_passkey_and_with_a_key_that_is_touched(
    site: Site, browser: Browser
) -> None:
    for kind, device in (("passkey", PASSKEY), ("security_key", TOUCHED)):
        publisher = await site.house.publisher()
        context = await browser.new_context()
        page, _ = await opened(site, context, device)
        await as_owner(page, publisher)
        await register(page, kind)
        await context.clear_cookies()
        _, waiting = await as_owner(page, publisher)
        pending = waiting["pending"]
        assert pending["methods"] == [kind]
        proof = {"pending_token": pending["token"], "method": kind}
        _, begun = await ask(page, "/v1/passkeys/proof", proof)
        done = {**proof, "credential": await sign(page, begun["options"])}
        status, signed_in = await ask(page, "/v1/sessions/complete", done)
        assert status == 200, signed_in
        # What was proven now is enough to change factors: the session is aal2.
        assert (await ask(page, "/v1/passkeys/begin", {}))[0] == 200
        await context.close()


@pytest.mark.case("auth-42")
@pytest.mark.case("auth-43")
async def test_a_copy_that_counts_from_before_is_refused(site: Site, context: BrowserContext) -> None:
    publisher = await site.house.publisher()
    page, authenticator = await opened(site, context, PASSKEY)
    await as_owner(page, publisher)
    await register(page, "passkey")
    assert (await by_passkey(page))[0] == 200
    before = await authenticator.counted()
    await authenticator.go_back(before - 1)
    status, refused = await by_passkey(page)
    assert (status, refused["type"].rsplit("/", 1)[-1]) == (401, "passkey_refused")
    listed = await page.evaluate("fetch('/v1/factors').then(answer => answer.json())")
    assert listed["data"][0]["clone_suspected_at"]
    assert (await by_passkey(page))[0] == 200


@pytest.mark.case("auth-42")
async def test_a_user_who_was_not_verified_is_refused(site: Site, context: BrowserContext) -> None:
    publisher = await site.house.publisher()
    page, authenticator = await opened(site, context, PASSKEY)
    await as_owner(page, publisher)
    await register(page, "passkey")
    await context.clear_cookies()
    await authenticator.tell("setUserVerified", isUserVerified=False)
    # The browser itself gives no answer; a script that asks it for less gets one, which opens nothing.
    with pytest.raises(Exception, match="NotAllowedError"):
        await by_passkey(page)
    status, refused = await by_passkey(page, userVerification="discouraged")
    assert (status, refused["type"].rsplit("/", 1)[-1]) == (401, "passkey_refused")
    await authenticator.tell("setUserVerified", isUserVerified=True)
    assert (await by_passkey(page))[0] == 200


async def test_a_reader_signs_in_on_the_platforms_page_with_the_publishers_key(
    site: Site, context: BrowserContext
) -> None:
    house = site.house
    publisher = await house.publisher()
    email = house.fresh()
    await house.reader(publisher.live, email)
    request = api_key_pb2.CreateApiKeyRequest(kind=api_key_pb2.API_KEY_KIND_PUBLISHABLE, name="Page")
    key = await house.call(house.staff(publisher.live), house.api_keys.CreateApiKey, request)
    assert isinstance(key, api_key_pb2.CreateApiKeyResponse)
    page, _ = await opened(site, context, PASSKEY)
    publishable = f"Bearer {key.secret}"
    password = {"email": email, "password": PASSWORD}
    _, first = await ask(page, "/v1/sessions", password, Authorization=publishable)
    await register(page, "passkey")
    await context.clear_cookies()
    _, begun = await ask(page, "/v1/sessions/passkey/begin", {}, Authorization=publishable)
    body = {"credential": await sign(page, begun["options"])}
    status, signed_in = await ask(page, "/v1/sessions/passkey", body, Authorization=publishable)
    assert (status, signed_in["principal_id"]) == (200, first["principal_id"])
    await context.clear_cookies()
    # Nobody's door but the reader's own publication's.
    other = await house.publisher()
    key = await house.call(house.staff(other.live), house.api_keys.CreateApiKey, request)
    assert isinstance(key, api_key_pb2.CreateApiKeyResponse)
    elsewhere = f"Bearer {key.secret}"
    _, begun = await ask(page, "/v1/sessions/passkey/begin", {}, Authorization=elsewhere)
    body = {"credential": await sign(page, begun["options"])}
    assert (await ask(page, "/v1/sessions/passkey", body, Authorization=elsewhere))[0] == 401
