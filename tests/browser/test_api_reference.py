"""The API reference in a real browser: it renders from our own origin alone, on a desk and on a phone."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, async_playwright

from infra.local.valkey import ValkeyServer
from tests.support.gateway import RunningGateway, running_gateway

CHROMIUM = "/usr/bin/chromium"
DESK = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
async def gateway(run_directory: Path, valkey_server: ValkeyServer) -> AsyncIterator[RunningGateway]:
    async with running_gateway(run_directory, valkey_server.url()) as running:
        yield running


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        await launched.close()


async def opened(browser: Browser, url: str, size: dict[str, int]) -> tuple[Page, list[str], list[str]]:
    """Opens a page; returns it with what the console complained of and every host that was asked."""
    page = await browser.new_page(viewport=size)  # type: ignore[arg-type]
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(url, wait_until="networkidle")
    return page, complaints, asked


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
async def test_the_reference_renders_without_a_complaint(
    gateway: RunningGateway, browser: Browser, size: dict[str, int]
) -> None:
    page, complaints, asked = await opened(browser, f"{gateway.url}/docs", size)
    await page.wait_for_selector(".opblock")
    operations = await page.locator(".opblock").count()
    answer = await gateway.ask("GET", "/openapi.json")
    assert operations == sum(len(path) for path in answer.json["paths"].values())
    assert complaints == []
    assert {url for url in asked if not url.startswith((gateway.url, "data:"))} == set()
    # Nothing sticks out to the side.
    assert await page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    await page.locator("#operations-Catalogue-createProduct .opblock-summary-control").click()
    await page.wait_for_selector("#operations-Catalogue-createProduct .opblock-body")
    text = await page.locator("#operations-Catalogue-createProduct").inner_text()
    assert "Adds a product: something readers may use" in text
    assert "catalogue:write" in text
    assert await page.locator(".try-out").count() == 0
    shots = Path("build/browser")
    shots.mkdir(parents=True, exist_ok=True)
    await page.locator("#operations-Catalogue-createProduct").scroll_into_view_if_needed()
    await page.screenshot(path=shots / f"reference-open-{size['width']}.png")
    await page.evaluate("window.scrollTo(0, 0)")
    await page.screenshot(path=shots / f"reference-{size['width']}.png")
    await page.close()


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
async def test_the_problem_pages_render_without_a_complaint(
    gateway: RunningGateway, browser: Browser, size: dict[str, int]
) -> None:
    page, complaints, _ = await opened(browser, f"{gateway.url}/problems", size)
    await page.screenshot(path=f"build/browser/problems-{size['width']}.png")
    await page.get_by_role("link", name="rate_limited").click()
    assert await page.locator("h1").inner_text() == "rate_limited"
    assert complaints == []
    assert await page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    await page.close()
