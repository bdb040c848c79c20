"""Owns the public HTTP server: its sockets, what aiohttp is told about bounds, and its drain."""

import asyncio
from typing import Any, cast

from aiohttp.web_server import Server

from libs import sockets
from libs.events.pause import pause
from libs.telemetry import Telemetry
from services.gateway.domain.bounds import ConnectionBounds
from services.gateway.http import acceptor
from services.gateway.http.acceptor import Acceptor
from services.gateway.http.address import ClientAddress, Peer
from services.gateway.http.app import App
from services.gateway.http.caches import Monotonic
from services.gateway.http.certificates import Certificates
from services.gateway.http.connection import Connection
from services.gateway.http.connections import Connections

MAX_LINE_BYTES = 8190
MAX_FIELD_BYTES = 8190
MAX_HEADERS = 100
LINGER_SECONDS = 1.0
"""How long a body that nobody reads is thrown away for, so that its sender gets to see the refusal."""
SWEEP_SECONDS = 1.0
"""How often at least connections are looked at that have waited too long."""
_CUT_OFF_SECONDS = 0.1
_NEVER_SECONDS = 1e8
"""aiohttp's own idle time-out, one timer a connection, which `Connections.sweep` takes the place of."""


class HttpServer:
    """Serves the app over HTTP/1.1, by itself or behind proxies, in the clear or by TLS."""

    def __init__(
        self,
        app: App,
        listen: str,
        bounds: ConnectionBounds,
        address: ClientAddress,
        *,
        monotonic: Monotonic,
        telemetry: Telemetry,
        certificates: Certificates | None = None,
        proxied: bool = False,
        shared_port: bool = False,
    ) -> None:
        self._app = app
        self._bounds = bounds
        self._address = address
        self._telemetry = telemetry
        self._certificates = certificates
        self._proxied = proxied
        self._shared_port = shared_port
        self._host, self._port = sockets.split(listen)
        self._acceptor: Acceptor | None = None
        self._server: Server | None = None
        self.connections = Connections(bounds, monotonic=monotonic, telemetry=telemetry)
        self.port = self._port
        """The port listened on, for addresses that end in `:0`."""

    @property
    def requests(self) -> int:
        """How many requests there were."""
        return 0 if self._server is None else self._server.requests_count

    async def start(self) -> None:
        """Listens; raises OSError for an address that is taken."""
        # Its answers are whole, and sent by the connection itself.
        self._server = Server(
            cast("Any", self._app.handle), loop=asyncio.get_running_loop(), handler_cancellation=False
        )
        self._acceptor = Acceptor(
            self.connections,
            self._connection,
            self._address,
            certificates=self._certificates,
            proxied=self._proxied,
            telemetry=self._telemetry,
        )
        listeners = acceptor.listening(self._host, self._port, shared=self._shared_port)
        self.port = listeners[0].getsockname()[1]
        self._acceptor.start(listeners)

    async def sweep(self, stop: asyncio.Event) -> None:
        """Ends connections that have waited too long, until `stop` is set."""
        bounds = self._bounds
        shortest = min(bounds.first_byte_seconds, bounds.idle_seconds, bounds.header_seconds, bounds.write_seconds)
        while not stop.is_set():
            await pause(stop, min(SWEEP_SECONDS, shortest / 4))
            self.connections.sweep()

    async def drain(self, seconds: float) -> None:
        """Takes no new connections, lets requests in flight finish, tells each client to come back elsewhere, closes.

        Where others listen on the port, not one connection is lost: new ones go to them.
        """
        taking, self._acceptor = self._acceptor, None
        if taking is None or self._server is None:
            return
        self._app.drain()
        if self._bounds.drain_notice_seconds:
            await asyncio.sleep(self._bounds.drain_notice_seconds)
        self.connections.draining = True
        if self._shared_port and taking.turn_away():
            await asyncio.sleep(acceptor.TURNING_AWAY_SECONDS)
        await taking.stop()
        await self.connections.drain(seconds)
        # What has not ended by now is cut off; a time-out of 0 would be none.
        await self._server.shutdown(_CUT_OFF_SECONDS)

    def _connection(self, peer: Peer, client: str) -> Connection:
        assert self._server is not None
        return Connection(
            self._app,
            self.connections,
            peer,
            client,
            self._server,
            loop=asyncio.get_running_loop(),
            access_log=None,
            # Answering a compressed body means reading it: it is refused by its header instead.
            auto_decompress=False,
            keepalive_timeout=_NEVER_SECONDS,
            lingering_time=LINGER_SECONDS,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_FIELD_BYTES,
            max_headers=MAX_HEADERS,
        )
