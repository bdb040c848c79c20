"""Owns the bounds of a request before anything is done with it: its target, headers, and the reading of its body."""

import asyncio
import re

from aiohttp import ClientError, StreamReader, web
from multidict import istr

from libs import errors
from services.gateway.domain.bounds import BodyBounds
from services.gateway.http.contracts import Endpoint
from services.gateway.http.exchange import Exchange
from services.gateway.http.request import Request

VERSION = "2026-11-01"
"""The one version of the API there is."""

# Names that are looked for in every request: as these, nobody has to write them in small letters first.
_VERSION, _CONTENT_LENGTH = istr("Gatefold-Version"), istr("Content-Length")
_CONTENT_ENCODING, _TRANSFER_ENCODING = istr("Content-Encoding"), istr("Transfer-Encoding")
_TARGET = re.compile(r"[\x21-\x7e]{1,8000}").fullmatch
_LENGTH = re.compile(r"[0-9]{1,19}")


def check(exchange: Exchange) -> None:
    """Refuses requests that no route could want.

    Raises `malformed("target_malformed")`, `malformed("version_unknown")` and `unsupported_media` for an encoded body,
    whether it is the content that is encoded or the transfer: what a few bytes unfold to is never found out here.
    """
    if _TARGET(exchange.request.raw_path) is None:
        raise errors.malformed("target_malformed", "The path and query must be printable ASCII, percent-encoded.")
    headers = exchange.request.headers
    version = headers.get(_VERSION)
    if version and version != VERSION:
        raise errors.malformed("version_unknown", f"The one version of this API is {VERSION}.")
    encoded = _CONTENT_ENCODING in headers and not _plain(exchange, _CONTENT_ENCODING, "identity")
    if encoded or (_TRANSFER_ENCODING in headers and not _plain(exchange, _TRANSFER_ENCODING, "chunked")):
        raise errors.unsupported_media("content_encoding_unsupported", "Send the body without Content-Encoding.")


def _plain(exchange: Exchange, name: str, value: str) -> bool:
    return exchange.header(name).strip().lower() in ("", value)


class Bodies:
    """Reads bodies up to a size and a time, and not slower than at a least rate."""

    def __init__(self, bounds: BodyBounds) -> None:
        self._bounds = bounds

    def check(self, request: Request, endpoint: Endpoint) -> None:
        """Refuses a body whose stated length is too large, before any of it is read; raises `too_large`."""
        length = request.headers.get(_CONTENT_LENGTH)
        if length is not None and _LENGTH.fullmatch(length) and int(length) > self._limit(endpoint):
            raise self._too_large(endpoint)

    async def read(self, request: Request, endpoint: Endpoint | None) -> bytes:
        """Returns the body.

        Raises `too_large("body_too_large")` as soon as it is, `malformed("body_timeout")` (408) when it takes too long
        in all or comes too slowly, `malformed("body_incomplete")` when the client goes away.
        """
        if not request.body_exists:
            return b""
        limit = self._limit(endpoint)
        if request.headers.get("Expect", "").lower() == "100-continue":
            # Said only now, so that a request which was refused before never sends its body.
            request.protocol.go_on()
        try:
            body = await self._read(request.content, limit)
        except TimeoutError:
            raise errors.malformed("body_timeout", "The body took too long to arrive.") from None
        except (ClientError, web.RequestPayloadError, ConnectionError):
            raise errors.malformed("body_incomplete", "The body ended before it was complete.") from None
        if body is None:
            raise self._too_large(endpoint)
        return body

    async def _read(self, content: StreamReader, limit: int) -> bytes | None:
        if content.is_eof():
            # It came together with the headers, as most do.
            body = content.read_nowait()
            return body if len(body) <= limit else None
        loop, bounds = asyncio.get_running_loop(), self._bounds
        began = loop.time()
        chunks: list[bytes] = []
        size = 0
        async with asyncio.timeout_at(began + bounds.body_seconds) as deadline:
            while True:
                if bounds.body_bytes_per_second:
                    earned = bounds.body_grace_seconds + size / bounds.body_bytes_per_second
                    deadline.reschedule(began + min(bounds.body_seconds, earned))
                chunk = await content.readany()
                if not chunk:
                    return b"".join(chunks)
                size += len(chunk)
                if size > limit:
                    return None
                chunks.append(chunk)

    def _limit(self, endpoint: Endpoint | None) -> int:
        default = self._bounds.body_bytes
        return default if endpoint is None else endpoint.policy.message.max_body_bytes or default

    def _too_large(self, endpoint: Endpoint | None) -> errors.GatefoldError:
        return errors.too_large("body_too_large", f"The body may have {self._limit(endpoint)} bytes at most.")
