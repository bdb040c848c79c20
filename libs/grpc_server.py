"""Owns the gRPC server: every method behind the same stack of trace, caller, policy, closed mode and errors."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health  # type: ignore[attr-defined]  # not in the published stubs

from libs import policies, sockets
from libs.caller import CallerVerifier
from libs.grpc_stack import Handler, Stack
from libs.hop.config import METHOD, SERVICE, HopConfig
from libs.hop.server import HopServer
from libs.telemetry import Telemetry
from libs.tls import Pem, Tls

MESSAGE_BYTES = 16 * 1024 * 1024
METADATA_BYTES = 64 * 1024

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

AddServicer = Callable[[Any, Any], None]


class GrpcServer:
    """One service's gRPC server. Methods without a policy, and plain TCP off this machine, refuse to start."""

    def __init__(
        self,
        service: str,
        listen: str,
        *,
        verifier: CallerVerifier,
        telemetry: Telemetry,
        closed: bool = False,
        tls: Tls | None = None,
        hop: HopConfig | None = None,
    ) -> None:
        self._service = service
        self._listen = listen
        self._tls = tls
        self._telemetry = telemetry
        self._stack = Stack(verifier, telemetry, closed=closed, tls=tls is not None)
        self._handlers: dict[str, dict[str, Handler]] = {}
        self._unary: dict[str, Handler] = {}
        self._hop_config = hop or HopConfig()
        self._hop = HopServer(self._unary, self._hop_config, message_bytes=MESSAGE_BYTES, telemetry=telemetry)
        self._health = health.HealthServicer()
        self._server: grpc.aio.Server | None = None
        self.port: int | None = None
        """The port listened on, for addresses that end in `:0`."""

    def add(self, add_servicer: AddServicer, servicer: object) -> None:
        """Adds a servicer: `server.add(add_CatalogueServiceServicer_to_server, CatalogueServicer(…))`.

        Raises PolicyError for a method without a policy, TypeError for one that is not asynchronous.
        """
        recorded = _Recorder()
        add_servicer(servicer, recorded)
        for name, methods in recorded.handlers.items():
            self._handlers[name] = {
                method: self._stack.around(policies.of(f"/{name}/{method}"), handler)
                for method, handler in methods.items()
            }
            self._unary.update(
                (f"/{name}/{method}", handler)
                for method, handler in self._handlers[name].items()
                if handler.unary_unary is not None
            )

    async def start(self) -> None:
        """Listens; raises ValueError for an address that must not be used, RuntimeError for one that is taken."""
        server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", MESSAGE_BYTES),
                ("grpc.max_send_message_length", MESSAGE_BYTES),
                ("grpc.max_metadata_size", METADATA_BYTES),
                ("grpc.absolute_max_metadata_size", METADATA_BYTES),
                # Two processes on one port would share its calls unnoticed.
                ("grpc.so_reuseport", 0),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
            )
        )
        for name, methods in self._handlers.items():
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))
        if self._hop_config.hop:
            carrying = self._stack.carrying(policies.of(METHOD), self._hop.carry)
            carry = grpc.method_handlers_generic_handler(SERVICE, {METHOD.rpartition("/")[2]: carrying})
            server.add_generic_rpc_handlers((carry,))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        path = sockets.path_of(self._listen)
        if path is None:
            host, _ = sockets.split(self._listen)
            if self._tls is None and host not in _LOOPBACK:
                raise ValueError(f"{self._listen} is reachable from other machines: that needs TLS")
            self.port = self._bind(server)
        else:
            with sockets.binding(path):
                self._bind(server)
        await server.start()
        self._server = server
        for name in ("", *self._handlers):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def drain(self, seconds: float) -> None:
        """Takes no new calls, lets those in flight finish within `seconds`, then ends them."""
        if self._server is None:
            return
        await self._health.enter_graceful_shutdown()
        stopping = asyncio.create_task(self._server.stop(seconds))
        # Whoever is told by a stream to go elsewhere is to find this server's port closed already.
        await asyncio.sleep(0)
        self._hop.drain()
        await stopping
        self._server = None

    def _bind(self, server: grpc.aio.Server) -> int:
        if self._tls is None:
            return server.add_insecure_port(self._listen)
        return server.add_secure_port(self._listen, _credentials(self._tls, self._telemetry))


def _credentials(tls: Tls, telemetry: Telemetry) -> grpc.ServerCredentials:
    """Returns credentials that ask for the newest files at each handshake, in one of gRPC's own threads."""
    files = tls.watched(telemetry)
    given = files.value()

    def newest() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        found = files.value()
        if found is given:
            return None
        given = found
        return _configuration(found)

    fetcher: Any = newest  # None, for what did not change, is missing in the published stubs
    return grpc.dynamic_ssl_server_credentials(_configuration(given), fetcher, require_client_authentication=True)


def _configuration(pem: Pem) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pem.key, pem.certificate)], root_certificates=pem.ca)


class _Recorder:
    """Stands in for a server while generated code registers a servicer, to learn the methods."""

    def __init__(self) -> None:
        self.handlers: dict[str, dict[str, Handler]] = {}

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """The same methods once more, for old servers."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Handler]) -> None:
        """Takes note of the methods by name."""
        self.handlers[service] = handlers
