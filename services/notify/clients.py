"""Owns notify's talk with others: the mail server, publishers' endpoints, the services that know whom to write to."""

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import aiohttp
import aiosmtplib
import jinja2
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from gatefold.auth.v1 import account_pb2, account_pb2_grpc, subscriber_session_pb2, subscriber_session_pb2_grpc
from gatefold.subscriber.v1 import subscriber_pb2, subscriber_pb2_grpc
from standardwebhooks.webhooks import Webhook

from libs import caller, ids
from libs.caller import Caller
from libs.config import Secret
from libs.grpc_client import Channels

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Letter:
    """A mail as it is handed to the mail server."""

    message_id: str
    to: str
    template: str
    values: dict[str, Any]


class Mailer:
    """Renders letters and hands them to an SMTP server (RFC 5321)."""

    def __init__(self, host: str, port: int, sender: str, *, username: str, password: Secret | None, start_tls: bool):
        self._host = host
        self._port = port
        self._sender = sender
        self.domain = parseaddr(sender)[1].rpartition("@")[2]
        self._username = username
        self._password = password
        self._start_tls = start_tls
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            autoescape=jinja2.select_autoescape(["html"]),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
        )

    def render(self, letter: Letter, at: datetime) -> EmailMessage:
        """Makes the message: the first line of the text template is the subject; plain text and HTML say the same."""
        subject, _, text = self._templates.get_template(f"{letter.template}.txt").render(letter.values).partition("\n")
        message = EmailMessage()
        # A name can hold what a header must not: the policy of EmailMessage refuses line breaks.
        message["Subject"] = " ".join(subject.split())
        message["From"] = self._sender
        message["To"] = letter.to
        message["Date"] = format_datetime(at)
        message["Message-ID"] = letter.message_id
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text.lstrip("\n"))
        html = self._templates.get_template(f"{letter.template}.html").render(letter.values)
        message.add_alternative(html, subtype="html")
        return message

    async def send(self, message: EmailMessage) -> None:
        """Hands a message over; raises aiosmtplib.SMTPException or OSError when the server does not take it."""
        await aiosmtplib.send(
            message,
            hostname=self._host,
            port=self._port,
            username=self._username or None,
            password=self._password.reveal() if self._password else None,
            start_tls=self._start_tls,
            timeout=20,
        )


class ForbiddenAddressError(Exception):
    """The endpoint's name leads into a private network."""


class PublicResolver(AbstractResolver):
    """Resolves names and refuses every address that is not public, so that a webhook cannot reach inside (SSRF)."""

    def __init__(self) -> None:
        self._inner = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Answers the public addresses; the connection is made to exactly these."""
        found = await self._inner.resolve(host, port, family)
        if not all(is_public_address(result["host"]) for result in found):
            raise ForbiddenAddressError(host)
        return found

    async def close(self) -> None:
        """Closes the resolver inside."""
        await self._inner.close()


def is_public_address(text: str) -> bool:
    """Whether an address is one of the public Internet; a name counts as public until it is resolved."""
    try:
        address = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return True
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_global and not address.is_multicast


class WebhookSender:
    """Posts signed webhooks by the Standard Webhooks specification."""

    def __init__(self, *, allow_private: bool, timeout_seconds: int = 15) -> None:
        self._allow_private = allow_private
        connector = aiohttp.TCPConnector(resolver=None if allow_private else PublicResolver(), limit=64)
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=timeout_seconds),
            headers={"User-Agent": "Gatefold-Webhooks/1", "Content-Type": "application/json"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def post(self, url: str, message_id: str, payload: bytes, secrets: Sequence[str], at: datetime) -> int:
        """Posts one webhook; answers the HTTP status, or 0 when there was no answer. Redirects are not followed."""
        signatures = " ".join(Webhook(secret).sign(message_id, at, payload.decode()) for secret in secrets)
        headers = {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": signatures,
        }
        try:
            if not self._allow_private and not is_public_address(urlsplit(url).hostname or ""):
                return 0
            async with self._session.post(url, data=payload, headers=headers, allow_redirects=False) as response:
                # The status says it all: an answer that breaks off or trickles does not make the webhook untaken.
                return response.status
        except (TimeoutError, aiohttp.ClientError, ForbiddenAddressError, OSError, ValueError):
            # ValueError: an address or a name that no request can be made of.
            return 0

    async def close(self) -> None:
        """Closes the connections."""
        await self._session.close()


class Directory:
    """Asks the owners of personal data whom a mail goes to and what it says."""

    def __init__(self, channels: Channels) -> None:
        self._accounts = account_pb2_grpc.AccountServiceStub(channels.channel("auth"))
        self._challenges = subscriber_session_pb2_grpc.SubscriberSessionServiceStub(channels.channel("auth"))
        self._subscribers = subscriber_pb2_grpc.SubscriberServiceStub(channels.channel("subscriber"))

    async def challenge(self, acting: Caller, challenge: UUID) -> subscriber_session_pb2.DescribeChallengeResponse:
        """What a challenge's mail says; not found once the challenge is over."""
        request = subscriber_session_pb2.DescribeChallengeRequest(challenge_id=ids.encode("chal", challenge))
        with caller.acting(acting):
            return await self._challenges.DescribeChallenge(request)

    async def contact(self, acting: Caller, subject: UUID) -> subscriber_pb2.GetContactResponse:
        """Address and name of a reader; not found once erased."""
        request = subscriber_pb2.GetContactRequest(subject_id=ids.encode("subj", subject))
        with caller.acting(acting):
            return await self._subscribers.GetContact(request)

    async def publication(self, acting: Caller) -> str:
        """Name of the account's publication."""
        with caller.acting(acting):
            account = await self._accounts.DescribeAccount(account_pb2.DescribeAccountRequest())
        return account.name
