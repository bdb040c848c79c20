"""Owns clients that mean no good: raw connections which say what they are told to, and when."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from services.gateway.http.server import HttpServer
from tests.support.gateway import RunningGateway
from tests.support.waiting import until


class Clock:
    """A monotonic clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Client:
    """One raw connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def say(self, data: bytes) -> None:
        """Sends bytes, without waiting for the other side to take them."""
        self.writer.write(data)

    async def hear(self) -> bytes:
        """Returns one answer's head, or what came before the connection ended."""
        try:
            return await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            return error.partial

    async def rest(self) -> bytes:
        """Returns all that comes until the connection ends, however it ends."""
        heard = bytearray()
        try:
            while data := await self.reader.read(65536):
                heard += data
        except ConnectionError:
            pass
        return bytes(heard)


class Crowd:
    """Connections to one gateway, whose time is the crowd's to move."""

    def __init__(self, gateway: RunningGateway) -> None:
        (server,) = (one for one in gateway.process._servers if isinstance(one, HttpServer))
        self.gateway = gateway
        self.server = server
        self.connections = server.connections
        self.clock = Clock()
        self.connections.monotonic = self.clock
        self.clients: list[Client] = []

    async def client(self, source: str = "127.0.0.1", *, receive_buffer: int = 0) -> Client:
        """Opens a connection from an address."""
        own = socket.socket()
        if receive_buffer:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        own.setblocking(False)
        own.bind((source, 0))
        await asyncio.get_running_loop().sock_connect(own, ("127.0.0.1", self.gateway.port))
        reader, writer = await asyncio.open_connection(sock=own, limit=2**16)
        self.clients.append(Client(reader, writer))
        return self.clients[-1]

    def state(self, name: str) -> float:
        """Returns how many connections wait for something."""
        return self.gateway.metric("gatefold_gateway_connections", state=name)

    def ended(self, why: str) -> float:
        """Returns how many connections were ended because of something."""
        return self.gateway.metric("gatefold_gateway_connections_ended_total", why=why)

    async def until_state(self, name: str, number: int) -> None:
        """Returns once so many connections wait for something."""
        await until(lambda: self.state(name) == number)

    def later(self, seconds: float) -> None:
        """Moves the gateway's time, and has it look for what has waited too long."""
        self.clock.now += seconds
        self.connections.sweep()


@asynccontextmanager
async def crowd_of(gateway: RunningGateway) -> AsyncIterator[Crowd]:
    """Opens a crowd at a gateway, and takes it away."""
    crowd = Crowd(gateway)
    try:
        yield crowd
    finally:
        for client in crowd.clients:
            client.writer.transport.abort()
        await until(lambda: len(crowd.connections) <= 1)  # the honest client's may stay
