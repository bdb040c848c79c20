"""Owns what a servicer is handed about a call that came in a frame, in gRPC's own shape."""

import time
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import grpc

from libs.hop.metadata import Pairs

Outer = grpc.aio.ServicerContext[Any, Any]


class CallContext(grpc.aio.ServicerContext[Any, Any]):
    """One call's metadata, deadline and status; who is at the other end is whoever opened the stream."""

    def __init__(self, outer: Outer, metadata: Pairs, seconds: float | None) -> None:
        self._outer = outer
        self._metadata = metadata
        self._ends = None if seconds is None else time.monotonic() + seconds
        self._trailing: Any = ()
        self._code = grpc.StatusCode.OK
        self._details = ""

    def invocation_metadata(self) -> Any:
        """Returns the pairs that the calling side sent."""
        return self._metadata

    def time_remaining(self) -> float | None:  # type: ignore[override]  # None without a deadline, as gRPC's own
        """Returns the seconds left, none below 0; None without a deadline."""
        return None if self._ends is None else max(0.0, self._ends - time.monotonic())

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """Ends the call with this status; raises what nobody must catch."""
        self._code, self._details = code, details
        if trailing_metadata:
            self._trailing = trailing_metadata
        raise grpc.aio.AbortError("the call was aborted")

    async def abort_with_status(self, status: Any) -> NoReturn:
        """Ends the call with this status; raises what nobody must catch."""
        await self.abort(status.code, status.details, status.trailing_metadata)

    def set_code(self, code: grpc.StatusCode) -> None:
        """Sets the status code of the answer."""
        self._code = code

    def set_details(self, details: str) -> None:
        """Sets the status message of the answer."""
        self._details = details

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Sets the pairs that go with the answer."""
        self._trailing = trailing_metadata

    def code(self) -> grpc.StatusCode:
        """Returns the status code of the answer."""
        return self._code

    def details(self) -> str:
        """Returns the status message of the answer."""
        return self._details

    def trailing_metadata(self) -> Any:
        """Returns the pairs that go with the answer."""
        return self._trailing

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Returns what the certificate of the other side says."""
        return self._outer.auth_context()

    def peer(self) -> str:
        """Returns the other side's address."""
        return self._outer.peer()

    def peer_identities(self) -> Iterable[bytes] | None:
        """Returns the names in the certificate of the other side."""
        return self._outer.peer_identities()

    def peer_identity_key(self) -> str | None:
        """Returns where those names stand."""
        return self._outer.peer_identity_key()

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        """There is no answer before the answer here."""
        raise NotImplementedError("calls between services have no initial metadata")

    async def read(self) -> Any:
        """There is no stream of requests here."""
        raise NotImplementedError("a unary call has one request")

    async def write(self, message: Any) -> None:
        """There is no stream of answers here."""
        raise NotImplementedError("a unary call has one answer")

    def set_compression(self, compression: grpc.Compression) -> None:
        """Frames are not compressed."""

    def disable_next_message_compression(self) -> None:
        """Frames are not compressed."""
