"""Bad input over the whole product: one clear problem each, and nothing half-done."""

import asyncio
import hashlib
import hmac
import time
from typing import Any

import aiohttp
import orjson
import pytest

from infra.local.director import MailView
from infra.local.journey import Api, Cast
from infra.local.journey.steps import PASSWORD, intent_of, token_of
from libs import ids
from libs.clock import SystemClock
from libs.ids import IdMaker
from tests.support.stack import StackProcess


@pytest.fixture
async def foreign(api: Api, cast: Cast, mailbox: MailView) -> str:
    """A secret key of another publisher on the same platform."""
    owner = "owner-of-another@gatefold.example"
    body = {"name": "Another Paper", "owner_email": owner, "reader_url": "https://other.example/account"}
    account = await api.ok("POST", "/v1/accounts", token=cast.operator, key="another-account", json=body)
    token = token_of(await mailbox.wait(owner, "You are invited", 60))
    await api.call("POST", "/v1/invitations/accept", json={"token": token, "name": "Another", "password": PASSWORD})
    signed_in = await api.ok(
        "POST",
        "/v1/staff/sessions",
        json={"email": owner, "password": PASSWORD, "account_id": account["sibling_id"]},
    )
    made = await api.ok(
        "POST", "/v1/api_keys", token=signed_in["access_token"], json={"kind": "secret", "name": "foreign"}
    )
    return str(made["secret"])


async def refused(api: Api, method: str, path: str, **options: Any) -> dict[str, Any]:
    answer = await api.call(method, path, **options)
    assert answer.status >= 400, answer
    assert {"type", "title", "status", "detail", "reason"} <= set(answer.body)
    assert answer.body["status"] == answer.status
    return dict(answer.body)


async def test_an_unknown_field_is_named(api: Api, cast: Cast) -> None:
    body = {"name": "X", "features": ["a"], "colour": "red"}
    problem = await refused(api, "POST", "/v1/products", token=cast.secret_key, json=body)
    assert problem["status"] == 422
    assert [item["field"] for item in problem["errors"]] == ["colour"]


async def test_a_wrong_type_is_named(api: Api, cast: Cast) -> None:
    problem = await refused(api, "POST", "/v1/products", token=cast.secret_key, json={"name": 7, "features": ["a"]})
    assert problem["status"] == 422
    assert [item["field"] for item in problem["errors"]] == ["name"]


async def test_bad_json_is_malformed(api: Api, cast: Cast) -> None:
    problem = await refused(
        api, "POST", "/v1/products", token=cast.secret_key, content=b'{"name": ', content_type="application/json"
    )
    assert (problem["status"], problem["reason"]) == (400, "json_malformed")


async def test_an_oversized_body_is_refused(api: Api, cast: Cast) -> None:
    problem = await refused(
        api,
        "POST",
        "/v1/products",
        token=cast.secret_key,
        content=b'{"name": "' + b"x" * 1_000_000 + b'"}',
        content_type="application/json",
    )
    assert problem["status"] == 413


async def test_an_unknown_route_is_not_found(api: Api, cast: Cast) -> None:
    assert (await refused(api, "GET", "/v1/nothing", token=cast.secret_key))["status"] == 404


async def test_a_wrong_method_is_not_allowed(api: Api, cast: Cast) -> None:
    assert (await refused(api, "DELETE", "/v1/products", token=cast.secret_key))["status"] == 405


@pytest.mark.parametrize("token", ["gfsk_test_" + "a" * 49, "eyJhbGciOiJub25lIn0.e30.", "nonsense", ""])
async def test_a_token_that_is_none_is_unauthenticated(api: Api, token: str) -> None:
    assert (await refused(api, "GET", "/v1/products", token=token))["status"] == 401


async def test_a_tenants_key_does_not_reach_the_platform(api: Api, cast: Cast) -> None:
    assert (await refused(api, "GET", "/v1/accounts", token=cast.secret_key))["status"] == 403


async def test_a_publishable_key_does_not_reach_staff_routes(api: Api, cast: Cast) -> None:
    assert (await refused(api, "GET", "/v1/products", token=cast.publishable_key))["status"] == 403


async def test_another_tenants_ids_are_not_found(api: Api, cast: Cast, foreign: str) -> None:
    body = {"email": "hidden@example.com", "name": "Hidden"}
    reader = await api.ok("POST", "/v1/subscribers", token=cast.secret_key, key="hidden", json=body)
    for path in (f"/v1/subscribers/{reader['id']}", f"/v1/subscribers/{reader['id']}/entitlements"):
        assert (await api.call("GET", path, token=cast.secret_key)).status == 200
        problem = await refused(api, "GET", path, token=foreign)
        assert problem["status"] == 404
    price = await refused(api, "POST", f"/v1/prices/{cast.price}/archive", token=foreign, json={})
    assert price["status"] == 404
    listed = await api.ok("GET", "/v1/subscribers?email=hidden@example.com", token=foreign)
    assert listed["data"] == []


async def test_another_tenants_price_cannot_be_checked_out(api: Api, cast: Cast, foreign: str) -> None:
    reader = await api.ok("POST", "/v1/subscribers", token=foreign, key="own-reader", json={"email": "own@example.com"})
    body = {"price_id": cast.price, "subscriber_id": reader["id"]}
    assert (await refused(api, "POST", "/v1/checkouts", token=foreign, key="steal", json=body))["status"] == 404


async def test_an_id_that_nobody_has_is_not_found(api: Api, cast: Cast) -> None:
    made = ids.encode("subj", IdMaker(SystemClock(), lambda count: bytes(count)).new())
    assert (await refused(api, "GET", f"/v1/subscribers/{made}", token=cast.secret_key))["status"] == 404


async def test_an_id_of_another_type_is_named(api: Api, cast: Cast) -> None:
    problem = await refused(api, "GET", f"/v1/subscribers/{cast.price}", token=cast.secret_key)
    assert [item["field"] for item in problem["errors"]] == ["id"]


async def test_a_key_with_another_body_is_refused_and_with_the_same_replayed(api: Api, cast: Cast) -> None:
    body = {"name": "Once", "features": ["once"]}
    first = await api.ok("POST", "/v1/products", token=cast.secret_key, key="once", json=body)
    again = await api.ok("POST", "/v1/products", token=cast.secret_key, key="once", json=body)
    assert first == again
    other = {"name": "Twice", "features": ["once"]}
    problem = await refused(api, "POST", "/v1/products", token=cast.secret_key, key="once", json=other)
    assert (problem["status"], problem["reason"]) == (422, "idempotency_key_reused")
    listed = await api.ok("GET", "/v1/products?limit=100", token=cast.secret_key)
    assert [item["name"] for item in listed["data"]].count("Once") == 1


@pytest.fixture
async def open_checkout(api: Api, cast: Cast) -> dict[str, Any]:
    """A checkout that waits for its payment."""
    body = {"email": "waiting@example.com"}
    reader = await api.ok("POST", "/v1/subscribers", token=cast.secret_key, key="waiting", json=body)
    begun = {"price_id": cast.price, "subscriber_id": reader["id"]}
    checkout = await api.ok("POST", "/v1/checkouts", token=cast.secret_key, key="waiting-checkout", json=begun)
    async with asyncio.timeout(60):
        while checkout["state"] != "awaiting_payment":
            await asyncio.sleep(0.1)
            checkout = await api.ok("GET", f"/v1/checkouts/{checkout['id']}", token=cast.secret_key)
    return dict(checkout)


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed by another"])
async def test_a_forged_webhook_changes_nothing(
    api: Api,
    cast: Cast,
    open_checkout: dict[str, Any],
    stack: StackProcess,
    session: aiohttp.ClientSession,
    signed: bool,
) -> None:
    """What Stripe would say of a payment that succeeded, down to our own tags: all but the signature."""
    async with session.get(f"{stack.endpoints['stripe']}/_sim/objects/payment_intent") as answer:
        intents = {item["id"]: item for item in (await answer.json())["data"]}
    paid = {**intents[intent_of(open_checkout)], "status": "succeeded"}
    second = int(time.time())
    event = {"id": "evt_forged", "type": "payment_intent.succeeded", "created": second, "livemode": False}
    content = orjson.dumps({**event, "data": {"object": paid}})
    signature = hmac.new(b"whsec_of_another", b"%d." % second + content, hashlib.sha256).hexdigest()
    headers = {"Stripe-Signature": f"t={second},v1={signature}"} if signed else {}
    url = f"{stack.endpoints['gateway']}/v1/webhooks/stripe/{cast.connection}"
    async with session.post(url, data=content, headers={"Content-Type": "application/json", **headers}) as refusal:
        problem = await refusal.json(content_type=None)
    assert (problem["status"], problem["reason"]) == (401, "webhook_signature_invalid")
    moved = await api.ok("POST", "/v1/test_clock/advance", token=cast.secret_key, json={"seconds": 1})
    assert moved["drained"]
    found = await api.ok("GET", f"/v1/checkouts/{open_checkout['id']}", token=cast.secret_key)
    assert found["state"] == "awaiting_payment"


async def test_every_reason_is_documented_at_its_type(
    api: Api, cast: Cast, stack: StackProcess, session: aiohttp.ClientSession
) -> None:
    problem = await refused(api, "GET", "/v1/nothing", token=cast.secret_key)
    async with session.get(stack.endpoints["gateway"] + problem["type"]) as response:
        assert response.status == 200
        assert problem["reason"] in await response.text()
