"""Owns the answering side of the fast hop: takes calls from streams, runs each in a task of its own, writes answers."""

import asyncio
import contextvars
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import grpc
from gatefold.mux.v1.mux_pb2 import Answer, Call, CarryRequest, CarryResponse, Entry, Window
from google.protobuf.message import DecodeError

from libs.hop.config import FRAME_BYTES, FRAME_CALLS, METADATA_BYTES, HopConfig
from libs.hop.context import CallContext, Outer
from libs.hop.metadata import entries_of, pairs_of
from libs.telemetry import Telemetry

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # subscriptable in its stubs alone

_LONGEST_SECONDS = 86_400.0


class HopServer:
    """Carries the calls of all streams to one service; `methods` are its unary handlers by full name."""

    def __init__(
        self, methods: Mapping[str, Handler], config: HopConfig, *, message_bytes: int, telemetry: Telemetry
    ) -> None:
        self._methods = methods
        self._config = config
        self._message_bytes = message_bytes
        self._log = telemetry.logger("hop")
        self._draining = False
        self._streams: set[_Stream] = set()

    async def carry(self, context: Outer) -> None:
        """Serves one stream to its end."""
        stream = _Stream(self._methods, context, self._config, self._message_bytes, self._log)
        self._streams.add(stream)
        if self._draining:
            stream.drain()
        try:
            await stream.run()
        finally:
            self._streams.discard(stream)

    def drain(self) -> None:
        """Takes no new calls; each stream ends when its calls have ended and the other side has taken note."""
        self._draining = True
        for stream in self._streams:
            stream.drain()


class _BrokenError(Exception):
    """The other side broke the rules of the frames."""


class _Under:
    """A call under way."""

    __slots__ = ("expired", "size", "task", "timer")

    def __init__(self, size: int) -> None:
        self.size = size
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.expired = False


class _Long:
    """An answer that goes in parts."""

    __slots__ = ("number", "offset", "payload", "trailing")

    def __init__(self, number: int, payload: bytes, trailing: list[Entry]) -> None:
        self.number = number
        self.payload = payload
        self.trailing = trailing
        self.offset = 0

    def part(self) -> Answer:
        """Returns the next part; the trailing metadata goes with the last."""
        end = self.offset + FRAME_BYTES
        part = self.payload[self.offset : end]
        self.offset = end
        if end < len(self.payload):
            return Answer(id=self.number, payload=part, more=True)
        return Answer(id=self.number, payload=part, trailing=self.trailing)


class _Stream:
    """One stream: a reader, a writer, and a task for each call.

    What waits to be written is bounded: beyond as many answers, or bytes of them, as calls may be under way, no more
    is read, so that somebody who reads slowly is held up by gRPC's own flow control. A call counts as under way until
    its answer is handed to the transport.
    """

    def __init__(
        self, methods: Mapping[str, Handler], context: Outer, config: HopConfig, message_bytes: int, log: Any
    ) -> None:
        self._methods = methods
        self._context = context
        self._config = config
        self._message_bytes = message_bytes
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._last = 0
        self._under: dict[int, _Under] = {}
        self._under_bytes = 0
        self._outbox: deque[Answer | _Long] = deque()
        self._outbox_bytes = 0
        self._said_draining = False
        self._draining = False
        self._no_more_calls = False
        self._broken = False
        self._idle: asyncio.Future[None] | None = None
        self._crowded: asyncio.Future[None] | None = None

    def drain(self) -> None:
        """Refuses calls from now on, and says so."""
        self._draining = True
        self._wake()

    async def run(self) -> None:
        """Returns when the other side has no more calls and all are answered; aborts when it breaks the rules."""
        reader = self._loop.create_task(self._read())
        writer = self._loop.create_task(self._write())
        try:
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
            try:
                if reader.done():
                    await reader
                await writer
            except _BrokenError as broken:
                self._broken = True
                self._cancel()
                self._wake()
                # A status cannot be sent while something else is.
                await writer
                self._log.warning("a stream of calls broke the rules", extra={"rule": str(broken)})
                await self._context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(broken))
        finally:
            reader.cancel()
            writer.cancel()
            await asyncio.gather(reader, writer, *self._cancel(), return_exceptions=True)

    def _cancel(self) -> list[asyncio.Task[None]]:
        tasks = [under.task for under in self._under.values() if under.task is not None]
        for task in tasks:
            task.cancel()
        return tasks

    async def _read(self) -> None:
        while True:
            if len(self._outbox) > self._config.hop_calls or self._outbox_bytes > self._config.hop_bytes:
                self._crowded = self._loop.create_future()
                await self._crowded
                continue
            raw = await self._context.read()
            if raw is grpc.aio.EOF:  # type: ignore[attr-defined]  # not in the published stubs
                self._no_more_calls = True
                self._wake()
                return
            try:
                request = CarryRequest.FromString(raw)
            except DecodeError:
                raise _BrokenError("a frame cannot be read") from None
            for call in request.calls:
                self._begin(call)
            for number in request.cancelled:
                under = self._under.get(number)
                if under is not None and under.task is not None:
                    under.task.cancel()

    def _begin(self, call: Call) -> None:
        number, size = call.id, len(call.payload)
        if number <= self._last:
            raise _BrokenError("ids must rise")
        self._last = number
        config = self._config
        if size > config.hop_call_bytes:
            return self._put(_failed(number, grpc.StatusCode.RESOURCE_EXHAUSTED, "the request is too long for a frame"))
        full = len(self._under) >= config.hop_calls or self._under_bytes + size > config.hop_bytes
        if self._draining or full:
            return self._put(Answer(id=number, refused=True))
        if _length(call.metadata) > METADATA_BYTES:
            return self._put(_failed(number, grpc.StatusCode.RESOURCE_EXHAUSTED, "there is too much metadata"))
        handler = self._methods.get(call.method)
        if handler is None:
            return self._put(_failed(number, grpc.StatusCode.UNIMPLEMENTED, "there is no such method"))
        try:
            metadata = pairs_of(call.metadata)
            assert handler.request_deserializer is not None
            request = handler.request_deserializer(call.payload)
        except (DecodeError, UnicodeDecodeError):
            return self._put(_failed(number, grpc.StatusCode.INTERNAL, "the request cannot be read"))
        seconds = min(call.timeout_micros / 1e6, _LONGEST_SECONDS) if call.timeout_micros else None
        under = self._under[number] = _Under(size)
        self._under_bytes += size
        if seconds is not None:
            under.timer = self._loop.call_later(seconds, _expire, under)
        # In an empty context: nothing of the stream's own caller reaches the calls in it.
        under.task = self._loop.create_task(
            self._serve(number, handler, request, CallContext(self._context, metadata, seconds)),
            context=contextvars.Context(),
        )
        under.task.add_done_callback(lambda _: self._ended(number))
        return None

    async def _serve(self, number: int, handler: Handler, request: Any, context: CallContext) -> None:
        try:
            response = await handler.unary_unary(request, context)  # type: ignore[misc,arg-type]  # typed as not asynchronous
            if context.code() is not grpc.StatusCode.OK:
                answer: Answer | _Long = _of_status(number, context)
            else:
                answer = self._of_response(number, handler.response_serializer(response), context)  # type: ignore[misc]
        except grpc.aio.AbortError:
            answer = _of_status(number, context)
        except asyncio.CancelledError:
            # Whether by the other side or by the deadline is told by who waits: see `_ended`.
            return
        except Exception:  # noqa: BLE001 — as gRPC does; whatever stands in front of the method has told of it already
            self._log.exception("a call in a frame failed")
            answer = _failed(number, grpc.StatusCode.UNKNOWN, "the call failed")
        if _length(answer.trailing) > METADATA_BYTES:
            answer = _failed(number, grpc.StatusCode.RESOURCE_EXHAUSTED, "there is too much metadata")
        self._close(number)
        self._put(answer)

    def _of_response(self, number: int, payload: bytes, context: CallContext) -> "Answer | _Long":
        if len(payload) > self._message_bytes:
            return _failed(number, grpc.StatusCode.RESOURCE_EXHAUSTED, "the response is too long")
        trailing = entries_of(context.trailing_metadata() or ())
        if len(payload) <= FRAME_BYTES:
            return Answer(id=number, payload=payload, trailing=trailing)
        return _Long(number, payload, trailing)

    def _ended(self, number: int) -> None:
        """Answers for a task that was cancelled, also before it began."""
        under = self._close(number)
        if under is not None:
            code = grpc.StatusCode.DEADLINE_EXCEEDED if under.expired else grpc.StatusCode.CANCELLED
            self._put(_failed(number, code, "the call was ended"))

    def _close(self, number: int) -> _Under | None:
        under = self._under.pop(number, None)
        if under is not None:
            self._under_bytes -= under.size
            if under.timer is not None:
                under.timer.cancel()
        return under

    def _put(self, answer: "Answer | _Long") -> None:
        self._outbox.append(answer)
        self._outbox_bytes += len(answer.payload) + _length(answer.trailing)
        self._wake()

    def _wake(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    async def _write(self) -> None:
        config = self._config
        window = Window(calls=config.hop_calls, bytes=config.hop_bytes, call_bytes=config.hop_call_bytes)
        response = CarryResponse(window=window)
        while await self._say(response) and await self._more():
            response = CarryResponse(answers=self._batch(), draining=self._draining and not self._said_draining)
            self._said_draining = self._draining

    async def _more(self) -> bool:
        """Waits until there is something to say; answers whether anything will be."""
        while not self._broken:
            if self._outbox or self._draining != self._said_draining:
                return True
            if self._no_more_calls and not self._under:
                return False
            self._idle = self._loop.create_future()
            await self._idle
        return False

    async def _say(self, response: CarryResponse) -> bool:
        """Answers whether the other side is still there to read."""
        try:
            await self._context.write(response.SerializeToString())
        except Exception:  # noqa: BLE001 — gRPC raises what it likes here, and it only ever means that nobody is there
            return False
        if self._crowded is not None and not self._crowded.done():
            self._crowded.set_result(None)
        return True

    def _batch(self) -> list[Answer]:
        """Takes what one frame gathers; long answers let others pass between their parts."""
        answers: list[Answer] = []
        size = 0
        outbox = self._outbox
        while outbox and size < FRAME_BYTES and len(answers) < FRAME_CALLS:
            item = outbox.popleft()
            if isinstance(item, _Long):
                answer = item.part()
                if answer.more:
                    outbox.append(item)
            else:
                answer = item
            size += len(answer.payload) + _length(answer.trailing)
            answers.append(answer)
        self._outbox_bytes -= size
        return answers


def _expire(under: _Under) -> None:
    under.expired = True
    if under.task is not None:
        under.task.cancel()


def _length(entries: Iterable[Entry]) -> int:
    return sum(len(entry.key) + len(entry.value) for entry in entries)


def _failed(number: int, code: grpc.StatusCode, message: str) -> Answer:
    return Answer(id=number, code=code.value[0], message=message)


def _of_status(number: int, context: CallContext) -> Answer:
    return Answer(
        id=number,
        code=context.code().value[0],
        message=context.details()[:METADATA_BYTES],
        trailing=entries_of(context.trailing_metadata() or ()),
    )
