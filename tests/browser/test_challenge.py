"""The proof of work in a real browser: solved by itself, readable without sight, honest where it cannot work."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from playwright.async_api import Browser, Page, async_playwright

from infra.local.valkey import ValkeyServer
from libs.patterns import Patterns
from services.gateway.domain.bundle import Action, Bundle, Mode, Rule
from services.gateway.domain.firewall import compile_bundle
from tests.support.gateway import RunningGateway, running_gateway

CHROMIUM = "/usr/bin/chromium"
SIZES = {"desk": (1280, 900), "phone": (390, 844), "narrow": (320, 568)}
SHOTS = Path("build/browser")
QUOTAS = '{"read.address":[100000,60]}'


@pytest.fixture(scope="module")
async def gateway(run_directory: Path, valkey_server: ValkeyServer) -> AsyncIterator[RunningGateway]:
    async with running_gateway(run_directory, valkey_server.url(), rate_quotas=QUOTAS, challenge_bits="12") as running:
        yield running


@pytest.fixture(autouse=True)
def careful(gateway: RunningGateway) -> Iterator[None]:
    former = gateway.firewall._rules
    rules = (Rule(UUID(int=1), "careful", 'request.path == "/docs"', Action.CHALLENGE, mode=Mode.ENFORCE),)
    gateway.firewall.replace(compile_bundle(Bundle(1, rules), Patterns()))
    yield
    gateway.firewall.replace(former)


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        await launched.close()


async def shot(page: Page, name: str) -> None:
    """Takes a picture, and sees that nothing sticks out to the side."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=SHOTS / f"{name}.png")
    assert await page.evaluate("document.documentElement.scrollWidth") <= await page.evaluate("window.innerWidth")


@pytest.mark.parametrize("size", SIZES)
async def test_a_browser_solves_the_task_and_gets_what_it_asked_for(
    gateway: RunningGateway, browser: Browser, size: str
) -> None:
    width, height = SIZES[size]
    scheme: Any = "dark" if size == "narrow" else "light"
    context = await browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = await context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    # The answer is kept back so that there is something to see.
    held: list[Any] = []
    await page.route(
        "**/challenge", lambda route: held.append(route) if route.request.method == "POST" else route.continue_()
    )

    answer = await page.goto(f"{gateway.url}/docs")
    assert answer is not None
    assert answer.status == 403
    async with page.expect_request(lambda sent: sent.method == "POST"):
        pass
    assert await page.get_by_role("status").inner_text() == "Calculating."
    assert await page.get_by_role("progressbar", name="Calculating.").is_visible()
    assert await page.get_by_role("heading", level=1).inner_text() == "One moment"
    await shot(page, f"challenge-{size}")
    for route in held:
        await route.continue_()

    await page.wait_for_selector(".swagger-ui", timeout=30_000)
    assert await page.title() == "Gatefold API"
    cookies = await context.cookies()
    assert [cookie["name"] for cookie in cookies] == ["__Host-gatefold_clearance"]
    assert all(cookie["httpOnly"] and cookie["secure"] for cookie in cookies)
    assert complaints == []
    await context.close()


async def test_the_keyboard_is_enough_when_something_goes_wrong(gateway: RunningGateway, browser: Browser) -> None:
    context = await browser.new_context(viewport={"width": 390, "height": 844})
    page = await context.new_page()
    fail = True
    await page.route("**/challenge/worker.js", lambda route: route.abort() if fail else route.continue_())

    await page.goto(f"{gateway.url}/docs")
    button = page.get_by_role("button", name="Try again")
    await button.wait_for(timeout=30_000)
    assert "could not do the calculation" in await page.get_by_role("alert").inner_text()
    assert await button.evaluate("element => element === document.activeElement")
    await shot(page, "challenge-failed")
    fail = False
    await page.keyboard.press("Enter")

    await page.wait_for_selector(".swagger-ui", timeout=30_000)
    await context.close()


async def test_a_browser_that_keeps_no_cookie_is_told_so_and_does_not_go_round(
    gateway: RunningGateway, browser: Browser
) -> None:
    context = await browser.new_context()
    page = await context.new_page()
    loads: list[str] = []
    page.on("request", lambda sent: loads.append(sent.url) if sent.url.endswith("/docs") else None)

    async def without_cookie(route: Any) -> None:
        answer = await route.fetch()
        headers = {name: value for name, value in answer.headers.items() if name != "set-cookie"}
        body = await answer.body()
        # What is fetched here keeps its cookie in the browser by itself.
        await context.clear_cookies()
        await route.fulfill(status=answer.status, headers=headers, body=body)

    await page.route("**/challenge", without_cookie)
    await page.goto(f"{gateway.url}/docs")
    await page.get_by_role("button", name="Try again").wait_for(timeout=30_000)

    assert "does not keep cookies" in await page.get_by_role("alert").inner_text()
    assert len(loads) == 2
    await context.close()


async def test_without_javascript_the_page_says_what_is_needed(gateway: RunningGateway, browser: Browser) -> None:
    context = await browser.new_context(java_script_enabled=False, viewport={"width": 390, "height": 844})
    page = await context.new_page()
    await page.goto(f"{gateway.url}/docs")

    assert "needs JavaScript" in await page.locator("noscript").inner_text()
    SHOTS.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=SHOTS / "challenge-noscript.png")
    await context.close()
