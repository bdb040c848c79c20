"""Owns the calls to Stripe and to other services: what is asked, and what an answer, or none, means."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

import aiohttp
import stripe
from gatefold.auth.v1 import account_pb2, account_pb2_grpc
from gatefold.subscriber.v1 import subscriber_pb2, subscriber_pb2_grpc

from libs import errors, ids
from libs.grpc_client import Channels
from libs.kill_points import KillPoints
from libs.money import Money
from services.billing.domain.payment import Observation, Payment, PaymentKind

if TYPE_CHECKING:
    from stripe.params import PaymentIntentCreateParams, SetupIntentCreateParams

CONNECT_SECONDS = 3.0
TOTAL_SECONDS = 10.0
TAG_ACCOUNT = "gatefold_account"
TAG_PAYMENT = "gatefold_payment"
TAG_SUBJECT = "gatefold_subject"
# Newest intents of a customer that are looked through for one whose answer was lost long ago.
SEARCH_LIMIT = 100
# Whatever the publisher has switched on at Stripe that needs no page of another site.
_METHODS: Any = {"enabled": True, "allow_redirects": "never"}


class OutcomeUnknownError(Exception):
    """Stripe may or may not have done what was asked; asking again with the same key tells."""


class RefusedError(Exception):
    """Stripe will never do what was asked."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class CardDisplay:
    """What a reader recognises a card by."""

    brand: str
    last4: str
    expiry_month: int
    expiry_year: int
    fingerprint: str
    """The same for one card number in one account of Stripe's; empty where it gives none."""


class StripeProvider:
    """Stripe, asked with the secret key of a payment connection. One try a call: who asks again is the caller."""

    def __init__(self, kill_points: KillPoints, *, api_base: str | None = None) -> None:
        self._kill_points = kill_points
        self._api_base = api_base
        timeout = aiohttp.ClientTimeout(total=TOTAL_SECONDS, connect=CONNECT_SECONDS)
        self._http = stripe.AIOHTTPClient(timeout=timeout)

    async def close(self) -> None:
        """Closes the connections to Stripe."""
        await self._http.close_async()  # type: ignore[no-untyped-call]

    async def account_of(self, secret_key: str) -> str:
        """Returns the Stripe account that a key belongs to; raises `invalid("secret_key_refused")`."""
        try:
            async with self._calling("accounts.retrieve"):
                account = await self._client(secret_key).v1.accounts.retrieve_current_async()
        except (stripe.AuthenticationError, stripe.PermissionError, RefusedError) as error:
            raise errors.invalid(
                "secret_key_refused", "Stripe does not accept this key.", field="secret_key"
            ) from error
        except OutcomeUnknownError as error:
            raise unavailable() from error
        return str(account.id)

    async def create_customer(self, secret_key: str, account: UUID, subject: UUID, customer_id: UUID) -> str:
        """Returns Stripe's name of a new customer, the same for each call with this `customer_id`."""
        async with self._asking("customers.create"):
            customer = await self._client(secret_key).v1.customers.create_async(
                {"metadata": {TAG_ACCOUNT: ids.encode("acct", account), TAG_SUBJECT: ids.encode("subj", subject)}},
                {"idempotency_key": f"gatefold-{customer_id}"},
            )
        return str(customer.id)

    async def create_intent(self, secret_key: str, account: UUID, payment: Payment) -> Observation:
        """Asks for a payment's intent; the same intent for each call, as long as Stripe keeps the key (24 hours).

        A declined card is an observation like any other.
        """
        client = self._client(secret_key)
        options: stripe.RequestOptions = {"idempotency_key": payment.vendor_key}
        tags = {TAG_ACCOUNT: ids.encode("acct", account), TAG_PAYMENT: ids.encode("pay", payment.id)}
        try:
            if payment.kind is PaymentKind.SETUP:
                async with self._asking("setup_intents.create"):
                    setup = await client.v1.setup_intents.create_async(_setup_params(payment, tags), options)
                return observation(setup.to_dict(), second=int(setup.created))
            async with self._asking("payment_intents.create"):
                intent = await client.v1.payment_intents.create_async(_payment_params(payment, tags), options)
            return observation(intent.to_dict(), second=int(intent.created))
        except stripe.CardError as error:
            return _declined(error)

    async def retrieve_intent(self, secret_key: str, payment: Payment, second: int) -> Observation:
        """Asks how a payment's intent stands; `second` is when that is."""
        assert payment.provider_intent is not None
        client = self._client(secret_key)
        if payment.kind is PaymentKind.SETUP:
            async with self._asking("setup_intents.retrieve"):
                setup = await client.v1.setup_intents.retrieve_async(payment.provider_intent)
            return observation(setup.to_dict(), second=second)
        async with self._asking("payment_intents.retrieve"):
            intent = await client.v1.payment_intents.retrieve_async(payment.provider_intent)
        return observation(intent.to_dict(), second=second)

    async def cancel_intent(self, secret_key: str, payment: Payment, second: int) -> Observation:
        """Cancels a payment's intent; returns how it stands where it can be cancelled no longer."""
        assert payment.provider_intent is not None
        client = self._client(secret_key)
        try:
            if payment.kind is PaymentKind.SETUP:
                async with self._asking("setup_intents.cancel"):
                    setup = await client.v1.setup_intents.cancel_async(payment.provider_intent)
                return observation(setup.to_dict(), second=second)
            async with self._asking("payment_intents.cancel"):
                intent = await client.v1.payment_intents.cancel_async(payment.provider_intent)
            return observation(intent.to_dict(), second=second)
        except RefusedError:
            return await self.retrieve_intent(secret_key, payment, second)

    async def find_intent(self, secret_key: str, account: UUID, payment: Payment) -> Observation | None:
        """Looks for a payment's intent by its tag among the newest of the customer's."""
        assert payment.provider_customer is not None
        client = self._client(secret_key)
        tags = {TAG_ACCOUNT: ids.encode("acct", account), TAG_PAYMENT: ids.encode("pay", payment.id)}
        found: list[dict[str, Any]]
        if payment.kind is PaymentKind.SETUP:
            async with self._asking("setup_intents.list"):
                setups = await client.v1.setup_intents.list_async(
                    {"customer": payment.provider_customer, "limit": SEARCH_LIMIT}
                )
            found = [each.to_dict() for each in setups.data]
        else:
            async with self._asking("payment_intents.list"):
                intents = await client.v1.payment_intents.list_async(
                    {"customer": payment.provider_customer, "limit": SEARCH_LIMIT}
                )
            found = [each.to_dict() for each in intents.data]
        for each in found:
            if tags.items() <= (each.get("metadata") or {}).items():
                return observation(each, second=int(each["created"]))
        return None

    async def describe_method(self, secret_key: str, provider_method: str) -> CardDisplay | None:
        """Returns what a stored card is recognised by; None for a method that is no card."""
        async with self._asking("payment_methods.retrieve"):
            method = await self._client(secret_key).v1.payment_methods.retrieve_async(provider_method)
        card = method.to_dict().get("card")
        if not card:
            return None
        return CardDisplay(
            card["brand"], card["last4"], card["exp_month"], card["exp_year"], card.get("fingerprint") or ""
        )

    def _client(self, secret_key: str) -> stripe.StripeClient:
        # Cheap to make; connections are shared through the HTTP client.
        return stripe.StripeClient(
            secret_key,
            http_client=self._http,
            base_addresses={"api": self._api_base} if self._api_base else {},
            max_network_retries=0,
        )

    @asynccontextmanager
    async def _asking(self, label: str) -> AsyncIterator[None]:
        """A call of a connection in use: a key that no longer holds is the publisher's to mend; it is asked later."""
        try:
            async with self._calling(label):
                yield
        except (stripe.AuthenticationError, stripe.PermissionError) as error:
            raise OutcomeUnknownError(label) from error

    @asynccontextmanager
    async def _calling(self, label: str) -> AsyncIterator[None]:
        self._kill_points.at("call", "before", f"stripe.{label}")
        try:
            yield
        except (stripe.CardError, stripe.AuthenticationError, stripe.PermissionError):
            raise
        except stripe.InvalidRequestError as error:
            # 404, 409 and 429 come as errors of other classes or with their status: only a real refusal is final.
            if error.http_status in {409, 429}:
                raise OutcomeUnknownError(label) from error
            raise RefusedError(str(error.code or "payment_provider_refused")) from error
        except stripe.StripeError as error:
            raise OutcomeUnknownError(label) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # The SDK translates errors of sending, not of reading the answer.
            raise OutcomeUnknownError(label) from error
        self._kill_points.at("call", "after", f"stripe.{label}")


def unavailable() -> errors.GatefoldError:
    """The error that a caller sees when Stripe did not answer; repeating the call with its key is safe."""
    return errors.unavailable(
        "payment_provider_unavailable", "The payment provider does not answer. Try again with the same key.", 2
    )


def verify_signature(payload: bytes, header: str, secrets: tuple[str, ...], now_second: int, tolerance: int) -> bool:
    """Answers whether one of the secrets signed these bytes at most `tolerance` seconds ago.

    The signature is checked by Stripe's own code, the age by the clock that is handed in.
    """
    # Stripe's code compares texts, which raises for one that is not ASCII.
    if not header.isascii():
        return False
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError:
        return False
    for secret in secrets:
        try:
            stripe.WebhookSignature.verify_header(text, header, secret)
        except stripe.SignatureVerificationError:
            continue
        stamp = next(int(part[2:]) for part in header.split(",") if part.startswith("t="))
        return abs(now_second - stamp) <= tolerance
    return False


def observation(intent: Mapping[str, Any], *, second: int, event: str = "") -> Observation:
    """Reads what a PaymentIntent or SetupIntent says; a SetupIntent has no amount."""
    error = intent.get("last_payment_error") or intent.get("last_setup_error") or {}
    amount = intent.get("amount")
    method = intent.get("payment_method")
    return Observation(
        intent=str(intent["id"]),
        status=str(intent["status"]),
        second=second,
        event=event,
        amount=Money.from_stripe(amount, intent["currency"]) if amount is not None else None,
        method=method["id"] if isinstance(method, Mapping) else method,
        error_reason=error.get("code"),
        decline_code=error.get("decline_code"),
        client_secret=intent.get("client_secret"),
    )


def _declined(error: stripe.CardError) -> Observation:
    body = error.json_body
    detail: Mapping[str, Any] = body.get("error", {}) if isinstance(body, dict) else {}
    intent = detail.get("payment_intent") or detail.get("setup_intent")
    if not isinstance(intent, Mapping):
        raise RefusedError(str(error.code or "card_declined")) from error
    # The error says more than the intent that it carries, whose own last error may be cut off.
    amount = intent.get("amount")
    return Observation(
        intent=str(intent["id"]),
        status=str(intent["status"]),
        second=int(intent["created"]),
        amount=Money.from_stripe(amount, intent["currency"]) if amount is not None else None,
        error_reason=str(detail.get("code") or "card_declined"),
        decline_code=detail.get("decline_code"),
    )


def _payment_params(payment: Payment, tags: dict[str, str]) -> "PaymentIntentCreateParams":
    assert payment.provider_customer is not None
    amount, currency = payment.amount.to_stripe()
    params: PaymentIntentCreateParams = {
        "amount": amount,
        "currency": currency,
        "customer": payment.provider_customer,
        "automatic_payment_methods": _METHODS,
        "metadata": tags,
    }
    if payment.off_session:
        assert payment.provider_method is not None
        params["payment_method"] = payment.provider_method
        params["off_session"] = True
        params["confirm"] = True
    else:
        params["setup_future_usage"] = "off_session"
    return params


def _setup_params(payment: Payment, tags: dict[str, str]) -> "SetupIntentCreateParams":
    assert payment.provider_customer is not None
    return {
        "customer": payment.provider_customer,
        "usage": "off_session",
        "automatic_payment_methods": _METHODS,
        "metadata": tags,
    }


class Readers(Protocol):
    """Where readers are known."""

    async def require(self, subject: UUID) -> None:
        """Raises `not_found` for a reader that the caller's account does not have."""
        ...


class Accounts(Protocol):
    """Where accounts are known."""

    async def time_zone(self) -> str:
        """Returns the IANA time zone of the caller's account."""
        ...


class SubscriberReaders:
    """Asks the subscriber service."""

    def __init__(self, channels: Channels) -> None:
        self._stub = subscriber_pb2_grpc.SubscriberServiceStub(channels.channel("subscriber"))

    async def require(self, subject: UUID) -> None:
        """See Readers."""
        await self._stub.GetContact(subscriber_pb2.GetContactRequest(subject_id=ids.encode("subj", subject)), timeout=2)


class AuthAccounts:
    """Asks the auth service."""

    def __init__(self, channels: Channels) -> None:
        self._stub = account_pb2_grpc.AccountServiceStub(channels.channel("auth"))

    async def time_zone(self) -> str:
        """See Accounts."""
        account = await self._stub.DescribeAccount(account_pb2.DescribeAccountRequest(), timeout=2)
        return account.time_zone or "UTC"
