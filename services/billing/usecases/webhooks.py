"""Owns taking Stripe's webhooks: checked and stored while Stripe waits."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import orjson

from libs import due, errors, ids
from libs.clock import Clock
from libs.ids import IdSource
from libs.postgres import Database
from services.billing.clients import TAG_ACCOUNT, TAG_PAYMENT, verify_signature
from services.billing.domain.connection import PaymentConnection
from services.billing.repository.connections import ConnectionRepository
from services.billing.repository.payments import StripeEvent, StripeInboxRepository
from services.billing.usecases.collection import Collection
from services.billing.usecases.settlement import TAKE

# https://docs.stripe.com/webhooks#replay-attacks
TOLERANCE_SECONDS = 300

_HANDLED = frozenset(
    {
        "payment_intent.succeeded",
        "payment_intent.payment_failed",
        "payment_intent.requires_action",
        "payment_intent.processing",
        "payment_intent.canceled",
        "setup_intent.succeeded",
        "setup_intent.setup_failed",
        "setup_intent.requires_action",
        "setup_intent.canceled",
    }
)


class StripeWebhooks:
    """Takes signed events of our own objects; everything else is refused, or kept as ignored."""

    def __init__(
        self,
        app: Database,
        connections: ConnectionRepository,
        inbox: StripeInboxRepository,
        collection: Collection,
        clock: Clock,
        id_source: IdSource,
    ) -> None:
        self._app = app
        self._connections = connections
        self._inbox = inbox
        self._collection = collection
        self._clock = clock
        self._ids = id_source

    async def receive(self, connection_id: UUID, payload: bytes, signature: str) -> bool:
        """Stores a signed event; returns whether it is new. Writes nothing for any other.

        Raises `not_found("payment_connection_not_found")`, `unauthenticated("webhook_signature_invalid")` for a
        signature that is wrong, missing or older than five minutes, `malformed("webhook_malformed")`,
        `forbidden("webhook_livemode_mismatch")` and `forbidden("webhook_account_foreign")`.
        """
        async with self._app.transaction("route_stripe_webhook", read_only=True) as conn:
            account = await self._connections.route(conn, connection_id)
        if account is None:
            raise errors.not_found("payment_connection_not_found", "There is no such payment connection.")
        async with self._app.tenant(account, "read_payment_connection", read_only=True) as conn:
            connection = await self._connections.get(conn, account, connection_id)
        secrets = await self._collection.webhook_secrets(account, connection)
        now = int(self._clock.wall().timestamp())
        if not verify_signature(payload, signature, secrets, now, TOLERANCE_SECONDS):
            raise errors.unauthenticated(
                "webhook_signature_invalid", "The signature does not hold, or is older than five minutes."
            )
        event = self._read(account, connection, payload)
        async with self._app.tenant(account, "receive_stripe_webhook") as conn:
            new = await self._inbox.take(conn, event, self._clock.wall())
            if new and event.state == "received":
                await due.schedule(conn, account, TAKE, event.id, self._clock.now(account))
        return new

    def _read(self, account: UUID, connection: PaymentConnection, payload: bytes) -> StripeEvent:
        """Keeps of an event what moves a payment; the rest, personal data among it, is not stored."""
        try:
            document = orjson.loads(payload)
            subject = document["data"]["object"]
            name, kind, created = str(document["id"]), str(document["type"]), int(document["created"])
            live = bool(document["livemode"])
            tags = subject.get("metadata") or {}
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
            raise errors.malformed("webhook_malformed", "This is no event of Stripe's.") from None
        if live != connection.live:
            raise errors.forbidden("webhook_livemode_mismatch", "Live and test events are kept apart.")
        if document.get("account") not in {None, connection.provider_account}:
            raise errors.forbidden("webhook_account_foreign", "This event is of another Stripe account.")
        payment_id = _tagged_payment(account, tags) if kind in _HANDLED else None
        if payment_id is None:
            return StripeEvent(self._ids.new(), account, connection.id, name, kind, created, "ignored")
        return _kept(self._ids.new(), account, connection.id, (name, kind, created), payment_id, subject)


def _tagged_payment(account: UUID, tags: Mapping[str, Any]) -> UUID | None:
    """Returns the payment that our tags name; None for objects that are not this account's of ours."""
    if tags.get(TAG_ACCOUNT) != ids.encode("acct", account):
        return None
    try:
        return ids.decode("pay", str(tags.get(TAG_PAYMENT, "")))
    except errors.GatefoldError:
        return None


def _kept(
    event_id: UUID,
    account: UUID,
    connection_id: UUID,
    head: tuple[str, str, int],
    payment_id: UUID,
    subject: Mapping[str, Any],
) -> StripeEvent:
    error = subject.get("last_payment_error") or subject.get("last_setup_error") or {}
    method = subject.get("payment_method")
    return StripeEvent(
        id=event_id,
        account=account,
        connection_id=connection_id,
        event=head[0],
        type=head[1],
        created_second=head[2],
        state="received",
        payment_id=payment_id,
        intent=str(subject.get("id", "")),
        status=str(subject.get("status", "")),
        amount=subject.get("amount"),
        currency=subject.get("currency"),
        method=method.get("id") if isinstance(method, Mapping) else method,
        error_reason=error.get("code"),
        decline_code=error.get("decline_code"),
    )
