"""Owns asking providers of others over HTTP: bounded in size and time, without redirects, and never inside (SSRF)."""

import ipaddress
import json
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from services.auth.domain import openid
from services.auth.domain.openid import RefusedError

MOST_BYTES = 256 * 1024


class AwayError(Exception):
    """The provider did not answer, not in time, or with what is no answer."""


class ForbiddenAddressError(Exception):
    """The provider's name leads into a private network."""


class ProviderHttp:
    """Requests to providers. `private` lets them be on this machine or in this network."""

    def __init__(self, *, seconds: float, private: bool) -> None:
        self.private = private
        self._timeout = aiohttp.ClientTimeout(total=seconds)
        self._session: aiohttp.ClientSession | None = None

    async def ask(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, form: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Returns status and JSON object of an answer, an empty one for anything else.

        Raises AwayError, ForbiddenAddressError, and RefusedError for an address that is not to be asked.
        """
        if not openid.allowed_url(url, private=self.private):
            raise RefusedError("url")
        # A name is looked at when it is resolved; aiohttp resolves no literal address.
        if not self.private and not is_public_address(urlsplit(url).hostname or ""):
            raise ForbiddenAddressError
        try:
            async with self._opened().request(method, url, headers=headers, data=form, allow_redirects=False) as answer:
                if 300 <= answer.status < 400:
                    raise AwayError("it redirects")
                body, status = await _read(answer), answer.status
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise AwayError(type(error).__name__) from error
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = None
        return status, document if isinstance(document, dict) else {}

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(resolver=None if self.private else PublicResolver(), limit=64),
                timeout=self._timeout,
                # Nothing is unpacked into more than was sent.
                headers={"User-Agent": "Gatefold", "Accept": "application/json", "Accept-Encoding": "identity"},
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


class PublicResolver(AbstractResolver):
    """Resolves names and refuses every address that is not public; the connection is made to exactly these (SSRF)."""

    def __init__(self) -> None:
        self._inner = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Answers the public addresses."""
        found = await self._inner.resolve(host, port, family)
        if not all(is_public_address(result["host"]) for result in found):
            raise ForbiddenAddressError
        return found

    async def close(self) -> None:
        """Closes the resolver inside."""
        await self._inner.close()


def is_public_address(text: str) -> bool:
    """Tells whether an address is one of the public Internet; a name counts as public until it is resolved."""
    try:
        address = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return True
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_global and not address.is_multicast


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    """Reads a body of bounded size, as it was sent: nothing is unpacked into more."""
    body = bytearray()
    async for part in answer.content.iter_any():
        body += part
        if len(body) > MOST_BYTES:
            raise AwayError("the answer is too large")
    return bytes(body)
