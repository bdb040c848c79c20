"""Builds notify and runs it."""

import sys
from collections.abc import Mapping

from gatefold.notify.v1.mail_pb2_grpc import add_MailServiceServicer_to_server
from gatefold.notify.v1.webhook_pb2_grpc import add_WebhookServiceServicer_to_server

from libs import config, process
from libs.privacy import SubjectTable
from libs.process import Process
from libs.service import Service
from services.notify import usecases
from services.notify.clients import Directory, Mailer, WebhookSender
from services.notify.config import Config
from services.notify.servicer import MailServicer, WebhookServicer

PERSONAL_TABLES = (
    SubjectTable("mail", number=401, subject_column="subject_id", erase="delete"),
    SubjectTable("webhook_delivery", number=403, subject_column="subject_id", erase="delete"),
)


async def compose(process: Process, environ: Mapping[str, str] | None) -> None:
    """Opens the parts and puts them together."""
    settings = config.load(Config, environ)
    service = await Service.open(process, settings.service)
    mailer = Mailer(
        settings.smtp_host,
        settings.smtp_port,
        settings.mail_from,
        username=settings.smtp_username,
        password=settings.smtp_password,
        start_tls=settings.smtp_start_tls,
    )
    sender = WebhookSender(allow_private=settings.webhook_allow_private)
    process.on_drain(sender.close)
    webhooks = usecases.Webhooks(service.app, service.vault, service.clock, service.ids)
    service.add(add_WebhookServiceServicer_to_server, WebhookServicer(webhooks))
    service.add(add_MailServiceServicer_to_server, MailServicer(webhooks))
    directory = Directory(service.channels)
    mails = service.due_worker({usecases.MAIL_JOB: usecases.SendMail(service.app, directory, mailer, service.clock)})
    # An endpoint that does not answer holds its own few slots, never another publisher's.
    deliver = usecases.DeliverWebhook(service.app, service.vault, sender, service.clock)
    deliveries = service.due_worker({usecases.WEBHOOK_JOB: deliver}, concurrency=64, per_account=8)

    def wake() -> None:
        mails.wake()
        deliveries.wake()

    take = usecases.TakeEvent(service.clock, service.ids, wake)
    # Ten thousand imported readers do not keep a sign-up's mail waiting.
    service.consume(("auth", "billing"), take)
    service.consume(("subscriber",), take)
    service.holds_personal_data(PERSONAL_TABLES)
    await service.serve()


def main(environ: Mapping[str, str] | None = None) -> int:
    """Runs notify; returns its exit code."""
    return process.run("notify", compose, environ)


if __name__ == "__main__":
    sys.exit(main())
