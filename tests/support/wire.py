"""Owns a proxy between a client and a server on Unix sockets, so that a test can cut the connection when it likes."""

import asyncio
from contextlib import suppress
from pathlib import Path


class Wire:
    """Forwards bytes from `front` to `back` until it is cut; what connects afterwards is forwarded again."""

    def __init__(self, front: Path, back: Path) -> None:
        self._front = front
        self._back = back
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listens at `front`."""
        self._server = await asyncio.start_unix_server(self._accept, self._front)

    def lead(self, back: Path) -> None:
        """Forwards what connects from now on to `back`."""
        self._back = back

    def cut(self) -> None:
        """Ends all connections at once."""
        for writer in self._writers:
            writer.transport.abort()

    async def stop(self) -> None:
        """Ends all connections and listens no more."""
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back_reader, back_writer = await asyncio.open_unix_connection(self._back)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back_writer}
        for source, sink in ((reader, back_writer), (back_reader, writer)):
            task = asyncio.create_task(self._forward(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError):
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
        finally:
            sink.transport.abort()
            self._writers.discard(sink)
