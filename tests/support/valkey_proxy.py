"""Owns a proxy before Valkey's socket that tests cut, make deaf and point at another server."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

from infra.local.valkey import USER, ValkeyServer
from libs.config import Secret


class ValkeyProxy:
    """Passes bytes between clients and the socket of `upstream`; `url` leads to it."""

    def __init__(self, upstream: Path, folder: Path, password: Secret) -> None:
        self.upstream = upstream
        """Where the next connection leads."""
        self._socket = folder / "proxy.sock"
        self.url = Secret(f"unix://{USER}:{quote(password.reveal(), safe='')}@{self._socket}?db=0")
        self._deaf = False
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Takes connections."""
        self._server = await asyncio.start_unix_server(self._connected, self._socket)

    def swallow(self) -> None:
        """Takes everything from now on and passes nothing on, as a network does that has lost its way."""
        self._deaf = True

    def pass_on(self) -> None:
        """Passes on again, to `upstream` as it is now; what was swallowed is lost with its connection."""
        self._deaf = False
        self.cut()

    def cut(self) -> None:
        """Breaks all connections."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def close(self) -> None:
        """Ends it."""
        if self._server is not None:
            self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_unix_connection(self.upstream)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        for source, target in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._pass(source, target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if not self._deaf:
                    target.write(data)
                    await target.drain()
        self._writers.discard(target)
        target.close()


@asynccontextmanager
async def valkey_proxy(upstream: ValkeyServer, password: Secret) -> AsyncIterator[ValkeyProxy]:
    """A proxy that listens."""
    with tempfile.TemporaryDirectory(prefix="gf") as folder:
        proxy = ValkeyProxy(upstream.socket, Path(folder), password)
        await proxy.listen()
        try:
            yield proxy
        finally:
            await proxy.close()
