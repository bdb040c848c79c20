"""Owns the public connections: how many there are, what each waits for, and when it has waited too long."""

import asyncio
from collections.abc import Callable, Sized
from contextlib import suppress
from typing import Any, Protocol, cast

from aiohttp import ClientError, StreamReader, web
from aiohttp.http import StreamWriter
from aiohttp.web_protocol import ERROR, RequestHandler, _ErrInfo
from aiohttp.web_server import Server

from libs.errors import GatefoldError, malformed
from libs.telemetry import Telemetry
from services.gateway.domain.bounds import ConnectionBounds
from services.gateway.http.address import Peer
from services.gateway.http.answer import Answer
from services.gateway.http.caches import Monotonic
from services.gateway.http.restraint import Restraint

_IDLE, _HEADER, _BUSY = range(3)


class Answers(Protocol):
    """What answers requests; http/app.py."""

    async def handle(self, request: web.BaseRequest) -> Answer: ...

    def unreadable(self, peer: Peer, error: GatefoldError) -> Answer: ...


class Connections:
    """All connections of this process.

    Nothing is timed one by one: each kind of waiting is a dict in the order in which it began, so that `sweep` looks
    only at what has waited too long, and the oldest is found at once.
    """

    def __init__(self, bounds: ConnectionBounds, *, monotonic: Monotonic, telemetry: Telemetry) -> None:
        self.bounds = bounds
        self.monotonic = monotonic
        self.draining = False
        self._open: dict[Connection, None] = {}
        self._fresh: dict[Connection, float] = {}
        self._idle: dict[Connection, float] = {}
        self._headers: dict[Connection, float] = {}
        self._writing: dict[Connection, float] = {}
        self._ending: dict[Connection, float] = {}
        self.restraint: Restraint[Connection] = Restraint(bounds, monotonic=lambda: self.monotonic())
        self._clients: dict[str, dict[Connection, None]] = {}
        self._emptied = asyncio.Event()
        self._ended = telemetry.counter(
            "gateway_connections_ended", "Connections that were not waited for any longer, by why", ("why",)
        )
        states: dict[str, Sized] = {
            "open": self._open,
            "new": self._fresh,
            "idle": self._idle,
            "header": self._headers,
            "slow_reader": self._writing,
            "held": self.restraint,
            "ending": self._ending,
        }
        gauge = telemetry.gauge("gateway_connections", "Connections that are open, and what they wait for", ("state",))
        for state, those in states.items():
            gauge.labels(state).set_function(those.__len__)

    def __len__(self) -> int:
        return len(self._open)

    def open(self) -> "list[Connection]":
        """Returns all that are open."""
        return list(self._open)

    def of_client(self, client: str) -> int:
        """Returns how many connections a client has; none of them are counted for a client without a name."""
        return len(self._clients.get(client, ()))

    def room(self, client: str, opening: int) -> bool:
        """Makes room for a new connection while `opening` others are being opened; says whether there is any.

        The client's, or the process's, longest held or idle connection gives way, or else the one that takes longest
        for its headers: whoever is honest is done with all of it in a moment.
        """
        own = self._clients.get(client, {}) if client else {}
        if len(own) >= self.bounds.connections_per_client and not self._evict("client", own):
            return self._none("client")
        if len(self._open) + opening >= self.bounds.connections and not self._evict("process", None):
            return self._none("process")
        return True

    def evict(self, why: str) -> bool:
        """Ends the connection that has waited longest; says whether there was one."""
        return self._evict(why, None)

    def sweep(self) -> None:
        """Ends what has waited too long."""
        now, bounds = self.monotonic(), self.bounds
        for connection in _expired(self._fresh, now - bounds.first_byte_seconds):
            self.drop(connection, "first_byte")
        for connection in _expired(self._idle, now - bounds.idle_seconds):
            self.drop(connection, "idle")
        for connection in _expired(self._headers, now - bounds.header_seconds):
            connection.refuse("header_timeout")
        for stuck in (self._writing, self._ending):
            for connection in _expired(stuck, now - bounds.write_seconds):
                self._ended.labels("write").inc()
                self._forget(connection)
                connection.abort()

    def drop(self, connection: "Connection", why: str) -> None:
        """Closes a connection, and counts why."""
        self._ended.labels(why).inc()
        connection.force_close()
        self.ends(connection)

    def count(self, why: str) -> None:
        """Counts a connection that never came to be."""
        self._ended.labels(why).inc()

    async def drain(self, seconds: float) -> None:
        """Returns when all connections have ended: each with its next answer, and idle ones after a grace."""
        self.draining = True
        self.restraint.end()
        await self._empty(min(seconds, self.bounds.drain_grace_seconds))
        for connection in [*self._fresh, *self._idle, *self._headers]:
            self.drop(connection, "drain")
        await self._empty(seconds)

    # -- what connections tell of themselves ---------------------------------------------------------------------------

    def opened(self, connection: "Connection") -> None:
        """A connection is there and has said nothing."""
        self._open[connection] = None
        self._fresh[connection] = self.monotonic()
        if connection.client:
            self._clients.setdefault(connection.client, {})[connection] = None

    def begins(self, connection: "Connection") -> None:
        """A request has begun to arrive."""
        self._rouse(connection)
        self._headers[connection] = self.monotonic()

    def serves(self, connection: "Connection") -> None:
        """The headers of a request are there."""
        if self._headers.pop(connection, None) is None:
            self._rouse(connection)

    def rests(self, connection: "Connection") -> None:
        """All that was asked is answered."""
        if connection in self._open:
            self._idle[connection] = self.monotonic()

    def writes(self, connection: "Connection") -> None:
        """A client does not take what is sent as fast as it comes."""
        self._writing[connection] = self.monotonic()

    def written(self, connection: "Connection") -> None:
        """It has taken most of it."""
        self._writing.pop(connection, None)

    def ends(self, connection: "Connection") -> None:
        """A connection is to be closed as soon as its last answer is taken."""
        self._forget(connection)
        if connection in self._open:
            self._ending[connection] = self.monotonic()

    def closed(self, connection: "Connection") -> None:
        """A connection is gone."""
        self._forget(connection)
        self._open.pop(connection, None)
        own = self._clients.get(connection.client)
        if own is not None:
            own.pop(connection, None)
            if not own:
                del self._clients[connection.client]
        if not self._open:
            self._emptied.set()

    def _rouse(self, connection: "Connection") -> None:
        if self._idle.pop(connection, None) is None:
            self._fresh.pop(connection, None)

    def _forget(self, connection: "Connection") -> None:
        for waiting in (self._fresh, self._idle, self._headers, self._writing, self._ending):
            waiting.pop(connection, None)
        self.restraint.release(connection)

    def _evict(self, why: str, among: "dict[Connection, None] | None") -> bool:
        for waiting in (self.restraint, self._idle, self._fresh, self._headers):
            found = next((one for one in waiting if among is None or one in among), None)
            if found is not None:
                self.drop(found, f"evicted_{why}")
                return True
        return False

    def _none(self, why: str) -> bool:
        self._ended.labels(f"refused_{why}").inc()
        return False

    async def _empty(self, seconds: float) -> None:
        if not self._open:
            return
        self._emptied.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._emptied.wait()
        except TimeoutError:
            return


def _expired(waiting: "dict[Connection, float]", before: float) -> "list[Connection]":
    expired = []
    for connection, since in waiting.items():
        if since > before:
            break
        expired.append(connection)
    return expired


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
        manager, loop = self._manager, self._loop
        task: Any = self._task_handler or asyncio.current_task()
        while not self._force_close and manager is not None:
            if not self._messages:
                self._waiter = loop.create_future()
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
            handler: Any = manager.request_handler
            if isinstance(message, _ErrInfo):
                handler, message = self._make_error_handler(message), ERROR
            request = manager.request_factory(message, payload, self, StreamWriter(self, loop), task)
            try:
                answer, lost = await self._handle_request(request, None, handler)
                if not (lost or payload.is_eof()):
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
                request._task = None  # type: ignore[assignment]  # a task that holds itself is never collected
            if lost or cast("Answer", answer).ends or not payload.is_eof():
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

    async def finish_response(  # type: ignore[override]  # answers are ours, and whole
        self, request: web.BaseRequest, resp: Answer, start_time: float | None
    ) -> tuple[Answer, bool]:
        """Sends an answer in one write; the last one of a connection says that it is. Answers whether nobody is there.

        Returns when the client has taken so much of it that there is room for another.
        """
        connections = self._connections
        if (
            connections.draining
            or not request.keep_alive
            or self._request_count >= connections.bounds.connection_requests
            or connections.monotonic() >= self.until
        ):
            resp.ends = True
        written = resp.written(version=request.version, head=request.method == "HEAD")
        if self._upgraded:
            # What came behind an upgrade that was declined is read as requests.
            await super().finish_response(request, cast("Any", _Sent()), None)
        if self.transport is None:
            return resp, True
        self.transport.write(written)
        if self._paused:
            await self._drain_helper()
        return resp, False

    async def _linger(self, payload: StreamReader) -> None:
        """Throws away what is left of a body for a while, so that its sender gets to see the answer."""
        with suppress(TimeoutError, ClientError, ConnectionError, web.RequestPayloadError):
            async with asyncio.timeout(self._lingering_time):
                while not payload.is_eof():
                    await payload.readany()

    def handle_error(  # type: ignore[override]  # answers are ours
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> Answer:
        """Returns the answer where the request could not be read; nothing of what was sent is shown or logged."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun already")
        return self._answers.unreadable(
            self.peer, malformed("request_malformed", "This is no HTTP request that can be read here.")
        )

    def refuse(self, why: str) -> None:
        """Answers a request whose headers take too long, or too much, and closes."""
        error = (
            malformed("header_timeout", "The request's headers took too long to arrive.")
            if why == "header_timeout"
            else malformed("request_malformed", "This is no HTTP request that can be read here.")
        )
        if self.transport is not None:
            self.transport.write(self._answers.unreadable(self.peer, error).written())
        self._connections.drop(self, why)

    def abort(self) -> None:
        """Ends at once; what was not taken is thrown away."""
        if self._real is not None:
            self._real.abort()


class _Sent:
    """An answer that is sent already."""

    async def prepare(self, _: web.BaseRequest) -> None:
        """There is nothing to prepare."""

    async def write_eof(self) -> None:
        """There is nothing to write."""


NewConnection = Callable[[Peer, str], Connection]
"""Makes a connection of a peer, counted by a client's name."""
