"""Idempotency keys, faults and restarts of the simulator."""

import asyncio
from datetime import timedelta

import pytest
import stripe

from infra.local.stripe import create_app, running

PARAMS = {"amount": 900, "currency": "eur", "payment_method_types": ["card"]}


async def _kinds(client: stripe.StripeClient) -> list[str]:
    return [event.type for event in (await client.v1.events.list_async({"limit": 100})).data]


async def test_same_key_and_parameters_replay_the_answer(simulator) -> None:
    form = {"amount": "900", "currency": "eur"}
    headers = {"Authorization": "Bearer sk_test_sim_gazette", "Idempotency-Key": "k1"}
    first = await simulator.post("/v1/payment_intents", form, **headers)
    again = await simulator.post("/v1/payment_intents", form, **headers)
    assert first[1] == again[1]
    assert "Idempotent-Replayed" not in first[2]
    assert again[2]["Idempotent-Replayed"] == "true"
    assert again[2]["Original-Request"] == first[2]["Request-Id"] != again[2]["Request-Id"]
    assert (await _kinds(simulator.client())) == ["payment_intent.created"]


async def test_same_key_with_other_parameters_is_refused(simulator) -> None:
    client = simulator.client()
    await client.v1.payment_intents.create_async(PARAMS, {"idempotency_key": "k1"})
    with pytest.raises(stripe.IdempotencyError, match="same parameters") as failed:
        await client.v1.payment_intents.create_async(PARAMS | {"amount": 901}, {"idempotency_key": "k1"})
    assert failed.value.http_status == 400
    with pytest.raises(stripe.IdempotencyError, match="same endpoint"):
        await client.v1.customers.create_async({}, {"idempotency_key": "k1"})


async def test_key_in_flight_is_a_conflict(simulator) -> None:
    client = simulator.client()
    await simulator.fault(kind="delay", seconds=0.5, path="/v1/customers")
    first = asyncio.create_task(client.v1.customers.create_async({}, {"idempotency_key": "k1"}))
    while (await simulator.get("/_sim/faults"))["data"]:
        continue
    with pytest.raises(stripe.APIError) as failed:
        await client.v1.customers.create_async({}, {"idempotency_key": "k1"})
    assert failed.value.http_status == 409
    assert failed.value.json_body["error"]["code"] == "idempotency_key_in_use"
    await first


async def test_key_is_forgotten_after_a_day(simulator) -> None:
    client = simulator.client()
    first = await client.v1.customers.create_async({}, {"idempotency_key": "k1"})
    simulator.clock.advance(timedelta(hours=23, minutes=59))
    assert (await client.v1.customers.create_async({}, {"idempotency_key": "k1"})).id == first.id
    simulator.clock.advance(timedelta(minutes=1))
    assert (await client.v1.customers.create_async({}, {"idempotency_key": "k1"})).id != first.id


async def test_key_of_one_account_says_nothing_to_another(simulator) -> None:
    first = await simulator.client("gazette").v1.customers.create_async({}, {"idempotency_key": "k1"})
    other = await simulator.client("tribune").v1.customers.create_async({}, {"idempotency_key": "k1"})
    assert first.id != other.id


async def test_decline_is_replayed(simulator) -> None:
    client = simulator.client()
    declined = PARAMS | {"payment_method": "pm_card_chargeDeclined", "confirm": True}
    for _ in range(2):
        with pytest.raises(stripe.CardError):
            await client.v1.payment_intents.create_async(declined, {"idempotency_key": "k1"})
    assert (await _kinds(client)).count("charge.failed") == 1


async def test_malformed_call_leaves_the_key_free(simulator) -> None:
    client = simulator.client()
    with pytest.raises(stripe.InvalidRequestError):
        await client.v1.payment_intents.create_async({"currency": "eur"}, {"idempotency_key": "k1"})  # type: ignore[typeddict-item]
    made = await client.v1.payment_intents.create_async(PARAMS, {"idempotency_key": "k1"})
    assert made.amount == 900


async def test_lost_reply_happened_and_is_found_by_its_key(simulator) -> None:
    client = simulator.client()
    await simulator.fault(kind="lost_reply", method="POST", path="/v1/payment_intents")
    paying = PARAMS | {"payment_method": "pm_card_visa", "confirm": True}
    with pytest.raises(stripe.APIConnectionError):
        await client.v1.payment_intents.create_async(paying, {"idempotency_key": "k1"})
    again = await client.v1.payment_intents.create_async(paying, {"idempotency_key": "k1"})
    assert again.status == "succeeded"
    assert (await _kinds(client)).count("charge.succeeded") == 1


async def test_lost_request_never_happened(simulator) -> None:
    client = simulator.client()
    await simulator.fault(kind="lost_request")
    with pytest.raises(stripe.APIConnectionError):
        await client.v1.customers.create_async({}, {"idempotency_key": "k1"})
    assert (await client.v1.customers.list_async()).data == []


async def test_error_after_the_effect_is_kept_for_the_key(simulator) -> None:
    client = simulator.client()
    await simulator.fault(kind="error", after_effect=True)
    for _ in range(2):
        with pytest.raises(stripe.APIError) as failed:
            await client.v1.customers.create_async({}, {"idempotency_key": "k1"})
        assert failed.value.http_status == 500
    assert len((await client.v1.customers.list_async()).data) == 1


async def test_error_and_rate_limit_before_the_effect_change_nothing(simulator) -> None:
    client = simulator.client()
    await simulator.fault(kind="error", status=503, count=1)
    await simulator.fault(kind="rate_limit", count=1)
    with pytest.raises(stripe.APIError):
        await client.v1.customers.create_async({}, {"idempotency_key": "k1"})
    with pytest.raises(stripe.RateLimitError):
        await client.v1.customers.create_async({}, {"idempotency_key": "k1"})
    made = await client.v1.customers.create_async({}, {"idempotency_key": "k1"})
    assert [customer.id for customer in (await client.v1.customers.list_async()).data] == [made.id]


async def test_fault_is_for_its_path_account_and_count(simulator) -> None:
    await simulator.fault(kind="error", path="/v1/payment_intents/*", account="acct_other")
    assert (await simulator.client().v1.customers.create_async({})).id
    assert len((await simulator.get("/_sim/faults"))["data"]) == 1
    async with simulator.session.delete(f"{simulator.url}/_sim/faults") as response:
        assert (await response.json())["data"] == []


@pytest.mark.parametrize(
    "values", [{"kind": "earthquake"}, {"kind": "delay", "count": "many"}, {"kind": "delay", "x": 1}]
)
async def test_unknown_fault_is_refused(simulator, values) -> None:
    async with simulator.session.post(f"{simulator.url}/_sim/faults", json=values) as response:
        assert response.status == 400


async def test_restart_forgets_nothing(simulator) -> None:
    client = simulator.client()
    made = await client.v1.payment_intents.create_async(PARAMS, {"idempotency_key": "k1"})
    # A second simulator on the same file stands for one that was started anew after kill -9.
    async with running(create_app(simulator.state, clock=simulator.clock)) as url:
        simulator.url = url
        client = simulator.client()
        assert (await client.v1.payment_intents.retrieve_async(made.id)).client_secret == made.client_secret
        assert (await client.v1.payment_intents.create_async(PARAMS, {"idempotency_key": "k1"})).id == made.id
