"""Shows a reader's way to a subscription: paid, declined, proven, lost, abandoned, and asked for many times."""

import asyncio
from datetime import timedelta

import pytest
from gatefold.billing.v1 import catalogue_pb2, checkout_pb2, invoice_pb2, subscription_pb2

from libs import ids
from libs.errors import GatefoldError, Kind
from tests.integration.services.billing.conftest import GRACE, House


async def test_a_card_payment_runs_a_subscription(house: House) -> None:
    price, subject = await house.price(), house.ids.new()
    checkout = await house.checkout(price, subject)
    assert checkout.state == checkout_pb2.CHECKOUT_STATE_AWAITING_PAYMENT
    assert (checkout.mode, checkout.amount_due.amount_minor) == ("payment", 990)
    assert checkout.client_secret.startswith("pi_")
    assert checkout.publishable_key.startswith("pk_test_")

    await house.confirm(checkout)
    await house.deliver_all()

    shown = await house.shown(checkout, subject)
    assert shown.state == checkout_pb2.CHECKOUT_STATE_COMPLETE
    assert not shown.client_secret
    with house.reader(subject):
        (subscription,) = (
            await house.subscriptions.ListSubscriptions(subscription_pb2.ListSubscriptionsRequest(), None)
        ).data
        (invoice,) = (await house.invoices.ListInvoices(invoice_pb2.ListInvoicesRequest(), None)).data
    assert subscription.state == subscription_pb2.SUBSCRIPTION_STATE_ACTIVE
    assert subscription.period_number == 1
    assert (invoice.state, invoice.number) == (invoice_pb2.INVOICE_STATE_PAID, "000001")
    assert (invoice.total.amount_minor, invoice.paid.amount_minor, invoice.due.amount_minor) == (990, 990, 0)
    assert await house.balances() == {
        "accounts_receivable": 0,
        "processor_receivable": 990,
        "deferred_revenue": -990,
    }


async def test_an_activation_tells_until_when_access_holds(house: House) -> None:
    await house.subscribe(await house.price(), subject := house.ids.new())
    paid, activated = await house.events()
    assert (paid.type, paid.sequence, activated.type, activated.sequence) == (
        "invoice.paid", 1, "subscription.activated", 1,
    )  # fmt: skip
    assert activated.subjects == (subject,)
    assert list(activated.data.features) == ["premium"]
    end = activated.data.period_end.ToDatetime()
    assert activated.data.access_until.ToDatetime() == end + GRACE
    assert paid.data.number == "000001"
    assert not paid.live


async def test_what_a_card_is_recognised_by_is_kept_and_its_number_is_not(house: House) -> None:
    await house.subscribe(await house.price(), house.ids.new())
    await house.work()
    assert await house.rows("SELECT brand, last4, expiry_month, expiry_year FROM payment_method") == [
        ("visa", "4242", 12, 2034)
    ]


async def test_a_declined_card_can_be_replaced_on_the_same_payment(house: House) -> None:
    price, subject = await house.price(), house.ids.new()
    checkout = await house.checkout(price, subject)
    await house.confirm(checkout, "4000000000009995")
    await house.deliver_all()
    shown = await house.shown(checkout, subject)
    assert shown.state == checkout_pb2.CHECKOUT_STATE_AWAITING_PAYMENT
    assert (shown.last_error_reason, shown.decline_code) == ("card_declined", "insufficient_funds")
    assert shown.client_secret == checkout.client_secret

    house.clock.advance(timedelta(seconds=30))
    await house.confirm(checkout)
    await house.deliver_all()
    shown = await house.shown(checkout, subject)
    assert (shown.state, shown.last_error_reason) == (checkout_pb2.CHECKOUT_STATE_COMPLETE, "")


async def test_a_bank_that_asks_for_proof_is_waited_for(house: House) -> None:
    price, subject = await house.price(), house.ids.new()
    checkout = await house.checkout(price, subject)
    await house.confirm(checkout, "4000000000003220")
    await house.deliver_all()
    assert (await house.shown(checkout, subject)).state == checkout_pb2.CHECKOUT_STATE_AWAITING_AUTHENTICATION
    intent = checkout.client_secret.partition("_secret_")[0]
    async with house.http.post(f"{house.stripe}/_sim/authenticate/{intent}?outcome=success") as response:
        assert response.status < 400
    await house.deliver_all()
    assert (await house.shown(checkout, subject)).state == checkout_pb2.CHECKOUT_STATE_COMPLETE


async def test_abandoned_proof_ends_with_the_checkout(house: House) -> None:
    price, subject = await house.price(), house.ids.new()
    checkout = await house.checkout(price, subject)
    await house.confirm(checkout, "4000000000003220")
    await house.deliver_all()
    await house.until(timedelta(hours=24))
    assert (await house.shown(checkout, subject)).state == checkout_pb2.CHECKOUT_STATE_EXPIRED
    assert [intent["status"] for intent in await house.made("payment_intents")] == ["canceled"]
    assert await house.rows("SELECT state, end_reason FROM subscription") == [("ended", "checkout_abandoned")]
    assert await house.rows("SELECT state, due_minor FROM invoice") == [("void", 0)]
    assert await house.event_types() == []
    again = await house.checkout(price, subject)
    assert again.id != checkout.id


async def test_a_checkout_does_not_expire_before_its_time(house: House) -> None:
    checkout = await house.checkout(await house.price(), subject := house.ids.new())
    await house.until(timedelta(hours=23, minutes=59))
    assert (await house.shown(checkout, subject)).state == checkout_pb2.CHECKOUT_STATE_AWAITING_PAYMENT


async def test_a_payment_whose_webhook_was_lost_is_found_when_the_checkout_would_expire(house: House) -> None:
    checkout = await house.checkout(await house.price(), subject := house.ids.new())
    await house.confirm(checkout)
    await house.until(timedelta(hours=24))
    assert (await house.shown(checkout, subject)).state == checkout_pb2.CHECKOUT_STATE_COMPLETE
    assert await house.event_types() == ["invoice.paid", "subscription.activated"]


async def test_a_trial_stores_a_card_and_costs_nothing_yet(house: House) -> None:
    price, subject = await house.price(trial_days=14), house.ids.new()
    checkout = await house.checkout(price, subject)
    assert (checkout.mode, checkout.amount_due.amount_minor) == ("setup", 0)
    await house.confirm(checkout)
    await house.deliver_all()
    assert (await house.shown(checkout, subject)).state == checkout_pb2.CHECKOUT_STATE_COMPLETE
    assert await house.rows("SELECT state, period_number FROM subscription") == [("trialing", 1)]
    assert await house.balances() == {}
    await house.until(timedelta(days=14))
    assert await house.rows("SELECT state, period_number FROM subscription") == [("active", 2)]
    assert (await house.balances())["processor_receivable"] == 990


@pytest.mark.case("billing-14")
async def test_fifty_checkouts_under_one_key_make_one_of_everything(house: House) -> None:
    price, subject = await house.price(), house.ids.new()
    # A key may be in use by another request for a moment; whoever is told so asks again, as clients do.

    async def submit() -> bytes:
        while True:
            try:
                return (await house.checkout(price, subject, "the-key")).SerializeToString(deterministic=True)
            except GatefoldError as error:
                if error.reason not in {"idempotency_in_flight", "database_unavailable"}:
                    raise
                await asyncio.sleep(0.02)

    answers = await asyncio.gather(*(submit() for _ in range(50)))
    assert len(set(answers)) == 1
    assert len(await house.made("payment_intents")) == 1
    assert len(await house.made("customers")) == 1
    assert await house.value("SELECT count(*) FROM subscription WHERE subject_id = $1", subject) == 1


@pytest.mark.case("billing-14")
async def test_the_same_key_with_another_price_is_refused(house: House) -> None:
    price, other, subject = await house.price(), await house.price(), house.ids.new()
    await house.checkout(price, subject, "the-key")
    with pytest.raises(GatefoldError) as refused:
        await house.checkout(other, subject, "the-key")
    assert (refused.value.kind, refused.value.reason) == (Kind.INVALID, "idempotency_key_reused")


@pytest.mark.case("billing-14")
async def test_two_tabs_without_a_key_share_one_checkout(house: House) -> None:
    price, subject = await house.price(), house.ids.new()
    tabs = await asyncio.gather(*(house.checkout(price, subject) for _ in range(8)))
    assert len({tab.id for tab in tabs}) == len({tab.client_secret for tab in tabs}) == 1
    assert len(await house.made("payment_intents")) == 1


async def test_a_subscriber_cannot_subscribe_twice(house: House) -> None:
    price, subject = await house.price(), house.ids.new()
    await house.subscribe(price, subject)
    with pytest.raises(GatefoldError, match="subscription_exists"):
        await house.checkout(price, subject)


async def test_choosing_another_price_ends_the_open_checkout(house: House) -> None:
    price, subject = await house.price(), house.ids.new()
    with house.staff():
        (product,) = (await house.catalogue.ListProducts(catalogue_pb2.ListProductsRequest(), None)).data
    dearer = await house.price(1990, product=product.id)
    first = await house.checkout(price, subject)
    second = await house.checkout(dearer, subject)
    assert second.amount_due.amount_minor == 1990
    assert (await house.shown(first, subject)).state == checkout_pb2.CHECKOUT_STATE_EXPIRED
    assert {each["status"] for each in await house.made("payment_intents")} == {"canceled", "requires_payment_method"}


@pytest.mark.case("billing-18")
@pytest.mark.parametrize("path", ["/v1/customers", "/v1/payment_intents"])
@pytest.mark.parametrize("kind", ["lost_reply", "lost_request", "error", "rate_limit"])
async def test_a_lost_answer_makes_no_second_payment(house: House, kind: str, path: str) -> None:
    price, subject = await house.price(), house.ids.new()
    await house.fault(kind, path, method="POST")
    with pytest.raises(GatefoldError) as lost:
        await house.checkout(price, subject, "the-key")
    assert (lost.value.kind, lost.value.reason) == (Kind.UNAVAILABLE, "payment_provider_unavailable")
    assert await house.rows("SELECT state FROM payment") == [("unknown",)]
    checkout = await house.checkout(price, subject, "the-key")
    assert checkout.state == checkout_pb2.CHECKOUT_STATE_AWAITING_PAYMENT
    assert len(await house.made("payment_intents")) == 1
    assert len(await house.made("customers")) == 1


@pytest.mark.case("billing-18")
async def test_a_lost_answer_is_found_without_the_client(house: House) -> None:
    price, subject = await house.price(), house.ids.new()
    await house.fault("lost_reply", "/v1/payment_intents", method="POST")
    with pytest.raises(GatefoldError, match="payment_provider_unavailable"):
        await house.checkout(price, subject)
    await house.until(timedelta(minutes=2))
    (state, intent) = (await house.rows("SELECT state, provider_intent FROM payment"))[0]
    assert state == "called"
    assert [each["id"] for each in await house.made("payment_intents")] == [intent]


@pytest.mark.case("billing-18")
async def test_an_answer_lost_for_longer_than_stripe_keeps_keys_is_found_by_its_tag(house: House) -> None:
    price, subject = await house.price(), house.ids.new()
    await house.fault("lost_reply", "/v1/payment_intents", method="POST")
    with pytest.raises(GatefoldError, match="payment_provider_unavailable"):
        await house.checkout(price, subject)
    async with house.app.transaction("stop_resolving") as conn:
        await conn.execute("DELETE FROM due WHERE kind = 'resolve_payment'")
    await house.until(timedelta(hours=25))
    (intent,) = await house.made("payment_intents")
    assert intent["status"] == "canceled"
    assert await house.rows("SELECT state FROM payment") == [("cancelled",)]


async def test_what_stripe_refuses_ends_the_checkout(house: House) -> None:
    # Below Stripe's least amount.
    price, subject = await house.price(10), house.ids.new()
    with pytest.raises(GatefoldError) as refused:
        await house.checkout(price, subject)
    assert refused.value.reason == "payment_refused"
    assert refused.value.metadata["provider_reason"] == "amount_too_small"
    assert await house.rows("SELECT state FROM subscription") == [("ended",)]
    assert await house.rows("SELECT state FROM invoice") == [("void",)]


async def test_what_stripe_refuses_is_refused_alike_under_the_same_key(house: House) -> None:
    price, subject = await house.price(10), house.ids.new()
    told = []
    for _ in range(3):
        with pytest.raises(GatefoldError) as refused:
            await house.checkout(price, subject, "the-key")
        told.append((refused.value.kind, refused.value.reason, refused.value.metadata["provider_reason"]))
    assert told == [(Kind.PRECONDITION, "payment_refused", "amount_too_small")] * 3
    assert await house.value("SELECT count(*) FROM subscription") == 1


async def test_a_readers_checkout_is_nobody_elses(house: House) -> None:
    checkout = await house.checkout(await house.price(), house.ids.new())
    with pytest.raises(GatefoldError, match="checkout_not_found"):
        await house.shown(checkout, house.ids.new())


async def test_a_reader_subscribes_for_nobody_else(house: House) -> None:
    price = await house.price()
    request = checkout_pb2.CreateCheckoutRequest(price_id=price, subscriber_id=ids.encode("subj", house.ids.new()))
    with house.reader(house.ids.new()), pytest.raises(GatefoldError, match="subscriber_foreign"):
        await house.checkouts.CreateCheckout(request, None)


async def test_a_secret_key_says_which_reader(house: House) -> None:
    price = await house.price()
    with house.secret_key(), pytest.raises(GatefoldError, match="subscriber_required"):
        await house.checkouts.CreateCheckout(checkout_pb2.CreateCheckoutRequest(price_id=price), None)
    subject = house.ids.new()
    request = checkout_pb2.CreateCheckoutRequest(price_id=price, subscriber_id=ids.encode("subj", subject))
    with house.secret_key():
        checkout = await house.checkouts.CreateCheckout(request, None)
    assert (await house.shown(checkout, subject)).id == checkout.id


async def test_an_archived_price_is_not_sold(house: House) -> None:
    price = await house.price()
    with house.staff():
        await house.catalogue.ArchivePrice(catalogue_pb2.ArchivePriceRequest(id=price), None)
    with pytest.raises(GatefoldError, match="price_archived"):
        await house.checkout(price, house.ids.new())


async def test_the_client_secret_is_stored_sealed_only(house: House) -> None:
    checkout = await house.checkout(await house.price(), house.ids.new(), "the-key")
    secret = checkout.client_secret.encode()
    (sealed,) = (await house.rows("SELECT client_secret_sealed FROM payment"))[0]
    (kept,) = (await house.rows("SELECT response FROM idempotency_key WHERE method LIKE '%CreateCheckout'"))[0]
    assert secret not in sealed
    assert secret not in kept


async def test_staff_see_a_checkout_without_the_secret_that_pays_it(house: House) -> None:
    checkout = await house.checkout(await house.price(), house.ids.new())
    with house.staff():
        shown = await house.checkouts.GetCheckout(checkout_pb2.GetCheckoutRequest(id=checkout.id), None)
    assert (shown.id, shown.client_secret) == (checkout.id, "")
