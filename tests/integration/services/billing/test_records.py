"""Shows the catalogue, the payment connections, and who sees which subscriptions and invoices."""

import pytest
from gatefold.billing.v1 import (
    catalogue_pb2,
    checkout_pb2,
    invoice_pb2,
    payment_connection_pb2,
    subscription_pb2,
)
from gatefold.money.v1 import money_pb2

from libs import ids
from libs.errors import GatefoldError
from tests.integration.services.billing.conftest import PUBLISHABLE_KEY, SECRET_KEY, WEBHOOK_SECRET, House


def keys(**changed: str) -> payment_connection_pb2.CreatePaymentConnectionRequest:
    values = {"publishable_key": PUBLISHABLE_KEY, "secret_key": SECRET_KEY, "webhook_secret": WEBHOOK_SECRET} | changed
    return payment_connection_pb2.CreatePaymentConnectionRequest(**values)


async def test_a_connection_names_the_stripe_account_and_shows_no_secret(house: House) -> None:
    with house.secret_key():
        request = payment_connection_pb2.ListPaymentConnectionsRequest()
        (made,) = (await house.connections.ListPaymentConnections(request, None)).data
    assert made.provider_account.startswith("acct_")
    assert made.webhook_path == f"/v1/webhooks/stripe/{house.connection}"
    assert SECRET_KEY not in str(made)
    ((row,),) = await house.rows("SELECT to_jsonb(payment_connection)::text FROM payment_connection")
    for secret in (SECRET_KEY, WEBHOOK_SECRET):
        assert secret.encode().hex() not in row
        assert secret not in row


@pytest.mark.parametrize(
    ("live", "changed", "reason"),
    [
        (False, {"secret_key": "sk_live_sim_publisher"}, "key_mode_mismatch"),
        (False, {"publishable_key": "pk_live_sim_publisher"}, "key_mode_mismatch"),
        (True, {}, "key_mode_mismatch"),
        (False, {"secret_key": "sk_test_revoked_key"}, "secret_key_refused"),
        (False, {"webhook_secret": ""}, "webhook_secret_malformed"),
    ],
)
async def test_keys_are_checked_before_anything_is_stored(
    house: House, live: bool, changed: dict[str, str], reason: str
) -> None:
    with house.staff(live=live), pytest.raises(GatefoldError, match=reason):
        await house.connections.CreatePaymentConnection(keys(**changed), None)
    assert await house.value("SELECT count(*) FROM payment_connection") == 1


async def test_stripe_being_away_is_no_fault_of_the_key(house: House) -> None:
    await house.fault("error", "/v1/account")
    with house.staff(), pytest.raises(GatefoldError, match="payment_provider_unavailable"):
        await house.connections.CreatePaymentConnection(keys(), None)


async def test_an_account_without_a_connection_sells_nothing(house: House) -> None:
    house.account = house.ids.new()
    with pytest.raises(GatefoldError, match="payment_connection_missing"):
        await house.checkout(await house.price(), house.ids.new())


async def test_periods_follow_the_accounts_time_zone(house: House) -> None:
    house.neighbours.zone = "Asia/Kolkata"
    house.account = house.ids.new()
    await house.connect()
    await house.subscribe(await house.price(), house.ids.new())
    assert await house.value("SELECT zone FROM subscription") == "Asia/Kolkata"


async def test_offers_are_what_is_not_archived_cheapest_first(house: House) -> None:
    dear = await house.price(1990)
    with house.staff():
        (product,) = (await house.catalogue.ListProducts(catalogue_pb2.ListProductsRequest(), None)).data
    cheap = await house.price(490, product=product.id)
    gone = await house.price(90, product=product.id)
    with house.staff():
        first = await house.catalogue.ArchivePrice(catalogue_pb2.ArchivePriceRequest(id=gone), None)
        house.clock.set(house.clock.wall().replace(hour=5))
        second = await house.catalogue.ArchivePrice(catalogue_pb2.ArchivePriceRequest(id=gone), None)
        offers = (await house.catalogue.ListOffers(catalogue_pb2.ListOffersRequest(), None)).data
    assert first.archived_at == second.archived_at
    assert [offer.price.id for offer in offers] == [cheap, dear]
    assert offers[0].plan.interval == catalogue_pb2.INTERVAL_MONTH


async def test_pages_show_every_product_once(house: House) -> None:
    made = [await house.price() for _ in range(5)]
    seen: list[str] = []
    cursor = ""
    with house.staff():
        while True:
            request = catalogue_pb2.ListProductsRequest(limit=2, cursor=cursor)
            page = await house.catalogue.ListProducts(request, None)
            seen += [product.id for product in page.data]
            cursor = page.next_cursor
            if not cursor:
                break
    assert len(seen) == len(set(seen)) == len(made)


@pytest.mark.parametrize("cursor", ["nonsense", "sub_01h455vb4pex5vsknk084sn02q"])
async def test_a_cursor_that_was_not_given_out_is_refused(house: House, cursor: str) -> None:
    with house.staff(), pytest.raises(GatefoldError, match="cursor_malformed"):
        await house.catalogue.ListProducts(catalogue_pb2.ListProductsRequest(cursor=cursor), None)


async def test_an_external_id_is_given_once(house: House) -> None:
    request = catalogue_pb2.CreateProductRequest(name="Paper", features=["premium"], external_id="paper-1")
    with house.staff():
        await house.catalogue.CreateProduct(request, None)
        with pytest.raises(GatefoldError, match="external_id_taken"):
            await house.catalogue.CreateProduct(request, None)


async def test_a_key_makes_one_product(house: House) -> None:
    request = catalogue_pb2.CreateProductRequest(name="Paper", features=["premium"])
    with house.staff("one"):
        first = await house.catalogue.CreateProduct(request, None)
        assert await house.catalogue.CreateProduct(request, None) == first
    assert await house.value("SELECT count(*) FROM product") == 1


@pytest.mark.parametrize(("prefix", "reason"), [("prod", "product_not_found"), ("plan", "plan_not_found")])
async def test_another_accounts_catalogue_is_not_built_upon(house: House, prefix: str, reason: str) -> None:
    foreign = await house.price()
    with house.staff():
        (offer,) = (await house.catalogue.ListOffers(catalogue_pb2.ListOffersRequest(), None)).data
    assert offer.price.id == foreign
    house.account = house.ids.new()
    with house.staff(), pytest.raises(GatefoldError, match=reason):
        if prefix == "prod":
            plan = catalogue_pb2.CreatePlanRequest(
                product_id=offer.product.id, name="x", interval=catalogue_pb2.INTERVAL_DAY
            )
            await house.catalogue.CreatePlan(plan, None)
        else:
            amount = money_pb2.Money(amount_minor=1, currency="EUR")
            await house.catalogue.CreatePrice(
                catalogue_pb2.CreatePriceRequest(plan_id=offer.plan.id, amount=amount), None
            )


async def test_a_reader_sees_their_own_and_staff_see_all(house: House) -> None:
    price, ada, bob = await house.price(), house.ids.new(), house.ids.new()
    checkout = await house.subscribe(price, ada)
    await house.subscribe(price, bob)
    everything = subscription_pb2.ListSubscriptionsRequest()
    with house.reader(bob):
        (own,) = (await house.subscriptions.ListSubscriptions(everything, None)).data
        assert own.subscriber_id == ids.encode("subj", bob)
        of_ada = subscription_pb2.ListSubscriptionsRequest(subscriber_id=ids.encode("subj", ada))
        assert list((await house.subscriptions.ListSubscriptions(of_ada, None)).data) == []
        assert len((await house.invoices.ListInvoices(invoice_pb2.ListInvoicesRequest(), None)).data) == 1
        of_her = invoice_pb2.ListInvoicesRequest(subscription_id=checkout.subscription_id)
        assert list((await house.invoices.ListInvoices(of_her, None)).data) == []
        with pytest.raises(GatefoldError, match="subscription_not_found"):
            request = subscription_pb2.GetSubscriptionRequest(id=checkout.subscription_id)
            await house.subscriptions.GetSubscription(request, None)
        with pytest.raises(GatefoldError, match="invoice_not_found"):
            await house.invoices.GetInvoice(invoice_pb2.GetInvoiceRequest(id=checkout.invoice_id), None)
    with house.secret_key():
        assert len((await house.subscriptions.ListSubscriptions(everything, None)).data) == 2


async def test_another_account_sees_nothing(house: House) -> None:
    checkout = await house.subscribe(await house.price(), subject := house.ids.new())
    house.account = house.ids.new()
    with house.secret_key():
        for call, reason in (
            (
                house.subscriptions.GetSubscription(
                    subscription_pb2.GetSubscriptionRequest(id=checkout.subscription_id), None
                ),
                "subscription_not_found",
            ),
            (
                house.invoices.GetInvoice(invoice_pb2.GetInvoiceRequest(id=checkout.invoice_id), None),
                "invoice_not_found",
            ),
            (house.checkouts.GetCheckout(checkout_pb2.GetCheckoutRequest(id=checkout.id), None), "checkout_not_found"),
        ):
            with pytest.raises(GatefoldError, match=reason):
                await call
        balances = await house.invoices.GetLedgerBalances(invoice_pb2.GetLedgerBalancesRequest(), None)
    assert list(balances.data) == []
    with pytest.raises(GatefoldError, match="checkout_not_found"):
        await house.shown(checkout, subject)


@pytest.mark.case("billing-13")
async def test_balances_are_equal_on_both_sides(house: House) -> None:
    await house.subscribe(await house.price(990, currency="EUR"), house.ids.new())
    await house.subscribe(await house.price(500, currency="JPY"), house.ids.new())
    with house.staff():
        found = (await house.invoices.GetLedgerBalances(invoice_pb2.GetLedgerBalancesRequest(), None)).data
    for currency, amount in (("EUR", 990), ("JPY", 500)):
        of = [balance for balance in found if balance.debits.currency == currency]
        assert sum(balance.debits.amount_minor for balance in of) == 2 * amount
        assert sum(balance.credits.amount_minor for balance in of) == 2 * amount


@pytest.mark.case("billing-10")
@pytest.mark.parametrize(
    ("amount", "currency", "charged"), [(500, "JPY", 500), (1230, "KWD", 1230), (990, "EUR", 990), (700, "ISK", 70000)]
)
async def test_stripe_is_asked_for_the_amount_in_its_own_units(
    house: House, amount: int, currency: str, charged: int
) -> None:
    await house.subscribe(await house.price(amount, currency=currency), house.ids.new())
    assert await house.rows("SELECT paid_minor, currency FROM invoice") == [(amount, currency)]
    (intent,) = await house.made("payment_intents")
    assert (intent["amount"], intent["currency"]) == (charged, currency.lower())
