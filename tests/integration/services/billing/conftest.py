"""Owns billing put together for tests: its use cases on real stores, and the Stripe simulator on loopback."""

import hashlib
import hmac
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import aiohttp
import orjson
import pytest
from gatefold.billing.v1 import catalogue_pb2, checkout_pb2, payment_connection_pb2
from gatefold.events.v1 import envelope_pb2
from gatefold.money.v1 import money_pb2

from infra.local.stripe.app import create_app, running
from libs import caller
from libs.activity import Pseudonyms
from libs.caller import Caller, CallerKind
from libs.clock import FixedClock
from libs.due import BEFORE_ALL, Due, DueWorker
from libs.errors import GatefoldError
from libs.events import Event
from libs.ids import IdMaker, decode, encode
from libs.kill_points import KillPoints
from libs.postgres import Database
from libs.telemetry import Telemetry
from libs.vault import Vault
from services.billing import servicer
from services.billing.clients import StripeProvider
from services.billing.usecases.parts import Parts
from tests.conftest import ServiceDb

PUBLISHABLE_KEY = "pk_test_sim_publisher"
SECRET_KEY = "sk_test_sim_publisher"
WEBHOOK_SECRET = "whsec_dGhlIHNpZ25pbmcgc2VjcmV0"
GRACE = timedelta(days=3)
HIDDEN = Pseudonyms("key-pepper-of-tests-".ljust(40, "x"))


@dataclass
class Neighbours:
    """The services next door, as far as billing asks them."""

    zone: str = "UTC"
    unknown: set[UUID] = field(default_factory=set)

    async def require(self, subject: UUID) -> None:
        if subject in self.unknown:
            raise AssertionError("asked for a reader that this test does not know")

    async def time_zone(self) -> str:
        return self.zone


@dataclass
class House:
    """Billing's parts, and one fresh account with a payment connection to work in."""

    app: Database
    jobs: Database
    clock: FixedClock
    ids: IdMaker
    account: UUID
    vault: Vault
    parts: Parts
    neighbours: Neighbours
    provider: StripeProvider
    http: aiohttp.ClientSession
    stripe: str

    def __post_init__(self) -> None:
        self.connection = ""
        self.catalogue = servicer.CatalogueServicer(self.parts.catalogue)
        self.connections = servicer.PaymentConnectionServicer(self.parts.connections)
        self.checkouts = servicer.CheckoutServicer(self.parts.checkouts)
        self.subscriptions = servicer.SubscriptionServicer(self.parts.records)
        self.invoices = servicer.InvoiceServicer(self.parts.records)
        self.worker = DueWorker(self.jobs, self.clock, self.parts.due_handlers, Telemetry("billing").logger("due"))

    # Who calls.

    def staff(self, key: str | None = None, *, live: bool = False) -> AbstractContextManager[None]:
        return self._as(CallerKind.STAFF, "per_1", key, live=live)

    def secret_key(self, key: str | None = None) -> AbstractContextManager[None]:
        return self._as(CallerKind.SECRET_KEY, "key_1", key)

    def reader(self, subject: UUID, key: str | None = None) -> AbstractContextManager[None]:
        return self._as(CallerKind.SUBSCRIBER, encode("subj", subject), key, subject=subject)

    def _as(
        self, kind: CallerKind, actor: str, key: str | None, *, subject: UUID | None = None, live: bool = False
    ) -> AbstractContextManager[None]:
        return caller.serving(
            Caller(
                kind=kind,
                actor=actor,
                account=self.account,
                live=live,
                subject=subject,
                request_id="req_test",
                idempotency_key=key,
            )
        )

    # What is sold.

    async def connect(self) -> str:
        """Connects the publisher's Stripe account."""
        with self.staff():
            made = await self.connections.CreatePaymentConnection(
                payment_connection_pb2.CreatePaymentConnectionRequest(
                    publishable_key=PUBLISHABLE_KEY, secret_key=SECRET_KEY, webhook_secret=WEBHOOK_SECRET
                ),
                None,
            )
        self.connection = made.id
        return made.id

    async def price(
        self,
        amount: int = 990,
        *,
        currency: str = "EUR",
        interval: catalogue_pb2.Interval = catalogue_pb2.INTERVAL_MONTH,
        trial_days: int = 0,
        product: str | None = None,
    ) -> str:
        """Adds a product, a plan and a price, or a plan and price of a product; returns the price."""
        with self.staff():
            if product is None:
                request = catalogue_pb2.CreateProductRequest(name="The Paper", features=["premium"])
                product = (await self.catalogue.CreateProduct(request, None)).id
            plan = await self.catalogue.CreatePlan(
                catalogue_pb2.CreatePlanRequest(
                    product_id=product, name="Monthly", interval=interval, trial_days=trial_days
                ),
                None,
            )
            price = await self.catalogue.CreatePrice(
                catalogue_pb2.CreatePriceRequest(
                    plan_id=plan.id, amount=money_pb2.Money(amount_minor=amount, currency=currency)
                ),
                None,
            )
        return price.id

    # What a reader does.

    async def checkout(self, price: str, subject: UUID, key: str | None = None) -> checkout_pb2.Checkout:
        with self.reader(subject, key):
            return await self.checkouts.CreateCheckout(checkout_pb2.CreateCheckoutRequest(price_id=price), None)

    async def shown(self, checkout: checkout_pb2.Checkout, subject: UUID) -> checkout_pb2.Checkout:
        with self.reader(subject):
            return await self.checkouts.GetCheckout(checkout_pb2.GetCheckoutRequest(id=checkout.id), None)

    async def confirm(self, checkout: checkout_pb2.Checkout, card: str = "4242424242424242") -> dict[str, Any]:
        """Confirms as the browser does, with the publishable key and the client secret."""
        intent = checkout.client_secret.partition("_secret_")[0]
        kind = "setup_intents" if intent.startswith("seti_") else "payment_intents"
        return await self.ask_stripe(
            "POST",
            f"/v1/{kind}/{intent}/confirm",
            {
                "client_secret": checkout.client_secret,
                "payment_method_data[type]": "card",
                "payment_method_data[card][number]": card,
                "payment_method_data[card][exp_month]": "12",
                "payment_method_data[card][exp_year]": "2034",
                "payment_method_data[card][cvc]": "123",
            },
            key=PUBLISHABLE_KEY,
        )

    async def subscribe(self, price: str, subject: UUID, card: str = "4242424242424242") -> checkout_pb2.Checkout:
        """The whole way to a running subscription."""
        checkout = await self.checkout(price, subject)
        await self.confirm(checkout, card)
        await self.deliver_all()
        return checkout

    # What Stripe does.

    async def ask_stripe(
        self, method: str, path: str, data: dict[str, str] | None = None, *, key: str = SECRET_KEY
    ) -> dict[str, Any]:
        async with self.http.request(
            method, f"{self.stripe}{path}", data=data, headers={"Authorization": f"Bearer {key}"}
        ) as response:
            answer: dict[str, Any] = await response.json()
            return answer

    async def fault(self, kind: str, path: str, **more: Any) -> None:
        """Has a coming call go wrong."""
        async with self.http.post(f"{self.stripe}/_sim/faults", json={"kind": kind, "path": path, **more}) as response:
            assert response.status == 200, await response.text()

    async def made(self, kind: str) -> list[dict[str, Any]]:
        """All objects of a kind that the account has at Stripe."""
        answer = await self.ask_stripe("GET", f"/v1/{kind}?limit=100")
        return list(answer["data"])

    async def stripe_events(self, *types: str) -> list[dict[str, Any]]:
        """The account's events at Stripe, oldest first."""
        found = await self.ask_stripe("GET", "/v1/events?limit=100")
        return [each for each in reversed(found["data"]) if not types or each["type"] in types]

    async def deliver(self, event: dict[str, Any], *, secret: str = WEBHOOK_SECRET) -> bool:
        """Delivers an event as Stripe does; returns whether it was new."""
        payload = orjson.dumps(event)
        return await self.deliver_raw(payload, signed(payload, int(self.clock.wall().timestamp()), secret))

    async def deliver_raw(self, payload: bytes, signature: str) -> bool:
        return await self.parts.webhooks.receive(decode("pc", self.connection), payload, signature)

    async def deliver_all(self) -> None:
        """Delivers everything that happened at Stripe, and works it off."""
        for event in await self.stripe_events():
            await self.deliver(event)
        await self.work()

    # What the worker does.

    async def work(self) -> list[Due]:
        """Works off what is due now, until nothing is that can be."""
        done: list[Due] = []
        while items := (await self.worker.claim(BEFORE_ALL))[0]:
            for item in items:
                try:
                    await self.parts.due_handlers[item.kind](item)
                except GatefoldError as error:
                    # Stays leased, as with the real worker, and comes back when the lease ends.
                    if error.reason != "payment_provider_unavailable":
                        raise
            done += items
        return done

    async def until(self, moment: timedelta) -> None:
        """Lets time pass and works off what falls due on the way."""
        self.clock.advance(moment)
        await self.work()

    # What is there afterwards.

    async def events(self, prefix: str = "") -> list[Event]:
        """The account's own events, in the order they were written."""
        async with self.jobs.transaction("read_outbox", read_only=True) as conn:
            rows = await conn.fetch(
                "SELECT envelope FROM outbox WHERE account_id = $1 AND starts_with(type, $2) ORDER BY position",
                self.account,
                prefix,
            )
        return [Event.from_envelope(envelope_pb2.Envelope.FromString(row["envelope"])) for row in rows]

    async def event_types(self) -> list[str]:
        return [event.type for event in await self.events()]

    async def rows(self, query: str, *args: object) -> list[tuple[Any, ...]]:
        async with self.app.tenant(self.account, "test_read", read_only=True) as conn:
            return [tuple(row.values()) for row in await conn.fetch(query, *args)]

    async def value(self, query: str, *args: object) -> Any:
        ((value,),) = await self.rows(query, *args)
        return value

    async def balances(self) -> dict[str, int]:
        """Each ledger account's debits less credits."""
        found = await self.rows(
            "SELECT ledger_account, sum(debit_minor - credit_minor)::bigint FROM ledger_posting GROUP BY ledger_account"
        )
        return dict(found)


def signed(payload: bytes, second: int, *secrets: str) -> str:
    """A `Stripe-Signature` header, made as Stripe's documentation says."""
    marks = [hmac.new(each.encode(), f"{second}.".encode() + payload, hashlib.sha256).hexdigest() for each in secrets]
    return ",".join([f"t={second}", *(f"v1={mark}" for mark in marks)])


def states(rows: Sequence[tuple[Any, ...]]) -> list[str]:
    """The first column."""
    return [str(row[0]) for row in rows]


@pytest.fixture
async def stripe_address(clock: FixedClock) -> AsyncIterator[str]:
    """The Stripe simulator, empty, on a free loopback port."""
    async with running(create_app(None, clock=clock)) as address:
        yield address


@pytest.fixture
async def house(
    service_db: ServiceDb, vault: Vault, clock: FixedClock, ids: IdMaker, stripe_address: str
) -> AsyncIterator[House]:
    """Billing with an account that is connected to Stripe."""
    opened = await service_db("billing", pool_size=12)
    # What another test left due is none of this one's.
    async with opened.app.transaction("forget_due") as conn:
        await conn.execute("DELETE FROM due")
    provider = StripeProvider(KillPoints("billing"), api_base=stripe_address)
    neighbours = Neighbours()
    parts = Parts(
        opened.app, vault, provider, neighbours, neighbours, clock, ids, pseudonyms=HIDDEN, grace=GRACE, trace=dict
    )
    async with aiohttp.ClientSession() as http:
        built = House(
            opened.app, opened.jobs, clock, ids, ids.new(), vault, parts, neighbours, provider, http, stripe_address
        )
        await built.connect()
        yield built
    await provider.close()


@pytest.fixture
async def owner_dsn(service_db: ServiceDb) -> str:
    """The DSN of the schema's owner."""
    return (await service_db("billing")).owner_dsn.reveal()
