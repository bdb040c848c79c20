"""Payments at the simulator, made with Stripe's own client."""

from typing import Any

import pytest
import stripe

CARDS = ["card"]


async def _intent(client: stripe.StripeClient, **more: Any) -> stripe.PaymentIntent:
    params: Any = {"amount": 900, "currency": "eur", "payment_method_types": CARDS} | more
    return await client.v1.payment_intents.create_async(params)


async def test_account_is_told_by_the_secret_key(simulator) -> None:
    first = await simulator.client("gazette").v1.accounts.retrieve_current_async()
    again = await simulator.client("gazette_2").v1.accounts.retrieve_current_async()
    other = await simulator.client("tribune").v1.accounts.retrieve_current_async()
    assert first.id == again.id != other.id
    assert first.id.startswith("acct_")


async def test_unknown_key_is_refused(simulator) -> None:
    client = stripe.StripeClient(
        "sk_test_51Nothing",
        base_addresses={"api": simulator.url},
        http_client=stripe.AIOHTTPClient(session=simulator.session),
    )
    with pytest.raises(stripe.AuthenticationError, match="Invalid API Key provided: sk_test_"):
        await client.v1.customers.list_async()


async def test_customer_keeps_what_was_written(simulator) -> None:
    client = simulator.client()
    made = await client.v1.customers.create_async({"email": "ada@example.com", "metadata": {"a": "1", "b": "2"}})
    await client.v1.customers.update_async(made.id, {"metadata": {"b": "", "c": "3"}})
    read = await client.v1.customers.retrieve_async(made.id)
    assert read.email == "ada@example.com"
    assert (read.metadata or {}).to_dict() == {"a": "1", "c": "3"}
    found = await client.v1.customers.list_async({"email": "ada@example.com"})
    assert [customer.id for customer in found.data] == [made.id]


async def test_objects_of_another_account_are_not_there(simulator) -> None:
    made = await simulator.client("gazette").v1.customers.create_async({})
    with pytest.raises(stripe.InvalidRequestError) as failed:
        await simulator.client("tribune").v1.customers.retrieve_async(made.id)
    assert (failed.value.http_status, failed.value.code) == (404, "resource_missing")


async def test_good_card_pays_and_can_be_charged_again_off_session(simulator) -> None:
    client = simulator.client()
    customer = await client.v1.customers.create_async({})
    intent = await _intent(client, customer=customer.id, setup_future_usage="off_session")
    assert intent.status == "requires_payment_method"
    paid = await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_visa"})
    assert (paid.status, paid.amount_received) == ("succeeded", 900)
    renewed = await _intent(
        client, customer=customer.id, payment_method=paid.payment_method, off_session=True, confirm=True
    )
    assert renewed.status == "succeeded"
    kinds = [event.type for event in (await client.v1.events.list_async()).data]
    assert kinds[:2] == ["payment_intent.succeeded", "charge.succeeded"]
    assert "payment_method.attached" in kinds


@pytest.mark.parametrize(
    ("card", "code", "decline_code"),
    [
        ("pm_card_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_visa_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", None),
    ],
)
async def test_declined_card_is_a_card_error_and_stays_on_record(simulator, card, code, decline_code) -> None:
    client = simulator.client()
    intent = await _intent(client)
    with pytest.raises(stripe.CardError) as failed:
        await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": card})
    error = failed.value
    assert (error.http_status, error.code, error.error.decline_code) == (402, code, decline_code)
    assert error.error.payment_intent.id == intent.id
    read = await client.v1.payment_intents.retrieve_async(intent.id)
    assert read.status == "requires_payment_method"
    assert read.last_payment_error is not None
    assert read.last_payment_error.code == code
    kinds = [event.type for event in (await client.v1.events.list_async()).data]
    assert kinds[:2] == ["payment_intent.payment_failed", "charge.failed"]


async def test_another_card_pays_after_a_decline(simulator) -> None:
    client = simulator.client()
    intent = await _intent(client)
    with pytest.raises(stripe.CardError):
        await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_chargeDeclined"})
    paid = await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_visa"})
    assert paid.status == "succeeded"
    assert paid.last_payment_error is None


@pytest.mark.parametrize(
    ("outcome", "status", "redirect_status"),
    [("success", "succeeded", "succeeded"), ("fail", "requires_payment_method", "failed")],
)
async def test_three_d_secure_leads_to_the_bank_and_back(simulator, outcome, status, redirect_status) -> None:
    client = simulator.client()
    intent = await _intent(client)
    asked = await client.v1.payment_intents.confirm_async(
        intent.id, {"payment_method": "pm_card_authenticationRequired", "return_url": "https://news.example/back?a=1"}
    )
    assert asked.status == "requires_action"
    assert asked.next_action is not None
    page = asked.next_action.redirect_to_url.url
    async with simulator.session.get(page) as response:
        assert "Complete authentication" in await response.text()
    async with simulator.session.post(page, data={"outcome": outcome}, allow_redirects=False) as response:
        back = response.headers["Location"]
    assert back.startswith("https://news.example/back?a=1&payment_intent=")
    assert f"redirect_status={redirect_status}" in back
    read = await client.v1.payment_intents.retrieve_async(intent.id)
    assert read.status == status
    # The page once more changes nothing.
    events = [event.id for event in (await client.v1.events.list_async()).data]
    await simulator.session.post(page, data={"outcome": "success"}, allow_redirects=False)
    assert (await client.v1.payment_intents.retrieve_async(intent.id)).status == status
    assert [event.id for event in (await client.v1.events.list_async()).data] == events


async def test_abandoned_three_d_secure_can_be_confirmed_with_another_card(simulator) -> None:
    client = simulator.client()
    intent = await _intent(client)
    return_url = "https://news.example/back"
    first = {"payment_method": "pm_card_authenticationRequired", "return_url": return_url}
    await client.v1.payment_intents.confirm_async(intent.id, first)
    paid = await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_visa"})
    assert (paid.status, paid.next_action) == ("succeeded", None)


async def test_card_set_up_with_three_d_secure_renews_without_it(simulator) -> None:
    client = simulator.client()
    customer = await client.v1.customers.create_async({})
    intent = await _intent(client, customer=customer.id, setup_future_usage="off_session")
    card = "pm_card_authenticationRequiredOnSetup"
    asked = await client.v1.payment_intents.confirm_async(
        intent.id, {"payment_method": card, "return_url": "https://a.example"}
    )
    assert asked.status == "requires_action"
    _, done, _ = await simulator.post(f"/_sim/authenticate/{intent.id}?outcome=success")
    assert done["status"] == "succeeded"
    renewed = await _intent(
        client, customer=customer.id, payment_method=asked.payment_method, off_session=True, confirm=True
    )
    assert renewed.status == "succeeded"


async def test_off_session_charge_that_needs_the_reader_is_declined(simulator) -> None:
    client = simulator.client()
    customer = await client.v1.customers.create_async({"payment_method": "pm_card_authenticationRequired"})
    methods = await client.v1.customers.payment_methods.list_async(customer.id)
    with pytest.raises(stripe.CardError) as failed:
        await _intent(client, customer=customer.id, payment_method=methods.data[0].id, off_session=True, confirm=True)
    assert failed.value.code == "authentication_required"


async def test_set_up_stores_a_card_for_later(simulator) -> None:
    client = simulator.client()
    customer = await client.v1.customers.create_async({})
    setup = await client.v1.setup_intents.create_async({"customer": customer.id, "payment_method_types": ["card"]})
    done = await client.v1.setup_intents.confirm_async(setup.id, {"payment_method": "pm_card_chargeCustomerFail"})
    assert done.status == "succeeded"
    with pytest.raises(stripe.CardError):
        await _intent(client, customer=customer.id, payment_method=done.payment_method, off_session=True, confirm=True)
    with pytest.raises(stripe.CardError):
        other = await client.v1.setup_intents.create_async({"customer": customer.id, "payment_method_types": ["card"]})
        await client.v1.setup_intents.confirm_async(other.id, {"payment_method": "pm_card_chargeDeclined"})


async def test_cancelled_intent_takes_no_card(simulator) -> None:
    client = simulator.client()
    intent = await _intent(client)
    cancelled = await client.v1.payment_intents.cancel_async(intent.id, {"cancellation_reason": "abandoned"})
    assert (cancelled.status, cancelled.cancellation_reason) == ("canceled", "abandoned")
    with pytest.raises(stripe.InvalidRequestError) as failed:
        await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_visa"})
    assert failed.value.code == "payment_intent_unexpected_state"


async def test_paid_intent_cannot_be_confirmed_or_cancelled(simulator) -> None:
    client = simulator.client()
    intent = await _intent(client, payment_method="pm_card_visa", confirm=True)
    with pytest.raises(stripe.InvalidRequestError, match="already succeeded"):
        await client.v1.payment_intents.confirm_async(intent.id)
    with pytest.raises(stripe.InvalidRequestError, match="status of succeeded"):
        await client.v1.payment_intents.cancel_async(intent.id)


async def test_card_without_customer_is_good_for_one_payment(simulator) -> None:
    client = simulator.client()
    paid = await _intent(client, payment_method="pm_card_visa", confirm=True)
    with pytest.raises(stripe.InvalidRequestError, match="may not be used again"):
        await _intent(client, payment_method=paid.payment_method, confirm=True)


async def test_automatic_methods_need_a_way_back(simulator) -> None:
    client = simulator.client()
    with pytest.raises(stripe.InvalidRequestError, match="return_url"):
        await client.v1.payment_intents.create_async(
            {"amount": 900, "currency": "eur", "payment_method": "pm_card_visa", "confirm": True}
        )
    assert (await client.v1.payment_intents.list_async()).data == []


@pytest.mark.parametrize(
    ("params", "code", "param"),
    [
        ({"currency": "eur"}, "parameter_missing", "amount"),
        ({"amount": "ten", "currency": "eur"}, "parameter_invalid_integer", "amount"),
        ({"amount": 10, "currency": "eur"}, "amount_too_small", "amount"),
        ({"amount": 900, "currency": "eur", "colour": "red"}, "parameter_unknown", "colour"),
        ({"amount": 900, "currency": "eur", "customer": "cus_none"}, "resource_missing", "customer"),
    ],
)
async def test_bad_parameters_are_named(simulator, params, code, param) -> None:
    with pytest.raises(stripe.InvalidRequestError) as failed:
        await simulator.client().v1.payment_intents.create_async(params)
    assert (failed.value.http_status, failed.value.code, failed.value.param) == (400, code, param)


async def test_references_are_expanded(simulator) -> None:
    client = simulator.client()
    customer = await client.v1.customers.create_async({"email": "ada@example.com"})
    intent = await _intent(client, customer=customer.id, payment_method="pm_card_visa", confirm=True)
    read = await client.v1.payment_intents.retrieve_async(
        intent.id, {"expand": ["latest_charge.payment_method", "customer"]}
    )
    assert read.customer.email == "ada@example.com"
    assert read.latest_charge.paid
    assert read.latest_charge.payment_method.card.last4 == "4242"


async def test_lists_page_through_everything_once(simulator) -> None:
    client = simulator.client()
    made = [(await client.v1.customers.create_async({})).id for _ in range(7)]
    page = await client.v1.customers.list_async({"limit": 3})
    read = [customer.id async for customer in page.auto_paging_iter()]
    assert read == made[::-1]
