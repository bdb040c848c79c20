"""Owns putting billing's use cases together."""

from collections.abc import Mapping
from datetime import timedelta

from libs.activity import Pseudonyms
from libs.clock import Clock
from libs.due import Handler
from libs.ids import IdSource
from libs.postgres import Database
from libs.vault import Vault
from services.billing.clients import Accounts, Readers, StripeProvider
from services.billing.repository.catalogue import CatalogueRepository
from services.billing.repository.connections import ConnectionRepository
from services.billing.repository.invoices import InvoiceRepository
from services.billing.repository.payments import PaymentRepository, StripeInboxRepository
from services.billing.repository.subscriptions import SubscriptionRepository
from services.billing.usecases import settlement
from services.billing.usecases.catalogue import Catalogue
from services.billing.usecases.checkouts import Checkouts
from services.billing.usecases.collection import Collection
from services.billing.usecases.connections import PaymentConnections
from services.billing.usecases.holds import Holds
from services.billing.usecases.inbox import StripeInbox
from services.billing.usecases.records import Records
from services.billing.usecases.renewals import Renewals
from services.billing.usecases.settlement import Repositories, Settlement, Trace
from services.billing.usecases.webhooks import StripeWebhooks


class Parts:
    """Billing's use cases over one database, and the handlers of its due work."""

    def __init__(
        self,
        app: Database,
        vault: Vault,
        provider: StripeProvider,
        readers: Readers,
        accounts: Accounts,
        clock: Clock,
        ids: IdSource,
        *,
        pseudonyms: Pseudonyms,
        grace: timedelta,
        trace: Trace,
    ) -> None:
        catalogue = CatalogueRepository()
        inbox = StripeInboxRepository()
        at = Repositories(ConnectionRepository(), SubscriptionRepository(), InvoiceRepository(), PaymentRepository())
        settled = Settlement(at, clock, ids, grace, trace)
        self.holds = Holds(app, at.connections, at.subscriptions, pseudonyms, clock, grace)
        collection = Collection(app, at, settled, self.holds, provider, vault, clock, ids)
        self.catalogue = Catalogue(app, catalogue, clock, ids)
        self.connections = PaymentConnections(app, at.connections, provider, accounts, vault, clock, ids)
        self.checkouts = Checkouts(app, catalogue, at, collection, self.holds, readers, clock, ids)
        self.records = Records(app, at.subscriptions, at.invoices)
        self.webhooks = StripeWebhooks(app, at.connections, inbox, collection, clock, ids)
        taken = StripeInbox(app, at.payments, inbox, settled, clock)
        renewals = Renewals(app, at, settled, collection, self.holds, clock, ids)
        self.due_handlers: Mapping[str, Handler] = {
            settlement.RENEW: renewals.renew,
            settlement.END: renewals.end,
            settlement.RESOLVE: collection.resolve,
            settlement.EXPIRE: self.checkouts.expire,
            settlement.DESCRIBE: collection.describe_method,
            settlement.TAKE: taken.take,
            settlement.FORGET: taken.forget,
            settlement.HOLD: self.holds.withdraw,
        }
