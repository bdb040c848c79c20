"""Owns auth's talk with other services: who a mailbox belongs to, and the clocks of a test account."""

from datetime import timedelta
from uuid import UUID

from gatefold.clock.v1 import clock_pb2, clock_pb2_grpc
from gatefold.subscriber.v1 import subscriber_pb2, subscriber_pb2_grpc

from libs import ids
from libs.grpc_client import Channels

TIMEOUT_SECONDS = 4.0


class Subjects:
    """The subscriber service, which knows readers."""

    def __init__(self, channels: Channels) -> None:
        self._stub = subscriber_pb2_grpc.SubscriberServiceStub(channels.channel("subscriber"))

    async def ensure(self, email: str, name: str, offered: UUID) -> UUID:
        """Returns the reader with this address: one who is known (imported, say), or a new one under `offered`.

        Repeating it is harmless: the same address always answers the same subject.
        """
        request = subscriber_pb2.EnsureSubjectRequest(
            email=email, name=name, offered_subject_id=ids.encode("subj", offered)
        )
        response = await self._stub.EnsureSubject(request, timeout=TIMEOUT_SECONDS)
        return ids.decode("subj", response.subject_id, field="subject_id")

    async def change_email(self, subject: UUID, email: str) -> None:
        """Gives a reader's profile another address; repeating it is harmless. Raises `precondition("email_taken")`."""
        request = subscriber_pb2.ChangeEmailRequest(subject_id=ids.encode("subj", subject), email=email)
        await self._stub.ChangeEmail(request, timeout=TIMEOUT_SECONDS)

    async def name_of(self, subject: UUID) -> str:
        """Returns what a reader of the caller's account is called; may be empty."""
        request = subscriber_pb2.GetContactRequest(subject_id=ids.encode("subj", subject))
        response = await self._stub.GetContact(request, timeout=TIMEOUT_SECONDS)
        return str(response.name)


class PeerClock:
    """The clock of a test account in another service."""

    def __init__(self, channels: Channels, peer: str) -> None:
        self._stub = clock_pb2_grpc.ClockServiceStub(channels.channel(peer))

    async def advance(self, offset: timedelta) -> None:
        """Sets how far the caller's account runs ahead."""
        request = clock_pb2.AdvanceRequest()
        request.offset.FromTimedelta(offset)
        await self._stub.Advance(request, timeout=TIMEOUT_SECONDS)

    async def drained(self) -> bool:
        """Answers whether nothing of the caller's account is due or waits there."""
        response = await self._stub.Drained(clock_pb2.DrainedRequest(), timeout=TIMEOUT_SECONDS)
        return bool(response.drained)
