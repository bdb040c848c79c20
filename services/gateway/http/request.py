"""Owns a request as it was read from the wire."""

from typing import Protocol

from aiohttp import HttpVersion, StreamReader
from aiohttp.http import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD
from multidict import CIMultiDictProxy

from services.gateway.http.address import Peer


class Channel(Protocol):
    """What a request came by."""

    @property
    def peer(self) -> Peer:
        """Whom it came from."""

    async def refused(self) -> None:
        """Returns when its sender may be told that it is refused."""

    def go_on(self) -> None:
        """Tells its sender that the body is wanted."""


class Request:
    """What was sent. aiohttp's own holds more, and asks its connection for what nobody here reads."""

    __slots__ = (
        "body_exists",
        "content",
        "headers",
        "keep_alive",
        "method",
        "protocol",
        "raw_headers",
        "raw_path",
        "version",
    )

    def __init__(self, message: RawRequestMessage, content: StreamReader, protocol: Channel) -> None:
        self.method: str = message.method
        self.raw_path: str = message.path
        """With the query, as it was sent."""
        self.version: HttpVersion = message.version
        self.headers: CIMultiDictProxy[str] = message.headers
        self.raw_headers: tuple[tuple[bytes, bytes], ...] = message.raw_headers
        self.keep_alive: bool = not message.should_close
        """Whether its sender means to send more."""
        self.content = content
        """The body."""
        self.body_exists = content is not EMPTY_PAYLOAD
        self.protocol = protocol

    # -- what aiohttp's connection asks of it --------------------------------------------------------------------------

    def _cancel(self, error: BaseException) -> None:
        """Tells whoever reads the body that no more of it comes."""
        self.content.set_exception(error)

    def _finish(self) -> None:
        """There are no files of forms to close."""
