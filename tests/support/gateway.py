"""Owns a whole gateway for tests: the real composition, toy services behind real gRPC, a client, keys and tokens."""

import asyncio
import base64
import hmac
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import UUID

import aiohttp
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from gatefold.auth.v1 import (
    account_pb2,
    account_pb2_grpc,
    api_key_pb2,
    api_key_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
)
from gatefold.billing.v1 import catalogue_pb2, catalogue_pb2_grpc, stripe_webhook_pb2, stripe_webhook_pb2_grpc
from gatefold.subscriber.v1 import (
    entitlement_pb2,
    entitlement_pb2_grpc,
    import_pb2,
    import_pb2_grpc,
    site_pb2,
    site_pb2_grpc,
    subscriber_pb2,
    subscriber_pb2_grpc,
)

from libs import caller, errors, ids
from libs.caller import Caller, CallerVerifier
from libs.config import Secret
from libs.errors import GatefoldError
from libs.grpc_server import GrpcServer
from libs.process import Process, ProcessConfig
from libs.telemetry import Telemetry
from services.gateway.__main__ import compose
from services.gateway.http.api_keys import checksum
from services.gateway.http.firewall import Firewall
from services.gateway.http.limits import Limits
from services.gateway.http.server import HttpServer
from services.gateway.http.verdicts import Verdicts
from tests.support.living import end

ISSUER = "https://gatefold.test"
PEPPER = "a pepper for tests"
ACCOUNT = UUID("01900000-0000-7000-8000-000000000001")
OTHER_ACCOUNT = UUID("01900000-0000-7000-8000-000000000002")
READER = UUID("01900000-0000-7000-8000-000000000003")
SITE = "https://news.example"
OTHER_SITE = "https://other.example"


PATIENT = {
    "rate_store_seconds": "2",
    **{f"lag_{name}_seconds": "60" for name in ("low", "normal", "high")},
    "refusals_per_client": "1000000",
}
"""Slow machines are not what tests are about."""


def api_key(kind: str = "sk", mode: str = "live", body: str = "k" * 43) -> str:
    """Returns a well-formed key."""
    text = f"gf{kind}_{mode}_{body}"
    return text + checksum(text)


SECRET_KEY = api_key()
PUBLISHABLE_KEY = api_key("pk")


class Signer:
    """Signs access tokens as auth does."""

    def __init__(self, kid: str = "key-1") -> None:
        self.kid = kid
        self.private = ec.generate_private_key(ec.SECP256R1())

    def jwk(self) -> session_pb2.JsonWebKey:
        """Returns the public key."""
        numbers = self.private.public_key().public_numbers()

        def text(number: int) -> str:
            return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()

        return session_pb2.JsonWebKey(
            kty="EC", crv="P-256", x=text(numbers.x), y=text(numbers.y), kid=self.kid, use="sig", alg="ES256"
        )

    def token(self, headers: Mapping[str, Any] | None = None, **changes: Any) -> str:
        """Returns a reader's token; a claim that is changed to None is left out."""
        now = datetime.now(UTC)
        claims = {
            "iss": ISSUER,
            "aud": "gatefold",
            "sub": ids.encode("subj", READER),
            "account": ids.encode("acct", ACCOUNT),
            "live": True,
            "kind": "SUBSCRIBER",
            "scope": "access:read checkouts:write invoices:read",
            "sid": ids.encode("ses", READER),
            "acr": "aal1",
            "auth_time": int(now.timestamp()),
            "iat": int(now.timestamp()),
            "exp": int((now + timedelta(minutes=10)).timestamp()),
            "jti": "t",
            **changes,
        }
        given = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(given, self.private, "ES256", headers={"typ": "at+jwt", "kid": self.kid, **(headers or {})})

    def staff(self, **changes: Any) -> str:
        """Returns the token of a member of staff."""
        scope = "catalogue:read catalogue:write subscribers:read"
        return self.token(**{"kind": "STAFF", "sub": ids.encode("per", READER), "scope": scope, **changes})

    def operator(self, **changes: Any) -> str:
        """Returns the token of the platform's operator."""
        return self.token(**{"kind": "PLATFORM_OPERATOR", "sub": ids.encode("per", READER), "account": None, **changes})


@dataclass
class Backend:
    """Toy services: they remember who called with what, and answer what they are told to."""

    signer: Signer
    calls: list[tuple[str, Caller, Any]] = field(default_factory=list)
    lookups: list[str] = field(default_factory=list)
    leaks: list[tuple[bytes, str]] = field(default_factory=list)
    keys: dict[bytes, api_key_pb2.ResolveApiKeyResponse] = field(default_factory=dict)
    origins: dict[str, list[UUID]] = field(default_factory=dict)
    jwks: list[session_pb2.JsonWebKey] = field(default_factory=list)
    failure: GatefoldError | Exception | None = None
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when DecideAccess was called."""
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)
    """DecideAccess answers once it is set."""

    def __post_init__(self) -> None:
        self.goes_on.set()
        self.jwks = [self.signer.jwk()]
        self.origins = {SITE: [ACCOUNT], OTHER_SITE: [OTHER_ACCOUNT]}
        self.add_key(SECRET_KEY, scopes=("catalogue:read", "catalogue:write", "subscribers:write", "access:read"))
        self.add_key(PUBLISHABLE_KEY, scopes=("access:read",))

    def forget(self) -> None:
        """Forgets what happened, so that the next test begins afresh."""
        self.calls.clear()
        self.lookups.clear()
        self.leaks.clear()
        self.failure = None

    def add_key(
        self, key: str, *, scopes: tuple[str, ...] = (), account: UUID = ACCOUNT, networks: tuple[str, ...] = ()
    ) -> None:
        """Makes a key known."""
        kind = api_key_pb2.API_KEY_KIND_SECRET if key.startswith("gfsk") else api_key_pb2.API_KEY_KIND_PUBLISHABLE
        number = UUID(bytes=hmac.digest(b"", key.encode(), "sha256")[:16])
        self.keys[hmac.digest(PEPPER.encode(), key.encode(), "sha256")] = api_key_pb2.ResolveApiKeyResponse(
            api_key=api_key_pb2.ApiKey(
                id=ids.encode("key", number), kind=kind, live="_live_" in key, scopes=scopes, networks=networks
            ),
            account_id=ids.encode("acct", account),
        )

    def note(self, name: str, request: Any) -> None:
        """Remembers a call; raises what the test wants."""
        self.calls.append((name, caller.current(), request))
        if self.failure is not None:
            raise self.failure

    def last(self) -> tuple[str, Caller, Any]:
        """The call that came last."""
        return self.calls[-1]


class _Toy:
    """A servicer that refuses what it was not given a method for."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def __getattr__(self, name: str) -> Any:
        async def refuse(request: Any, context: Any) -> Any:
            raise errors.not_found("toy_knows_nothing", f"There is no {name} here.")

        return refuse


class _Auth(_Toy):
    async def ResolveApiKey(self, request: Any, context: Any) -> Any:
        self.backend.lookups.append("key")
        found = self.backend.keys.get(request.hash)
        if found is None:
            raise errors.not_found("key_unknown", "There is no such key.")
        return found

    async def ReportLeakedApiKey(self, request: Any, context: Any) -> Any:
        self.backend.leaks.append((request.hash, request.place))
        return api_key_pb2.ReportLeakedApiKeyResponse(revoked=True)

    async def GetKeySet(self, request: Any, context: Any) -> Any:
        self.backend.lookups.append("key_set")
        return session_pb2.KeySet(keys=self.backend.jwks)

    async def ListSessionEnds(self, request: Any, context: Any) -> Any:
        return session_pb2.ListSessionEndsResponse(next_cursor=request.cursor)

    async def RefreshSession(self, request: Any, context: Any) -> Any:
        self.backend.note("RefreshSession", request)
        return session_pb2.Tokens(access_token="a", refresh_token="r", token_type="Bearer", expires_in=600)

    async def ListAccounts(self, request: Any, context: Any) -> Any:
        self.backend.note("ListAccounts", request)
        return account_pb2.ListAccountsResponse()

    async def AdvanceTestClock(self, request: Any, context: Any) -> Any:
        self.backend.note("AdvanceTestClock", request)
        return account_pb2.AdvanceTestClockResponse(drained=True)


class _Subscriber(_Toy):
    async def ResolveOrigin(self, request: Any, context: Any) -> Any:
        self.backend.lookups.append(f"origin {request.origin}")
        accounts = self.backend.origins.get(request.origin, [])
        return site_pb2.ResolveOriginResponse(account_ids=[ids.encode("acct", account) for account in accounts])

    async def DecideAccess(self, request: Any, context: Any) -> Any:
        self.backend.note("DecideAccess", request)
        self.backend.entered.set()
        await self.backend.goes_on.wait()
        return entitlement_pb2.DecideAccessResponse(allowed=True, reason="entitled")

    async def CreateSubscriber(self, request: Any, context: Any) -> Any:
        self.backend.note("CreateSubscriber", request)
        return subscriber_pb2.Subscriber(email=request.email)

    async def UpdateSubscriber(self, request: Any, context: Any) -> Any:
        self.backend.note("UpdateSubscriber", request)
        return subscriber_pb2.Subscriber(id=request.id)

    async def GetMe(self, request: Any, context: Any) -> Any:
        self.backend.note("GetMe", request)
        return subscriber_pb2.Subscriber(id=ids.encode("subj", caller.current().require_subject()))

    async def CreateImport(self, request: Any, context: Any) -> Any:
        self.backend.note("CreateImport", request)
        return import_pb2.Import(state=import_pb2.IMPORT_STATE_QUEUED)


class _Billing(_Toy):
    async def CreateProduct(self, request: Any, context: Any) -> Any:
        self.backend.note("CreateProduct", request)
        return catalogue_pb2.Product(id=ids.encode("prod", READER), name=request.name, features=request.features)

    async def ListProducts(self, request: Any, context: Any) -> Any:
        self.backend.note("ListProducts", request)
        return catalogue_pb2.ListProductsResponse()

    async def CreatePlan(self, request: Any, context: Any) -> Any:
        self.backend.note("CreatePlan", request)
        return catalogue_pb2.Plan(interval=request.interval)

    async def ListOffers(self, request: Any, context: Any) -> Any:
        self.backend.note("ListOffers", request)
        return catalogue_pb2.ListOffersResponse()

    async def ReceiveStripeWebhook(self, request: Any, context: Any) -> Any:
        self.backend.note("ReceiveStripeWebhook", request)
        return stripe_webhook_pb2.ReceiveStripeWebhookResponse()


AWAY = ("notify", "abuse")
"""Services that nobody serves."""

_SERVICES: Mapping[str, tuple[type, tuple[Any, ...]]] = {
    "auth": (
        _Auth,
        (
            api_key_pb2_grpc.add_ApiKeyServiceServicer_to_server,
            session_pb2_grpc.add_SessionServiceServicer_to_server,
            account_pb2_grpc.add_AccountServiceServicer_to_server,
        ),
    ),
    "subscriber": (
        _Subscriber,
        (
            site_pb2_grpc.add_SiteServiceServicer_to_server,
            entitlement_pb2_grpc.add_EntitlementServiceServicer_to_server,
            subscriber_pb2_grpc.add_SubscriberServiceServicer_to_server,
            import_pb2_grpc.add_ImportServiceServicer_to_server,
        ),
    ),
    "billing": (
        _Billing,
        (
            catalogue_pb2_grpc.add_CatalogueServiceServicer_to_server,
            stripe_webhook_pb2_grpc.add_StripeWebhookServiceServicer_to_server,
        ),
    ),
}


@dataclass
class RunningGateway:
    """A gateway that listens, its toy services, and a client."""

    url: str
    port: int
    backend: Backend
    process: Process
    client: aiohttp.ClientSession
    servers: dict[str, GrpcServer]
    environ: Mapping[str, str]
    """What the gateway was told."""

    async def ask(self, verb: str, path: str, **said: Any) -> "Answer":
        """Sends a request, as `asked` does."""
        return await asked(self.client, verb, f"{self.url}{path}", **said)

    @property
    def firewall(self) -> Firewall:
        """What requests are held against."""
        served: Any = self.process._servers[-1]
        found: Firewall = served._app._edge.firewall
        return found

    @property
    def limits(self) -> Limits:
        """What requests are counted against."""
        served: Any = self.process._servers[-1]
        found: Limits = served._app._edge.limits
        return found

    @property
    def verdicts(self) -> Verdicts:
        """What the abuse detection has decided."""
        return self.firewall._sources.verdicts

    async def raw(self, data: bytes, *, until_closed: bool = True) -> bytes:
        """Sends bytes over a connection of its own and returns what comes back until it is closed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            await writer.drain()
            return await (reader.read() if until_closed else reader.readuntil(b"\r\n\r\n"))
        finally:
            writer.close()

    def metric(self, name: str, **labels: str) -> float:
        """Returns a metric's value, 0 when it was never counted."""
        return self.process.telemetry.registry.get_sample_value(name, labels) or 0.0


@dataclass
class Answer:
    """A whole HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """The problem's reason."""
        assert self.headers["Content-Type"] == "application/problem+json", self.body
        reason: str = self.json["reason"]
        return reason


async def asked(
    client: aiohttp.ClientSession,
    verb: str,
    url: str,
    *,
    credential: str | None = None,
    headers: Mapping[str, str] | None = None,
    **rest: Any,
) -> Answer:
    """Sends a request and reads the whole answer."""
    sent = dict(headers or {})
    if credential is not None:
        sent["Authorization"] = f"Bearer {credential}"
    async with client.request(verb, url, headers=sent, **rest) as response:
        return Answer(response.status, response.headers, await response.read())


def caller_keys() -> dict[str, tuple[bytes, ...]]:
    """Returns fresh pair keys between the gateway and each service."""
    return {f"gateway>{service}": (os.urandom(32),) for service in (*_SERVICES, *AWAY)}


@asynccontextmanager
async def running_gateway(
    directory: Path,
    redis_url: Secret,
    *,
    background: bool = False,
    signer: Signer | None = None,
    neighbours: Mapping[str, tuple[str, bytes]] = MappingProxyType({}),
    **environ: str,
) -> AsyncIterator[RunningGateway]:
    """Starts a gateway with toy services; `environ` are GATEFOLD_ variables without the prefix, in lower case.

    Its loops run where `background` says so; gateways that are handed the same signer take the same tokens.
    `neighbours` are services that run elsewhere: address, and the key of their pair with the gateway.
    """
    backend = Backend(signer or Signer())
    telemetry = Telemetry("gateway")
    keys = caller_keys()
    servers: dict[str, GrpcServer] = {}
    peers: dict[str, str] = {}
    sockets = directory / f"gw-{os.urandom(3).hex()}"
    for name, (servicer, adders) in _SERVICES.items():
        peers[name] = f"unix:{sockets}/{name}.sock"
        server = GrpcServer(
            name,
            peers[name],
            verifier=CallerVerifier(name, keys, Process(name, _process(sockets, name), telemetry).clock),
            telemetry=Telemetry(name),
        )
        for add in adders:
            server.add(add, servicer(backend))
        await server.start()
        servers[name] = server
    peers.update({name: f"unix:{sockets}/{name}.sock" for name in AWAY})
    peers.update({name: address for name, (address, _) in neighbours.items()})
    keys.update({f"gateway>{name}": (key,) for name, (_, key) in neighbours.items()})
    process = Process("gateway", _process(sockets, "gateway"), telemetry)
    settings = {
        "redis_url": redis_url.reveal(),
        "caller_keys": json.dumps({pair: base64.b64encode(key[0]).decode() for pair, key in keys.items()}),
        "peers": json.dumps(peers),
        "connect_seconds": "0.2",
        "issuer": ISSUER,
        "key_pepper": PEPPER,
        "http_listen": "127.0.0.1:0",
        **PATIENT,
        **environ,
    }
    client = aiohttp.ClientSession(auto_decompress=False)
    try:
        told = {f"GATEFOLD_{name.upper()}": value for name, value in settings.items()}
        await compose(process, told)
        if background:
            process._background.start()
        (edge,) = [served for served in process._servers if isinstance(served, HttpServer)]
        yield RunningGateway(f"http://127.0.0.1:{edge.port}", edge.port, backend, process, client, servers, told)
    finally:
        await client.close()
        await end(process)
        for server in servers.values():
            await server.drain(0.1)


def _process(directory: Path, name: str) -> ProcessConfig:
    return ProcessConfig(
        listen=f"unix:{directory}/{name}.sock", metrics_listen=f"unix:{directory}/{name}-metrics.sock", drain_seconds=2
    )
