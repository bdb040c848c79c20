"""Owns the range protocol for breached passwords (Have I Been Pwned, "Searching by range"): five hex digits go out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

PREFIX_DIGITS = 5


class SourceAwayError(Exception):
    """The source did not answer, or not in time, or not by the protocol."""


@dataclass(frozen=True)
class Range:
    """The suffixes of one prefix that were breached; None when they are what they were (`etag`)."""

    suffixes: frozenset[str] | None
    etag: str


class RangeSource:
    """A server of the range protocol. It learns a prefix that some eight hundred passwords share, and no more."""

    def __init__(self, url: str, seconds: float) -> None:
        self._url = url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=seconds)
        self._session: aiohttp.ClientSession | None = None

    async def holds(self, digest: bytes) -> bool:
        """Tells whether a password with this SHA-1 was breached; raises SourceAwayError."""
        text = digest.hex().upper()
        # Padding hides from who watches the wire how long the answer is, and so which prefix it was.
        found = await self.fetch(text[:PREFIX_DIGITS], padded=True)
        return found.suffixes is not None and text[PREFIX_DIGITS:] in found.suffixes

    async def fetch(self, prefix: str, *, etag: str = "", padded: bool = False) -> Range:
        """Returns a range, unless it is the one with this ETag; raises SourceAwayError."""
        headers = {"User-Agent": "gatefold"}
        if padded:
            headers["Add-Padding"] = "true"
        if etag:
            headers["If-None-Match"] = etag
        async with self._asking(), self._opened().get(f"{self._url}/range/{prefix}", headers=headers) as answer:
            if answer.status == 304:
                return Range(None, etag)
            if answer.status != 200:
                raise SourceAwayError(f"answered {answer.status}")
            return Range(_suffixes(await answer.text()), answer.headers.get("ETag", ""))

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        return self._session

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[None]:
        try:
            yield
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise SourceAwayError(type(error).__name__) from error


def _suffixes(text: str) -> frozenset[str]:
    """Reads `SUFFIX:COUNT` lines; padding has the count 0."""
    found = set()
    for line in text.splitlines():
        suffix, _, count = line.partition(":")
        if int(count) > 0:
            found.add(suffix.strip().upper())
    return frozenset(found)
