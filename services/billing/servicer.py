"""Owns the way from billing's contracts to its use cases and back."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from gatefold.billing.v1 import (
    catalogue_pb2,
    catalogue_pb2_grpc,
    checkout_pb2,
    checkout_pb2_grpc,
    invoice_pb2,
    invoice_pb2_grpc,
    payment_connection_pb2,
    payment_connection_pb2_grpc,
    stripe_webhook_pb2,
    stripe_webhook_pb2_grpc,
    subscription_pb2,
    subscription_pb2_grpc,
)

from libs import caller, errors, ids
from services.billing.usecases.catalogue import Catalogue
from services.billing.usecases.checkouts import Checkouts
from services.billing.usecases.connections import PaymentConnections
from services.billing.usecases.messages import INTERVALS
from services.billing.usecases.records import Records
from services.billing.usecases.webhooks import StripeWebhooks


class CatalogueServicer(catalogue_pb2_grpc.CatalogueServiceServicer):
    """gatefold.billing.v1.CatalogueService."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def CreateProduct(self, request: catalogue_pb2.CreateProductRequest, context: Any) -> catalogue_pb2.Product:
        return await self._catalogue.create_product(caller.current(), request)

    async def ListProducts(
        self, request: catalogue_pb2.ListProductsRequest, context: Any
    ) -> catalogue_pb2.ListProductsResponse:
        account = caller.current().require_account()
        return await self._catalogue.list_products(account, request.limit, request.cursor)

    async def CreatePlan(self, request: catalogue_pb2.CreatePlanRequest, context: Any) -> catalogue_pb2.Plan:
        product_id = ids.decode("prod", request.product_id, field="product_id")
        interval = INTERVALS.get(request.interval)
        if interval is None:
            raise errors.invalid("interval_required", "A plan's periods are counted in a unit.", field="interval")
        return await self._catalogue.create_plan(caller.current(), request, product_id, interval)

    async def CreatePrice(self, request: catalogue_pb2.CreatePriceRequest, context: Any) -> catalogue_pb2.Price:
        plan_id = ids.decode("plan", request.plan_id, field="plan_id")
        return await self._catalogue.create_price(caller.current(), request, plan_id)

    async def ArchivePrice(self, request: catalogue_pb2.ArchivePriceRequest, context: Any) -> catalogue_pb2.Price:
        account = caller.current().require_account()
        return await self._catalogue.archive_price(account, ids.decode("price", request.id))

    async def ListOffers(
        self, request: catalogue_pb2.ListOffersRequest, context: Any
    ) -> catalogue_pb2.ListOffersResponse:
        return await self._catalogue.list_offers(caller.current().require_account())


class PaymentConnectionServicer(payment_connection_pb2_grpc.PaymentConnectionServiceServicer):
    """gatefold.billing.v1.PaymentConnectionService."""

    def __init__(self, connections: PaymentConnections) -> None:
        self._connections = connections

    async def CreatePaymentConnection(
        self, request: payment_connection_pb2.CreatePaymentConnectionRequest, context: Any
    ) -> payment_connection_pb2.PaymentConnection:
        return await self._connections.create(caller.current(), request)

    async def ListPaymentConnections(
        self, request: payment_connection_pb2.ListPaymentConnectionsRequest, context: Any
    ) -> payment_connection_pb2.ListPaymentConnectionsResponse:
        return await self._connections.list_all(caller.current().require_account())


class CheckoutServicer(checkout_pb2_grpc.CheckoutServiceServicer):
    """gatefold.billing.v1.CheckoutService."""

    def __init__(self, checkouts: Checkouts) -> None:
        self._checkouts = checkouts

    async def CreateCheckout(self, request: checkout_pb2.CreateCheckoutRequest, context: Any) -> checkout_pb2.Checkout:
        price_id = ids.decode("price", request.price_id, field="price_id")
        subscriber = _optional("subj", request.subscriber_id, "subscriber_id")
        return await self._checkouts.create(caller.current(), request, price_id, subscriber)

    async def GetCheckout(self, request: checkout_pb2.GetCheckoutRequest, context: Any) -> checkout_pb2.Checkout:
        return await self._checkouts.get(caller.current(), ids.decode("chk", request.id))


class SubscriptionServicer(subscription_pb2_grpc.SubscriptionServiceServicer):
    """gatefold.billing.v1.SubscriptionService."""

    def __init__(self, records: Records) -> None:
        self._records = records

    async def GetSubscription(
        self, request: subscription_pb2.GetSubscriptionRequest, context: Any
    ) -> subscription_pb2.Subscription:
        return await self._records.get_subscription(caller.current(), ids.decode("sub", request.id))

    async def ListSubscriptions(
        self, request: subscription_pb2.ListSubscriptionsRequest, context: Any
    ) -> subscription_pb2.ListSubscriptionsResponse:
        subscriber = _optional("subj", request.subscriber_id, "subscriber_id")
        return await self._records.list_subscriptions(caller.current(), subscriber, request.limit, request.cursor)


class InvoiceServicer(invoice_pb2_grpc.InvoiceServiceServicer):
    """gatefold.billing.v1.InvoiceService."""

    def __init__(self, records: Records) -> None:
        self._records = records

    async def GetInvoice(self, request: invoice_pb2.GetInvoiceRequest, context: Any) -> invoice_pb2.Invoice:
        return await self._records.get_invoice(caller.current(), ids.decode("inv", request.id))

    async def ListInvoices(
        self, request: invoice_pb2.ListInvoicesRequest, context: Any
    ) -> invoice_pb2.ListInvoicesResponse:
        subscription = _optional("sub", request.subscription_id, "subscription_id")
        return await self._records.list_invoices(caller.current(), subscription, request.limit, request.cursor)

    async def GetLedgerBalances(
        self, request: invoice_pb2.GetLedgerBalancesRequest, context: Any
    ) -> invoice_pb2.GetLedgerBalancesResponse:
        return await self._records.get_ledger_balances(caller.current().require_account())


class StripeWebhookServicer(stripe_webhook_pb2_grpc.StripeWebhookServiceServicer):
    """gatefold.billing.v1.StripeWebhookService."""

    def __init__(self, webhooks: StripeWebhooks, wake: Callable[[], None]) -> None:
        self._webhooks = webhooks
        self._wake = wake

    async def ReceiveStripeWebhook(
        self, request: stripe_webhook_pb2.ReceiveStripeWebhookRequest, context: Any
    ) -> stripe_webhook_pb2.ReceiveStripeWebhookResponse:
        connection_id = ids.decode("pc", request.connection_id, field="connection_id")
        new = await self._webhooks.receive(connection_id, request.payload.data, request.signature)
        if new:
            # The reader is looking at a spinner: it is worked off now, not at the worker's next poll.
            self._wake()
        return stripe_webhook_pb2.ReceiveStripeWebhookResponse(duplicate=not new)


def _optional(prefix: str, text: str, field: str) -> UUID | None:
    return ids.decode(prefix, text, field=field) if text else None
