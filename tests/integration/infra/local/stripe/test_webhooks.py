"""Webhooks of the simulator, checked with Stripe's own verification."""

import json
from datetime import timedelta
from typing import Any

import pytest
import stripe

PAYING: Any = {
    "amount": 900,
    "currency": "eur",
    "payment_method_types": ["card"],
    "payment_method": "pm_card_visa",
    "confirm": True,
}


async def _endpoint(simulator, receiver, *events: str, name: str = "gazette") -> stripe.WebhookEndpoint:
    client = simulator.client(name)
    return await client.v1.webhook_endpoints.create_async(
        {"url": receiver.url, "enabled_events": list(events) or ["*"]}
    )


def _read(taken: list[tuple[bytes, str]]) -> list[dict[str, Any]]:
    return [json.loads(body) for body, _ in taken]


def _verify(body: bytes, signature: str, secret: str) -> None:
    stripe.WebhookSignature.verify_header(body.decode(), signature, secret, tolerance=None)


async def test_webhook_is_signed_and_says_what_happened(simulator, receiver) -> None:
    endpoint = await _endpoint(simulator, receiver, "payment_intent.succeeded")
    intent = await simulator.client().v1.payment_intents.create_async(PAYING)
    ((body, signature),) = await receiver.until(1)
    _verify(body, signature, endpoint.secret)
    with pytest.raises(stripe.SignatureVerificationError):
        _verify(body + b" ", signature, endpoint.secret)
    event = json.loads(body)
    assert (event["type"], event["data"]["object"]["id"]) == ("payment_intent.succeeded", intent.id)
    assert event["pending_webhooks"] == 1
    read = await simulator.client().v1.events.retrieve_async(event["id"])
    assert read.data.object["status"] == "succeeded"


async def test_webhooks_of_another_account_stay_there(simulator, receiver) -> None:
    await _endpoint(simulator, receiver, name="tribune")
    await simulator.client("gazette").v1.payment_intents.create_async(PAYING)
    assert (await simulator.get("/_sim/deliveries"))["data"] == []


async def test_secret_is_shown_once(simulator, receiver) -> None:
    endpoint = await _endpoint(simulator, receiver)
    assert endpoint.secret.startswith("whsec_")
    read = await simulator.client().v1.webhook_endpoints.retrieve_async(endpoint.id)
    assert "secret" not in read
    assert "_sim" not in read


async def test_refused_webhook_is_tried_again_until_taken(simulator, receiver) -> None:
    receiver.answers = [500, 400]
    await _endpoint(simulator, receiver, "payment_intent.succeeded")
    await simulator.client().v1.payment_intents.create_async(PAYING)
    for count in (1, 2, 3):
        taken = await receiver.until(count)
        simulator.clock.advance(timedelta(minutes=5))
        await _settled(simulator, attempts=count)
        await simulator.post("/_sim/deliveries/hurry")
    assert len({event["id"] for event in _read(taken)}) == 1
    (delivery,) = (await simulator.get("/_sim/deliveries"))["data"]
    assert (delivery["state"], delivery["attempts"], delivery["last_status"]) == ("delivered", 3, 200)


async def _settled(simulator, *, attempts: int) -> None:
    # The answer is written after the receiver has seen the webhook.
    while (await simulator.get("/_sim/deliveries"))["data"][0]["attempts"] < attempts:
        pass


async def test_both_secrets_sign_after_a_roll(simulator, receiver) -> None:
    endpoint = await _endpoint(simulator, receiver, "payment_intent.succeeded")
    _, rolled, _ = await simulator.post(f"/_sim/webhook_endpoints/{endpoint.id}/roll")
    await simulator.client().v1.payment_intents.create_async(PAYING)
    ((body, signature),) = await receiver.until(1)
    _verify(body, signature, endpoint.secret)
    _verify(body, signature, rolled["secret"])


async def test_duplicate_comes_twice_with_the_same_id(simulator, receiver) -> None:
    await _endpoint(simulator, receiver, "payment_intent.succeeded")
    await simulator.fault(kind="webhook_duplicate", path="payment_intent.*")
    await simulator.client().v1.payment_intents.create_async(PAYING)
    events = _read(await receiver.until(2))
    assert events[0]["id"] == events[1]["id"]


async def test_reordered_webhooks_come_backwards(simulator, receiver) -> None:
    await _endpoint(simulator, receiver, "payment_intent.created", "charge.succeeded", "payment_intent.succeeded")
    await simulator.fault(kind="webhook_reorder", count=3)
    await simulator.client().v1.payment_intents.create_async(PAYING)
    for count in (1, 2, 3):
        simulator.clock.advance(timedelta(seconds=0.31))
        await receiver.until(count)
    kinds = [event["type"] for event in _read(receiver.taken)]
    assert kinds == ["payment_intent.succeeded", "charge.succeeded", "payment_intent.created"]


async def test_dropped_webhook_is_still_in_the_list_of_events(simulator, receiver) -> None:
    await _endpoint(simulator, receiver, "payment_intent.*", "payment_intent.created", "payment_intent.succeeded")
    await simulator.fault(kind="webhook_drop", path="payment_intent.created")
    await simulator.client().v1.payment_intents.create_async(PAYING)
    (event,) = _read(await receiver.until(1))
    assert event["type"] == "payment_intent.succeeded"
    listed = await simulator.client().v1.events.list_async({"type": "payment_intent.*"})
    assert [item.type for item in listed.data] == ["payment_intent.succeeded", "payment_intent.created"]


async def test_event_can_be_sent_again(simulator, receiver) -> None:
    await _endpoint(simulator, receiver, "payment_intent.succeeded")
    await simulator.client().v1.payment_intents.create_async(PAYING)
    (event,) = _read(await receiver.until(1))
    await simulator.post(f"/_sim/events/{event['id']}/resend")
    assert [item["id"] for item in _read(await receiver.until(2))] == [event["id"]] * 2


async def test_disabled_endpoint_is_left_alone_and_can_be_moved(simulator, receiver) -> None:
    endpoint = await _endpoint(simulator, receiver, "payment_intent.succeeded")
    client = simulator.client()
    await client.v1.webhook_endpoints.update_async(endpoint.id, {"disabled": True})
    await client.v1.payment_intents.create_async(PAYING)
    assert (await simulator.get("/_sim/deliveries"))["data"] == []
    await client.v1.webhook_endpoints.update_async(endpoint.id, {"disabled": False, "url": receiver.url + "?b"})
    await client.v1.payment_intents.create_async(PAYING)
    await receiver.until(1)
