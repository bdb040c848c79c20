"""Owns reading subscriptions, invoices and the ledger; a reader sees their own and nothing of others."""

from uuid import UUID

from gatefold.billing.v1 import invoice_pb2, subscription_pb2

from libs import ids
from libs.caller import Caller, CallerKind
from libs.postgres import Database
from services.billing.repository.invoices import InvoiceRepository
from services.billing.repository.rows import before, page_size
from services.billing.repository.subscriptions import SubscriptionRepository
from services.billing.usecases import messages


def own_subject(caller: Caller) -> UUID | None:
    """Returns the reader whose rows alone the caller may see; None for callers who see the account's."""
    return caller.require_subject() if caller.kind is CallerKind.SUBSCRIBER else None


class Records:
    """Subscriptions, invoices and balances as they stand."""

    def __init__(self, app: Database, subscriptions: SubscriptionRepository, invoices: InvoiceRepository) -> None:
        self._app = app
        self._subscriptions = subscriptions
        self._invoices = invoices

    async def get_subscription(self, caller: Caller, subscription_id: UUID) -> subscription_pb2.Subscription:
        """Raises `not_found("subscription_not_found")`, also for another reader's."""
        account = caller.require_account()
        async with self._app.tenant(account, "get_subscription", read_only=True) as conn:
            found = await self._subscriptions.get(conn, account, subscription_id, subject=own_subject(caller))
        return messages.subscription(found)

    async def list_subscriptions(
        self, caller: Caller, subject: UUID | None, limit: int, cursor: str
    ) -> subscription_pb2.ListSubscriptionsResponse:
        """Returns a page of subscriptions, newest first; of nobody when a reader asks for another's."""
        account, own, size = caller.require_account(), own_subject(caller), page_size(limit)
        if own is not None and subject is not None and subject != own:
            return subscription_pb2.ListSubscriptionsResponse()
        async with self._app.tenant(account, "list_subscriptions", read_only=True) as conn:
            found = await self._subscriptions.list_page(conn, account, own or subject, before("sub", cursor), size + 1)
        more = ids.encode("sub", found[size - 1].id) if len(found) > size else ""
        return subscription_pb2.ListSubscriptionsResponse(
            data=[messages.subscription(each) for each in found[:size]], next_cursor=more
        )

    async def get_invoice(self, caller: Caller, invoice_id: UUID) -> invoice_pb2.Invoice:
        """Raises `not_found("invoice_not_found")`, also for another reader's."""
        account = caller.require_account()
        async with self._app.tenant(account, "get_invoice", read_only=True) as conn:
            found = await self._invoices.get(conn, account, invoice_id, subject=own_subject(caller))
        return messages.invoice(found)

    async def list_invoices(
        self, caller: Caller, subscription_id: UUID | None, limit: int, cursor: str
    ) -> invoice_pb2.ListInvoicesResponse:
        """Returns a page of invoices, newest first."""
        account, size = caller.require_account(), page_size(limit)
        async with self._app.tenant(account, "list_invoices", read_only=True) as conn:
            found = await self._invoices.list_page(
                conn, account, own_subject(caller), subscription_id, before("inv", cursor), size + 1
            )
        more = ids.encode("inv", found[size - 1].id) if len(found) > size else ""
        return invoice_pb2.ListInvoicesResponse(
            data=[messages.invoice(each) for each in found[:size]], next_cursor=more
        )

    async def get_ledger_balances(self, account: UUID) -> invoice_pb2.GetLedgerBalancesResponse:
        """Returns every ledger account's balance, added up from the first entry."""
        async with self._app.tenant(account, "get_ledger_balances", read_only=True) as conn:
            found = await self._invoices.balances(conn, account)
        return invoice_pb2.GetLedgerBalancesResponse(data=[messages.balance(each) for each in found])
