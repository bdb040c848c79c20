"""Owns taking Stripe's webhooks: checked and stored while Stripe waits."""

from collections.abc import Mapping
from dataclasses import replace
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
from services.billing.usecases.inbox import KEPT_FOR
from services.billing.usecases.settlement import FORGET, TAKE

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
        second = int(self._clock.wall().timestamp())
        if not verify_signature(payload, signature, secrets, second, TOLERANCE_SECONDS):
            raise errors.unauthenticated(
                "webhook_signature_invalid", "The signature does not hold, or is older than five minutes."
            )
        event = self._read(account, connection, payload)
        async with self._app.tenant(account, "receive_stripe_webhook") as conn:
            new = await self._inbox.take(conn, event, self._clock.wall())
            if new:
                now = self._clock.now(account)
                await due.schedule(conn, account, FORGET, event.id, now + KEPT_FOR)
                if event.state == "received":
                    await due.schedule(conn, account, TAKE, event.id, now)
        return new

    def _read(self, account: UUID, connection: PaymentConnection, payload: bytes) -> StripeEvent:
        try:
            document = orjson.loads(payload)
            live, of = bool(document["livemode"]), document.get("account")
            event = _kept(self._ids.new(), account, connection.id, document)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise errors.malformed("webhook_malformed", "This is no event of Stripe's.") from None
        if live != connection.live:
            raise errors.forbidden("webhook_livemode_mismatch", "Live and test events are kept apart.")
        if of not in (None, connection.provider_account):
            raise errors.forbidden("webhook_account_foreign", "This event is of another Stripe account.")
        return event


def _kept(event_id: UUID, account: UUID, connection_id: UUID, document: Mapping[str, Any]) -> StripeEvent:
    """Keeps of an event what moves a payment; the rest, personal data among it, is not stored."""
    subject = document["data"]["object"]
    event = StripeEvent(
        id=event_id,
        account=account,
        connection_id=connection_id,
        event=_text(document["id"]),
        type=_text(document["type"]),
        created_second=_whole(document["created"]),
        state="ignored",
    )
    payment_id = _tagged_payment(account, subject.get("metadata") or {}) if event.type in _HANDLED else None
    if payment_id is None:
        return event
    error = subject.get("last_payment_error") or subject.get("last_setup_error") or {}
    method = subject.get("payment_method")
    amount, currency = subject.get("amount"), subject.get("currency")
    return replace(
        event,
        state="received",
        payment_id=payment_id,
        intent=_text(subject["id"]),
        status=_text(subject["status"]),
        amount=_whole(amount) if amount is not None else None,
        currency=_text_or_none(currency),
        method=_text_or_none(method["id"] if isinstance(method, Mapping) else method),
        error_reason=_text_or_none(error.get("code")),
        decline_code=_text_or_none(error.get("decline_code")),
    )


def _tagged_payment(account: UUID, tags: Mapping[str, Any]) -> UUID | None:
    """Returns the payment that our tags name; None for objects that are not this account's of ours."""
    if tags.get(TAG_ACCOUNT) != ids.encode("acct", account):
        return None
    try:
        return ids.decode("pay", str(tags.get(TAG_PAYMENT, "")))
    except errors.GatefoldError:
        return None


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise TypeError("a text that the database takes is expected")
    return value


def _text_or_none(value: object) -> str | None:
    return _text(value) if value is not None else None


def _whole(value: object) -> int:
    if type(value) is not int or abs(value) >= 2**63:
        raise TypeError("a whole number of 64 bits is expected")
    return value
