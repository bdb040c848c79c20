"""Owns what notify's tests stand on: its neighbours over gRPC, a mail server, a publisher's server."""

import json
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest
from aiohttp import web
from aiosmtpd.controller import Controller
from gatefold.auth.v1 import account_pb2, account_pb2_grpc, subscriber_session_pb2, subscriber_session_pb2_grpc
from gatefold.subscriber.v1 import subscriber_pb2, subscriber_pb2_grpc

from infra.local.settings import free_port
from libs import errors
from libs.caller import CallerSigner, CallerVerifier
from libs.clock import SystemClock
from libs.grpc_client import Channels, GrpcConfig
from libs.grpc_server import GrpcServer
from libs.kill_points import KillPoints
from libs.telemetry import Telemetry, TelemetryConfig
from services.notify.clients import Directory, Mailer


@dataclass
class Neighbours:
    """What auth and subscriber know; tests change it."""

    email: str = "ada@example.com"
    name: str = "Ada"
    erased: bool = False
    away: errors.Kind | None = None
    challenge: str = ""
    """Why there is no mail to a challenge."""


class AuthAccounts(account_pb2_grpc.AccountServiceServicer):
    """Only what notify asks of auth."""

    async def CreateAccount(self, request: Any, context: Any) -> Any:
        raise errors.internal("unused", "Not asked by notify.")

    ListAccounts = GetAccount = GetSecurityPolicy = UpdateSecurityPolicy = AdvanceTestClock = CreateAccount

    async def DescribeAccount(self, request: Any, context: Any) -> account_pb2.Account:
        return account_pb2.Account(name="The Daily")


class AuthChallenges(subscriber_session_pb2_grpc.SubscriberSessionServiceServicer):
    """Only what notify asks of auth."""

    def __init__(self, known: Neighbours) -> None:
        self._known = known

    async def Register(self, request: Any, context: Any) -> Any:
        raise errors.internal("unused", "Not asked by notify.")

    VerifyRegistration = SignIn = Register

    async def DescribeChallenge(self, request: Any, context: Any) -> subscriber_session_pb2.DescribeChallengeResponse:
        if self._known.challenge:
            raise errors.not_found(self._known.challenge, "There is no mail.")
        response = subscriber_session_pb2.DescribeChallengeResponse(
            purpose="verify_registration",
            email=self._known.email,
            name=self._known.name,
            publication="The Daily",
            link=f"https://daily.example/?token={request.challenge_id}",
        )
        response.expires_at.FromDatetime(datetime(2026, 1, 2, tzinfo=UTC))
        return response


class Subscribers(subscriber_pb2_grpc.SubscriberServiceServicer):
    """Only what notify asks of subscriber."""

    def __init__(self, known: Neighbours) -> None:
        self._known = known

    async def CreateSubscriber(self, request: Any, context: Any) -> Any:
        raise errors.internal("unused", "Not asked by notify.")

    GetSubscriber = ListSubscribers = UpdateSubscriber = GetMe = EnsureSubject = ChangeEmail = CreateSubscriber

    async def GetContact(self, request: Any, context: Any) -> subscriber_pb2.GetContactResponse:
        if self._known.away:
            raise errors.GatefoldError(self._known.away, "database_unavailable", "Try again.")
        if self._known.erased:
            raise errors.not_found("subject_erased", "There is no such reader.")
        return subscriber_pb2.GetContactResponse(email=self._known.email, name=self._known.name)


@pytest.fixture
def neighbours() -> Neighbours:
    return Neighbours()


@pytest.fixture
async def directory(neighbours: Neighbours) -> AsyncIterator[Directory]:
    """Notify's view of auth and subscriber, over signed gRPC on private sockets."""
    with tempfile.TemporaryDirectory(prefix="gf-") as folder:
        clock = SystemClock()
        keys = {f"notify>{peer}": (os.urandom(32),) for peer in ("auth", "subscriber")}
        servers = []
        for peer in ("auth", "subscriber"):
            server = GrpcServer(
                peer,
                f"unix:{folder}/{peer}.sock",
                verifier=CallerVerifier(peer, keys, clock),
                telemetry=Telemetry(peer, TelemetryConfig()),
            )
            if peer == "auth":
                server.add(account_pb2_grpc.add_AccountServiceServicer_to_server, AuthAccounts())
                add = subscriber_session_pb2_grpc.add_SubscriberSessionServiceServicer_to_server
                server.add(add, AuthChallenges(neighbours))
            else:
                server.add(subscriber_pb2_grpc.add_SubscriberServiceServicer_to_server, Subscribers(neighbours))
            await server.start()
            servers.append(server)
        peers = {peer: f"unix:{folder}/{peer}.sock" for peer in ("auth", "subscriber")}
        channels = Channels(
            "notify",
            GrpcConfig(peers=json.dumps(peers)),
            CallerSigner("notify", keys, clock),
            telemetry=Telemetry("notify", TelemetryConfig()),
            kill_points=KillPoints("notify"),
        )
        yield Directory(channels)
        await channels.close()
        for server in servers:
            await server.drain(1)


class MailServer:
    """A real SMTP server that keeps what it took, and refuses when told to."""

    def __init__(self) -> None:
        self.taken: list[EmailMessage] = []
        self.refuses = False

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.refuses:
            return "451 try again later"
        self.taken.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 kept"


@pytest.fixture
def mail_server() -> Iterator[tuple[MailServer, int]]:
    kept = MailServer()
    port = free_port()
    controller = Controller(kept, hostname="127.0.0.1", port=port)
    controller.start()
    yield kept, port
    controller.stop()


@pytest.fixture
def mailer(mail_server: tuple[MailServer, int]) -> Mailer:
    return Mailer(
        "127.0.0.1",
        mail_server[1],
        "The Daily <mail@daily.example>",
        username="",
        password=None,
        start_tls=False,
    )


@dataclass
class Publisher:
    """A publisher's server that answers as it is told and keeps what it got."""

    url: str = ""
    status: int = 204
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    meanwhile: Callable[[], Awaitable[None]] | None = None
    """What happens while it thinks about its answer."""

    async def take(self, request: web.Request) -> web.Response:
        self.got.append((dict(request.headers), await request.read()))
        if self.meanwhile:
            await self.meanwhile()
        headers = {"Location": "http://127.0.0.1:1/"} if self.status == 302 else None
        return web.Response(status=self.status, headers=headers)


@pytest.fixture
async def publisher() -> AsyncIterator[Publisher]:
    server = Publisher()
    app = web.Application()
    app.router.add_post("/hooks", server.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hooks"
    yield server
    await runner.cleanup()
