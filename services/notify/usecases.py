"""Owns what notify does: remembers what is to be told, tells it, and lets staff see how that went."""

from base64 import b64encode
from collections.abc import Callable
from datetime import datetime
from uuid import UUID

import aiosmtplib
import orjson
from gatefold.auth.v1 import event_pb2 as auth_event
from gatefold.billing.v1 import event_pb2 as billing_event
from gatefold.notify.v1 import webhook_pb2
from gatefold.subscriber.v1 import event_pb2 as subscriber_event

from libs import caller, due, errors, idempotency, ids
from libs.caller import Caller
from libs.clock import Clock
from libs.codecs import ResponseCodecs
from libs.due import Due
from libs.events import Event
from libs.ids import IdMaker
from libs.money import Money
from libs.postgres import Connection, Database
from libs.vault import Vault
from services.notify import domain, repository
from services.notify.clients import Directory, Letter, Mailer, WebhookSender
from services.notify.domain import Delivery, Endpoint, Mail, State

CREATE_ENDPOINT = "/gatefold.notify.v1.WebhookService/CreateWebhookEndpoint"
MAIL_JOB = "mail"
WEBHOOK_JOB = "webhook"
NO_MAIL = "challenge_over"
"""auth's answer where a mail that was asked for is not to be: nobody has the address, or it is over already."""


class TakeEvent:
    """Turns an event into the mails and deliveries it asks for, in the consumer's transaction."""

    def __init__(self, clock: Clock, make: IdMaker, wake: Callable[[], None]) -> None:
        self._clock = clock
        self._make = make
        self._wake = wake
        self._codecs = ResponseCodecs()

    async def __call__(self, conn: Connection, event: Event) -> None:
        """Runs once an event, as far as the database is concerned."""
        await self._mail(conn, event)
        if domain.is_public(event.type) and not _imported(event):
            await self._webhooks(conn, event)
        self._wake()

    async def _mail(self, conn: Connection, event: Event) -> None:
        template, challenge = "", None
        if event.type == domain.CHALLENGE_REQUESTED and isinstance(event.data, auth_event.ChallengeRequested):
            template, challenge = event.data.purpose, ids.decode("chal", event.data.challenge_id)
        elif event.type == domain.INVOICE_PAID:
            template = domain.RECEIPT
        if not template:
            return
        mail = Mail(
            id=self._make.new(),
            template=template,
            event_id=event.id,
            subject=event.subjects[0] if event.subjects else None,
            challenge=challenge,
            data=event.data.SerializeToString(),
            state=State.PENDING,
            attempts=0,
            sent_at=None,
        )
        now = self._clock.now(event.account)
        if await repository.add_mail(conn, event.account, mail, now):
            await due.schedule(conn, event.account, MAIL_JOB, mail.id, now)

    async def _webhooks(self, conn: Connection, event: Event) -> None:
        endpoints = [item for item in await repository.list_endpoints(conn, event.account) if item.wants(event.type)]
        if not endpoints:
            return
        payload = webhook_payload(self._codecs, event)
        now = self._clock.now(event.account)
        deliveries = [
            Delivery(
                id=self._make.new(),
                endpoint=endpoint.id,
                event_id=event.id,
                event_type=event.type,
                subject=event.subjects[0] if event.subjects else None,
                payload=payload,
                state=State.PENDING,
                attempts=0,
                last_status=0,
                next_attempt_at=now,
                delivered_at=None,
            )
            for endpoint in endpoints
        ]
        added = await repository.add_deliveries(conn, event.account, deliveries, now)
        await due.schedule_many(conn, event.account, WEBHOOK_JOB, added, now)


def _imported(event: Event) -> bool:
    """Whether it is about one of many readers that the publisher brought over: `import.finished` tells of them all."""
    return isinstance(event.data, subscriber_event.SubscriberCreated) and event.data.source == "import"


def webhook_payload(codecs: ResponseCodecs, event: Event) -> bytes:
    """The body of an event's webhook, with the data as the API shows it."""
    head = {
        "type": event.type,
        "timestamp": event.occurred_at.isoformat().replace("+00:00", "Z"),
        "id": ids.encode("evt", event.id),
        "sequence": event.sequence,
        "aggregate": {"type": event.aggregate[0], "id": event.aggregate_id},
        "live": event.live,
    }
    return orjson.dumps({**head, "data": orjson.Fragment(codecs.json(event.data))})


class SendMail:
    """Sends one mail that fell due."""

    def __init__(self, database: Database, directory: Directory, mailer: Mailer, clock: Clock) -> None:
        self._database = database
        self._directory = directory
        self._mailer = mailer
        self._clock = clock

    async def __call__(self, item: Due) -> None:
        """Asks whom and what, sends, records. A crash between the last two sends again under the same Message-ID."""
        async with self._database.tenant(item.account, "read_mail") as conn:
            mail = await repository.find_mail(conn, item.account, item.reference)
            if mail is None or mail.state is not State.PENDING:
                await due.finish(conn, item)
                return
        sent = False
        try:
            letter = await self._letter(item.account, mail)
            await self._mailer.send(self._mailer.render(letter, self._clock.wall()))
            sent = True
        except errors.GatefoldError as error:
            if error.reason == NO_MAIL:
                # Staff who read the list must not learn that nobody has an address, nor is anything wrong.
                async with self._database.tenant(item.account, "remove_mail") as conn:
                    await repository.remove_mail(conn, item.account, mail.id)
                    await due.finish(conn, item)
                return
            if error.kind is errors.Kind.NOT_FOUND:
                # The reader was erased or the challenge is over: there is nobody to write to any more.
                await self._record(item, mail, State.FAILED, None)
                return
            if error.kind not in (errors.Kind.UNAVAILABLE, errors.Kind.TIMEOUT):
                raise
        except (aiosmtplib.SMTPException, OSError):
            sent = False
        await self._record(item, mail, State.DONE if sent else State.PENDING, self._clock.wall() if sent else None)

    async def _record(self, item: Due, mail: Mail, state: State, sent_at: datetime | None) -> None:
        attempts = mail.attempts + 1
        again = None
        if state is State.PENDING:
            again = domain.next_try(domain.MAIL_WAITS, attempts, self._clock.now(item.account))
            state = State.PENDING if again else State.FAILED
        async with self._database.tenant(item.account, "record_mail") as conn:
            await repository.record_mail(conn, item.account, mail.id, state, attempts, sent_at)
            if again:
                await due.schedule(conn, item.account, MAIL_JOB, mail.id, again)
            else:
                await due.finish(conn, item)

    async def _letter(self, account: UUID, mail: Mail) -> Letter:
        acting = caller.service_caller("notify", account, request_id=ids.encode("mail", mail.id))
        message_id = f"<{ids.encode('mail', mail.id)}@{self._mailer.domain}>"
        if mail.challenge is not None:
            said = await self._directory.challenge(acting, mail.challenge)
            values = {
                "name": said.name,
                "publication": said.publication,
                "link": said.link,
                "expires_at": said.expires_at.ToDatetime(),
                "code": said.code,
                "details": dict(said.details),
            }
            return Letter(message_id, said.email, said.purpose, values)
        if mail.subject is None:
            raise errors.not_found("contact_unknown", "The mail has no recipient.")
        contact = await self._directory.contact(acting, mail.subject)
        paid = billing_event.InvoicePaid.FromString(mail.data)
        values = {
            "name": contact.name,
            "publication": await self._directory.publication(acting),
            "number": paid.number,
            "description": paid.description,
            "total": str(Money(paid.total.amount_minor, paid.total.currency)),
            "period_end": paid.period_end.ToDatetime(),
        }
        return Letter(message_id, contact.email, mail.template, values)


class DeliverWebhook:
    """Delivers one webhook that fell due."""

    def __init__(self, database: Database, vault: Vault, sender: WebhookSender, clock: Clock) -> None:
        self._database = database
        self._vault = vault
        self._sender = sender
        self._clock = clock

    async def __call__(self, item: Due) -> None:
        """Posts, then records: delivered, tried again by the schedule, or given up."""
        async with self._database.tenant(item.account, "read_delivery") as conn:
            delivery = await repository.find_delivery(conn, item.account, item.reference)
            endpoint = await repository.find_endpoint(conn, item.account, delivery.endpoint) if delivery else None
            if delivery is None or endpoint is None or delivery.state is not State.PENDING:
                await due.finish(conn, item)
                return
            if endpoint.disabled_at is not None:
                # It was stopped while this delivery was being added or on its way.
                await repository.disable_endpoint(conn, item.account, endpoint.id, endpoint.disabled_at)
                await due.finish(conn, item)
                return
        secret = await signing_secret(self._vault, item.account, endpoint.id)
        message_id = ids.encode("whd", delivery.id)
        status = await self._sender.post(endpoint.url, message_id, delivery.payload, [secret], self._clock.wall())
        attempts = delivery.attempts + 1
        now = self._clock.now(item.account)
        again = (
            None if domain.took(status) or domain.gone(status) else domain.next_try(domain.WEBHOOK_WAITS, attempts, now)
        )
        state = State.DONE if domain.took(status) else State.PENDING if again else State.FAILED
        async with self._database.tenant(item.account, "record_delivery") as conn:
            if domain.gone(status):
                # The endpoint's lock first: two deliveries that hear 410 at once must not wait for each other.
                await repository.disable_endpoint(conn, item.account, endpoint.id, now)
            await repository.record_delivery(
                conn,
                item.account,
                delivery.id,
                state=state,
                attempts=attempts,
                last_status=status,
                next_attempt_at=again,
                delivered_at=now if state is State.DONE else None,
            )
            if again:
                await due.schedule(conn, item.account, WEBHOOK_JOB, delivery.id, again)
            else:
                await due.finish(conn, item)


class Webhooks:
    """What a publisher does with endpoints, and sees of deliveries and mails."""

    def __init__(self, database: Database, vault: Vault, clock: Clock, make: IdMaker) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock
        self._make = make

    async def create_endpoint(self, acting: Caller, url: str, event_types: tuple[str, ...]) -> tuple[Endpoint, str]:
        """Adds an endpoint; answers it with its signing secret, which is shown this once."""
        account = acting.require_account()
        if acting.live and not url.startswith("https://"):
            raise errors.invalid(
                "webhook_url_insecure", "A live account's webhooks go to https addresses.", field="url"
            )
        request = webhook_pb2.CreateWebhookEndpointRequest(url=url, event_types=event_types)
        async with self._database.tenant(account, "create_webhook_endpoint") as conn:
            claim = await idempotency.claim(conn, acting, CREATE_ENDPOINT, request, clock=self._clock)
            if claim.replay is not None:
                identifier = ids.decode("wh", webhook_pb2.WebhookEndpoint.FromString(claim.replay).id)
                endpoint = await self._found(conn, account, identifier)
            else:
                endpoint = Endpoint(self._make.new(), url, event_types, self._clock.now(account), None)
                await repository.add_endpoint(conn, account, endpoint)
                answer = webhook_pb2.WebhookEndpoint(id=ids.encode("wh", endpoint.id))
                await idempotency.record(conn, acting, CREATE_ENDPOINT, answer)
        return endpoint, await signing_secret(self._vault, account, endpoint.id)

    async def list_endpoints(self, acting: Caller) -> list[Endpoint]:
        """All endpoints, newest first."""
        account = acting.require_account()
        async with self._database.tenant(account, "list_webhook_endpoints") as conn:
            return await repository.list_endpoints(conn, account)

    async def disable_endpoint(self, acting: Caller, endpoint: UUID) -> Endpoint:
        """Stops an endpoint."""
        account = acting.require_account()
        async with self._database.tenant(account, "disable_webhook_endpoint") as conn:
            await repository.disable_endpoint(conn, account, endpoint, self._clock.now(account))
            return await self._found(conn, account, endpoint)

    async def list_deliveries(self, acting: Caller, before: UUID, limit: int) -> list[Delivery]:
        """Deliveries older than `before`, newest first."""
        account = acting.require_account()
        async with self._database.tenant(account, "list_webhook_deliveries") as conn:
            return await repository.list_deliveries(conn, account, before, limit)

    async def list_mails(self, acting: Caller, before: UUID, limit: int) -> list[Mail]:
        """Mails older than `before`, newest first."""
        account = acting.require_account()
        async with self._database.tenant(account, "list_mails") as conn:
            return await repository.list_mails(conn, account, before, limit)

    async def _found(self, conn: Connection, account: UUID, endpoint: UUID) -> Endpoint:
        found = await repository.find_endpoint(conn, account, endpoint)
        if found is None:
            raise errors.not_found("webhook_endpoint_not_found", "There is no such webhook endpoint.")
        return found


async def signing_secret(vault: Vault, account: UUID, endpoint: UUID) -> str:
    """An endpoint's secret, `whsec_` and 32 bytes in base64: made from the account's key, so that none is stored."""
    sign = await vault.signer(account, "webhook")
    return "whsec_" + b64encode(sign(endpoint.bytes)).decode()
