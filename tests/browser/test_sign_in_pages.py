"""The hosted pages in a real browser, for a site that speaks OpenID Connect by Authlib: sign-in, agreement, logout."""

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pyotp
import pytest
import requests
from aiohttp import web
from aiohttp.test_utils import TestServer
from authlib.integrations.requests_client import OAuth2Session
from authlib.oidc.core import CodeIDToken
from gatefold.auth.v1 import factor_pb2
from joserfc import jwt
from joserfc.jwk import KeySet
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from infra.local.settings import free_port
from infra.local.valkey import ValkeyServer
from libs.clock import SystemClock
from libs.config import Secret
from tests.conftest import ServiceDb
from tests.support.auth import PASSWORD, AuthHouse, running
from tests.support.edge import Edge, running_edge

CHROMIUM = "/usr/bin/chromium"
SIZES = {"desk": (1280, 900), "phone": (390, 844), "narrow": (320, 568)}
SHOTS = Path("build/browser")


@dataclass
class Site:
    """A shop of the publisher's, with Authlib's client, and what browsers came back with."""

    url: str
    arrived: "asyncio.Queue[str]" = field(default_factory=asyncio.Queue)
    provider: dict[str, Any] = field(default_factory=dict)
    session: OAuth2Session | None = None

    async def receive(self, request: web.Request) -> web.Response:
        if request.path != "/favicon.ico":
            self.arrived.put_nowait(str(request.url))
        return web.Response(text="<!doctype html><title>Shop</title><h1>Back</h1>", content_type="text/html")

    async def back(self, page: Page) -> str:
        """Returns what a browser came back with, once the page that it came to is there whole."""
        arrived = await asyncio.wait_for(self.arrived.get(), 20)
        await page.get_by_role("heading", name="Back").wait_for()
        await page.wait_for_load_state()
        return arrived


@pytest.fixture(scope="module")
async def house(
    service_db: ServiceDb,
    keys_dsn: Secret,
    valkey_server: ValkeyServer,
    key_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[AuthHouse]:
    # The issuer is where the gateway listens, as it is for every client.
    port = free_port()
    settings = {"GATEFOLD_ISSUER": f"http://127.0.0.1:{port}"}
    database, folder = await service_db("auth"), tmp_path_factory.mktemp("auth")
    url = valkey_server.url().reveal()
    clock: Any = SystemClock()
    async with running(database, keys_dsn.reveal(), url, key_file, folder, clock, settings) as found:
        yield found


@pytest.fixture(scope="module")
async def edge(house: AuthHouse) -> AsyncIterator[Edge]:
    issuer = house.environ["GATEFOLD_ISSUER"]
    async with running_edge(house, http_listen=issuer.removeprefix("http://")) as found:
        yield Edge(issuer, found.process, found.client)


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        await launched.close()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    found = Site("")
    app = web.Application()
    app.router.add_get("/{rest:.*}", found.receive)
    server = TestServer(app)
    await server.start_server()
    found.url = f"http://127.0.0.1:{server.port}"
    yield found
    await server.close()


async def registered(house: AuthHouse, site: Site) -> str:
    """Registers a reader, and the shop as a client of their publisher; returns the reader's address."""
    publisher = await house.publisher()
    email = house.fresh()
    await house.reader(publisher.live, email)
    made = await house.oauth_client(
        publisher.live, f"{site.url}/back", post_logout_redirect_uris=[f"{site.url}/bye"], home_url=site.url
    )
    issuer = house.environ["GATEFOLD_ISSUER"]
    site.provider = await asyncio.to_thread(
        lambda: requests.get(f"{issuer}/.well-known/openid-configuration", timeout=10).json()
    )
    assert site.provider["issuer"] == issuer
    site.session = OAuth2Session(
        made.client.id,
        made.client_secret,
        scope="openid profile email offline_access",
        redirect_uri=f"{site.url}/back",
        code_challenge_method="S256",
    )
    return email


async def opened(context: BrowserContext, url: str) -> tuple[Page, list[str]]:
    page = await context.new_page()
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.goto(url)
    return page, complaints


async def shot(page: Page, name: str) -> None:
    """Takes a picture, and sees that nothing sticks out to the side."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=SHOTS / f"{name}.png")
    assert await page.evaluate("document.documentElement.scrollWidth") <= await page.evaluate("window.innerWidth")


@pytest.mark.case("auth-63")
@pytest.mark.parametrize("size", SIZES)
async def test_a_reader_goes_through_sign_in_agreement_tokens_and_logout(
    house: AuthHouse, edge: Edge, browser: Browser, site: Site, size: str
) -> None:
    email = await registered(house, site)
    assert site.session is not None
    width, height = SIZES[size]
    scheme: Any = "dark" if size == "narrow" else "light"
    context = await browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    verifier = os.urandom(32).hex()
    url, state = site.session.create_authorization_url(
        site.provider["authorization_endpoint"], nonce="n-of-the-shop", code_verifier=verifier
    )
    page, complaints = await opened(context, url)
    await page.get_by_role("heading", name="Sign in").wait_for()
    assert "The Daily" in await page.locator("main").inner_text()
    assert "The Shop" in await page.locator("main").inner_text()
    # The first field has the focus: no pointer is needed.
    await page.keyboard.type(email)
    await page.keyboard.press("Tab")
    await page.keyboard.type("wrong horse battery")
    await page.keyboard.press("Enter")
    await page.get_by_role("alert").filter(has_text="wrong").wait_for()
    await shot(page, f"sign-in-{size}")
    await page.get_by_label("Password", exact=True).fill(PASSWORD)
    await page.keyboard.press("Enter")
    await page.get_by_role("heading", name="wants to know who you are").wait_for()
    assert email in await page.locator("main").inner_text()
    await shot(page, f"consent-{size}")
    await page.get_by_role("button", name="Allow", exact=True).click()
    back = await site.back(page)
    tokens = await asyncio.to_thread(
        site.session.fetch_token,
        site.provider["token_endpoint"],
        authorization_response=back,
        state=state,
        code_verifier=verifier,
    )
    keys = KeySet.import_key_set(
        await asyncio.to_thread(lambda: requests.get(site.provider["jwks_uri"], timeout=10).json())
    )
    read = jwt.decode(tokens["id_token"], keys, algorithms=["ES256"])
    claims = CodeIDToken(
        read.claims,
        read.header,
        {"iss": {"value": site.provider["issuer"]}, "aud": {"value": site.session.client_id}},
        {"nonce": "n-of-the-shop", "client_id": site.session.client_id, "access_token": tokens["access_token"]},
    )
    claims.validate()
    told = await asyncio.to_thread(lambda: site.session.get(site.provider["userinfo_endpoint"]).json())  # type: ignore[union-attr]
    assert (told["sub"], told["email"], told["name"]) == (claims["sub"], email, "Rita")
    fresh = await asyncio.to_thread(site.session.refresh_token, site.provider["token_endpoint"])
    assert fresh["access_token"] != tokens["access_token"]
    # Wrong tries answer 401, which the console tells of; the page itself complains of nothing.
    assert [said for said in complaints if "401" not in said] == []

    wanted = {
        "id_token_hint": tokens["id_token"],
        "post_logout_redirect_uri": f"{site.url}/bye",
        "state": "logout-state",
    }
    await page.goto(f"{site.provider['end_session_endpoint']}?{urlencode(wanted)}")
    await page.get_by_role("heading", name="Sign out?").wait_for()
    # The ID token does not stay in the address.
    assert page.url == site.provider["end_session_endpoint"]
    await shot(page, f"sign-out-{size}")
    assert (await asyncio.to_thread(site.session.get, site.provider["userinfo_endpoint"])).status_code == 200
    await page.get_by_role("button", name="Sign out").click()
    assert await site.back(page) == f"{site.url}/bye?state=logout-state"
    url, _ = site.session.create_authorization_url(
        site.provider["authorization_endpoint"], code_verifier=verifier, prompt="none"
    )
    await page.goto(url)
    assert "error=login_required" in await site.back(page)
    await context.close()


async def test_a_second_factor_is_asked_for_on_the_page(
    house: AuthHouse, edge: Edge, browser: Browser, site: Site
) -> None:
    email = await registered(house, site)
    assert site.session is not None
    account = next(account for account, address in house.subscriber.subjects if address == email)
    who = await house.holder(await house.sign_in(account, email))
    begun = await house.call(who, house.factors.BeginTotp, factor_pb2.BeginTotpRequest(name="Phone"))
    assert isinstance(begun, factor_pb2.BeginTotpResponse)
    totp = pyotp.TOTP(begun.secret)
    confirm = factor_pb2.ConfirmTotpRequest(id=begun.id, code=totp.now())
    await house.call(who, house.factors.ConfirmTotp, confirm)
    context = await browser.new_context(viewport={"width": 390, "height": 844})
    url, _ = site.session.create_authorization_url(
        site.provider["authorization_endpoint"], code_verifier=os.urandom(32).hex()
    )
    page, _ = await opened(context, f"{url}&{urlencode({'login_hint': email})}")
    await page.get_by_label("Password", exact=True).fill(PASSWORD)
    assert await page.get_by_label("E-mail address").input_value() == email
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("heading", name="One more step").wait_for()
    await page.get_by_label("Code from the app").fill("000000")
    await page.keyboard.press("Enter")
    await page.get_by_role("alert").filter(has_text="not right").wait_for()
    await shot(page, "second-factor-phone")
    # Within the window, and later than the step that was used.
    await page.get_by_label("Code from the app").fill(totp.at(int(house.clock.wall().timestamp()) + 30))
    await page.keyboard.press("Enter")
    await page.get_by_role("heading", name="wants to know who you are").wait_for()
    await page.get_by_role("button", name="Do not allow").click()
    assert "error=access_denied" in await site.back(page)
    await context.close()


async def test_a_wrong_address_is_shown_and_never_gone_to(
    house: AuthHouse, edge: Edge, browser: Browser, site: Site
) -> None:
    await registered(house, site)
    assert site.session is not None
    context = await browser.new_context(viewport={"width": 390, "height": 844})
    wanted = {"client_id": site.session.client_id, "redirect_uri": f"{site.url}/elsewhere", "response_type": "code"}
    page, _ = await opened(context, f"{site.provider['authorization_endpoint']}?{urlencode(wanted)}")
    await page.get_by_role("heading", name="This did not work").wait_for()
    await page.get_by_role("alert").filter(has_text="not one of its own").wait_for()
    await shot(page, "wrong-address-phone")
    assert page.url.startswith(edge.url)
    assert site.arrived.empty()
    await context.close()
