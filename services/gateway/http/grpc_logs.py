"""Owns OTLP over gRPC at the edge: a call is the HTTP request of the same meaning, and meets all that it meets."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, NoReturn, cast
from urllib.parse import unquote

import grpc
import orjson
from aiohttp import HttpVersion11, StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import RawRequestMessage
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from libs.grpc_errors import DETAILS_KEY, DOMAIN
from services.gateway.domain.bounds import ConnectionBounds
from services.gateway.http.address import Peer, network_of
from services.gateway.http.answer import Answer
from services.gateway.http.caches import Monotonic
from services.gateway.http.certificates import Pairs
from services.gateway.http.request import Request
from services.gateway.http.restraint import Restraint

SERVICE = "opentelemetry.proto.collector.logs.v1.LogsService"
METHOD = "Export"
PATH = "/v1/otlp/v1/logs"
MESSAGE_BYTES = 1024 * 1024
"""As the endpoint's policy says; a larger message is refused before it is read whole."""
METADATA_BYTES = 16 * 1024
CALLS = 64
"""Under way at once; with their messages that is all the memory they may take."""
CALLS_PER_CLIENT = 16
"""Of these, for one client that speaks for itself alone."""
HELD = CALLS // 2
"""Of these, while they wait to be told that they are refused too often; beyond it the one held longest is told."""
CONNECTIONS = 256
_CALLS_PER_CONNECTION = 8
_HANDSHAKE_MILLISECONDS = 10_000
_IDLE_MILLISECONDS = 75_000
_OLDEST_MILLISECONDS = 3_600_000
_TAKEN = ("authorization", "x-forwarded-for", "x-request-id", "user-agent", "gatefold-version")
"""What is read of a call's metadata; the rest says nothing here."""

# What exporters try again (OTLP specification, "OTLP/gRPC Response"): UNAVAILABLE, and RESOURCE_EXHAUSTED with a time.
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}

Context = grpc.aio.ServicerContext[Any, Any]
Handle = Callable[[Request], Awaitable[Answer]]


class GrpcLogs:
    """Serves `LogsService/Export` beside the HTTP endpoint, with its credential, limits, rules and answers."""

    def __init__(
        self,
        handle: Handle,
        listen: str,
        bounds: ConnectionBounds,
        certificates: Pairs | None = None,
        *,
        message_seconds: float,
        address_of: Callable[[Peer], str],
        monotonic: Monotonic,
        shared_port: bool = False,
    ) -> None:
        """`handle` answers HTTP requests; without certificate and key a proxy before this ends TLS, or nobody does.

        A call whose message is not there after `message_seconds` makes room for another. `address_of` says by whose
        address a peer's calls are counted; empty for one that speaks for many. Of `bounds` count those of refusals.
        Other processes may listen on the same port where it is shared.
        """
        self._handle = handle
        self._message_seconds = message_seconds
        self._address_of = address_of
        self._restraint: Restraint[Context] = Restraint(bounds, monotonic=monotonic, most=HELD)
        self._under_way: Counter[str] = Counter()
        self._listen = listen
        self._certificates = certificates
        self._shared_port = shared_port
        self._server: grpc.aio.Server | None = None
        self.port: int | None = None
        """The port listened on, for addresses that end in `:0`."""

    async def start(self) -> None:
        """Listens; raises RuntimeError for an address that is taken."""
        server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", MESSAGE_BYTES),
                ("grpc.max_metadata_size", METADATA_BYTES),
                ("grpc.absolute_max_metadata_size", METADATA_BYTES),
                ("grpc.max_concurrent_streams", _CALLS_PER_CONNECTION),
                ("grpc.max_allowed_incoming_connections", CONNECTIONS),
                ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MILLISECONDS),
                ("grpc.max_connection_idle_ms", _IDLE_MILLISECONDS),
                ("grpc.max_connection_age_ms", _OLDEST_MILLISECONDS),
                ("grpc.so_reuseport", int(self._shared_port)),
            ),
            maximum_concurrent_rpcs=CALLS,
        )
        # Bytes go in and out: the endpoint's service reads them, once. A call is taken as a stream of one message,
        # which looks the same on the wire: for the message of any other gRPC waits without an end.
        export = grpc.stream_unary_rpc_method_handler(cast("Any", self._export))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: export}),))
        if self._certificates is None:
            self.port = server.add_insecure_port(self._listen)
        else:
            self.port = server.add_secure_port(self._listen, _credentials(self._certificates))
        await server.start()
        self._server = server

    async def drain(self, seconds: float) -> None:
        """Takes no new calls, and lets those under way finish."""
        self._restraint.end()
        if self._server is not None:
            await self._server.stop(seconds)
            self._server = None

    async def _export(self, messages: AsyncIterator[bytes], context: Context) -> bytes:
        client = network_of(self._address_of(peer_of(context.peer())))
        if client and self._under_way[client] >= CALLS_PER_CLIENT:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Too many calls of yours are under way.")
        self._under_way[client] += 1
        try:
            return await self._answered(messages, context, client)
        finally:
            self._under_way[client] -= 1
            if not self._under_way[client]:
                del self._under_way[client]

    async def _answered(self, messages: AsyncIterator[bytes], context: Context, client: str) -> bytes:
        try:
            async with asyncio.timeout(self._message_seconds):
                payload = await anext(messages, None)
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "The message took too long to arrive.")
        if payload is None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "There is no message.")
        answer = await self._handle(_request(payload, context, partial(self._restraint.hold, context, client)))
        if answer.status != 200:
            await _refuse(context, answer)
        return answer.body


def _request(payload: bytes, context: Context, refused: Callable[[], Awaitable[None]]) -> Request:
    """Returns a call as the request that says the same."""
    headers: CIMultiDict[str] = CIMultiDict()
    for name, value in cast("Any", context.invocation_metadata() or ()):
        if name in _TAKEN and isinstance(value, str):
            headers.add(name, value)
    headers["Content-Type"] = "application/x-protobuf"
    headers["Content-Length"] = str(len(payload))
    loop = asyncio.get_running_loop()
    content = StreamReader(BaseProtocol(loop), 2**16, loop=loop)
    if payload:
        content.feed_data(payload)
    content.feed_eof()
    message = RawRequestMessage(
        "POST", PATH, HttpVersion11, CIMultiDictProxy(headers), (), False, None, False, False, URL(PATH)
    )
    return Request(message, content, _Call(peer_of(context.peer()), refused))


class _Call:
    """What a call came by."""

    def __init__(self, peer: Peer, refused: Callable[[], Awaitable[None]]) -> None:
        self.peer = peer
        self._refused = refused

    async def refused(self) -> None:
        """Returns when its sender may be told that it is refused."""
        await self._refused()

    def go_on(self) -> None:
        """The message is there already."""


def peer_of(text: str) -> Peer:
    """Returns address and port of a peer as gRPC writes it, `ipv4:192.0.2.1:443`; no address for anything else."""
    kind, _, rest = unquote(text).partition(":")
    host, _, port = rest.rpartition(":")
    if kind not in ("ipv4", "ipv6") or not port.isdecimal():
        return "", 0
    return host.strip("[]"), int(port)


async def _refuse(context: Context, answer: Answer) -> NoReturn:
    is_problem = answer.headers.get("Content-Type") == "application/problem+json"
    problem = orjson.loads(answer.body) if is_problem else {}
    code = _CODES.get(answer.status, grpc.StatusCode.INTERNAL)
    said = str(problem.get("detail") or problem.get("title") or "")
    status = status_pb2.Status(code=code.value[0], message=said)
    about = error_details_pb2.ErrorInfo(reason=str(problem.get("reason", "")), domain=DOMAIN)
    about.metadata["instance"] = str(problem.get("instance", ""))
    status.details.add().Pack(about)
    wait = answer.headers.get("Retry-After", "")
    if wait.isdecimal():
        delay = duration_pb2.Duration(seconds=int(wait))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    await context.abort(code, said, ((DETAILS_KEY, status.SerializeToString()),))


def _credentials(pairs: Pairs) -> grpc.ServerCredentials:
    """Returns credentials that ask for the newest pair at each handshake."""
    given = pairs.value()

    def newest() -> Any:
        nonlocal given
        found = pairs.value()
        if found is given:
            return None
        given = found
        return grpc.ssl_server_certificate_configuration([found])

    return grpc.dynamic_ssl_server_credentials(grpc.ssl_server_certificate_configuration([given]), newest)
