"""Owns the bounds of a request before anything is done with it: its target, headers, and the reading of its body."""

import asyncio
import re

from aiohttp import ClientError, StreamReader, web

from libs import errors
from services.gateway.http.contracts import Endpoint
from services.gateway.http.exchange import Exchange

VERSION = "2026-11-01"
"""The one version of the API there is."""

_TARGET = re.compile(r"[\x21-\x7e]{1,8000}")
_LENGTH = re.compile(r"[0-9]{1,19}")


def check(exchange: Exchange) -> None:
    """Refuses requests that no route could want.

    Raises `malformed("target_malformed")`, `malformed("version_unknown")` and `unsupported_media` for an encoded body.
    """
    target = f"{exchange.path}?{exchange.query}"
    if _TARGET.fullmatch(target) is None:
        raise errors.malformed("target_malformed", "The path and query must be printable ASCII, percent-encoded.")
    version = exchange.header("Gatefold-Version")
    if version and version != VERSION:
        raise errors.malformed("version_unknown", f"The one version of this API is {VERSION}.")
    if exchange.header("Content-Encoding").strip().lower() not in ("", "identity"):
        raise errors.unsupported_media("content_encoding_unsupported", "Send the body without Content-Encoding.")


class Bodies:
    """Reads bodies up to a size and a time."""

    def __init__(self, default_bytes: int, seconds: float) -> None:
        self._default_bytes = default_bytes
        self._seconds = seconds

    def check(self, request: web.BaseRequest, endpoint: Endpoint) -> None:
        """Refuses a body whose stated length is too large, before any of it is read; raises `too_large`."""
        length = request.headers.get("Content-Length", "0")
        if _LENGTH.fullmatch(length) and int(length) > self._limit(endpoint):
            raise self._too_large(endpoint)

    async def read(self, request: web.BaseRequest, endpoint: Endpoint | None) -> bytes:
        """Returns the body.

        Raises `too_large("body_too_large")` as soon as it is, `malformed("body_timeout")` (408) when it takes too long
        in all, `malformed("body_incomplete")` when the client goes away.
        """
        if not request.body_exists:
            return b""
        limit = self._limit(endpoint)
        if request.headers.get("Expect", "").lower() == "100-continue":
            # Said only now, so that a request which was refused before never sends its body (RFC 9110, 10.1.1).
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        try:
            async with asyncio.timeout(self._seconds):
                body = await _read(request.content, limit)
        except TimeoutError:
            raise errors.malformed("body_timeout", "The body took too long to arrive.") from None
        except (ClientError, web.RequestPayloadError, ConnectionError):
            raise errors.malformed("body_incomplete", "The body ended before it was complete.") from None
        if body is None:
            raise self._too_large(endpoint)
        return body

    def _limit(self, endpoint: Endpoint | None) -> int:
        return (
            self._default_bytes if endpoint is None else endpoint.policy.message.max_body_bytes or self._default_bytes
        )

    def _too_large(self, endpoint: Endpoint | None) -> errors.GatefoldError:
        return errors.too_large("body_too_large", f"The body may have {self._limit(endpoint)} bytes at most.")


async def _read(content: StreamReader, limit: int) -> bytes | None:
    chunks: list[bytes] = []
    size = 0
    while chunk := await content.readany():
        size += len(chunk)
        if size > limit:
            return None
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
