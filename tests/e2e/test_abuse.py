"""An attack at a real gateway becomes a verdict and a case, and a person's word ends it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest

from infra.local.director import MailView
from infra.local.journey import Api, Journey, WebhookReceiver
from infra.local.settings import Place
from infra.local.stack import forget
from tests.support.stack import StackProcess

PATIENCE_SECONDS = 60.0
ATTACKER = "203.0.113.77"


@pytest.fixture(scope="module")
def guarded(run_directory: Path) -> Iterator[StackProcess]:
    """A stack behind a proxy, with limits that leave the attack to the detectors alone."""
    quotas = '{"strict.address":[100000,60],"read.address":[100000,60]}'
    stack = StackProcess(
        run_directory / "guarded",
        extra={
            "gateway": {"GATEFOLD_TRUSTED_PROXIES": "127.0.0.0/8", "GATEFOLD_RATE_QUOTAS": quotas},
            "auth": {"GATEFOLD_ATTEMPTS_ADDRESS_FREE": "1000"},
        },
    )
    try:
        yield stack.start()
    finally:
        stack.stop()
        forget(Place(stack.place.state))


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.mark.case("edge-15")
@pytest.mark.case("edge-18")
async def test_stuffed_credentials_end_in_a_verdict_that_a_person_lifts(
    guarded: StackProcess, client: aiohttp.ClientSession
) -> None:
    gateway = guarded.endpoints["gateway"]
    api = Api(client, gateway, patience_seconds=30)
    nobody = cast("Any", None)
    journey = Journey(
        guarded.scene(), api, nobody, cast("MailView", nobody), cast("WebhookReceiver", nobody), name="guarded"
    )
    await journey.bootstrap()
    token = journey.cast.operator
    for number in range(12):
        async with client.post(
            f"{gateway}/v1/staff/sessions",
            json={"email": f"leaked-{number}@example.com", "password": "a password of somewhere else"},
            headers={"X-Forwarded-For": ATTACKER, "User-Agent": "stuffer/1.0"},
        ) as answer:
            assert answer.status in (401, 403)
    found: list[dict[str, Any]] = []
    cases = "/v1/platform/abuse/cases?reason=credential_stuffing&scope=address"
    async with asyncio.timeout(PATIENCE_SECONDS):
        # The attack is on its way through the streams, and up the ladder; the list is all there is to see of it.
        while not (found and found[0]["severity"] == 3):
            await asyncio.sleep(0.1)
            found = (await api.ok("GET", cases, token=token))["data"]
    [case] = found

    async def attack() -> int:
        headers = {"X-Forwarded-For": ATTACKER}
        async with client.get(f"{gateway}/v1/roles", headers=headers) as answer:
            return answer.status

    async with asyncio.timeout(PATIENCE_SECONDS):
        # The edge is told by another stream.
        while await attack() != 403:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    appeal = {"instance": "urn:gatefold:request:" + "0" * 32}
    headers = {"X-Forwarded-For": ATTACKER}
    async with client.post(f"{gateway}/v1/abuse/appeals", json=appeal, headers=headers) as answer:
        assert answer.status != 403, "whoever is refused can say that it is wrong"
    detail = await api.ok("GET", f"/v1/platform/abuse/cases/{case['id']}", token=token)
    assert {verdict["state"] for verdict in detail["verdicts"]} >= {"active"}
    signals = {held["signal"] for verdict in detail["verdicts"] for held in verdict["evidence"]}
    assert "stuffing-address.targets" in signals
    assert {item["scope"] for item in detail["linked"]} >= {"network", "user_agent", "target"}
    assert ATTACKER not in str(detail)
    await api.ok("POST", f"/v1/platform/abuse/cases/{case['id']}/claim", token=token, json={})
    decided = await api.ok(
        "POST",
        f"/v1/platform/abuse/cases/{case['id']}/decide",
        token=token,
        json={"judgement": "legit", "confidence": 0.9, "note": "A test of ours."},
    )
    assert decided["judgement"] == "legit"
    detail = await api.ok("GET", f"/v1/platform/abuse/cases/{case['id']}", token=token)
    assert "active" not in {verdict["state"] for verdict in detail["verdicts"]}
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await attack() != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert [step["kind"] for step in detail["timeline"]][-2:] == ["claimed", "decided"]
