"""Owns one stream of the calling side and the calls under way on it."""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

import grpc
from gatefold.mux.v1.mux_pb2 import Answer, Call, CarryRequest, CarryResponse, Window
from google.protobuf.message import DecodeError

from libs.hop.config import FRAME_BYTES, FRAME_CALLS
from libs.hop.metadata import pairs_of

Metadata = Sequence[tuple[str, str | bytes]]

_EOF = grpc.aio.EOF  # type: ignore[attr-defined]  # not in the published stubs
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class NotSentError(Exception):
    """The peer did not begin the call: it may be made again, whatever it does."""


class Streams(Protocol):
    """What a stream tells those whom it belongs to."""

    def stood(self, stream: "Stream") -> None: ...

    def left(self, stream: "Stream") -> None: ...

    def widened(self) -> None: ...

    def freed(self) -> None: ...


class _Call:
    """A call under way: what is to be sent, who waits for it, and what has come of a long answer."""

    __slots__ = ("future", "metadata", "method", "parts", "parts_bytes", "payload", "size", "timeout_micros")

    def __init__(
        self, future: "asyncio.Future[bytes]", method: str, payload: bytes, metadata: Metadata, timeout_micros: int
    ) -> None:
        self.future = future
        self.method = method
        self.payload = payload
        self.metadata = metadata
        self.timeout_micros = timeout_micros
        self.size = len(payload)
        """Bytes that it takes of the window, also when it holds them no more."""
        self.parts: list[bytes] | None = None
        self.parts_bytes = 0

    def write(self, number: int, written: Call) -> None:
        """Puts into a frame what is to be sent, which is not needed again."""
        # Fields are set one by one where they will be: handing them to constructors costs more than all the rest.
        written.id, written.method, written.timeout_micros = number, self.method, self.timeout_micros
        written.payload = self.payload
        for key, value in self.metadata:
            entry = written.metadata.add()
            entry.key, entry.value = key, value if isinstance(value, bytes) else value.encode()
        self.payload, self.metadata = b"", ()

    def add(self, part: bytes, most_bytes: int) -> None:
        """Keeps a part, while somebody waits for the whole; one that becomes too long is not waited for."""
        self.parts = self.parts or []
        self.parts_bytes += len(part)
        if self.future.done():
            self.parts.clear()
        elif self.parts_bytes > most_bytes:
            self.parts.clear()
            self.future.set_exception(_error(grpc.StatusCode.RESOURCE_EXHAUSTED, "the response is too long"))
        else:
            self.parts.append(part)


class Stream:
    """One stream and the calls under way on it.

    What is said in one turn of the loop goes as one frame. A call keeps its place in the peer's window until its answer
    has come, also when nobody waits for it any more: only then has the peer ended it.
    """

    def __init__(self, call: Any, hop: Streams, call_bytes: int, message_bytes: int) -> None:
        self.stood = False
        """Whether the peer has opened its window, at some time."""
        self.longest = call_bytes
        """Bytes of the longest request that goes here."""
        self._calls = 0
        self._bytes = 0
        self._call_bytes = call_bytes
        self._call = call
        self._hop = hop
        self._message_bytes = message_bytes
        self._loop = asyncio.get_running_loop()
        self._last = 0
        self._under: dict[int, _Call] = {}
        self._under_bytes = 0
        self._outbox: dict[int, _Call] = {}
        self._cancelled: list[int] = []
        self._draining = False
        self._idle: asyncio.Future[None] | None = None

    def has_room(self, size: int) -> bool:
        """Tells whether a call with a request of so many bytes may be made now."""
        return len(self._under) < self._calls and self._under_bytes + size <= self._bytes and size <= self.longest

    async def call(self, method: str, payload: bytes, metadata: Metadata, seconds: float) -> bytes:
        """Returns the response, serialised.

        Raises AioRpcError as a unary call does, with UNAVAILABLE when the stream broke before the answer; NotSentError
        when the peer did not begin the call.
        """
        future: asyncio.Future[bytes] = self._loop.create_future()
        call = _Call(future, method, payload, metadata, max(1, int(seconds * 1e6)))
        self._last = number = self._last + 1
        self._under[number] = self._outbox[number] = call
        self._under_bytes += call.size
        self._wake()
        timer = self._loop.call_later(seconds, _expire, future)
        try:
            return await future
        except asyncio.CancelledError:
            if not future.cancelled():
                # The answer came in the same moment; if it is an error, nobody is to be told that it was not looked at.
                future.exception()
            raise
        finally:
            timer.cancel()
            if number in self._under:
                self._give_up(number)

    async def run(self) -> None:
        """Serves the stream to its end; raises AioRpcError when that is not a good one."""
        writer = self._loop.create_task(self._write())
        code = grpc.StatusCode.CANCELLED
        try:
            while (raw := await self._call.read()) is not _EOF:
                self._take(CarryResponse.FromString(raw))
            code = grpc.StatusCode.UNAVAILABLE
        except (grpc.aio.AioRpcError, DecodeError):
            code = grpc.StatusCode.UNAVAILABLE
            raise
        finally:
            self._call.cancel()
            writer.cancel()
            self._end(code)
            await asyncio.gather(writer, return_exceptions=True)

    def _take(self, response: CarryResponse) -> None:
        if response.HasField("window"):
            self._widen(response.window)
        for answer in response.answers:
            self._answer(answer)
        if response.draining and not self._draining:
            self.drain()

    def _widen(self, window: Window) -> None:
        self._calls, self._bytes = window.calls, window.bytes
        self.longest = min(self._call_bytes, window.call_bytes, window.bytes)
        if self.stood:
            self._hop.widened()
        else:
            self.stood = True
            self._hop.stood(self)

    def _answer(self, answer: Answer) -> None:
        waiting = self._under.get(answer.id)
        if waiting is None or answer.id in self._outbox:
            return
        payload = answer.payload
        if answer.more or waiting.parts is not None:
            waiting.add(payload, self._message_bytes)
            if answer.more:
                return
            payload = b"".join(waiting.parts or ())
        self._close(answer.id)
        self._hop.freed()
        if self._draining and not self._under:
            self._wake()
        if waiting.future.done():
            return
        if answer.refused:
            waiting.future.set_exception(NotSentError())
        elif answer.code:
            waiting.future.set_exception(_error_of(answer))
        else:
            waiting.future.set_result(payload)

    def _close(self, number: int) -> None:
        self._under_bytes -= self._under.pop(number).size

    def _give_up(self, number: int) -> None:
        """Tells the peer that nobody waits for an answer; of what was not sent yet it hears nothing."""
        if self._outbox.pop(number, None) is not None:
            self._close(number)
            self._hop.freed()
        else:
            self._cancelled.append(number)
            self._wake()

    def _end(self, code: grpc.StatusCode) -> None:
        """Fails what is under way: what was sent may have taken effect."""
        self._calls = 0
        for number, waiting in self._under.items():
            if not waiting.future.done():
                sent = number not in self._outbox
                waiting.future.set_exception(_error(code, "the stream broke") if sent else NotSentError())
        self._under.clear()
        self._outbox.clear()

    def drain(self) -> None:
        """Makes no new calls here; what was not sent goes elsewhere. Ends once all are answered."""
        self._draining = True
        self._hop.left(self)
        unsent, self._outbox = self._outbox, {}
        for number in unsent:
            waiting = self._under[number]
            self._close(number)
            if not waiting.future.done():
                waiting.future.set_exception(NotSentError())
        self._wake()

    def _wake(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    async def _write(self) -> None:
        while True:
            while not self._outbox and not self._cancelled:
                if self._draining and not self._under:
                    await self._call.done_writing()
                    return
                self._idle = self._loop.create_future()
                await self._idle
            if len(self._under) > len(self._outbox):
                # Where others are under way, those of the next turn go along: a frame costs many times
                # what a call in it does.
                await asyncio.sleep(0)
                if not self._outbox and not self._cancelled:
                    continue
            cancelled, self._cancelled = self._cancelled, []
            request = CarryRequest(cancelled=cancelled)
            self._gather(request)
            try:
                await self._call.write(request.SerializeToString())
            except asyncio.InvalidStateError:
                # The stream has ended, which the reader is told of.
                return

    def _gather(self, request: CarryRequest) -> None:
        """Puts into a frame what it takes."""
        size = gathered = 0
        for number, call in self._outbox.items():
            call.write(number, request.calls.add())
            gathered += 1
            size += call.size
            if size >= FRAME_BYTES or gathered == FRAME_CALLS:
                break
        if gathered == len(self._outbox):
            self._outbox = {}
        else:
            for written in request.calls:
                del self._outbox[written.id]


def _expire(future: "asyncio.Future[bytes]") -> None:
    if not future.done():
        future.set_exception(_error(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed"))


def _error(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details, None)


def _error_of(answer: Answer) -> grpc.aio.AioRpcError:
    code = _CODES.get(answer.code, grpc.StatusCode.UNKNOWN)
    trailing = grpc.aio.Metadata(*pairs_of(answer.trailing))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, answer.message, None)
