"""Shows that Stripe's events are taken once each, in whatever number and order they come."""

import asyncio
from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest
from gatefold.billing.v1 import checkout_pb2

from libs import ids
from libs.due import BEFORE_ALL
from tests.integration.services.billing.conftest import House

OUTCOME = ["invoice.paid", "subscription.activated"]


async def journey(house: House) -> tuple[Any, list[dict[str, Any]]]:
    """A checkout that is declined, challenged and paid, a second apart; returns its reader and Stripe's events."""
    before = {event["id"] for event in await house.stripe_events()}
    subject = house.ids.new()
    checkout = await house.checkout(await house.price(), subject)
    house.clock.advance(timedelta(seconds=1))
    await house.confirm(checkout, "4000000000000002")
    house.clock.advance(timedelta(seconds=1))
    await house.confirm(checkout, "4000000000003220")
    house.clock.advance(timedelta(seconds=1))
    intent = checkout.client_secret.partition("_secret_")[0]
    async with house.http.post(f"{house.stripe}/_sim/authenticate/{intent}?outcome=success") as response:
        assert response.status < 400
    events = [
        event
        for event in await house.stripe_events()
        if event["id"] not in before and event["type"].startswith("payment_intent.")
    ]
    return subject, events


async def work_many_times(house: House, workers: int) -> None:
    """Works off what is due with so many workers at once, each row by all of them, as if every lease were lost."""
    while items := (await house.worker.claim(BEFORE_ALL))[0]:
        await asyncio.gather(*(house.parts.due_handlers[item.kind](item) for item in items for _ in range(workers)))


async def money(house: House) -> dict[str, Any]:
    """What must be there once, whatever happened."""
    return {
        "entries": await house.value("SELECT count(*) FROM ledger_entry"),
        "numbers": [row[0] for row in await house.rows("SELECT number FROM invoice ORDER BY number")],
        "last": await house.value("SELECT last_number FROM invoice_counter"),
        "balances": await house.balances(),
    }


@pytest.mark.case("billing-15")
async def test_five_deliveries_at_once_are_one(house: House) -> None:
    checkout = await house.checkout(await house.price(), subject := house.ids.new())
    await house.confirm(checkout)
    (paid,) = await house.stripe_events("payment_intent.succeeded")
    news = await asyncio.gather(*(house.deliver(paid) for _ in range(5)))
    assert sorted(news) == [False, False, False, False, True]
    await work_many_times(house, 5)
    assert await house.deliver(paid) is False
    await house.work()
    assert await house.event_types() == OUTCOME
    assert await money(house) == {
        "entries": 2,
        "numbers": ["000001"],
        "last": 1,
        "balances": {"accounts_receivable": 0, "processor_receivable": 990, "deferred_revenue": -990},
    }
    assert (await house.shown(checkout, subject)).state == checkout_pb2.CHECKOUT_STATE_COMPLETE


@pytest.mark.case("billing-15")
@pytest.mark.case("billing-16")
async def test_every_order_of_the_events_five_times_each_ends_the_same(house: House) -> None:
    _, events = await journey(house)
    kinds = [event["type"] for event in events]
    assert sorted(kinds) == [
        "payment_intent.created",
        "payment_intent.payment_failed",
        "payment_intent.requires_action",
        "payment_intent.succeeded",
    ]
    orders = list(permutations(range(len(events))))
    for count, order in enumerate(orders, start=1):
        if count > 1:
            _, events = await journey(house)
        for place in order:
            await asyncio.gather(*(house.deliver(events[place]) for _ in range(5)))
            await work_many_times(house, 3)
        told = await house.event_types()
        assert told == OUTCOME * count, [events[place]["type"] for place in order]
        assert await house.value("SELECT count(*) FROM ledger_entry") == 2 * count
        assert await house.value("SELECT last_number FROM invoice_counter") == count
    assert await house.rows("SELECT DISTINCT state FROM payment") == [("succeeded",)]
    assert (await house.balances())["processor_receivable"] == 990 * len(orders)


@pytest.mark.case("billing-16")
async def test_all_events_at_once_with_racing_workers_end_the_same(house: House) -> None:
    for count in range(1, 6):
        _, events = await journey(house)
        await asyncio.gather(*(house.deliver(event) for event in events for _ in range(5)))
        await work_many_times(house, 5)
        assert await house.event_types() == OUTCOME * count
    assert await house.value("SELECT count(*) FROM ledger_entry") == 10


@pytest.mark.case("billing-16")
async def test_an_event_that_overtakes_the_answer_to_the_call_is_taken(house: House) -> None:
    price, subject = await house.price(), house.ids.new()
    await house.fault("lost_reply", "/v1/payment_intents", method="POST")
    with pytest.raises(Exception, match="payment_provider_unavailable"):
        await house.checkout(price, subject)
    (intent,) = await house.made("payment_intents")
    await house.confirm(checkout_pb2.Checkout(client_secret=intent["client_secret"]))
    await house.deliver_all()
    assert await house.rows("SELECT state, provider_intent FROM payment") == [("succeeded", intent["id"])]
    assert await house.event_types() == OUTCOME


@pytest.mark.case("billing-16")
async def test_an_event_of_a_payment_that_is_not_known_yet_waits_and_is_taken_later(house: House) -> None:
    checkout = await house.checkout(await house.price(), house.ids.new())
    await house.confirm(checkout)
    (paid,) = await house.stripe_events("payment_intent.succeeded")
    # As after a restore: the event names a payment that is not there.
    real = paid["data"]["object"]["metadata"]["gatefold_payment"]
    paid["data"]["object"]["metadata"]["gatefold_payment"] = "pay_01h455vb4pex5vsknk084sn02q"
    await house.deliver(paid)
    await house.work()
    assert await house.rows("SELECT state FROM stripe_event WHERE account_id = $1", house.account) == [("parked",)]
    async with house.app.transaction("mend") as conn:
        await conn.execute(
            "UPDATE stripe_event SET payment_id = $1 WHERE account_id = $2", ids.decode("pay", real), house.account
        )
    await house.until(timedelta(minutes=11))
    assert await house.rows("SELECT state FROM stripe_event WHERE account_id = $1", house.account) == [("done",)]
    assert await house.event_types() == OUTCOME


async def test_an_event_whose_payment_never_appears_is_given_up_after_three_days(house: House) -> None:
    checkout = await house.checkout(await house.price(), house.ids.new())
    await house.confirm(checkout)
    (paid,) = await house.stripe_events("payment_intent.succeeded")
    paid["data"]["object"]["metadata"]["gatefold_payment"] = "pay_01h455vb4pex5vsknk084sn02q"
    await house.deliver(paid)
    await house.work()
    await house.until(timedelta(days=3, minutes=20))
    assert await house.rows("SELECT state, outcome FROM stripe_event WHERE account_id = $1", house.account) == [
        ("ignored", "payment_unknown")
    ]


async def test_money_for_a_checkout_that_was_given_up_is_kept_for_the_reader(house: House) -> None:
    checkout = await house.checkout(await house.price(), house.ids.new())
    await house.confirm(checkout)
    (paid,) = await house.stripe_events("payment_intent.succeeded")
    cancelled = {**paid, "id": "evt_cancelled", "type": "payment_intent.canceled"}
    cancelled["data"] = {"object": {**paid["data"]["object"], "status": "canceled"}}
    for event in (cancelled, paid):
        await house.deliver(event)
        await house.work()
    assert await house.rows("SELECT state FROM invoice") == [("void",)]
    assert await house.balances() == {"processor_receivable": 990, "unapplied_payments": -990}
    assert await house.event_types() == []


async def test_nothing_of_the_payload_but_what_moves_a_payment_is_stored(house: House) -> None:
    checkout = await house.checkout(await house.price(), house.ids.new())
    await house.confirm(checkout)
    (paid,) = await house.stripe_events("payment_intent.succeeded")
    paid["data"]["object"]["receipt_email"] = "reader@example.org"
    paid["data"]["object"]["shipping"] = {"name": "Ada Reader", "address": {"line1": "1 Main Street"}}
    await house.deliver(paid)
    await house.work()
    ((kept,),) = await house.rows(
        "SELECT to_jsonb(stripe_event)::text FROM stripe_event WHERE account_id = $1 AND payment_id IS NOT NULL",
        house.account,
    )
    assert "reader@example.org" not in kept
    assert "Ada" not in kept
    assert '"method": null' in kept


@pytest.mark.parametrize("card", ["4242424242424242", "4000000000009995"])
async def test_what_became_of_a_card_is_kept_by_the_payment_alone(house: House, card: str) -> None:
    checkout = await house.checkout(await house.price(), house.ids.new())
    await house.confirm(checkout, card)
    await house.deliver_all()
    kept = await house.rows(
        "SELECT DISTINCT method, error_reason, decline_code FROM stripe_event WHERE account_id = $1", house.account
    )
    assert kept == [(None, None, None)]


async def test_an_event_is_forgotten_thirty_days_after_it_was_taken(house: House) -> None:
    checkout = await house.checkout(await house.price(), house.ids.new())
    await house.confirm(checkout)
    await house.deliver_all()
    states = "SELECT DISTINCT state FROM stripe_event WHERE account_id = $1 ORDER BY state"
    await house.until(timedelta(days=29))
    assert await house.rows(states, house.account) == [("done",), ("ignored",)]
    await house.until(timedelta(days=1))
    assert await house.rows(states, house.account) == []
    (paid,) = await house.stripe_events("payment_intent.succeeded")
    # Sent once more by hand: it is taken and changes nothing.
    await house.deliver(paid)
    await house.work()
    assert (await house.event_types())[:2] == OUTCOME
    assert await house.value("SELECT count(*) FROM ledger_entry") == 2


async def test_an_event_that_is_still_to_be_worked_off_is_not_forgotten(house: House) -> None:
    checkout = await house.checkout(await house.price(), house.ids.new())
    await house.confirm(checkout)
    (paid,) = await house.stripe_events("payment_intent.succeeded")
    await house.deliver(paid)
    async with house.app.transaction("stop_taking") as conn:
        await conn.execute("UPDATE due SET due_at = due_at + interval '40 days' WHERE kind = 'take_stripe_event'")
    await house.until(timedelta(days=31))
    assert await house.rows("SELECT state FROM stripe_event WHERE account_id = $1", house.account) == [("received",)]
    await house.until(timedelta(days=10))
    await house.until(timedelta(days=1))
    assert await house.rows("SELECT state FROM stripe_event WHERE account_id = $1", house.account) == []
