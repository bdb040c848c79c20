"""Owns gatefold.auth.v1.SessionService."""

from gatefold.auth.v1 import session_pb2, session_pb2_grpc

from libs import ids
from libs.postgres import PLATFORM
from services.auth.domain.session import ACCESS_SECONDS
from services.auth.domain.sign_in import PASSKEY, SECURITY_KEY
from services.auth.usecases.access_tokens import principal_id
from services.auth.usecases.second_factors import SecondFactors
from services.auth.usecases.session_ends import SessionEnds
from services.auth.usecases.sessions import Pair, Sessions
from services.auth.usecases.sign_in import Waiting
from services.auth.usecases.signing_keys import SigningKeys
from services.auth.usecases.staff import Staff

TOKEN_TYPE = "Bearer"  # noqa: S105 — RFC 6750


class SessionServicer(session_pb2_grpc.SessionServiceServicer):
    """Sessions of everybody, and sign-in of staff."""

    def __init__(
        self,
        staff: Staff,
        second_factors: SecondFactors,
        sessions: Sessions,
        ends: SessionEnds,
        keys: SigningKeys,
    ) -> None:
        self._staff = staff
        self._second_factors = second_factors
        self._sessions = sessions
        self._ends = ends
        self._keys = keys

    async def BootstrapOperator(
        self, request: session_pb2.BootstrapOperatorRequest, context: object
    ) -> session_pb2.BootstrapOperatorResponse:
        """Makes an operator."""
        person = await self._staff.bootstrap(request.token, request.email, request.name, request.password)
        return session_pb2.BootstrapOperatorResponse(person_id=ids.encode("per", person))

    async def SignInStaff(self, request: session_pb2.SignInStaffRequest, context: object) -> session_pb2.Tokens:
        """Signs staff in."""
        account = ids.decode("acct", request.account_id, field="account_id") if request.account_id else None
        return tokens(await self._staff.sign_in(request.email, request.password, account, request.device_token))

    async def CompleteSignIn(self, request: session_pb2.CompleteSignInRequest, context: object) -> session_pb2.Tokens:
        """Takes a second factor."""
        proof = request.credential if request.method in (PASSKEY, SECURITY_KEY) else request.code
        return tokens(await self._second_factors.complete(request.pending_token, request.method, proof))

    async def RefreshSession(self, request: session_pb2.RefreshSessionRequest, context: object) -> session_pb2.Tokens:
        """Exchanges a refresh token."""
        return tokens(await self._sessions.refresh(request.refresh_token))

    async def RevokeSession(
        self, request: session_pb2.RevokeSessionRequest, context: object
    ) -> session_pb2.RevokeSessionResponse:
        """Signs out."""
        await self._sessions.revoke(request.refresh_token)
        return session_pb2.RevokeSessionResponse()

    async def OpenCookie(
        self, request: session_pb2.OpenCookieRequest, context: object
    ) -> session_pb2.OpenCookieResponse:
        """Opens a cookie."""
        cookie, expires_at = await self._sessions.open_cookie(request.refresh_token)
        response = session_pb2.OpenCookieResponse(cookie=cookie)
        response.expires_at.FromDatetime(expires_at)
        return response

    async def UseCookie(self, request: session_pb2.UseCookieRequest, context: object) -> session_pb2.UseCookieResponse:
        """Takes a cookie."""
        pair = await self._sessions.use_cookie(request.cookie)
        return session_pb2.UseCookieResponse(access_token=pair.access_token)

    async def ListSessionEnds(
        self, request: session_pb2.ListSessionEndsRequest, context: object
    ) -> session_pb2.ListSessionEndsResponse:
        """Lists sessions that ended."""
        found, cursor = await self._ends.since(request.cursor)
        return session_pb2.ListSessionEndsResponse(session_ids=found, next_cursor=cursor)

    async def GetKeySet(self, request: session_pb2.GetKeySetRequest, context: object) -> session_pb2.KeySet:
        """Lists the public keys."""
        return session_pb2.KeySet(
            keys=[
                session_pb2.JsonWebKey(kty="EC", crv="P-256", x=key.x, y=key.y, kid=key.kid, use="sig", alg="ES256")
                for key in await self._keys.key_set()
            ]
        )


def tokens(pair: Pair | Waiting) -> session_pb2.Tokens:
    """Returns the answer that carries a pair (RFC 6749, 5.1), or says what is missing."""
    if isinstance(pair, Waiting):
        waiting = session_pb2.Tokens()
        waiting.pending.token = pair.token
        waiting.pending.next = pair.pending.next
        waiting.pending.methods.extend(pair.pending.methods)
        waiting.pending.expires_at.FromDatetime(pair.pending.expires_at)
        return waiting
    answer = session_pb2.Tokens(
        access_token=pair.access_token,
        token_type=TOKEN_TYPE,
        expires_in=ACCESS_SECONDS,
        refresh_token=pair.refresh_token,
        account_id=ids.encode("acct", pair.held.account) if pair.held.account != PLATFORM else "",
        principal_id=principal_id(pair.held),
        device_token=pair.device_token,
    )
    if pair.recovery_codes_left is not None:
        answer.recovery_codes_left = pair.recovery_codes_left
    return answer
