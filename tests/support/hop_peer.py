"""Owns a peer that speaks in frames by hand, for tests of what the calling side makes of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from gatefold.mux.v1.mux_pb2 import Answer, Call, CarryRequest, CarryResponse, Window

from libs.hop.config import METHOD, SERVICE

WINDOW = Window(calls=100, bytes=1_000_000, call_bytes=100_000)


class Frames:
    """One stream as the peer has it."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._calls: list[Call] = []
        self.cancelled: list[int] = []

    async def window(self, window: Window = WINDOW) -> None:
        """Says how much may be under way."""
        await self.say(CarryResponse(window=window))

    async def answer(self, number: int, payload: bytes = b"", **fields: Any) -> None:
        """Answers a call."""
        await self.say(CarryResponse(answers=[Answer(id=number, payload=payload, **fields)]))

    async def say(self, response: CarryResponse | bytes) -> None:
        """Says something, sensible or not."""
        await self._context.write(response if isinstance(response, bytes) else response.SerializeToString())

    async def call(self) -> Call | None:
        """Returns the next call; None when no more will come."""
        while not self._calls:
            request = await self.hear()
            if request is None:
                return None
            self._calls += request.calls
        return self._calls.pop(0)

    async def hear(self) -> CarryRequest | None:
        """Returns what the calling side says next; None when it says nothing more."""
        raw = await self._context.read()
        if raw is grpc.aio.EOF:
            return None
        request = CarryRequest.FromString(raw)
        self.cancelled += request.cancelled
        return request

    async def lose(self) -> None:
        """Ends the stream as it ends with its connection."""
        await self._context.abort(grpc.StatusCode.UNAVAILABLE, "the connection broke")


Script = Callable[[Frames], Awaitable[None]]


@asynccontextmanager
async def peer(socket: Path, script: Script) -> AsyncIterator[None]:
    """Serves the stream of calls alone: the script is run for each that is opened."""

    async def carry(_: object, context: Any) -> None:
        await script(Frames(context))

    server = grpc.aio.server()
    handlers = {METHOD.rpartition("/")[2]: grpc.stream_stream_rpc_method_handler(carry)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(0)


async def for_ever() -> None:
    """Returns never."""
    await asyncio.Event().wait()
