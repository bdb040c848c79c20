"""Owns the calls that the gateway makes itself: whose key, which signing keys, whose origin."""

import importlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from gatefold.abuse.v1 import verdict_pb2, verdict_pb2_grpc
from gatefold.activity.v1 import activity_pb2
from gatefold.auth.v1 import api_key_pb2, api_key_pb2_grpc, session_pb2, session_pb2_grpc
from gatefold.subscriber.v1 import site_pb2, site_pb2_grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from libs import caller, ids
from libs.caller import Caller
from libs.errors import GatefoldError, Kind
from libs.grpc_client import Channels

LOOKUP_SECONDS = 2.0

Call = Callable[[Message, float, Caller], Awaitable[Any]]
"""Calls an RPC with a message and a deadline in seconds, as a caller."""


class Backends:
    """The services behind the gateway."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._keys: Any = api_key_pb2_grpc.ApiKeyServiceStub(channels.channel("auth"))
        self._sessions: Any = session_pb2_grpc.SessionServiceStub(channels.channel("auth"))
        self._sites: Any = site_pb2_grpc.SiteServiceStub(channels.channel("subscriber"))

    def call(self, peer: str, method: MethodDescriptor) -> Call:
        """Returns what calls an RPC of a peer."""
        service = method.containing_service
        # The channel looks the method's policy up among the imported contracts.
        importlib.import_module(f"{service.file.name.removesuffix('.proto').replace('/', '.')}_pb2")
        invoke = self._channels.channel(peer).unary_unary(
            f"/{service.full_name}/{method.name}",
            request_serializer=GetMessageClass(method.input_type).SerializeToString,
            response_deserializer=GetMessageClass(method.output_type).FromString,
            _registered_method=True,
        )
        return lambda message, seconds, who: invoke(message, seconds, (), who)

    async def resolve_api_key(self, hashed: bytes, request_id: str) -> api_key_pb2.ResolveApiKeyResponse | None:
        """Returns whose key a hash belongs to; None for an unknown or ended one."""
        with caller.acting(_self(request_id)):
            try:
                answer: api_key_pb2.ResolveApiKeyResponse = await self._keys.ResolveApiKey(
                    api_key_pb2.ResolveApiKeyRequest(hash=hashed), timeout=LOOKUP_SECONDS
                )
            except GatefoldError as error:
                if error.kind is Kind.NOT_FOUND:
                    return None
                raise
        return answer

    async def report_leaked_api_key(self, hashed: bytes, place: str, request_id: str) -> None:
        """Reports a key that was seen where others can read it; one that nobody has is no news."""
        request = api_key_pb2.ReportLeakedApiKeyRequest(hash=hashed, place=place)
        with caller.acting(_self(request_id)):
            try:
                await self._keys.ReportLeakedApiKey(request, timeout=LOOKUP_SECONDS)
            except GatefoldError as error:
                if error.kind is not Kind.NOT_FOUND:
                    raise

    async def key_set(self, request_id: str) -> list[dict[str, str]]:
        """Returns the public keys that access tokens are signed with, as JWKs."""
        with caller.acting(_self(request_id)):
            answer: session_pb2.KeySet = await self._sessions.GetKeySet(
                session_pb2.GetKeySetRequest(), timeout=LOOKUP_SECONDS
            )
        return [
            {"kty": key.kty, "crv": key.crv, "x": key.x, "y": key.y, "kid": key.kid, "use": key.use, "alg": key.alg}
            for key in answer.keys
        ]

    async def open_cookie(self, refresh_token: str, request_id: str) -> tuple[str, datetime]:
        """Returns the cookie of a refresh token's session, and when it ends."""
        with caller.acting(_self(request_id)):
            answer: session_pb2.OpenCookieResponse = await self._sessions.OpenCookie(
                session_pb2.OpenCookieRequest(refresh_token=refresh_token), timeout=LOOKUP_SECONDS
            )
        return answer.cookie, answer.expires_at.ToDatetime(tzinfo=UTC)

    async def use_cookie(self, cookie: str, request_id: str) -> str:
        """Returns an access token for a page's cookie."""
        with caller.acting(_self(request_id)):
            answer: session_pb2.UseCookieResponse = await self._sessions.UseCookie(
                session_pb2.UseCookieRequest(cookie=cookie), timeout=LOOKUP_SECONDS
            )
        return answer.access_token

    async def session_ends(self, cursor: str, request_id: str) -> tuple[list[UUID], str]:
        """Returns sessions that ended after a cursor, and the next cursor."""
        with caller.acting(_self(request_id)):
            answer: session_pb2.ListSessionEndsResponse = await self._sessions.ListSessionEnds(
                session_pb2.ListSessionEndsRequest(cursor=cursor), timeout=LOOKUP_SECONDS
            )
        return [ids.decode("ses", session) for session in answer.session_ids], answer.next_cursor

    async def verdicts(self, cursor: str, request_id: str) -> tuple[Sequence[activity_pb2.Verdict], str]:
        """Returns verdicts that changed after a cursor, and the next cursor."""
        stub: Any = verdict_pb2_grpc.VerdictServiceStub(self._channels.channel("abuse"))
        with caller.acting(_self(request_id)):
            answer: verdict_pb2.ListVerdictsResponse = await stub.ListVerdicts(
                verdict_pb2.ListVerdictsRequest(cursor=cursor), timeout=LOOKUP_SECONDS
            )
        return answer.verdicts, answer.next_cursor

    async def accounts_of_origin(self, origin: str, request_id: str) -> frozenset[UUID]:
        """Returns the accounts that have a browser origin as a site."""
        with caller.acting(_self(request_id)):
            answer: site_pb2.ResolveOriginResponse = await self._sites.ResolveOrigin(
                site_pb2.ResolveOriginRequest(origin=origin), timeout=LOOKUP_SECONDS
            )
        return frozenset(ids.decode("acct", account) for account in answer.account_ids)


def _self(request_id: str) -> caller.Caller:
    return caller.service_caller("gateway", None, request_id=request_id)
