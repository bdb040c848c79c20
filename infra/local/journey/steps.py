"""Owns the reader's journey: what staff, reader and platform do over HTTP, one step after the other."""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from infra.local.journey.client import Api, JourneyError
from infra.local.journey.receiver import WebhookReceiver
from libs.money import exponent

OPERATOR = "operator@gatefold.example"
OWNER = "owner@gatefold.example"
READER = "reader@example.com"
PASSWORD = "a passphrase for the local journey"  # noqa: S105 - of a stack that lives for a minute on loopback
READER_URL = "https://news.example/account"
ORIGIN = "https://news.example"
FEATURE = "premium"
PRICE_MINOR = 900
MONTH_SECONDS = 32 * 86_400
WAIT_SECONDS = 60.0
POLL_SECONDS = 0.15
ALREADY_DONE = frozenset({"token_spent", "member_exists"})
"""Reasons that mean success where an earlier try had no answer: what works once has worked."""


class Mailbox(Protocol):
    """Where the journey reads the mails that were sent."""

    async def wait(self, to: str, subject: str, seconds: float) -> str:
        """Returns the text of the newest mail to an address whose subject begins so; raises TimeoutError."""
        ...


@dataclass(frozen=True)
class Scene:
    """Where the journey plays."""

    gateway: str
    stripe: str
    stripe_secret_key: str
    stripe_publishable_key: str
    bootstrap_token: str
    members: Path
    expected: Path
    operator_password: str = PASSWORD
    owner_password: str = PASSWORD


@dataclass
class Cast:
    """What the steps learn on the way."""

    operator: str = ""
    account: str = ""
    test_account: str = ""
    staff: str = ""
    secret_key: str = ""
    publishable_key: str = ""
    price: str = ""
    connection: str = ""
    reader: str = ""
    reader_token: str = ""
    checkout: dict[str, Any] = field(default_factory=dict)
    subscription: str = ""


Step = Callable[[], Awaitable[str]]


class Journey:
    """The steps, each answering one line about what came back."""

    def __init__(
        self, scene: Scene, api: Api, stripe: Api, mailbox: Mailbox, receiver: WebhookReceiver, *, name: str = "journey"
    ) -> None:
        self._scene = scene
        self._api = api
        self._stripe = stripe
        self._mailbox = mailbox
        self._receiver = receiver
        self._name = name
        self._browser_secret = ""
        self.cast = Cast()

    def setting_up(self) -> list[tuple[str, Step]]:
        """What publisher and operator do before the first reader comes."""
        return [
            ("operator signs in for the first time", self.bootstrap),
            ("operator opens an account", self.open_account),
            ("owner accepts the invitation from the mail", self.accept_invitation),
            ("owner signs in to the test account", self.sign_in_staff),
            ("owner makes API keys", self.make_keys),
            ("staff add site, product, plan and price", self.build_catalogue),
            ("staff connect Stripe", self.connect_stripe),
            ("developer adds a webhook endpoint", self.add_webhook),
        ]

    def reading(self) -> list[tuple[str, Step]]:
        """What happens with a reader."""
        return [
            ("staff import their readers", self.import_readers),
            ("a reader registers", self.register),
            ("the reader confirms the address", self.verify),
            ("the reader signs in", self.sign_in),
            ("the paywall refuses", self.refused),
            ("the reader begins a checkout", self.begin_checkout),
            ("a card is declined", self.declined_card),
            ("3-D Secure is left, then another card pays", self.pay),
            ("Stripe's webhook completes the checkout", self.complete),
            ("the paywall lets the reader in", self.let_in),
            ("the receipt arrives", self.receipt),
            ("the publisher's server gets signed webhooks", self.webhooks),
            ("staff see the reader, the subscription and the money", self.staff_see),
            ("a month passes: the subscription renews", self.renew),
        ]

    async def run(self, steps: list[tuple[str, Step]], say: Callable[[str], None]) -> None:
        """Does the steps in order; raises JourneyError naming the one that failed."""
        for name, step in steps:
            began = time.monotonic()
            try:
                said = await step()
            except TimeoutError:
                raise JourneyError(f"{name}: what should have come did not") from None
            except JourneyError as error:
                raise JourneyError(f"{name}: {error}") from None
            say(f"  {name:<55} {said}  ({time.monotonic() - began:.1f} s)")

    async def bootstrap(self) -> str:
        """The one-time token makes the operator, who then signs in."""
        body = {
            "token": self._scene.bootstrap_token,
            "email": OPERATOR,
            "name": "Operator",
            "password": self._scene.operator_password,
        }
        await self._once("POST", "/v1/operators/bootstrap", json=body)
        proof = {"email": OPERATOR, "password": self._scene.operator_password}
        tokens = await self._api.ok("POST", "/v1/staff/sessions", json=proof)
        self.cast.operator = tokens["access_token"]
        return str(tokens["principal_id"])

    async def open_account(self) -> str:
        """Live and test account come into being together."""
        body = {"name": "The Local Paper", "owner_email": OWNER, "time_zone": "Europe/Paris", "reader_url": READER_URL}
        account = await self._api.ok(
            "POST", "/v1/accounts", token=self.cast.operator, key=self._key("account"), json=body
        )
        self.cast.account, self.cast.test_account = account["id"], account["sibling_id"]
        return f"{account['name']}: {account['id']}"

    async def accept_invitation(self) -> str:
        """The invitation's link carries the token."""
        token = token_of(await self._mailbox.wait(OWNER, "You are invited", WAIT_SECONDS))
        body = {"token": token, "name": "Owner", "password": self._scene.owner_password}
        answer = await self._once("POST", "/v1/invitations/accept", json=body)
        return f"role {answer['role']}" if answer else "accepted"

    async def sign_in_staff(self) -> str:
        """The owner works in the test account."""
        body = {"email": OWNER, "password": self._scene.owner_password, "account_id": self.cast.test_account}
        tokens = await self._api.ok("POST", "/v1/staff/sessions", json=body)
        self.cast.staff = tokens["access_token"]
        return f"{tokens['principal_id']} in {tokens['account_id']}"

    async def make_keys(self) -> str:
        """A secret key for servers, a publishable one for browsers."""
        shown = []
        for kind in ("secret", "publishable"):
            body = {"kind": kind, "name": f"{kind} key"}
            key = self._key(f"{kind}-key")
            made = await self._api.ok("POST", "/v1/api_keys", token=self.cast.staff, key=key, json=body)
            setattr(self.cast, f"{kind}_key", made["secret"])
            shown.append(f"{made['api_key']['prefix']}…{made['api_key']['last_four']}")
        return " and ".join(shown)

    async def build_catalogue(self) -> str:
        """One product with one monthly price."""
        await self._write("/v1/sites", "site", {"name": "Site", "origin": ORIGIN})
        product = await self._write("/v1/products", "product", {"name": "Digital", "features": [FEATURE]})
        plan_body = {"product_id": product["id"], "name": "Monthly", "interval": "month"}
        plan = await self._write("/v1/plans", "plan", plan_body)
        amount = {"amount_minor": PRICE_MINOR, "currency": "EUR"}
        price = await self._write("/v1/prices", "price", {"plan_id": plan["id"], "amount": amount})
        self.cast.price = price["id"]
        offers = await self._api.ok("GET", "/v1/offers", token=self.cast.publishable_key)
        offer = offers["data"][0]
        return f"{offer['product']['name']}, {offer['plan']['name']}: {_shown(offer['price']['amount'])}"

    async def connect_stripe(self) -> str:
        """Stripe's webhook endpoint is made first, for its signing secret, and then pointed at the connection."""
        secret = self._scene.stripe_secret_key
        endpoint = await self._stripe.ok(
            "POST",
            "/v1/webhook_endpoints",
            token=secret,
            key=self._key("endpoint"),
            form={"url": f"{self._scene.gateway}/v1/webhooks/stripe/pending", "enabled_events[0]": "*"},
        )
        body = {
            "publishable_key": self._scene.stripe_publishable_key,
            "secret_key": secret,
            "webhook_secret": endpoint["secret"],
        }
        made = await self._api.ok(
            "POST", "/v1/payment_connections", token=self.cast.staff, key=self._key("connection"), json=body
        )
        self.cast.connection = made["id"]
        await self._stripe.ok(
            "POST",
            f"/v1/webhook_endpoints/{endpoint['id']}",
            token=secret,
            form={"url": self._scene.gateway + made["webhook_path"]},
        )
        return f"{made['id']} to {made['provider_account']}"

    async def add_webhook(self) -> str:
        """The endpoint's secret is shown once."""
        made = await self._api.ok(
            "POST",
            "/v1/webhook_endpoints",
            token=self.cast.secret_key,
            key=self._key("webhook"),
            json={"url": self._receiver.url},
        )
        self._receiver.trust(made["secret"])
        return f"{made['endpoint']['id']}"

    async def import_readers(self) -> str:
        """Ten thousand members with all the dirt of a real export."""
        content = self._scene.members.read_bytes()
        started = await self._api.ok(
            "POST",
            "/v1/imports",
            token=self.cast.staff,
            key=self._key("import"),
            content=content,
            content_type="text/csv",
        )

        async def finished() -> Any:
            found = await self._api.ok("GET", f"/v1/imports/{started['id']}", token=self.cast.staff)
            return found if found["state"] in ("done", "failed") else None

        done = await self._until(finished)
        expected = json.loads(self._scene.expected.read_text())
        for name in ("total", "created", "updated", "unchanged", "duplicates", "refused"):
            if done[name] != expected[name]:
                raise JourneyError(f"import: {name} is {done[name]}, should be {expected[name]}")
        parts = sum(done[name] for name in ("created", "updated", "unchanged", "duplicates", "refused"))
        if parts != done["total"]:
            raise JourneyError(f"import: {parts} is not {done['total']}")
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(done["refused_by_reason"].items()))
        return (
            f"{done['total']} = {done['created']} new + {done['duplicates']} twice "
            f"+ {done['refused']} refused ({reasons})"
        )

    async def register(self) -> str:
        """The answer says nothing; the mail does."""
        body = {"email": READER, "password": PASSWORD, "name": "Ré Ader"}
        answer = await self._api.ok(
            "POST", "/v1/registrations", token=self.cast.publishable_key, key=self._key("registration"), json=body
        )
        self._browser_secret = str(answer["browser_secret"])
        return "accepted"

    async def verify(self) -> str:
        """The link's token proves the mailbox."""
        token = token_of(await self._mailbox.wait(READER, "Confirm your address", WAIT_SECONDS))
        path = "/v1/registrations/verify"
        body = {"token": token, "browser_secret": self._browser_secret}
        answer = await self._once("POST", path, token=self.cast.publishable_key, json=body)
        return str(answer["subject_id"]) if answer else "confirmed"

    async def sign_in(self) -> str:
        """From now on the reader's own token is used."""
        body = {"email": READER, "password": PASSWORD}
        tokens = await self._api.ok("POST", "/v1/sessions", token=self.cast.publishable_key, json=body)
        self.cast.reader, self.cast.reader_token = tokens["principal_id"], tokens["access_token"]
        return f"{tokens['principal_id']}, token for {tokens['expires_in']} s"

    async def refused(self) -> str:
        """No entitlement yet."""
        answer = await self._access()
        if answer["allowed"]:
            raise JourneyError("the paywall let a reader in who has not paid")
        return str(answer["reason"])

    async def begin_checkout(self) -> str:
        """Subscription, invoice and payment exist; the browser holds the client secret."""
        self.cast.checkout = await self._api.ok(
            "POST",
            "/v1/checkouts",
            token=self.cast.reader_token,
            key=self._key("checkout"),
            json={"price_id": self.cast.price},
        )

        async def prepared() -> Any:
            self.cast.checkout = await self._checkout()
            return self.cast.checkout["client_secret"]

        await self._until(prepared)
        self.cast.subscription = self.cast.checkout["subscription_id"]
        return f"{self.cast.checkout['id']}, {_shown(self.cast.checkout['amount_due'])} due"

    async def declined_card(self) -> str:
        """The bank says no; the checkout says so and stays open."""
        answer = await self._confirm("pm_card_chargeDeclined")
        if answer.status != 402:
            raise JourneyError(f"the declined card was answered {answer.status}")

        async def told() -> Any:
            found = await self._checkout()
            return found if found["last_error_reason"] else None

        found = await self._until(told)
        return f"{found['last_error_reason']}: {found['decline_code']}, still {found['state']}"

    async def pay(self) -> str:
        """The bank asks for a proof, the reader walks away from it, and takes another card."""
        asked = await self._confirm("pm_card_threeDSecure2Required")
        if asked.status != 200 or asked.body["status"] not in ("requires_action", "succeeded"):
            raise JourneyError(f"3-D Secure was answered {asked.status} {asked.body}")
        intent = intent_of(self.cast.checkout)
        await self._stripe.call("POST", f"/_sim/authenticate/{intent}?outcome=fail", form={})
        paid = await self._confirm("pm_card_visa")
        if paid.status != 200 or paid.body["status"] != "succeeded":
            raise JourneyError(f"the good card was answered {paid.status} {paid.body}")
        return f"{asked.body['status']}, then {paid.body['status']}"

    async def complete(self) -> str:
        """What Stripe says is what counts, never what the browser says."""

        async def done() -> Any:
            found = await self._checkout()
            return found if found["state"] == "complete" else None

        found = await self._until(done)
        return f"{found['state']}, {found['subscription_id']}"

    async def let_in(self) -> str:
        """The entitlement came by event."""

        async def allowed() -> Any:
            answer = await self._access()
            return answer if answer["allowed"] else None

        answer = await self._until(allowed)
        return f"{answer['reason']} until {answer['until']}"

    async def receipt(self) -> str:
        """A mail with what was paid."""
        text = await self._mailbox.wait(READER, "Your receipt", WAIT_SECONDS)
        paid = re.search(r"^Paid\s+(.*)$", text, re.MULTILINE)
        if paid is None:
            raise JourneyError("the receipt says no amount")
        return paid.group(1)

    async def webhooks(self) -> str:
        """Signed by the Standard Webhooks specification."""
        await self._receiver.wait("invoice.paid", WAIT_SECONDS)
        await self._receiver.wait("subscription.activated", WAIT_SECONDS)
        if self._receiver.forged:
            raise JourneyError(f"{self._receiver.forged} webhooks had a bad signature")
        return f"{len(self._receiver.events)} verified"

    async def staff_see(self) -> str:
        """One reader, one subscription, one paid invoice, and books that balance."""
        found = await self._api.ok("GET", f"/v1/subscribers?email={READER}", token=self.cast.staff)
        subscriptions = await self._api.ok(
            "GET", f"/v1/subscriptions?subscriber_id={self.cast.reader}", token=self.cast.staff
        )
        invoices = await self._invoices()
        counts = [len(found["data"]), len(subscriptions["data"]), len(invoices)]
        if counts != [1, 1, 1] or found["data"][0]["features"] != [FEATURE] or invoices[0]["state"] != "paid":
            raise JourneyError(
                f"staff see {counts} readers, subscriptions, invoices: {found} {subscriptions} {invoices}"
            )
        return f"{subscriptions['data'][0]['state']}, invoice {invoices[0]['number']} paid, {await self._books(1)}"

    async def renew(self) -> str:
        """The account's clock is moved, and everything that falls due is worked off."""
        before = await self._invoices()
        if len(before) == 1:
            body = {"seconds": MONTH_SECONDS}
            await self._api.ok(
                "POST", "/v1/test_clock/advance", token=self.cast.secret_key, key=self._key("month"), json=body
            )

        async def renewed() -> Any:
            found = await self._invoices()
            return found if len(found) >= 2 and all(item["state"] == "paid" for item in found) else None

        invoices = await self._until(renewed)
        return f"invoice {invoices[0]['number']} paid, {await self._books(len(invoices))}"

    async def _books(self, invoices: int) -> str:
        balances = (await self._api.ok("GET", "/v1/ledger/balances", token=self.cast.staff))["data"]
        debits = sum(row["debits"]["amount_minor"] for row in balances)
        credited = sum(row["credits"]["amount_minor"] for row in balances)
        if debits != credited or debits == 0:
            raise JourneyError(f"the books do not balance: {balances}")
        received = sum(
            row["debits"]["amount_minor"] for row in balances if row["ledger_account"] == "processor_receivable"
        )
        if received != invoices * PRICE_MINOR:
            raise JourneyError(f"{received} received for {invoices} invoices of {PRICE_MINOR}")
        return f"books balance at {debits}"

    async def _invoices(self) -> list[Any]:
        path = f"/v1/invoices?subscription_id={self.cast.subscription}"
        return list((await self._api.ok("GET", path, token=self.cast.staff))["data"])

    async def _access(self) -> Any:
        return await self._api.ok("GET", f"/v1/access?feature={FEATURE}", token=self.cast.reader_token)

    async def _checkout(self) -> Any:
        return await self._api.ok("GET", f"/v1/checkouts/{self.cast.checkout['id']}", token=self.cast.reader_token)

    async def _confirm(self, card: str) -> Any:
        """What Elements does in the browser."""
        secret, intent = self.cast.checkout["client_secret"], intent_of(self.cast.checkout)
        form = {"client_secret": secret, "payment_method": card, "return_url": READER_URL}
        return await self._stripe.call(
            "POST", f"/v1/payment_intents/{intent}/confirm", token=self.cast.checkout["publishable_key"], form=form
        )

    async def _write(self, path: str, name: str, body: dict[str, Any]) -> Any:
        return await self._api.ok("POST", path, token=self.cast.secret_key, key=self._key(name), json=body)

    async def _once(self, method: str, path: str, **options: Any) -> Any:
        """For what works only once: a refusal after an unanswered try means that the try had worked."""
        answer = await self._api.call(method, path, **options)
        if answer.status < 400:
            return answer.body
        if answer.uncertain and answer.reason in ALREADY_DONE:
            return None
        raise JourneyError(f"{method} {path} answered {answer.status}: {answer.body}")

    def _key(self, name: str) -> str:
        return f"{self._name}-{name}"

    @staticmethod
    async def _until(ask: Callable[[], Awaitable[Any]]) -> Any:
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                found = await ask()
                if found:
                    return found
                await asyncio.sleep(POLL_SECONDS)


def _shown(amount: dict[str, Any]) -> str:
    """Returns an amount as people read it, `9.00 EUR`."""
    decimals = exponent(amount["currency"])
    whole, part = divmod(int(amount["amount_minor"]), 10**decimals)
    return f"{whole}.{part:0{decimals}} {amount['currency']}" if decimals else f"{whole} {amount['currency']}"


def intent_of(checkout: dict[str, Any]) -> str:
    """Returns the PaymentIntent that a checkout's client secret belongs to."""
    return str(checkout["client_secret"]).split("_secret_")[0]


def token_of(mail: str) -> str:
    """Returns the one-time token of the link in a mail."""
    found = re.search(r"[?&]token=([A-Za-z0-9_.~-]+)", mail)
    if found is None:
        raise JourneyError("the mail has no link with a token")
    return found.group(1)
