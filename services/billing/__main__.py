"""Builds the billing service and runs it."""

import sys
from collections.abc import Mapping
from datetime import timedelta

from gatefold.billing.v1.catalogue_pb2_grpc import add_CatalogueServiceServicer_to_server
from gatefold.billing.v1.checkout_pb2_grpc import add_CheckoutServiceServicer_to_server
from gatefold.billing.v1.invoice_pb2_grpc import add_InvoiceServiceServicer_to_server
from gatefold.billing.v1.payment_connection_pb2_grpc import add_PaymentConnectionServiceServicer_to_server
from gatefold.billing.v1.stripe_webhook_pb2_grpc import add_StripeWebhookServiceServicer_to_server
from gatefold.billing.v1.subscription_pb2_grpc import add_SubscriptionServiceServicer_to_server

from libs import config, process
from libs.activity import Pseudonyms
from libs.privacy import SubjectTable, years_after_year_end
from libs.process import Process
from libs.service import Service
from libs.verdicts.held import HeldVerdicts
from services.billing import servicer
from services.billing.clients import AuthAccounts, StripeProvider, SubscriberReaders
from services.billing.config import Config
from services.billing.usecases import holds
from services.billing.usecases.parts import Parts


def _kept(name: str, number: int, since: str = "created_at") -> SubjectTable:
    """Books and what they rest on are kept for ten years (for example § 147 AO, art. L123-22 Code de commerce)."""
    until = years_after_year_end(10)
    return SubjectTable(
        name, number=number, erase="retain", retain_reason="tax_law", retain_until=until, retain_from=since
    )


PERSONAL_TABLES = (
    SubjectTable("customer", number=303, erase="delete"),
    SubjectTable("payment_method", number=304, erase="delete"),
    _kept("checkout", 307),
    _kept("payment", 302),
    _kept("invoice", 306, "issued_at"),
    _kept("subscription", 305),
)


async def compose(process: Process, environ: Mapping[str, str] | None) -> None:
    """Opens the parts and puts them together."""
    settings = config.load(Config, environ)
    service = await Service.open(process, settings.service)
    provider = StripeProvider(service.kill_points, api_base=settings.stripe_api_base)
    process.on_drain(provider.close)
    parts = Parts(
        service.app,
        service.vault,
        provider,
        SubscriberReaders(service.channels),
        AuthAccounts(service.channels),
        service.clock,
        service.ids,
        pseudonyms=Pseudonyms(settings.key_pepper.reveal()),
        grace=timedelta(days=settings.billing_grace_days),
        trace=service.telemetry.headers,
    )
    worker = service.due_worker(parts.due_handlers)
    service.add(add_CatalogueServiceServicer_to_server, servicer.CatalogueServicer(parts.catalogue))
    service.add(add_PaymentConnectionServiceServicer_to_server, servicer.PaymentConnectionServicer(parts.connections))
    service.add(add_CheckoutServiceServicer_to_server, servicer.CheckoutServicer(parts.checkouts))
    service.add(add_SubscriptionServiceServicer_to_server, servicer.SubscriptionServicer(parts.records))
    service.add(add_InvoiceServiceServicer_to_server, servicer.InvoiceServicer(parts.records))
    service.add(add_StripeWebhookServiceServicer_to_server, servicer.StripeWebhookServicer(parts.webhooks, worker.wake))
    held = HeldVerdicts(
        service.app,
        service.jobs,
        holds.SCOPES,
        holds.ACTIONS,
        clock=service.clock,
        telemetry=service.telemetry,
        begun=parts.holds.begun,
    )
    service.follow_verdicts(held.obey, held.forget)
    service.holds_personal_data(PERSONAL_TABLES)
    await service.serve()


def main(environ: Mapping[str, str] | None = None) -> int:
    """Runs the billing service; returns its exit code."""
    return process.run("billing", compose, environ)


if __name__ == "__main__":
    sys.exit(main())
