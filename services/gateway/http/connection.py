"""Owns one public connection: the requests that come by it, one after the other, and their answers."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, cast

from aiohttp import ClientError, StreamReader
from aiohttp.http import RawRequestMessage
from aiohttp.web import BaseRequest, RequestPayloadError
from aiohttp.web_protocol import ERROR, RequestHandler, _ErrInfo
from aiohttp.web_server import Server

from libs.errors import GatefoldError, malformed
from services.gateway.http.address import Peer
from services.gateway.http.answer import Answer
from services.gateway.http.connections import Connections
from services.gateway.http.request import Request

_IDLE, _HEADER, _BUSY = range(3)


class Answers(Protocol):
    """What answers requests; http/app.py."""

    async def handle(self, request: Request) -> Answer: ...

    def unreadable(self, peer: Peer, error: GatefoldError) -> Answer: ...


class Connection(RequestHandler):
    """One connection."""

    __slots__ = ("_answers", "_bytes", "_connections", "_phase", "_real", "client", "peer", "until")

    def __init__(
        self, answers: Answers, connections: Connections, peer: Peer, client: str, manager: Server, **settings: Any
    ) -> None:
        super().__init__(manager, **settings)
        self._answers = answers
        self._connections = connections
        self._phase = _IDLE
        self._bytes = 0
        self._real: asyncio.Transport | None = None
        self.peer = peer
        """Address and port of the socket, or of whom a trusted proxy speaks for."""
        self.client = client
        """What connections are counted by; empty where the peer speaks for many."""
        self.until = connections.monotonic() + connections.bounds.connection_seconds

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins."""
        super().connection_made(transport)
        self._real = cast("asyncio.Transport", transport)  # uvloop's are none by name
        self._connections.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Ends."""
        self._connections.closed(self)
        self._real = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Takes bytes, and notes what they make of the connection."""
        if self._phase == _BUSY:
            super().data_received(data)
            return
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self._phase, self._bytes = _BUSY, 0
            self._connections.serves(self)
        elif data and self.transport is not None:
            if self._phase == _IDLE:
                self._phase = _HEADER
                self._connections.begins(self)
            self._bytes += len(data)
            if self._bytes > self._connections.bounds.header_bytes:
                self.refuse("header_bytes")

    async def refused(self) -> None:
        """Returns when the client may be told that it is refused."""
        await self._connections.restraint.hold(self, self.client)

    def pause_writing(self) -> None:
        """The client is slow to take its answer."""
        super().pause_writing()
        self._connections.writes(self)

    def resume_writing(self) -> None:
        """The client has taken it."""
        super().resume_writing()
        self._connections.written(self)

    async def start(self) -> None:
        """Answers requests, one after the other and all in one task: nothing that one of them sets outlives it.

        aiohttp's own loop, without a task for each request and a timer for each pause (`Connections.sweep`).
        """
        manager = self._manager
        while not self._force_close and manager is not None:
            if not self._messages:
                self._waiter = self._loop.create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
            message, payload = self._messages.popleft()
            if self._parser is not None:
                self._parser.message_consumed()
            if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
                self._resume_reading_if_drained()
            manager.requests_count += 1
            self._request_in_progress = True
            try:
                ended = await self._serve(message, payload)
                if not payload.is_eof() and self.transport is not None:
                    await self._linger(payload)
            except ConnectionError:
                self._connections.ends(self)
                break
            except asyncio.CancelledError:
                self.force_close()
                raise
            except Exception as error:  # noqa: BLE001 — whatever it is, it ends this connection and no other
                self.log_exception("an answer could not be sent", exc_info=error)
                self._connections.ends(self)
                self.force_close()
                break
            finally:
                self._request_in_progress = False
                if self._handler_waiter is not None:
                    self._handler_waiter.set_result(None)
            if ended or not payload.is_eof():
                self._connections.ends(self)
                break
            if not self._messages:
                # Not before: what was left of a body is no beginning of another request.
                self._phase = _IDLE
                self._connections.rests(self)
        if not self._force_close:
            self._task_handler = None
            if self.transport is not None:
                self.transport.close()

    async def _serve(self, message: RawRequestMessage | _ErrInfo, payload: StreamReader) -> bool:
        """Answers one request in one write; the last one of a connection says that it is. Tells whether it was that.

        Returns when the client has taken so much of the answer that there is room for another.
        """
        if isinstance(message, _ErrInfo):
            answer, request = self._unreadable(), Request(ERROR, payload, self)
        else:
            request = Request(message, payload, self)
            self._current_request = cast("Any", request)
            try:
                answer = await self._answers.handle(request)
            except Exception as error:  # noqa: BLE001 — as above
                self.log_exception("a request was not answered", exc_info=error)
                answer = self._unreadable()
            finally:
                self._current_request = None
        connections = self._connections
        if (
            connections.draining
            or not request.keep_alive
            or self._request_count >= connections.bounds.connection_requests
            or connections.monotonic() >= self.until
        ):
            answer.ends = True
        written = answer.written(version=request.version, head=request.method == "HEAD")
        if self._upgraded:
            # What came behind an upgrade that was declined is read as requests.
            await super().finish_response(cast("Any", request), cast("Any", _Sent()), None)
        if self.transport is None:
            return True
        self.transport.write(written)
        if self._paused:
            await self._drain_helper()
        return answer.ends

    def go_on(self) -> None:
        """Tells the client that the body it announced is wanted (RFC 9110, 10.1.1)."""
        if self.transport is not None:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def _linger(self, payload: StreamReader) -> None:
        """Throws away what is left of a body for a while, so that its sender gets to see the answer."""
        with suppress(TimeoutError, ClientError, ConnectionError, RequestPayloadError):
            async with asyncio.timeout(self._lingering_time):
                while not payload.is_eof():
                    await payload.readany()

    def _unreadable(self, why: str = "") -> Answer:
        """Returns the answer where the request could not be read; nothing of what was sent is shown or logged."""
        error = (
            malformed("header_timeout", "The request's headers took too long to arrive.")
            if why == "header_timeout"
            else malformed("request_malformed", "This is no HTTP request that can be read here.")
        )
        return self._answers.unreadable(self.peer, error)

    def refuse(self, why: str) -> None:
        """Answers a request whose headers take too long, or too much, and closes."""
        if self.transport is not None:
            self.transport.write(self._unreadable(why).written())
        self._connections.drop(self, why)

    def abort(self) -> None:
        """Ends at once; what was not taken is thrown away."""
        if self._real is not None:
            self._real.abort()


class _Sent:
    """An answer that is sent already."""

    async def prepare(self, _: BaseRequest) -> None:
        """There is nothing to prepare."""

    async def write_eof(self) -> None:
        """There is nothing to write."""


NewConnection = Callable[[Peer, str], Connection]
"""Makes a connection of a peer, counted by a client's name."""
