"""Owns gatefold.auth.v1.SubscriberSignInService."""

from datetime import datetime
from uuid import UUID

from gatefold.auth.v1 import sign_in_pb2, sign_in_pb2_grpc

from libs import ids
from services.auth.usecases.subscriber_sign_ins import SubscriberSignIns


class SubscriberSignInServicer(sign_in_pb2_grpc.SubscriberSignInServiceServicer):
    """Readers' sign-ins, as staff see and stop them."""

    def __init__(self, sign_ins: SubscriberSignIns) -> None:
        self._sign_ins = sign_ins

    async def GetSubscriberSignIn(
        self, request: sign_in_pb2.GetSubscriberSignInRequest, context: object
    ) -> sign_in_pb2.SubscriberSignIn:
        """Reads how a reader's sign-in stands."""
        subject = _subject(request.subscriber_id)
        return _shown(subject, await self._sign_ins.disabled_at(subject))

    async def DisableSubscriberSignIn(
        self, request: sign_in_pb2.DisableSubscriberSignInRequest, context: object
    ) -> sign_in_pb2.SubscriberSignIn:
        """Keeps a reader out."""
        subject = _subject(request.subscriber_id)
        return _shown(subject, await self._sign_ins.disable(subject))

    async def UnlockSubscriberSignIn(
        self, request: sign_in_pb2.UnlockSubscriberSignInRequest, context: object
    ) -> sign_in_pb2.SubscriberSignIn:
        """Ends a reader's wait."""
        subject = _subject(request.subscriber_id)
        return _shown(subject, await self._sign_ins.unlock(subject))

    async def EnableSubscriberSignIn(
        self, request: sign_in_pb2.EnableSubscriberSignInRequest, context: object
    ) -> sign_in_pb2.SubscriberSignIn:
        """Lets a reader in again."""
        subject = _subject(request.subscriber_id)
        await self._sign_ins.enable(subject)
        return _shown(subject, None)


def _subject(text: str) -> UUID:
    return ids.decode("subj", text, field="subscriber_id")


def _shown(subject: UUID, disabled_at: datetime | None) -> sign_in_pb2.SubscriberSignIn:
    response = sign_in_pb2.SubscriberSignIn(subscriber_id=ids.encode("subj", subject))
    if disabled_at is not None:
        response.disabled_at.FromDatetime(disabled_at)
    return response
