"""Owns the calling side of the fast hop: a few streams to one peer, opened when needed, and who waits for them."""

import asyncio
import contextvars
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from libs import errors
from libs.errors import GatefoldError
from libs.hop.config import METHOD, HopConfig
from libs.hop.stream import Metadata, NotSentError, Stream
from libs.telemetry import Telemetry

PLAIN_SECONDS = 30.0
"""How long a peer that takes no frames is called without them, before it is asked again."""
_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0

# What the connection says of itself; any other end of a stream that never stood means that the peer takes none.
_AWAY = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED})


class Hop:
    """The streams to one peer; `channel` says where the next is opened, `metadata` with what."""

    def __init__(
        self,
        peer: str,
        channel: Callable[[], grpc.aio.Channel],
        metadata: Callable[[], Metadata],
        config: HopConfig,
        *,
        message_bytes: int,
        randomness: Callable[[int], bytes],
        telemetry: Telemetry,
    ) -> None:
        self._peer = peer
        self._channel = channel
        self._metadata = metadata
        self._config = config
        self._message_bytes = message_bytes
        self._randomness = randomness
        self._log = telemetry.logger("hop")
        self._open = telemetry.gauge("grpc_hop_streams", "Streams that carry calls to a peer", ("peer",)).labels(peer)
        self._closed = not config.hop
        self._plain_until = 0.0
        self._streams: list[Stream] = []
        self._opening = 0
        self._failures = 0
        self._waiting: deque[asyncio.Future[bool]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    def ready(self, size: int) -> "Stream | None":
        """Returns a stream that has room for a request of so many bytes, if one stands and nobody waits for it."""
        if len(self._streams) < self._config.hop_streams:
            self._open_missing()
        return None if self._waiting else self._roomy(size)

    async def stream(self, size: int, ends: float) -> "Stream | None":
        """Returns a stream that has room, as soon as there is one; None when the call is to be made without frames.

        Raises NotSentError when the stream could not be opened, `timeout("deadline_exceeded")` at the monotonic time
        `ends`, and `unavailable("service_unavailable")` when too many wait already.
        """
        while self._open_missing():
            if size > min([self._config.hop_call_bytes, *(stream.longest for stream in self._streams)]):
                return None
            found = self._roomy(size)
            if found is not None:
                return found
            await self._changed(ends)
        return None

    def ask_again(self) -> None:
        """Asks a peer anew that took no frames: behind a new connection may be another."""
        self._plain_until = 0.0

    async def close(self) -> None:
        """Ends all streams, and the calls in them."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _roomy(self, size: int) -> "Stream | None":
        # The first that has room: calls that go together cost less, and the others are there for when it is full.
        for stream in self._streams:
            if stream.has_room(size):
                return stream
        return None

    async def _changed(self, ends: float) -> None:
        """Waits until a stream stands, has room or could not be opened."""
        if len(self._waiting) >= self._config.hop_waiting:
            raise errors.unavailable(
                "service_unavailable", "A part of the platform is busy.", 1, metadata={"service": self._peer}
            )
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        opened = None
        try:
            async with asyncio.timeout(ends - time.monotonic()):
                opened = await waiter
        except TimeoutError:
            raise errors.timeout("deadline_exceeded", "This took too long; nothing was sent.") from None
        finally:
            if opened is None and waiter.done() and not waiter.cancelled():
                # It was this one's turn, and it does not take it.
                self.freed()
            elif opened is None:
                with suppress(ValueError):
                    self._waiting.remove(waiter)
        if not opened:
            raise NotSentError

    def _open_missing(self) -> bool:
        """Answers whether the peer takes calls in frames, as far as is known."""
        if self._closed or time.monotonic() < self._plain_until:
            return False
        while len(self._streams) + self._opening < self._config.hop_streams:
            self._opening += 1
            # In an empty context: a stream is nobody's in particular.
            task = asyncio.get_running_loop().create_task(self._run(), context=contextvars.Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return True

    async def _run(self) -> None:
        """Opens one stream and serves it to its end."""
        stream: Stream | None = None
        try:
            if self._failures:
                await asyncio.sleep(self._pause_seconds())
            carry: Any = self._channel().stream_stream(METHOD, None, None)  # bytes both ways
            stream = Stream(carry(metadata=self._metadata()), self, self._config.hop_call_bytes, self._message_bytes)
            await stream.run()
        except (grpc.aio.AioRpcError, GatefoldError, DecodeError) as error:
            away = isinstance(error, grpc.aio.AioRpcError) and error.code() in _AWAY
            if away:
                # All streams share one connection: the others may only not have heard of its end yet.
                for other in tuple(self._streams):
                    other.drain()
            if not away and (stream is None or not stream.stood):
                self._plain_until = time.monotonic() + PLAIN_SECONDS
                self._log.info("a peer takes no calls in frames", extra={"peer": self._peer, "why": str(error)})
        finally:
            if stream is not None and stream.stood:
                self.left(stream)
            else:
                self._opening -= 1
                self._failures += 1
                self._wake_all(opened=False)

    def _pause_seconds(self) -> float:
        """Half to all of a growing pause, so that many who lost one peer do not come back at once."""
        longest: float = min(_LONGEST_PAUSE_SECONDS, _PAUSE_SECONDS * 2 ** min(self._failures - 1, 10))
        return longest * (0.5 + self._randomness(1)[0] / 510)

    def stood(self, stream: "Stream") -> None:
        """Takes a stream into use, whose window has come."""
        self._opening -= 1
        self._failures = 0
        self._streams.append(stream)
        self._open.set(len(self._streams))
        self._wake_all(opened=True)

    def left(self, stream: "Stream") -> None:
        """Uses a stream no more."""
        if stream in self._streams:
            self._streams.remove(stream)
            self._open.set(len(self._streams))
            self._wake_all(opened=True)

    def widened(self) -> None:
        """Lets all who wait look again."""
        self._wake_all(opened=True)

    def freed(self) -> None:
        """Lets the first who waits look again."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(True)
                return

    def _wake_all(self, *, opened: bool) -> None:
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(opened)
