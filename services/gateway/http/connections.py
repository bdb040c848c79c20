"""Owns the public connections: how many there are, what each waits for, and when it has waited too long."""

import asyncio
from collections.abc import Sized
from typing import TYPE_CHECKING

from libs.telemetry import Telemetry
from services.gateway.domain.bounds import ConnectionBounds
from services.gateway.http.caches import Monotonic
from services.gateway.http.restraint import Restraint

if TYPE_CHECKING:
    from services.gateway.http.connection import Connection


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
