"""Mails and webhooks from event to receiver on real stores: once, again when refused, given up in the end."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from email.message import EmailMessage
from uuid import UUID

import aiosmtplib
import pytest
from gatefold.auth.v1 import event_pb2 as auth_event
from gatefold.billing.v1 import event_pb2 as billing_event
from gatefold.notify.v1 import webhook_pb2
from gatefold.subscriber.v1 import event_pb2 as subscriber_event
from google.protobuf.message import Message
from standardwebhooks.webhooks import Webhook

from libs import caller, due
from libs import ids as prefixed
from libs.caller import Caller, CallerKind
from libs.clock import FixedClock
from libs.due import BEFORE_ALL, DueWorker
from libs.errors import GatefoldError, Kind
from libs.events import Event
from libs.ids import IdMaker
from libs.vault import Vault
from services.notify import domain, repository, servicer, usecases
from services.notify.__main__ import PERSONAL_TABLES
from services.notify.clients import Directory, Mailer, WebhookSender
from services.notify.domain import Delivery, Mail, State
from services.notify.repository import NEWEST
from tests.conftest import ServiceDb
from tests.integration.services.notify.conftest import MailServer, Neighbours, Publisher
from tests.support.stores import ServiceDatabase

SECRET = "whsec_" + "A" * 44


@pytest.fixture
async def database(service_db: ServiceDb) -> ServiceDatabase:
    return await service_db("notify")


@pytest.fixture
async def sender() -> AsyncIterator[WebhookSender]:
    sender = WebhookSender(allow_private=True, timeout_seconds=5)
    yield sender
    await sender.close()


class Notify:
    """Notify's use cases on one account."""

    def __init__(
        self,
        database: ServiceDatabase,
        vault: Vault,
        clock: FixedClock,
        make: IdMaker,
        directory: Directory,
        mailer: Mailer,
        sender: WebhookSender,
    ) -> None:
        self.account = make.new()
        self.clock = clock
        self.make = make
        self.app = database.app
        self.webhooks = usecases.Webhooks(database.app, vault, clock, make)
        self.caller = Caller(kind=CallerKind.SECRET_KEY, actor="key_1", account=self.account, live=False)
        self._take = usecases.TakeEvent(clock, make, lambda: None)
        self._worker = DueWorker(
            database.jobs,
            clock,
            {
                usecases.MAIL_JOB: usecases.SendMail(database.app, directory, mailer, clock),
                usecases.WEBHOOK_JOB: usecases.DeliverWebhook(database.app, vault, sender, clock),
            },
            logging.getLogger("test"),
            per_account=8,
        )

    def event(self, kind: str, data: Message, *, subject: UUID | None = None) -> Event:
        return Event(
            id=self.make.new(),
            type=kind,
            account=self.account,
            aggregate=("invoice", self.make.new()),
            sequence=1,
            occurred_at=self.clock.wall(),
            recorded_at=self.clock.wall(),
            actor="service:billing",
            data=data,
            subjects=(subject,) if subject else (),
            live=False,
        )

    def paid(self) -> Event:
        data = billing_event.InvoicePaid(number="000001", description="Digital, monthly")
        data.total.amount_minor, data.total.currency = 900, "EUR"
        data.period_end.FromDatetime(self.clock.wall() + timedelta(days=30))
        return self.event("invoice.paid", data, subject=self.make.new())

    async def take(self, event: Event) -> None:
        async with self.app.tenant(self.account, "take") as conn:
            await self._take(conn, event)

    async def work(self) -> int:
        """Works off what is due now; returns how much that was."""
        items, _ = await self._worker.claim(BEFORE_ALL)
        for item in items:
            await self._worker._handle(item)
        return len(items)

    async def work_at_once(self) -> None:
        """Works off what is due now, all at the same time."""
        while items := (await self._worker.claim(BEFORE_ALL))[0]:
            await asyncio.gather(*(self._worker._handle(item) for item in items))

    async def mails(self) -> list[Mail]:
        async with self.app.tenant(self.account, "read") as conn:
            return await repository.list_mails(conn, self.account, NEWEST, 10)

    async def deliveries(self) -> list[Delivery]:
        async with self.app.tenant(self.account, "read") as conn:
            return await repository.list_deliveries(conn, self.account, NEWEST, 10)


@pytest.fixture
async def notify(
    database: ServiceDatabase,
    vault: Vault,
    clock: FixedClock,
    ids: IdMaker,
    directory: Directory,
    mailer: Mailer,
    sender: WebhookSender,
) -> AsyncIterator[Notify]:
    made = Notify(database, vault, clock, ids, directory, mailer, sender)
    yield made
    async with database.app.tenant(made.account, "clean") as conn:
        await conn.execute("DELETE FROM due WHERE account_id = $1", made.account)


async def test_a_paid_invoice_becomes_one_receipt_however_often_it_is_told(
    notify: Notify, mail_server: tuple[MailServer, int]
) -> None:
    event = notify.paid()
    for _ in range(3):
        await notify.take(event)
    assert await notify.work() == 1
    (mail,) = mail_server[0].taken
    assert mail["To"] == "ada@example.com"
    assert mail["Subject"] == "Your receipt 000001 from The Daily"
    assert "9.00 EUR" in mail.get_body(("plain",)).get_content()  # type: ignore[union-attr]
    (kept,) = await notify.mails()
    assert kept.state is State.DONE
    assert mail["Message-ID"] == f"<{prefixed.encode('mail', kept.id)}@daily.example>"
    assert await notify.work() == 0


async def test_what_was_sent_is_not_sent_again_though_it_falls_due_once_more(
    notify: Notify, mail_server: tuple[MailServer, int], publisher: Publisher
) -> None:
    await notify.webhooks.create_endpoint(notify.caller, publisher.url, ())
    await notify.take(notify.paid())
    await notify.work()
    (mail,), (delivery,) = await notify.mails(), await notify.deliveries()
    async with notify.app.tenant(notify.account, "again") as conn:
        await due.schedule(conn, notify.account, usecases.MAIL_JOB, mail.id, notify.clock.wall())
        await due.schedule(conn, notify.account, usecases.WEBHOOK_JOB, delivery.id, notify.clock.wall())
    assert await notify.work() == 2
    assert (len(mail_server[0].taken), len(publisher.got)) == (1, 1)


async def test_a_challenge_becomes_its_mail_and_no_webhook(
    notify: Notify, mail_server: tuple[MailServer, int], publisher: Publisher
) -> None:
    await notify.webhooks.create_endpoint(notify.caller, publisher.url, ())
    challenge = prefixed.encode("chal", notify.make.new())
    data = auth_event.ChallengeRequested(challenge_id=challenge, purpose="verify_registration")
    await notify.take(notify.event("challenge.requested", data))
    await notify.work()
    (mail,) = mail_server[0].taken
    assert challenge in mail.get_body(("plain",)).get_content()  # type: ignore[union-attr]
    assert publisher.got == []
    assert await notify.deliveries() == []


async def test_no_trace_is_left_of_a_mail_that_nobody_is_to_get(
    notify: Notify, mail_server: tuple[MailServer, int], neighbours: Neighbours
) -> None:
    neighbours.challenge = "challenge_over"
    data = auth_event.ChallengeRequested(
        challenge_id=prefixed.encode("chal", notify.make.new()), purpose="reset_password"
    )
    await notify.take(notify.event("challenge.requested", data))
    assert await notify.work() == 1
    assert await notify.mails() == []
    assert await notify.work() == 0
    assert mail_server[0].taken == []


async def test_a_mail_that_came_too_late_has_failed(
    notify: Notify, mail_server: tuple[MailServer, int], neighbours: Neighbours
) -> None:
    neighbours.challenge = "challenge_expired"
    data = auth_event.ChallengeRequested(
        challenge_id=prefixed.encode("chal", notify.make.new()), purpose="reset_password"
    )
    await notify.take(notify.event("challenge.requested", data))
    await notify.work()
    assert [item.state for item in await notify.mails()] == [State.FAILED]


async def test_a_refused_mail_is_tried_again_by_the_schedule_and_then_given_up(
    notify: Notify, mail_server: tuple[MailServer, int], clock: FixedClock
) -> None:
    mail_server[0].refuses = True
    await notify.take(notify.paid())
    for wait in domain.MAIL_WAITS:
        assert await notify.work() == 1
        assert await notify.work() == 0
        clock.advance(wait)
    await notify.work()
    (mail,) = await notify.mails()
    assert (mail.state, mail.attempts) == (State.FAILED, len(domain.MAIL_WAITS) + 1)
    assert mail_server[0].taken == []


async def test_a_refused_mail_goes_out_once_the_server_takes_it(
    notify: Notify, mail_server: tuple[MailServer, int], clock: FixedClock
) -> None:
    mail_server[0].refuses = True
    await notify.take(notify.paid())
    await notify.work()
    mail_server[0].refuses = False
    clock.advance(domain.MAIL_WAITS[0])
    await notify.work()
    assert len(mail_server[0].taken) == 1


@pytest.mark.parametrize("away", [Kind.UNAVAILABLE, Kind.TIMEOUT])
async def test_a_mail_waits_while_the_one_who_knows_the_address_is_away(
    notify: Notify, mail_server: tuple[MailServer, int], neighbours: Neighbours, clock: FixedClock, away: Kind
) -> None:
    neighbours.away = away
    await notify.take(notify.paid())
    await notify.work()
    assert [(item.state, item.attempts) for item in await notify.mails()] == [(State.PENDING, 1)]
    neighbours.away = None
    clock.advance(domain.MAIL_WAITS[0])
    await notify.work()
    assert len(mail_server[0].taken) == 1


async def test_no_mail_goes_over_an_open_line_when_tls_is_asked_for(mail_server: tuple[MailServer, int]) -> None:
    kept, port = mail_server
    strict = Mailer("127.0.0.1", port, "mail@daily.example", username="", password=None, start_tls=True)
    message = EmailMessage()
    message["From"], message["To"] = "mail@daily.example", "ada@example.com"
    with pytest.raises(aiosmtplib.SMTPException):
        await strict.send(message)
    assert kept.taken == []


async def test_nobody_is_written_to_who_was_erased(
    notify: Notify, mail_server: tuple[MailServer, int], neighbours: Neighbours
) -> None:
    neighbours.erased = True
    await notify.take(notify.paid())
    await notify.work()
    assert mail_server[0].taken == []
    assert [item.state for item in await notify.mails()] == [State.FAILED]


async def test_a_webhook_is_signed_by_the_specification_and_says_what_happened(
    notify: Notify, publisher: Publisher, sender: WebhookSender, vault: Vault, database: ServiceDatabase
) -> None:
    endpoint, secret = await notify.webhooks.create_endpoint(notify.caller, publisher.url, ("invoice.paid",))
    event = notify.paid()
    for _ in range(2):
        await notify.take(event)
    # The signature's own clock is the wall's: the specification refuses what is older than five minutes.
    assert await notify.work() == 2
    ((headers, body),) = publisher.got
    assert headers["webhook-id"].startswith("whd_")
    expected = Webhook(secret).sign(headers["webhook-id"], notify.clock.wall(), body.decode())
    assert headers["webhook-signature"] == expected
    assert headers["webhook-timestamp"] == str(int(notify.clock.wall().timestamp()))
    said = json.loads(body)
    assert said["type"] == "invoice.paid"
    assert said["id"] == prefixed.encode("evt", event.id)
    assert said["live"] is False
    assert said["data"]["total"] == {"amount_minor": 900, "currency": "EUR"}
    (delivery,) = await notify.deliveries()
    assert delivery.state is State.DONE
    # By its subject an erasure finds it.
    assert (delivery.subject,) == event.subjects
    assert endpoint.url == publisher.url


async def test_each_endpoint_has_a_secret_of_its_own(notify: Notify, publisher: Publisher) -> None:
    made = [await notify.webhooks.create_endpoint(notify.caller, publisher.url, ()) for _ in range(2)]
    assert len({secret for _, secret in made}) == 2


async def test_erasure_knows_every_table_that_names_a_reader(database: ServiceDatabase) -> None:
    async with database.app.transaction("read_schema", read_only=True) as conn:
        rows = await conn.fetch(
            """
            SELECT table_name FROM information_schema.columns
            WHERE column_name = 'subject_id' AND table_name IN ('mail', 'webhook_endpoint', 'webhook_delivery')
            """
        )
    assert {row["table_name"] for row in rows} == {table.name for table in PERSONAL_TABLES}


async def test_an_endpoint_gets_only_what_it_asked_for(notify: Notify, publisher: Publisher) -> None:
    await notify.webhooks.create_endpoint(notify.caller, publisher.url, ("subscription.renewed",))
    await notify.take(notify.paid())
    await notify.work()
    assert publisher.got == []


async def test_imported_readers_are_told_of_together_and_not_one_by_one(notify: Notify, publisher: Publisher) -> None:
    await notify.webhooks.create_endpoint(notify.caller, publisher.url, ())
    for source in ("import", "api"):
        data = subscriber_event.SubscriberCreated(subscriber_id="subj_1", source=source)
        await notify.take(notify.event("subscriber.created", data))
    await notify.work()
    assert [json.loads(body)["data"]["source"] for _, body in publisher.got] == ["api"]


@pytest.mark.parametrize("status", [302, 404, 500])
async def test_what_is_not_taken_is_delivered_again_with_the_same_id_until_it_is_given_up(
    notify: Notify, publisher: Publisher, clock: FixedClock, status: int
) -> None:
    publisher.status = status
    await notify.webhooks.create_endpoint(notify.caller, publisher.url, ())
    data = subscriber_event.SubscriberUpdated(subscriber_id="subj_1")
    await notify.take(notify.event("subscriber.updated", data))
    for wait in domain.WEBHOOK_WAITS:
        assert await notify.work() == 1
        (delivery,) = await notify.deliveries()
        assert delivery.next_attempt_at == clock.wall() + wait
        clock.advance(wait)
    await notify.work()
    (delivery,) = await notify.deliveries()
    assert (delivery.state, delivery.last_status) == (State.FAILED, status)
    assert delivery.attempts == len(publisher.got) == len(domain.WEBHOOK_WAITS) + 1
    assert len({headers["webhook-id"] for headers, _ in publisher.got}) == 1


async def test_an_endpoint_that_says_gone_is_stopped(notify: Notify, publisher: Publisher) -> None:
    publisher.status = 410
    endpoint, _ = await notify.webhooks.create_endpoint(notify.caller, publisher.url, ())
    data = subscriber_event.SubscriberUpdated(subscriber_id="subj_1")
    await notify.take(notify.event("subscriber.updated", data))
    await notify.work()
    (found,) = [item for item in await notify.webhooks.list_endpoints(notify.caller) if item.id == endpoint.id]
    assert found.disabled_at is not None


async def test_a_stopped_endpoint_drops_what_waits(notify: Notify, publisher: Publisher) -> None:
    endpoint, _ = await notify.webhooks.create_endpoint(notify.caller, publisher.url, ())
    data = subscriber_event.SubscriberUpdated(subscriber_id="subj_1")
    await notify.take(notify.event("subscriber.updated", data))
    await notify.webhooks.disable_endpoint(notify.caller, endpoint.id)
    await notify.work()
    assert publisher.got == []
    assert [item.state for item in await notify.deliveries()] == [State.FAILED]


async def test_a_stopped_endpoint_gets_nothing_that_was_on_its_way(
    notify: Notify, publisher: Publisher, clock: FixedClock
) -> None:
    endpoint, _ = await notify.webhooks.create_endpoint(notify.caller, publisher.url, ())
    await notify.take(notify.event("subscriber.updated", subscriber_event.SubscriberUpdated()))

    async def stop() -> None:
        await notify.webhooks.disable_endpoint(notify.caller, endpoint.id)

    publisher.status, publisher.meanwhile = 500, stop
    await notify.work()
    clock.advance(domain.WEBHOOK_WAITS[0])
    await notify.work()
    assert len(publisher.got) == 1
    assert [item.state for item in await notify.deliveries()] == [State.FAILED]


async def test_an_endpoint_is_stopped_once(notify: Notify, publisher: Publisher, clock: FixedClock) -> None:
    endpoint, _ = await notify.webhooks.create_endpoint(notify.caller, publisher.url, ())
    first = await notify.webhooks.disable_endpoint(notify.caller, endpoint.id)
    clock.advance(timedelta(hours=1))
    assert await notify.webhooks.disable_endpoint(notify.caller, endpoint.id) == first


async def test_many_deliveries_that_hear_gone_at_once_do_not_wait_for_each_other(
    notify: Notify, publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    publisher.status = 410
    await notify.webhooks.create_endpoint(notify.caller, publisher.url, ())
    for _ in range(8):
        await notify.take(notify.event("subscriber.updated", subscriber_event.SubscriberUpdated()))
    await notify.work_at_once()
    assert {item.state for item in await notify.deliveries()} == {State.FAILED}
    assert "due work failed" not in caplog.text


async def test_deliveries_come_in_pages_newest_first(notify: Notify, publisher: Publisher) -> None:
    await notify.webhooks.create_endpoint(notify.caller, publisher.url, ())
    for _ in range(3):
        await notify.take(notify.paid())
    rpc = servicer.WebhookServicer(notify.webhooks)
    seen, cursor = [], ""
    with caller.serving(notify.caller):
        while True:
            request = webhook_pb2.ListWebhookDeliveriesRequest(limit=2, cursor=cursor)
            page = await rpc.ListWebhookDeliveries(request, None)
            seen += [item.id for item in page.data]
            if not (cursor := page.next_cursor):
                break
    assert seen == [prefixed.encode("whd", item.id) for item in await notify.deliveries()]
    assert len(seen) == 3


async def test_the_same_key_makes_one_endpoint_with_one_secret(notify: Notify, publisher: Publisher) -> None:
    keyed = replace(notify.caller, idempotency_key="once")
    first = await notify.webhooks.create_endpoint(keyed, publisher.url, ())
    again = await notify.webhooks.create_endpoint(keyed, publisher.url, ())
    assert first == again
    assert len(await notify.webhooks.list_endpoints(notify.caller)) == 1


async def test_a_live_account_takes_https_only(notify: Notify) -> None:
    live = replace(notify.caller, live=True)
    with pytest.raises(GatefoldError, match="webhook_url_insecure"):
        await notify.webhooks.create_endpoint(live, "http://hooks.example/", ())


async def test_another_account_sees_neither_endpoint_nor_delivery(
    notify: Notify, publisher: Publisher, ids: IdMaker
) -> None:
    endpoint, _ = await notify.webhooks.create_endpoint(notify.caller, publisher.url, ())
    stranger = replace(notify.caller, account=ids.new())
    assert await notify.webhooks.list_endpoints(stranger) == []
    with pytest.raises(GatefoldError, match="webhook_endpoint_not_found"):
        await notify.webhooks.disable_endpoint(stranger, endpoint.id)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
async def test_a_webhook_does_not_reach_into_the_private_network(publisher: Publisher, host: str) -> None:
    guarded = WebhookSender(allow_private=False, timeout_seconds=5)
    port = publisher.url.split(":")[2]
    try:
        status = await guarded.post(f"http://{host}:{port}", "whd_1", b"{}", [SECRET], FixedClock().wall())
    finally:
        await guarded.close()
    assert status == 0
    assert publisher.got == []


@pytest.mark.parametrize("url", ["http://[bad/", f"http://{'a' * 64}.example/", "http://example.com:99999/"])
@pytest.mark.parametrize("allow_private", [True, False])
async def test_an_address_that_nothing_can_be_sent_to_counts_as_no_answer(url: str, allow_private: bool) -> None:
    sender = WebhookSender(allow_private=allow_private, timeout_seconds=5)
    try:
        assert await sender.post(url, "whd_1", b"{}", [SECRET], FixedClock().wall()) == 0
    finally:
        await sender.close()


@asynccontextmanager
async def raw_server(answer: bytes) -> AsyncIterator[str]:
    """A server that says `answer` and then nothing more; to /ok it answers properly."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n" if b"/ok " in head else answer)
        await writer.drain()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_the_status_counts_though_the_answer_breaks_off() -> None:
    sender = WebhookSender(allow_private=True, timeout_seconds=2)
    try:
        async with raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n") as url:
            assert await sender.post(f"{url}/", "whd_1", b"{}", [SECRET], FixedClock().wall()) == 200
    finally:
        await sender.close()


async def test_those_who_hang_are_given_up_and_do_not_hold_up_others_on_the_same_host() -> None:
    sender = WebhookSender(allow_private=True, timeout_seconds=2)
    try:
        async with raw_server(b"") as url:
            async with asyncio.TaskGroup() as group:
                hung = [
                    group.create_task(sender.post(f"{url}/hang", f"whd_{number}", b"{}", [SECRET], FixedClock().wall()))
                    for number in range(8)
                ]
                await asyncio.sleep(0)
                assert await sender.post(f"{url}/ok", "whd_9", b"{}", [SECRET], FixedClock().wall()) == 204
                assert not any(task.done() for task in hung)
            assert [task.result() for task in hung] == [0] * 8
    finally:
        await sender.close()
