"""Claims to be a crawler, looked into by a real name server on this machine."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import cast

import dns.asyncresolver
import dns.flags
import dns.message
import dns.rcode
import dns.reversename
import dns.rrset
import pytest

from libs.telemetry import Telemetry
from services.gateway.http import crawlers
from services.gateway.http.crawlers import IMPOSTOR, PENDING, VERIFIED, Crawlers, SystemResolver, claimed

GOOGLE = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
DUCK = "DuckDuckBot/1.1; (+http://duckduckgo.com/duckduckbot.html)"
GOOD, FORGED, NAMELESS, SIX = "66.249.66.1", "203.0.113.1", "203.0.113.2", "2001:db8::66"


@dataclass
class NameServer(asyncio.DatagramProtocol):
    """Answers from two tables over UDP."""

    names: dict[str, str] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    silent: bool = False
    transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, sender: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append(f"{kind} {question.name}")
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        name = question.name.to_text()
        found = self.names.get(name) if kind == "PTR" else self.addresses.get(name)
        if self.silent:
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif found is None:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif kind == "PTR" or (":" in found) == (kind == "AAAA"):
            answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, found))
        assert self.transport is not None
        self.transport.sendto(answer.to_wire(), sender)


@pytest.fixture
async def server() -> AsyncIterator[NameServer]:
    found = NameServer()
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: found, local_addr=("127.0.0.1", 0))
    for address, name in ((GOOD, "crawl-1.googlebot.com."), (SIX, "crawl-6.googlebot.com.")):
        found.names[dns.reversename.from_address(address).to_text()] = name
        found.addresses[name] = address
    # Anybody may give an address of theirs a name of Google's; that name has another address.
    found.names[dns.reversename.from_address(FORGED).to_text()] = "crawl-1.googlebot.com."
    yield found
    transport.close()


@dataclass
class House:
    """Crawlers with a clock of their own."""

    crawlers: Crawlers
    now: list[float]
    lists: dict[str, bool] = field(default_factory=dict)

    def standing(self, address: str, agent: str = GOOGLE) -> str:
        crawler = claimed(agent)
        assert crawler is not None
        return self.crawlers.standing(crawler, address, lambda name, _: self.lists.get(name))


@pytest.fixture
async def house(server: NameServer) -> AsyncIterator[House]:
    assert server.transport is not None
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = ["127.0.0.1"]
    resolver.port = server.transport.get_extra_info("sockname")[1]
    now = [0.0]
    found = Crawlers(SystemResolver(resolver), monotonic=lambda: now[0], telemetry=Telemetry("tests"))
    yield House(found, now)
    await found.close()


@pytest.mark.case("edge-14")
@pytest.mark.parametrize(
    ("address", "standing"), [(GOOD, VERIFIED), (SIX, VERIFIED), (FORGED, IMPOSTOR), (NAMELESS, IMPOSTOR)]
)
async def test_a_claim_is_looked_into_by_name_and_back(house: House, address: str, standing: str) -> None:
    assert house.standing(address) == PENDING
    await house.crawlers.settled()

    assert house.standing(address) == standing


async def test_a_name_that_only_looks_alike_is_none(house: House, server: NameServer) -> None:
    for number, name in enumerate(("crawl.googlebot.com.evil.example.", "notgooglebot.com.", "evilgooglebot.com.")):
        address = f"203.0.113.{50 + number}"
        server.names[dns.reversename.from_address(address).to_text()] = name
        server.addresses[name] = address
        house.standing(address)
        await house.crawlers.settled()
        assert house.standing(address) == IMPOSTOR


async def test_nobody_is_asked_about_others(house: House, server: NameServer) -> None:
    assert claimed("Mozilla/5.0 Firefox") is None
    assert house.standing("", GOOGLE) == ""
    await house.crawlers.settled()

    assert server.asked == []


async def test_one_question_serves_all_requests_of_a_day(house: House, server: NameServer) -> None:
    for _ in range(20):
        house.standing(GOOD)
    await house.crawlers.settled()
    asked = len(server.asked)
    house.now[0] = crawlers.VERIFIED_SECONDS - 1
    assert house.standing(GOOD) == VERIFIED
    await house.crawlers.settled()
    assert len(server.asked) == asked

    house.now[0] = crawlers.VERIFIED_SECONDS
    server.names.clear()
    assert house.standing(GOOD) == VERIFIED
    await house.crawlers.settled()
    assert house.standing(GOOD) == IMPOSTOR


async def test_while_the_name_system_is_away_nobody_is_called_an_impostor(house: House, server: NameServer) -> None:
    server.silent = True
    house.standing(GOOD)
    await house.crawlers.settled()
    assert house.standing(GOOD) == PENDING

    server.silent = False
    house.now[0] = crawlers.UNKNOWN_SECONDS
    house.standing(GOOD)
    await house.crawlers.settled()
    assert house.standing(GOOD) == VERIFIED
    server.silent = True
    house.now[0] += crawlers.VERIFIED_SECONDS
    house.standing(GOOD)
    await house.crawlers.settled()
    assert house.standing(GOOD) == VERIFIED


async def test_published_ranges_verify_without_a_question(house: House, server: NameServer) -> None:
    assert house.standing(NAMELESS, DUCK) == PENDING
    house.lists["crawler-duckduckbot"] = True
    assert house.standing(NAMELESS, DUCK) == VERIFIED
    house.lists["crawler-duckduckbot"] = False
    assert house.standing(NAMELESS, DUCK) == IMPOSTOR
    house.lists["crawler-googlebot"] = True
    assert house.standing(NAMELESS) == VERIFIED
    await house.crawlers.settled()
    assert server.asked == []


async def test_a_flood_of_claims_is_bounded(house: House) -> None:
    for number in range(3_000):
        house.standing(f"203.0.{number // 250}.{number % 250}")

    assert len(house.crawlers._asking) <= 256
    await house.crawlers.close()
    assert not house.crawlers._asking
