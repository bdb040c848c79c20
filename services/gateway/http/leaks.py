"""Owns secret keys, and those of directories, that are sent where others can read them: found, refused and reported."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from urllib.parse import unquote

from multidict import istr

from libs import errors
from libs.errors import GatefoldError
from libs.telemetry import Telemetry
from services.gateway.http.api_keys import ApiKeys, well_formed
from services.gateway.http.exchange import Exchange

_REFERER = istr("Referer")
_MARK = re.compile(r"gfs[kc]_")
_KEY = re.compile(r"gfs[kc]_(?:live|test)_[0-9A-Za-z]{49}")
_MOST_REPORTS = 20
"""That are under way at once; others are seen again when the key is sent again."""

Report = Callable[[bytes, str, str], Awaitable[None]]
"""Tells auth of a key's fingerprint, the place, and the request's id."""


class Leaks:
    """Looks at what browsers, histories, logs and other sites get to see of a request."""

    def __init__(self, api_keys: ApiKeys, report: Report, telemetry: Telemetry) -> None:
        self._api_keys = api_keys
        self._report = report
        self._reports: set[asyncio.Task[None]] = set()
        self._log = telemetry.logger("leaks")
        self._seen = telemetry.counter("gateway_leaked_keys", "Secret keys sent where others read them", ("place",))

    def check(self, exchange: Exchange) -> None:
        """Raises `forbidden("secret_key_exposed")` for a secret key in the URL, a Referer, or from a browser.

        A real key is reported, and the answer does not wait for that.
        """
        headers, target = exchange.request.headers, exchange.request.raw_path
        if exchange.origin is None and _REFERER not in headers and "gfs" not in target and "%" not in target:
            return
        place, text = _found(exchange)
        if not place:
            return
        self._seen.labels(place).inc()
        key = _KEY.search(text)
        if key is not None and well_formed(key[0]) and len(self._reports) < _MOST_REPORTS:
            telling = asyncio.create_task(self._tell(self._api_keys.fingerprint(key[0]), place, exchange.request_id))
            self._reports.add(telling)
            telling.add_done_callback(self._reports.discard)
        raise errors.forbidden(
            "secret_key_exposed",
            "A secret key was sent from a browser or in a URL, where others can read it. Revoke it and use another.",
        )

    async def close(self) -> None:
        """Waits for reports that are under way."""
        await asyncio.gather(*self._reports)

    async def _tell(self, fingerprint: bytes, place: str, request_id: str) -> None:
        try:
            await self._report(fingerprint, place, request_id)
        except GatefoldError as error:
            self._log.warning("a leaked key was not reported", extra={"reason": error.reason, "place": place})


def _found(exchange: Exchange) -> tuple[str, str]:
    """Returns where a secret key is and the text that holds it; the URL as it is and as it is read."""
    for place, text in (("url", exchange.request.raw_path), ("referer", exchange.header("Referer"))):
        plain = unquote(text, errors="replace") if "%" in text else text
        if "gfs" in plain and _MARK.search(plain):
            return place, plain
    if exchange.origin is not None and _MARK.search(authorization := exchange.header("Authorization")):
        return "browser", authorization
    return "", ""
