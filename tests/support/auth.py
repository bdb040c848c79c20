"""Owns the auth service as tests run it: the whole process object on real stores, with other services at its edge."""

import asyncio
import io
import itertools
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, cast
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import asyncpg
import jwt
from gatefold.auth.v1 import (
    account_pb2,
    account_pb2_grpc,
    api_key_pb2_grpc,
    credential_pb2_grpc,
    device_pb2_grpc,
    factor_pb2_grpc,
    federated_session_pb2_grpc,
    identity_provider_pb2_grpc,
    oauth_client_pb2,
    oauth_client_pb2_grpc,
    oauth_pb2_grpc,
    passkey_pb2_grpc,
    password_pb2_grpc,
    recovery_pb2,
    recovery_pb2_grpc,
    saml_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
    sign_in_pb2_grpc,
    subscriber_session_pb2,
    subscriber_session_pb2_grpc,
    team_pb2,
    team_pb2_grpc,
)
from gatefold.clock.v1 import clock_pb2_grpc
from gatefold.clock.v1.clock_pb2_grpc import add_ClockServiceServicer_to_server
from gatefold.privacy.v1 import subject_data_pb2_grpc
from gatefold.subscriber.v1 import subscriber_pb2, subscriber_pb2_grpc
from google.protobuf.message import Message
from prometheus_client import generate_latest

from libs import caller, errors, ids
from libs.caller import Caller, CallerKind, CallerVerifier
from libs.clock import ClockServicer, FixedClock, SystemClock
from libs.errors import GatefoldError
from libs.grpc_client import Channels, GrpcConfig
from libs.grpc_server import GrpcServer
from libs.ids import IdMaker
from libs.kill_points import KillPoints
from libs.postgres import Database
from libs.process import Process, ProcessConfig
from libs.telemetry import Telemetry
from libs.vault import Vault
from services.auth.__main__ import compose
from services.auth.domain import roles
from services.auth.usecases.challenges import Challenges
from services.auth.usecases.facts import Facts
from services.auth.usecases.passwords import PasswordHasher
from services.auth.usecases.secrets import TokenSecrets
from services.auth.usecases.staff import People
from tests.support.living import living
from tests.support.neighbours import SERVICES, Vouching, pair_keys, pair_secrets
from tests.support.secrecy import Secrecy
from tests.support.stores import ServiceDatabase, role_dsn

PASSWORD = "correct horse battery"
ISSUER = "https://auth.gatefold.example"
COST = 4


@dataclass
class SubscriberDouble(subscriber_pb2_grpc.SubscriberServiceServicer):
    """The subscriber service's part in a registration: one subject an address, whatever is offered."""

    subjects: dict[tuple[UUID, str], str] = field(default_factory=dict)
    asked: list[Caller] = field(default_factory=list)
    arrivals: asyncio.Queue[Caller] = field(default_factory=asyncio.Queue)
    held: list[asyncio.Event] = field(default_factory=list)

    def hold(self) -> asyncio.Event:
        """Lets calls take effect from now on, and keeps their answers back."""
        self.arrivals = asyncio.Queue()
        self.held.append(asyncio.Event())
        return self.held[-1]

    def release(self, held: asyncio.Event) -> None:
        """Answers what was kept back."""
        self.held.remove(held)
        held.set()

    async def EnsureSubject(
        self, request: subscriber_pb2.EnsureSubjectRequest, context: object
    ) -> subscriber_pb2.EnsureSubjectResponse:
        who = caller.current()
        self.asked.append(who)
        place = (who.require_account(), request.email)
        created = place not in self.subjects
        subject = self.subjects.setdefault(place, request.offered_subject_id)
        self.arrivals.put_nowait(who)
        for event in tuple(self.held):
            await event.wait()
        return subscriber_pb2.EnsureSubjectResponse(subject_id=subject, created=created)

    async def ChangeEmail(
        self, request: subscriber_pb2.ChangeEmailRequest, context: object
    ) -> subscriber_pb2.ChangeEmailResponse:
        who = caller.current()
        self.asked.append(who)
        account = who.require_account()
        if self.subjects.get((account, request.email), request.subject_id) != request.subject_id:
            raise errors.precondition("email_taken", "Somebody else has this address.")
        for place, subject in tuple(self.subjects.items()):
            if place[0] == account and subject == request.subject_id:
                del self.subjects[place]
        self.subjects[(account, request.email)] = request.subject_id
        self.arrivals.put_nowait(who)
        for event in tuple(self.held):
            await event.wait()
        return subscriber_pb2.ChangeEmailResponse()

    async def GetContact(
        self, request: subscriber_pb2.GetContactRequest, context: object
    ) -> subscriber_pb2.GetContactResponse:
        account = caller.current().require_account()
        for (place, email), subject in self.subjects.items():
            if place == account and subject == request.subject_id:
                return subscriber_pb2.GetContactResponse(email=email, name="Rita")
        raise errors.not_found("subject_not_found", "There is no such reader.")


async def _not_played(self: SubscriberDouble, request: Message, context: object) -> NoReturn:
    raise AssertionError(f"auth has no business with {request.DESCRIPTOR.full_name}")


for _method in subscriber_pb2.DESCRIPTOR.services_by_name["SubscriberService"].methods:
    if _method.name not in vars(SubscriberDouble):
        setattr(SubscriberDouble, _method.name, _not_played)


@dataclass
class PeerClockDouble:
    """The clock of another service: its real servicer over offsets in memory."""

    clock: FixedClock
    offsets: dict[UUID, timedelta] = field(default_factory=dict)
    waiting: list[int] = field(default_factory=list)
    """Answers of the next rounds; then nothing waits."""

    async def read(self) -> Mapping[UUID, timedelta]:
        return self.offsets

    async def store(self, account: UUID, offset: timedelta) -> None:
        self.offsets[account] = offset

    async def left(self, _: UUID) -> int:
        return self.waiting.pop(0) if self.waiting else 0

    def servicer(self) -> ClockServicer:
        return ClockServicer(FixedClock(self.clock.wall()), self.read, self.store, {"due": self.left})


@dataclass(frozen=True)
class Publisher:
    """An account with an owner who can sign in."""

    live: UUID
    test: UUID
    owner_email: str
    owner: UUID
    member: UUID


class AuthHouse:
    """A running auth service and the callers that the edge would vouch for."""

    def __init__(
        self,
        clock: SystemClock,
        database: ServiceDatabase,
        channels: Channels,
        doubles: tuple[SubscriberDouble, dict[str, PeerClockDouble]],
        environ: dict[str, str],
        log: io.StringIO,
        telemetry: Telemetry,
    ) -> None:
        self.clock = clock
        self.telemetry = telemetry
        self.database = database
        self.app: Database = database.app
        self.log = log
        self.environ = environ
        self.subscriber, self.clocks = doubles
        self.secrecy = Secrecy()
        channel = channels.channel("auth")
        self.accounts = account_pb2_grpc.AccountServiceStub(channel)
        self.api_keys = api_key_pb2_grpc.ApiKeyServiceStub(channel)
        self.sessions = session_pb2_grpc.SessionServiceStub(channel)
        self.readers = subscriber_session_pb2_grpc.SubscriberSessionServiceStub(channel)
        self.recovery = recovery_pb2_grpc.RecoveryServiceStub(channel)
        self.credentials = credential_pb2_grpc.CredentialServiceStub(channel)
        self.devices = device_pb2_grpc.DeviceServiceStub(channel)
        self.passwords = password_pb2_grpc.PasswordServiceStub(channel)
        self.federated = federated_session_pb2_grpc.FederatedSessionServiceStub(channel)
        self.identity_providers = identity_provider_pb2_grpc.IdentityProviderServiceStub(channel)
        self.oauth = oauth_pb2_grpc.OAuthServiceStub(channel)
        self.oauth_clients = oauth_client_pb2_grpc.OAuthClientServiceStub(channel)
        self.factors = factor_pb2_grpc.FactorServiceStub(channel)
        self.sign_ins = sign_in_pb2_grpc.SubscriberSignInServiceStub(channel)
        self.passkeys = passkey_pb2_grpc.PasskeyServiceStub(channel)
        self.saml_connections = saml_pb2_grpc.SamlConnectionServiceStub(channel)
        self.saml = saml_pb2_grpc.SamlSignInServiceStub(channel)
        self.team = team_pb2_grpc.TeamServiceStub(channel)
        self.own_clock = clock_pb2_grpc.ClockServiceStub(channel)
        self.privacy = subject_data_pb2_grpc.SubjectDataStub(channel)
        self._numbers = itertools.count(1)
        self._kept: dict[UUID, str] = {}

    def fresh(self, word: str = "reader") -> str:
        """Returns an address nobody has used."""
        return f"{word}{next(self._numbers)}@example.com"

    def units(self) -> int:
        """Returns the work units of password hashing so far."""
        return int(self.telemetry.registry.get_sample_value("gatefold_password_hash_units_total") or 0)

    def request_id(self) -> str:
        return f"req_{next(self._numbers)}"

    def anonymous(self, request_id: str | None = None) -> Caller:
        return Caller(CallerKind.ANONYMOUS, "anonymous", request_id=request_id or self.request_id())

    def operator(self, key: str | None = None) -> Caller:
        return Caller(
            CallerKind.PLATFORM_OPERATOR,
            ids.encode("per", UUID(int=7)),
            request_id=self.request_id(),
            idempotency_key=key,
        )

    def page(
        self, account: UUID, *, live: bool = True, request_id: str | None = None, key: str | None = None
    ) -> Caller:
        """A browser with the account's publishable key."""
        return Caller(
            CallerKind.PUBLISHABLE_KEY,
            ids.encode("key", account),
            account,
            live,
            frozenset({"access:read"}),
            request_id=request_id or self.request_id(),
            idempotency_key=key,
        )

    def staff(self, account: UUID, role: str = roles.OWNER, *, live: bool = True, key: str | None = None) -> Caller:
        return Caller(
            CallerKind.STAFF,
            ids.encode("per", UUID(int=8)),
            account,
            live,
            roles.scopes_of(role),
            role,
            person=UUID(int=8),
            request_id=self.request_id(),
            idempotency_key=key,
        )

    async def holder(self, tokens: session_pb2.Tokens) -> Caller:
        """Whoever holds an access token, as the edge vouches for them."""
        claims = await self.claims(tokens.access_token)
        kind = CallerKind[str(claims["kind"])]
        reader = kind is CallerKind.SUBSCRIBER
        principal = ids.decode("subj" if reader else "per", str(claims["sub"]))
        return Caller(
            kind,
            str(claims["sub"]),
            ids.decode("acct", str(claims["account"])) if "account" in claims else None,
            bool(claims["live"]),
            frozenset(str(claims["scope"]).split()),
            str(claims["role"]) if "role" in claims else None,
            subject=principal if reader else None,
            person=None if reader else principal,
            session=ids.decode("ses", str(claims["sid"])),
            acr=str(claims["acr"]),
            auth_time=datetime.fromtimestamp(float(str(claims["auth_time"])), UTC),
            federated=bool(claims.get("federated", False)),
            request_id=self.request_id(),
        )

    def service(self, name: str, account: UUID | None = None, *, live: bool = True) -> Caller:
        return caller.service_caller(name, account, live=live, request_id=self.request_id())

    async def call(self, who: Caller, method: object, request: Message) -> Message:
        """Calls a method of a stub as `who`."""
        self.secrecy.note(request)
        try:
            with caller.acting(who):
                answer: Message = await method(request, timeout=10)  # type: ignore[operator]
        except GatefoldError as error:
            told = [error.detail, *error.metadata.values(), *(one.detail for one in error.violations)]
            self.secrecy.check(" ".join(told), "an error")
            raise
        self.secrecy.note(answer)
        return answer

    async def check_secrecy(self) -> None:
        """Raises AssertionError when a secret of any call stands in a log, a metric or a row of the database."""
        self.secrecy.check(self.log.getvalue(), "the log")
        self.secrecy.check(generate_latest(self.telemetry.registry).decode(), "the metrics")
        connection = await asyncpg.connect(self.database.owner_dsn.reveal())
        try:
            for table in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"):
                for row in await connection.fetch(f'SELECT * FROM "{table["tablename"]}"'):
                    values = [value.decode("latin1") if isinstance(value, bytes) else str(value) for value in row]
                    self.secrecy.check(" ".join(values), f"the table {table['tablename']}")
        finally:
            await connection.close()

    async def create_account(self, owner_email: str | None = None, name: str = "The Daily") -> account_pb2.Account:
        request = account_pb2.CreateAccountRequest(
            name=name,
            owner_email=owner_email or self.fresh("owner"),
            time_zone="Europe/Paris",
            reader_url="https://daily.example/welcome?from=mail",
        )
        answer = await self.call(self.operator(), self.accounts.CreateAccount, request)
        assert isinstance(answer, account_pb2.Account)
        return answer

    async def publisher(self) -> Publisher:
        """Opens an account whose owner has accepted."""
        email = self.fresh("owner")
        account = await self.create_account(email)
        live = ids.decode("acct", account.id)
        token = await self.token(live, "invite_member")
        member = await self.accept(token)
        return Publisher(
            live,
            ids.decode("acct", account.sibling_id),
            email,
            ids.decode("per", member.person_id),
            ids.decode("mem", member.id),
        )

    async def accept(self, token: str, password: str = PASSWORD, request_id: str | None = None) -> team_pb2.Member:
        request = team_pb2.AcceptInvitationRequest(token=token, name="Ada Owner", password=password)
        answer = await self.call(self.anonymous(request_id), self.team.AcceptInvitation, request)
        assert isinstance(answer, team_pb2.Member)
        return answer

    async def register(
        self, account: UUID, email: str, password: str = PASSWORD, name: str = "Rita", key: str | None = None
    ) -> str:
        """Registers a reader; returns what the browser keeps, which the next `verify` gives back."""
        request = subscriber_session_pb2.RegisterRequest(email=email, password=password, name=name)
        answer = await self.call(self.page(account, key=key), self.readers.Register, request)
        assert isinstance(answer, subscriber_session_pb2.RegisterResponse)
        self._kept[account] = answer.browser_secret
        return answer.browser_secret

    async def verify(
        self,
        account: UUID,
        token: str,
        request_id: str | None = None,
        *,
        browser_secret: str | None = None,
        password: str = "",
    ) -> UUID:
        kept = self._kept.get(account, "") if browser_secret is None else browser_secret
        request = subscriber_session_pb2.VerifyRegistrationRequest(token=token, browser_secret=kept, password=password)
        who = self.page(account, request_id=request_id)
        answer = await self.call(who, self.readers.VerifyRegistration, request)
        assert isinstance(answer, subscriber_session_pb2.VerifyRegistrationResponse)
        return ids.decode("subj", answer.subject_id)

    async def reader(self, account: UUID, email: str, password: str = PASSWORD) -> UUID:
        """Registers and verifies a reader; returns the subject."""
        await self.register(account, email, password, key=self.request_id())
        return await self.verify(account, await self.token(account, "verify_registration"))

    async def sign_in(self, account: UUID, email: str, password: str = PASSWORD) -> session_pb2.Tokens:
        request = subscriber_session_pb2.SignInRequest(email=email, password=password)
        answer = await self.call(self.page(account), self.readers.SignIn, request)
        assert isinstance(answer, session_pb2.Tokens)
        return answer

    async def sign_in_staff(
        self, email: str, password: str = PASSWORD, account: UUID | None = None
    ) -> session_pb2.Tokens:
        request = session_pb2.SignInStaffRequest(
            email=email, password=password, account_id=ids.encode("acct", account) if account else ""
        )
        answer = await self.call(self.anonymous(), self.sessions.SignInStaff, request)
        assert isinstance(answer, session_pb2.Tokens)
        return answer

    async def refresh(self, token: str) -> session_pb2.Tokens:
        request = session_pb2.RefreshSessionRequest(refresh_token=token)
        answer = await self.call(self.anonymous(), self.sessions.RefreshSession, request)
        assert isinstance(answer, session_pb2.Tokens)
        return answer

    async def person(self, who: str, tokens: session_pb2.Tokens, *, account: UUID | None = None) -> Caller:
        """The holder of tokens, as the edge would vouch for them."""
        claims = await self.claims(tokens.access_token)
        principal = ids.decode(who, str(claims["sub"]))
        return Caller(
            CallerKind[str(claims["kind"])],
            str(claims["sub"]),
            account,
            bool(claims["live"]),
            subject=principal if who == "subj" else None,
            person=principal if who == "per" else None,
            session=ids.decode("ses", str(claims["sid"])),
            acr=str(claims["acr"]),
            auth_time=datetime.fromtimestamp(float(str(claims["auth_time"])), UTC),
            federated=bool(claims.get("federated", False)),
            request_id=self.request_id(),
        )

    async def oauth_client(
        self, account: UUID, redirect_uri: str = "https://shop.example/back", **wanted: Any
    ) -> oauth_client_pb2.CreateOAuthClientResponse:
        """Registers a client of the OpenID Connect provider: confidential, with all scopes, unless told otherwise."""
        request = oauth_client_pb2.CreateOAuthClientRequest(
            **{
                "name": "The Shop",
                "redirect_uris": [redirect_uri],
                "post_logout_redirect_uris": ["https://shop.example/bye"],
                "confidential": True,
                "scopes": ["openid", "profile", "email", "offline_access"],
                **wanted,
            }
        )
        answer = await self.call(self.staff(account), self.oauth_clients.CreateOAuthClient, request)
        assert isinstance(answer, oauth_client_pb2.CreateOAuthClientResponse)
        return answer

    async def complete_reset(self, token: str, password: str, request_id: str | None = None) -> None:
        request = recovery_pb2.CompletePasswordResetRequest(token=token, password=password)
        await self.call(self.anonymous(request_id), self.recovery.CompletePasswordReset, request)

    async def describe(self, challenge: UUID) -> subscriber_session_pb2.DescribeChallengeResponse:
        request = subscriber_session_pb2.DescribeChallengeRequest(challenge_id=ids.encode("chal", challenge))
        answer = await self.call(self.service("notify"), self.readers.DescribeChallenge, request)
        assert isinstance(answer, subscriber_session_pb2.DescribeChallengeResponse)
        return answer

    async def newest_challenge(self, account: UUID) -> UUID:
        """Returns the newest challenge of an account, as notify learns of it: from the outbox."""
        async with self.database.jobs.transaction("read_outbox") as conn:
            text = await conn.fetchval(
                "SELECT aggregate_id FROM outbox WHERE account_id = $1 AND type = 'challenge.requested'"
                " ORDER BY position DESC LIMIT 1",
                account,
            )
        return ids.decode("chal", text)

    async def token(self, account: UUID, purpose: str) -> str:
        """Returns the token in the link of the account's newest mail."""
        letter = await self.describe(await self.newest_challenge(account))
        assert letter.purpose == purpose
        parts = urlsplit(letter.link)
        return parse_qs(f"{parts.query}&{parts.fragment}")["token"][0]

    def challenges(self, vault: Vault) -> Challenges:
        """Returns the use case that the parts of auth have mails sent with, beside the running service."""
        make = IdMaker(self.clock, os.urandom)
        secrets = TokenSecrets.derive(self.environ["GATEFOLD_CHALLENGE_SECRET"])
        facts = Facts(self.clock, make, self.telemetry)
        contacts = People(self.app, vault, cast("PasswordHasher", None), self.clock, make).contacts
        url = self.environ["GATEFOLD_PUBLIC_URL"]
        return Challenges(self.app, vault, secrets, self.clock, make, facts, contacts, url)

    async def events(self, account: UUID) -> list[str]:
        async with self.database.jobs.transaction("read_outbox") as conn:
            rows = await conn.fetch("SELECT type FROM outbox WHERE account_id = $1 ORDER BY position", account)
        return [row["type"] for row in rows]

    async def claims(self, access_token: str) -> dict[str, object]:
        """Returns the claims, verified as the edge does it: by the published key set."""
        found = await self.call(self.anonymous(), self.sessions.GetKeySet, session_pb2.GetKeySetRequest())
        assert isinstance(found, session_pb2.KeySet)
        header = jwt.get_unverified_header(access_token)
        assert header["typ"] == "at+jwt"
        (key,) = (one for one in found.keys if one.kid == header["kid"])
        public = jwt.PyJWK({"kty": key.kty, "crv": key.crv, "x": key.x, "y": key.y, "alg": key.alg})
        claims: dict[str, object] = jwt.decode(
            access_token,
            public.key,
            algorithms=["ES256"],
            audience="gatefold",
            issuer=self.environ["GATEFOLD_ISSUER"],
            options={"require": ["exp", "iat", "sub", "jti"], "verify_exp": False, "verify_iat": False},
        )
        return claims


def addresses(folder: Path) -> dict[str, str]:
    """Returns where the services listen."""
    return {name: f"unix:{folder}/{name}.sock" for name in SERVICES}


def environment(
    database: ServiceDatabase, keys_dsn: str, redis_url: str, key_file: Path, folder: Path
) -> dict[str, str]:
    """Returns what auth reads from its environment."""
    return {
        "GATEFOLD_LISTEN": addresses(folder)["auth"],
        "GATEFOLD_METRICS_LISTEN": f"unix:{folder}/metrics.sock",
        "GATEFOLD_READY_FILE": str(folder / "ready"),
        "GATEFOLD_POSTGRES_APP_DSN": role_dsn(database.owner_dsn, "auth_app").reveal(),
        "GATEFOLD_POSTGRES_JOBS_DSN": role_dsn(database.owner_dsn, "auth_jobs").reveal(),
        "GATEFOLD_REDIS_URL": redis_url,
        "GATEFOLD_CALLER_KEYS": json.dumps(pair_keys()),
        "GATEFOLD_PEERS": json.dumps(addresses(folder)),
        "GATEFOLD_KEYS_DSN": keys_dsn,
        "GATEFOLD_KEY_FILE": str(key_file),
        "GATEFOLD_ISSUER": ISSUER,
        "GATEFOLD_PUBLIC_URL": "https://staff.gatefold.example/",
        "GATEFOLD_KEY_PEPPER": "key-pepper-of-tests-".ljust(40, "x"),
        "GATEFOLD_PASSWORD_PEPPER": "password-pepper-of-tests-".ljust(40, "x"),
        "GATEFOLD_CHALLENGE_SECRET": "challenge-secret-of-tests-".ljust(40, "x"),
        "GATEFOLD_BCRYPT_COST": str(COST),
        "GATEFOLD_HASH_QUEUE": "64",
        # On a busy machine the database would count what the store has counted already.
        "GATEFOLD_ATTEMPTS_STORE_SECONDS": "30",
    }


@asynccontextmanager
async def running(
    database: ServiceDatabase,
    keys_dsn: str,
    redis_url: str,
    key_file: Path,
    folder: Path,
    clock: FixedClock,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[AuthHouse]:
    """Runs auth with its background work, and beside it what it calls."""
    keys = pair_secrets()
    sockets = addresses(folder)
    quiet = Telemetry("tests", stream=io.StringIO())
    subscriber = SubscriberDouble()
    clocks = {name: PeerClockDouble(clock) for name in ("subscriber", "billing", "notify")}
    servers = []
    for name, peer in clocks.items():
        server = GrpcServer(name, sockets[name], verifier=CallerVerifier(name, keys, clock), telemetry=quiet)
        server.add(add_ClockServiceServicer_to_server, peer.servicer())
        if name == "subscriber":
            server.add(subscriber_pb2_grpc.add_SubscriberServiceServicer_to_server, subscriber)
        await server.start()
        servers.append(server)

    environ = {**environment(database, keys_dsn, redis_url, key_file, folder), **settings}
    log = io.StringIO()
    process = Process(
        "auth",
        ProcessConfig(
            listen=sockets["auth"],
            metrics_listen=f"unix:{folder}/metrics.sock",
            ready_file=folder / "ready",
            drain_seconds=5,
        ),
        Telemetry("auth", stream=log),
    )
    process.clock = clock
    process.ids = IdMaker(clock, os.urandom)
    channels = Channels(
        "gateway",
        GrpcConfig(peers=json.dumps(sockets)),
        Vouching(clock),
        telemetry=quiet,
        kill_points=KillPoints("gateway"),
    )
    try:
        async with living(process, compose(process, environ), log):
            house = AuthHouse(clock, database, channels, (subscriber, clocks), environ, log, process.telemetry)
            try:
                yield house
                await house.check_secrecy()
            finally:
                await channels.close()
    finally:
        for server in servers:
            await server.drain(1)
