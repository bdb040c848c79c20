"""Owns an answer and its bytes on the wire: every one is whole when it begins, and goes out in one write."""

from dataclasses import dataclass, field
from http import HTTPStatus

from aiohttp import HttpVersion, HttpVersion10
from aiohttp.helpers import rfc822_formatted_time

_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}" for status in HTTPStatus}
_END = "\r\n"
_WITHOUT_BODY = frozenset({204, 304})
_HTTP_10 = HttpVersion10
_OWN = frozenset({"RateLimit", "RateLimit-Policy", "X-Request-Id"})
"""Headers whose text is of our own making, or was checked when it came."""


@dataclass(slots=True)
class Answer:
    """One answer. Names of headers are written in one way throughout, so that a dict knows them apart."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cookies: list[str] = field(default_factory=list)
    """Values of its Set-Cookie headers."""
    standard: str = ""
    """Headers that are the same in all answers, each after the end of a line."""
    ends: bool = False
    """It is the last one of its connection."""

    def written(self, *, version: HttpVersion = HttpVersion10, head: bool = False) -> bytes:
        """Returns the bytes of the answer (RFC 9112) to a client that speaks `version`.

        To a HEAD request (`head`) it says what the body would be, without it. Raises ValueError for a header with
        control characters, which would end its line.
        """
        lines = [_LINES[self.status]]
        others = ""
        for name, value in self.headers.items():
            lines.append(f"{name}: {value}")
            if name not in _OWN:
                others += value
        if self.cookies:
            lines += [f"Set-Cookie: {cookie}" for cookie in self.cookies]
        lines.append(f"Date: {rfc822_formatted_time()}")
        if self.status not in _WITHOUT_BODY:
            lines.append(f"Content-Length: {len(self.body)}")
        if self.ends:
            lines.append("Connection: close")
        elif version == _HTTP_10:
            lines.append("Connection: keep-alive")
        if not others.isprintable() or (self.cookies and not "".join(self.cookies).isprintable()):
            raise ValueError("a header must hold nothing but text, and no end of a line")
        block = f"{_END.join(lines)}{self.standard}{_END}{_END}".encode()
        return block if head or self.status in _WITHOUT_BODY else block + self.body
