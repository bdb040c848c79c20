"""Owns taking new connections: room for them, what a proxy says of its client, TLS, and turning away while draining."""

import asyncio
import ctypes
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Sequence

from libs.telemetry import Telemetry
from services.gateway.http import proxy_header
from services.gateway.http.address import ClientAddress, Peer, network_of
from services.gateway.http.certificates import Certificates
from services.gateway.http.connection import NewConnection
from services.gateway.http.connections import Connections
from services.gateway.http.proxy_header import ProxyHeaderError

BACKLOG = 1024
AT_ONCE = 64
"""Connections taken in one go, before those that are there have their turn."""
EXHAUSTED_SECONDS = 0.1
"""How long none is taken when the machine has no more of what a connection needs."""
TURNING_AWAY_SECONDS = 0.5
"""How long handshakes that had begun are waited for while new ones go to another process."""
_SHUTDOWN_SECONDS = 5.0
_SO_ATTACH_FILTER = 26


def listening(host: str, port: int, *, shared: bool) -> list[socket.socket]:
    """Returns sockets that listen; raises OSError for an address that is taken.

    `shared` lets several processes listen on the same port, and the kernel spread connections over them.
    """
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            listener = socket.socket(family, kind, protocol)
            sockets.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.setblocking(False)
            listener.bind(address)
            listener.listen(BACKLOG)
    except OSError:
        for listener in sockets:
            listener.close()
        raise
    return sockets


class Acceptor:
    """Turns what arrives on listening sockets into connections."""

    def __init__(
        self,
        connections: Connections,
        make: NewConnection,
        address: ClientAddress,
        *,
        certificates: Certificates | None,
        proxied: bool,
        telemetry: Telemetry,
    ) -> None:
        self._connections = connections
        self._make = make
        self._address = address
        self._certificates = certificates
        self._proxied = proxied
        self._log = telemetry.logger("acceptor")
        self._loop = asyncio.get_running_loop()
        self._listeners: list[socket.socket] = []
        self._opening: dict[asyncio.Task[None], str] = {}
        self._opening_by_client: Counter[str] = Counter()

    def start(self, listeners: Sequence[socket.socket]) -> None:
        """Takes connections from now on."""
        for listener in listeners:
            self._listeners.append(listener)
            self._loop.add_reader(listener.fileno(), self._accept, listener)

    def turn_away(self) -> bool:
        """Makes the kernel ignore new connections, whose clients then try again a second later, and reach whoever else
        listens on the port; says whether it does.

        A listening socket that is closed takes with it all connections whose handshake it has not finished. Those are
        still taken here.
        """
        return all(ignore_new(listener) for listener in self._listeners)

    async def stop(self) -> None:
        """Listens no more, and ends what is only being opened."""
        for listener in self._listeners:
            self._loop.remove_reader(listener.fileno())
            listener.close()
        self._listeners.clear()
        if self._opening:
            _, late = await asyncio.wait(self._opening, timeout=TURNING_AWAY_SECONDS)
            for task in late:
                task.cancel()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(AT_ONCE):
            try:
                accepted, address = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                continue  # it is gone already
            except OSError as error:
                self._exhausted(listener, error)
                return
            accepted.setblocking(False)
            self._take(accepted, (_plain(address[0]), address[1]))

    def _exhausted(self, listener: socket.socket, error: OSError) -> None:
        self._connections.evict("exhausted")
        self._log.warning("no connection can be taken", extra={"why": error.strerror})
        self._loop.remove_reader(listener.fileno())
        self._loop.call_later(EXHAUSTED_SECONDS, self._again, listener)

    def _again(self, listener: socket.socket) -> None:
        if listener.fileno() >= 0:
            self._loop.add_reader(listener.fileno(), self._accept, listener)

    def _take(self, accepted: socket.socket, peer: Peer) -> None:
        trusted = self._address.trusts(peer)
        bounds = self._connections.bounds
        # A proxy speaks for many; whom it speaks for is counted once that is known.
        client = "" if trusted else network_of(peer[0])
        if self._proxied and not trusted:
            self._connections.count("proxy_untrusted")
        elif self._opening_by_client[client] >= bounds.handshakes_per_client and client:
            self._connections.count("refused_handshakes")
        elif self._connections.room(client, len(self._opening)):
            if len(self._opening) >= bounds.handshakes:
                next(iter(self._opening)).cancel()
                self._connections.count("evicted_handshake")
            task = self._loop.create_task(self._open(accepted, peer, client))
            self._opening[task] = client
            self._opening_by_client[client] += 1
            task.add_done_callback(self._opened)
            return
        accepted.close()

    def _opened(self, task: "asyncio.Task[None]") -> None:
        client = self._opening.pop(task)
        self._opening_by_client[client] -= 1
        if not self._opening_by_client[client]:
            del self._opening_by_client[client]

    async def _open(self, accepted: socket.socket, peer: Peer, client: str) -> None:
        why = "handshake"
        try:
            if self._proxied:
                why = "proxy_header"
                async with asyncio.timeout(self._connections.bounds.handshake_seconds):
                    found = await proxy_header.read(self._loop, accepted)
                if found is not None:
                    peer = (_plain(found[0]), found[1])
                    client = "" if self._address.trusts(peer) else network_of(peer[0])
                    if not self._connections.room(client, len(self._opening)):
                        accepted.close()
                        return
                why = "handshake"
            await self._hand_over(accepted, peer, client)
        except (TimeoutError, OSError, ssl.SSLError, ProxyHeaderError):
            self._connections.count(why)
            accepted.close()
        except BaseException:
            accepted.close()
            raise

    async def _hand_over(self, accepted: socket.socket, peer: Peer, client: str) -> None:
        if self._certificates is None:
            await self._loop.connect_accepted_socket(lambda: self._make(peer, client), accepted)
            return
        await self._loop.connect_accepted_socket(
            lambda: self._make(peer, client),
            accepted,
            ssl=self._certificates.value(),
            ssl_handshake_timeout=self._connections.bounds.handshake_seconds,
            ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
        )


def _plain(host: str) -> str:
    return host.partition("%")[0]


def ignore_new(listener: socket.socket) -> bool:
    """Attaches a filter of the classic BPF kind that drops segments which open a connection (SYN)."""
    load_flags, if_syn, drop, keep = (0x30, 0, 0, 13), (0x45, 0, 1, 2), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF)
    code = ctypes.create_string_buffer(
        b"".join(struct.pack("=HBBI", *step) for step in (load_flags, if_syn, drop, keep))
    )
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", 4, ctypes.addressof(code)))
    except OSError:
        return False  # not on this kind of system
    return True
