"""Owns gatefold.subscriber.v1.SubscriberService at the wire."""

from gatefold.subscriber.v1 import subscriber_pb2, subscriber_pb2_grpc

from libs import ids
from services.subscriber.domain.profile import Change, NewReader
from services.subscriber.usecases import present
from services.subscriber.usecases.subscribers import Subscribers


class SubscriberServicer(subscriber_pb2_grpc.SubscriberServiceServicer):
    """A publisher's readers."""

    def __init__(self, subscribers: Subscribers) -> None:
        self._subscribers = subscribers

    async def CreateSubscriber(
        self, request: subscriber_pb2.CreateSubscriberRequest, context: object
    ) -> subscriber_pb2.Subscriber:
        """Adds a reader."""
        new = NewReader(
            email=request.email,
            name=request.name,
            note=request.note,
            subscribed_to_emails=request.subscribed_to_emails,
            labels=tuple(request.labels),
            external_id=request.external_id,
            metadata=dict(request.metadata),
        )
        return present.subscriber(*await self._subscribers.create_subscriber(new, request))

    async def GetSubscriber(
        self, request: subscriber_pb2.GetSubscriberRequest, context: object
    ) -> subscriber_pb2.Subscriber:
        """Shows a reader."""
        return present.subscriber(*await self._subscribers.get_subscriber(ids.decode("subj", request.id)))

    async def ListSubscribers(
        self, request: subscriber_pb2.ListSubscribersRequest, context: object
    ) -> subscriber_pb2.ListSubscribersResponse:
        """Lists readers."""
        shown, next_cursor = await self._subscribers.list_subscribers(request.limit, request.cursor, request.email)
        return subscriber_pb2.ListSubscribersResponse(
            data=[present.subscriber(profile, features) for profile, features in shown], next_cursor=next_cursor
        )

    async def UpdateSubscriber(
        self, request: subscriber_pb2.UpdateSubscriberRequest, context: object
    ) -> subscriber_pb2.Subscriber:
        """Changes a reader."""
        change = Change(
            name=request.name if request.HasField("name") else None,
            note=request.note if request.HasField("note") else None,
            subscribed_to_emails=request.subscribed_to_emails if request.HasField("subscribed_to_emails") else None,
        )
        subject = ids.decode("subj", request.id)
        return present.subscriber(*await self._subscribers.update_subscriber(subject, change, request))

    async def GetMe(self, request: subscriber_pb2.GetMeRequest, context: object) -> subscriber_pb2.Subscriber:
        """Shows the signed-in reader."""
        return present.subscriber(*await self._subscribers.get_me())

    async def EnsureSubject(
        self, request: subscriber_pb2.EnsureSubjectRequest, context: object
    ) -> subscriber_pb2.EnsureSubjectResponse:
        """Finds or adds the reader with an address."""
        offered = request.offered_subject_id
        subject, created = await self._subscribers.ensure_subject(
            request.email, request.name, ids.decode("subj", offered, field="offered_subject_id") if offered else None
        )
        return subscriber_pb2.EnsureSubjectResponse(subject_id=ids.encode("subj", subject), created=created)

    async def ChangeEmail(
        self, request: subscriber_pb2.ChangeEmailRequest, context: object
    ) -> subscriber_pb2.ChangeEmailResponse:
        """Gives a reader another address."""
        subject = ids.decode("subj", request.subject_id, field="subject_id")
        await self._subscribers.change_email(subject, request.email)
        return subscriber_pb2.ChangeEmailResponse()

    async def GetContact(
        self, request: subscriber_pb2.GetContactRequest, context: object
    ) -> subscriber_pb2.GetContactResponse:
        """Gives a reader's address."""
        subject = ids.decode("subj", request.subject_id, field="subject_id")
        email, name = await self._subscribers.get_contact(subject)
        return subscriber_pb2.GetContactResponse(email=email, name=name)
