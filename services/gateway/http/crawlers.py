"""Owns whether a client that says it is a search engine's crawler is one: asked of the name system, beside requests."""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import dns.asyncresolver
import dns.exception
import dns.reversename

from libs.telemetry import Telemetry
from services.gateway.http.caches import Monotonic

PENDING, VERIFIED, IMPOSTOR = "pending", "verified", "impostor"
LIST_PREFIX = "crawler-"
"""A list of networks with this name and a crawler's after it stands for the ranges that its owner publishes."""
VERIFIED_SECONDS = 24 * 3600.0
IMPOSTOR_SECONDS = 3600.0
UNKNOWN_SECONDS = 60.0
"""How long it is left at that when the name system does not answer."""
_MOST_KEPT = 20_000
_MOST_WAITING = 256
_AT_ONCE = 8
_MOST_NAMES = 4
_ANSWER_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Crawler:
    """A crawler: how it names itself, and the domains that its addresses have names in."""

    name: str
    claim: str
    """Regular expression of ours for the User-Agent."""
    domains: tuple[str, ...]
    """Empty where its owner publishes ranges alone."""


CRAWLERS = (
    # developers.google.com/search/docs/crawling-indexing/verifying-googlebot
    Crawler("googlebot", r"googlebot|google-inspectiontool|storebot-google", ("googlebot.com", "google.com")),
    # www.bing.com/webmasters/help/verifying-bingbot
    Crawler("bingbot", r"bingbot|adidxbot|msnbot", ("search.msn.com",)),
    # support.apple.com/en-us/119829
    Crawler("applebot", r"applebot", ("applebot.apple.com",)),
    # duckduckgo.com/duckduckgo-help-pages/results/duckduckbot: ranges alone
    Crawler("duckduckbot", r"duckduckbot|duckassistbot", ()),
    # yandex.com/support/webmaster/robot-workings/check-yandex-robots.html
    Crawler("yandexbot", r"yandex(?:bot|images|mobilebot)", ("yandex.ru", "yandex.net", "yandex.com")),
    # help.baidu.com/question?prod_id=99&class=476&id=2996
    Crawler("baiduspider", r"baiduspider", ("baidu.com", "baidu.jp")),
)


_CLAIMS = tuple((crawler, re.compile(crawler.claim, re.IGNORECASE)) for crawler in CRAWLERS)


def claimed(user_agent: str) -> Crawler | None:
    """Returns the crawler that a client says it is."""
    return next((crawler for crawler, claim in _CLAIMS if claim.search(user_agent)), None)


class Resolver(Protocol):
    """The name system. Both raise OSError when it does not answer, which is another thing than "there is none"."""

    async def names_of(self, address: str) -> list[str]:
        """Returns the names of an address, in lower case and without the last dot."""

    async def addresses_of(self, name: str) -> list[str]:
        """Returns the addresses of a name."""


class SystemResolver:
    """The machine's name system."""

    def __init__(self, resolver: "dns.asyncresolver.Resolver | None" = None) -> None:
        self._resolver = resolver or _configured()
        self._resolver.lifetime = _ANSWER_SECONDS

    async def names_of(self, address: str) -> list[str]:
        """Returns the names of an address."""
        found = await self._asked(dns.reversename.from_address(address), "PTR")
        return [str(record.target).rstrip(".").lower() for record in found]

    async def addresses_of(self, name: str) -> list[str]:
        """Returns the addresses of a name."""
        return [str(record.address) for kind in ("A", "AAAA") for record in await self._asked(name, kind)]

    async def _asked(self, name: Any, kind: str) -> list[Any]:
        try:
            return list(await self._resolver.resolve(name, kind, raise_on_no_answer=False, search=False))
        except dns.resolver.NXDOMAIN:
            return []
        except dns.exception.DNSException as error:
            raise OSError(f"the name system does not answer: {type(error).__name__}") from None


def _configured() -> dns.asyncresolver.Resolver:
    try:
        return dns.asyncresolver.Resolver()
    except dns.resolver.NoResolverConfiguration:
        # Nobody to ask: no claim is ever verified.
        return dns.asyncresolver.Resolver(configure=False)


OnList = Callable[[str, str], bool | None]
"""Tells whether an address is on a list of networks; None where there is no such list."""


class Crawlers:
    """What is known of claims. A request never waits: what is not known yet is pending."""

    def __init__(self, resolver: Resolver, *, monotonic: Monotonic, telemetry: Telemetry) -> None:
        self._resolver = resolver
        self._monotonic = monotonic
        self._known: OrderedDict[tuple[str, str], tuple[float, str]] = OrderedDict()
        self._asking: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._checked = telemetry.counter(
            "gateway_crawler_checks", "Claims that were looked into", ("crawler", "result")
        )

    def standing(self, crawler: Crawler, address: str, on_list: OnList) -> str:
        """Returns `pending`, `verified` or `impostor` for a client that says it is a crawler (`claimed`)."""
        if not address:
            return ""
        listed = on_list(LIST_PREFIX + crawler.name, address)
        if listed:
            return VERIFIED
        if not crawler.domains:
            return PENDING if listed is None else IMPOSTOR
        key = (crawler.name, address)
        known = self._known.get(key)
        if known is not None and known[0] > self._monotonic():
            return known[1]
        if key not in self._asking and len(self._asking) < _MOST_WAITING:
            task = asyncio.ensure_future(self._check(crawler, address))
            self._asking[key] = task
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        # While it is looked into anew, what was found before holds.
        return known[1] if known is not None else PENDING

    async def settled(self) -> None:
        """Returns once nothing is being looked into."""
        while self._asking:
            await asyncio.gather(*self._asking.values(), return_exceptions=True)

    async def close(self) -> None:
        """Stops looking."""
        for task in list(self._asking.values()):
            task.cancel()
        await self.settled()

    async def _check(self, crawler: Crawler, address: str) -> None:
        key = (crawler.name, address)
        async with self._turns:
            try:
                found = VERIFIED if await self._is(crawler, address) else IMPOSTOR
                seconds = VERIFIED_SECONDS if found == VERIFIED else IMPOSTOR_SECONDS
            except (OSError, ValueError):
                # What was found before holds until the name system answers again.
                found, seconds = self._known.get(key, (0.0, PENDING))[1], UNKNOWN_SECONDS
        self._checked.labels(crawler.name, found).inc()
        self._known[key] = (self._monotonic() + seconds, found)
        self._known.move_to_end(key)
        if len(self._known) > _MOST_KEPT:
            self._known.popitem(last=False)

    async def _is(self, crawler: Crawler, address: str) -> bool:
        """Reverse and forward: anybody can give an address a name of somebody else's, and not a name that address."""
        for name in (await self._resolver.names_of(address))[:_MOST_NAMES]:
            own = any(name == domain or name.endswith(f".{domain}") for domain in crawler.domains)
            if own and address in await self._resolver.addresses_of(name):
                return True
        return False
