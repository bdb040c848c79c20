"""Owns gatefold.auth.v1.SubscriberSessionService."""

from gatefold.auth.v1 import session_pb2, subscriber_session_pb2, subscriber_session_pb2_grpc

from libs import ids
from services.auth.servicer.session import tokens
from services.auth.usecases.challenges import Challenges
from services.auth.usecases.registration import Registration


class SubscriberSessionServicer(subscriber_session_pb2_grpc.SubscriberSessionServiceServicer):
    """Registration and sign-in of readers."""

    def __init__(self, registration: Registration, challenges: Challenges) -> None:
        self._registration = registration
        self._challenges = challenges

    async def Register(
        self, request: subscriber_session_pb2.RegisterRequest, context: object
    ) -> subscriber_session_pb2.RegisterResponse:
        """Registers a reader."""
        kept = await self._registration.register(request.email, request.password, request.name)
        return subscriber_session_pb2.RegisterResponse(browser_secret=kept)

    async def VerifyRegistration(
        self, request: subscriber_session_pb2.VerifyRegistrationRequest, context: object
    ) -> subscriber_session_pb2.VerifyRegistrationResponse:
        """Proves the mailbox."""
        subject = await self._registration.verify(request.token, request.browser_secret, request.password)
        return subscriber_session_pb2.VerifyRegistrationResponse(subject_id=ids.encode("subj", subject))

    async def SignIn(self, request: subscriber_session_pb2.SignInRequest, context: object) -> session_pb2.Tokens:
        """Signs a reader in."""
        return tokens(await self._registration.sign_in(request.email, request.password, request.device_token))

    async def DescribeChallenge(
        self, request: subscriber_session_pb2.DescribeChallengeRequest, context: object
    ) -> subscriber_session_pb2.DescribeChallengeResponse:
        """Says what a challenge's mail says."""
        letter = await self._challenges.describe(ids.decode("chal", request.challenge_id, field="challenge_id"))
        response = subscriber_session_pb2.DescribeChallengeResponse(
            purpose=letter.purpose,
            email=letter.email,
            name=letter.name,
            publication=letter.publication,
            link=letter.link,
            code=letter.code,
            details=letter.details,
        )
        response.expires_at.FromDatetime(letter.expires_at)
        return response
