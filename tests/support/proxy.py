"""Owns a proxy before PostgreSQL's socket that tests cut, hold and count round trips at."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from libs.config import Secret


class PostgresProxy:
    """Passes bytes between clients and the server of `upstream`; `dsn` leads to it."""

    def __init__(self, upstream: Secret, folder: Path) -> None:
        query = parse_qs(urlsplit(upstream.reveal()).query)
        (host,), (port,) = query["host"], query["port"]
        self._upstream = f"{host}/.s.PGSQL.{port}"
        self._socket = str(folder / f".s.PGSQL.{port}")
        self._text = upstream.reveal().replace(f"host={host}", f"host={folder}")
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.round_trips = 0
        """How many times the server has become ready for the next query."""
        self.connections = 0
        self.cut_at: bytes | None = None
        """Cuts the connection when the client sends this, before the server sees it."""
        self.cut_after: bytes | None = None
        """Cuts the connection once the server has seen this, before the client gets the answer."""
        self._deaf: set[asyncio.StreamWriter] = set()

    @property
    def dsn(self) -> Secret:
        """Returns the DSN through the proxy."""
        return Secret(self._text)

    async def listen(self) -> None:
        """Takes connections."""
        self._server = await asyncio.start_unix_server(self._connected, self._socket)

    async def refuse(self) -> None:
        """Cuts all connections and takes no new ones, as if the server were away."""
        if self._server is not None:
            self._server.close()
            Path(self._socket).unlink(missing_ok=True)
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Breaks all connections."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        server_reader, server_writer = await asyncio.open_unix_connection(self._upstream)
        self._writers |= {writer, server_writer}
        up = asyncio.create_task(self._up(reader, server_writer, writer))
        down = asyncio.create_task(self._down(server_reader, writer))
        for task in (up, down):
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _up(
        self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self.cut_at is not None and self.cut_at in data:
                    client.transport.abort()
                    break
                if self.cut_after is not None and self.cut_after in data:
                    self._deaf.add(client)
                server.write(data)
                await server.drain()
        self._close(server)

    async def _down(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        buffered = b""
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if client in self._deaf:
                    client.transport.abort()
                    break
                buffered = self._count(buffered + data)
                client.write(data)
                await client.drain()
        self._close(client)

    def _count(self, buffered: bytes) -> bytes:
        """Messages are a type byte and a length that counts itself (PostgreSQL protocol 3.0)."""
        while len(buffered) >= 5:
            length = 1 + int.from_bytes(buffered[1:5], "big")
            if len(buffered) < length:
                break
            self.round_trips += buffered[:1] == b"Z"
            buffered = buffered[length:]
        return buffered

    def _close(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        writer.close()


@asynccontextmanager
async def proxy_to(upstream: Secret) -> AsyncIterator[PostgresProxy]:
    """A proxy that listens."""
    with tempfile.TemporaryDirectory(prefix="gf") as folder:
        proxy = PostgresProxy(upstream, Path(folder))
        await proxy.listen()
        try:
            yield proxy
        finally:
            await proxy.refuse()
