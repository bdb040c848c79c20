"""Owns the public listening socket and what aiohttp's server is told about bounds."""

import asyncio
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_server import Server

from libs import sockets
from services.gateway.http.app import App

MAX_LINE_BYTES = 8190
MAX_FIELD_BYTES = 8190
MAX_HEADERS = 100
IDLE_SECONDS = 75.0
LINGER_SECONDS = 1.0
"""How long a body that nobody reads is thrown away for, so that its sender gets to see the refusal."""


class HttpServer:
    """Serves the app over HTTP/1.1."""

    def __init__(self, app: App, listen: str, *, drain_seconds: float) -> None:
        self._app = app
        self._drain_seconds = drain_seconds
        self._host, self._port = sockets.split(listen)
        self._runner: web.ServerRunner | None = None
        self.port = self._port
        """The port listened on, for addresses that end in `:0`."""

    async def start(self) -> None:
        """Listens; raises OSError for an address that is taken."""
        server = _Server(
            self._app,
            access_log=None,
            # A client that goes away does not stop what it asked for half-way.
            handler_cancellation=False,
            # Answering a compressed body means reading it: it is refused by its header instead.
            auto_decompress=False,
            keepalive_timeout=IDLE_SECONDS,
            lingering_time=LINGER_SECONDS,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_FIELD_BYTES,
            max_headers=MAX_HEADERS,
        )
        self._runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=self._drain_seconds)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port, backlog=1024, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def drain(self, seconds: float) -> None:
        """Takes no new connections, lets requests in flight finish, then closes."""
        runner, self._runner = self._runner, None
        if runner is not None:
            async with asyncio.timeout(seconds):
                await runner.cleanup()


class _Server(Server):
    """aiohttp's server with handlers that answer unreadable requests as the app does."""

    def __init__(self, app: App, **settings: Any) -> None:
        super().__init__(app.handle, loop=asyncio.get_running_loop(), **settings)
        self._app = app
        self._settings = settings

    def __call__(self) -> RequestHandler:
        """Returns the handler of a new connection."""
        return _Handler(self._app, self, loop=self._loop, **self._kwargs)


class _Handler(RequestHandler):
    """One connection."""

    __slots__ = ("_app",)

    def __init__(self, app: App, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._app = app

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Returns the answer where the request could not be read; nothing of what was sent is shown or logged."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun already")
        return self._app.unreadable(self.peername)
