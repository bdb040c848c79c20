"""Owns notify's RPCs: proto in, use case, proto out."""

from datetime import datetime
from uuid import UUID

from gatefold.notify.v1 import mail_pb2, mail_pb2_grpc, webhook_pb2, webhook_pb2_grpc
from google.protobuf.timestamp_pb2 import Timestamp

from libs import ids
from libs.caller import current
from services.notify.domain import Delivery, Endpoint, Mail, State
from services.notify.repository import NEWEST
from services.notify.usecases import Webhooks

DEFAULT_LIMIT = 20
DELIVERY_STATES = {
    State.PENDING: webhook_pb2.DELIVERY_STATE_PENDING,
    State.DONE: webhook_pb2.DELIVERY_STATE_DELIVERED,
    State.FAILED: webhook_pb2.DELIVERY_STATE_FAILED,
}
MAIL_STATES = {
    State.PENDING: mail_pb2.MAIL_STATE_PENDING,
    State.DONE: mail_pb2.MAIL_STATE_SENT,
    State.FAILED: mail_pb2.MAIL_STATE_FAILED,
}


class WebhookServicer(webhook_pb2_grpc.WebhookServiceServicer):
    """gatefold.notify.v1.WebhookService."""

    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks

    async def CreateWebhookEndpoint(
        self, request: webhook_pb2.CreateWebhookEndpointRequest, context: object
    ) -> webhook_pb2.CreateWebhookEndpointResponse:
        """Adds an endpoint."""
        endpoint, secret = await self._webhooks.create_endpoint(current(), request.url, tuple(request.event_types))
        return webhook_pb2.CreateWebhookEndpointResponse(endpoint=_endpoint(endpoint), secret=secret)

    async def ListWebhookEndpoints(
        self, request: webhook_pb2.ListWebhookEndpointsRequest, context: object
    ) -> webhook_pb2.ListWebhookEndpointsResponse:
        """Lists endpoints."""
        found = await self._webhooks.list_endpoints(current())
        return webhook_pb2.ListWebhookEndpointsResponse(data=[_endpoint(endpoint) for endpoint in found])

    async def DisableWebhookEndpoint(
        self, request: webhook_pb2.DisableWebhookEndpointRequest, context: object
    ) -> webhook_pb2.WebhookEndpoint:
        """Stops an endpoint."""
        return _endpoint(await self._webhooks.disable_endpoint(current(), ids.decode("wh", request.id)))

    async def ListWebhookDeliveries(
        self, request: webhook_pb2.ListWebhookDeliveriesRequest, context: object
    ) -> webhook_pb2.ListWebhookDeliveriesResponse:
        """Lists deliveries."""
        limit = request.limit or DEFAULT_LIMIT
        found = await self._webhooks.list_deliveries(current(), _before("whd", request.cursor), limit + 1)
        page = found[:limit]
        return webhook_pb2.ListWebhookDeliveriesResponse(
            data=[_delivery(delivery) for delivery in page],
            next_cursor=ids.encode("whd", page[-1].id) if len(found) > limit else "",
        )


class MailServicer(mail_pb2_grpc.MailServiceServicer):
    """gatefold.notify.v1.MailService."""

    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks

    async def ListMails(self, request: mail_pb2.ListMailsRequest, context: object) -> mail_pb2.ListMailsResponse:
        """Lists mails."""
        limit = request.limit or DEFAULT_LIMIT
        found = await self._webhooks.list_mails(current(), _before("mail", request.cursor), limit + 1)
        page = found[:limit]
        return mail_pb2.ListMailsResponse(
            data=[_mail(mail) for mail in page],
            next_cursor=ids.encode("mail", page[-1].id) if len(found) > limit else "",
        )


def _before(prefix: str, cursor: str) -> UUID:
    return ids.decode(prefix, cursor, field="cursor") if cursor else NEWEST


def _timestamp(at: datetime | None) -> Timestamp | None:
    if at is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(at)
    return stamp


def _endpoint(endpoint: Endpoint) -> webhook_pb2.WebhookEndpoint:
    return webhook_pb2.WebhookEndpoint(
        id=ids.encode("wh", endpoint.id),
        url=endpoint.url,
        event_types=endpoint.event_types,
        created_at=_timestamp(endpoint.created_at),
        disabled_at=_timestamp(endpoint.disabled_at),
    )


def _delivery(delivery: Delivery) -> webhook_pb2.WebhookDelivery:
    return webhook_pb2.WebhookDelivery(
        id=ids.encode("whd", delivery.id),
        endpoint_id=ids.encode("wh", delivery.endpoint),
        event_id=ids.encode("evt", delivery.event_id),
        event_type=delivery.event_type,
        state=DELIVERY_STATES[delivery.state],
        attempts=delivery.attempts,
        last_status=delivery.last_status,
        next_attempt_at=_timestamp(delivery.next_attempt_at),
        delivered_at=_timestamp(delivery.delivered_at),
    )


def _mail(mail: Mail) -> mail_pb2.Mail:
    return mail_pb2.Mail(
        id=ids.encode("mail", mail.id),
        template=mail.template,
        subscriber_id=ids.encode("subj", mail.subject) if mail.subject else "",
        event_id=ids.encode("evt", mail.event_id),
        state=MAIL_STATES[mail.state],
        attempts=mail.attempts,
        sent_at=_timestamp(mail.sent_at),
    )
