"""Who a client is: forged headers and forged PROXY headers change nothing, from whomever no proxy is trusted."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infra.local.valkey import ValkeyServer
from services.gateway.http.proxy_header import MOST_BYTES, SIGNATURE
from tests.support.crowd import Client, Crowd, crowd_of
from tests.support.gateway import SECRET_KEY, RunningGateway, running_gateway
from tests.support.waiting import until

pytestmark = pytest.mark.case("edge-11")

CLIENT = "203.0.113.7"
TRUSTED = {"trusted_proxies": "127.0.0.1/32,10.0.0.0/8,fd00::/8"}
HEADERS_NOBODY_READS = (
    "Forwarded: for=6.6.6.6;proto=https;by=10.0.0.1",
    'Forwarded: for="[2001:db8:6::6]:443"',
    "X-Real-IP: 6.6.6.6",
    "X-Client-IP: 6.6.6.6",
    "X-Cluster-Client-IP: 6.6.6.6",
    "X-Originating-IP: 6.6.6.6",
    "X-Remote-IP: 6.6.6.6",
    "True-Client-IP: 6.6.6.6",
    "CF-Connecting-IP: 6.6.6.6",
    "Fastly-Client-IP: 6.6.6.6",
    "X-Forwarded: 6.6.6.6",
    "Forwarded-For: 6.6.6.6",
    "X_Forwarded_For: 6.6.6.6",
    "X-Forwarded-Host: 6.6.6.6",
    "Via: 1.1 6.6.6.6",
)


@pytest.fixture(scope="module")
async def direct(run_directory: Path, valkey_server: ValkeyServer) -> AsyncIterator[Crowd]:
    """A gateway that trusts nobody."""
    async with running_gateway(run_directory, valkey_server.url()) as gateway, crowd_of(gateway) as crowd:
        yield crowd


@pytest.fixture(scope="module")
async def behind(run_directory: Path, valkey_server: ValkeyServer) -> AsyncIterator[Crowd]:
    """A gateway that trusts 127.0.0.1, 10.0.0.0/8 and fd00::/8, and no other loopback address."""
    async with running_gateway(run_directory, valkey_server.url(), **TRUSTED) as gateway, crowd_of(gateway) as crowd:
        yield crowd


@pytest.fixture(scope="module")
async def proxied(run_directory: Path, valkey_server: ValkeyServer) -> AsyncIterator[Crowd]:
    """The same, where every connection begins with a PROXY header."""
    settings = {**TRUSTED, "http_proxy_protocol": "true", "handshake_seconds": "0.5", "connections_per_client": "3"}
    async with running_gateway(run_directory, valkey_server.url(), **settings) as gateway, crowd_of(gateway) as crowd:
        yield crowd


async def seen(crowd: Crowd, *lines: str, source: str = "127.0.0.1", first: bytes = b"") -> str | None:
    """Sends a request with headers and returns the address that the service behind was told."""
    client = await crowd.client(source)
    client.say(first)
    head = ["GET /v1/offers HTTP/1.1", "Host: x", f"Authorization: Bearer {SECRET_KEY}", "Connection: close", *lines]
    client.say(("\r\n".join(head) + "\r\n\r\n").encode("latin1"))
    before = len(crowd.gateway.backend.calls)
    answer = await client.rest()
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    assert len(crowd.gateway.backend.calls) == before + 1
    return crowd.gateway.backend.last()[1].address


# -- X-Forwarded-For and its like -------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [*HEADERS_NOBODY_READS, "X-Forwarded-For: 6.6.6.6", "x-forwarded-for: 10.0.0.1"])
async def test_who_comes_directly_is_known_by_the_socket_alone(direct: Crowd, line: str) -> None:
    assert await seen(direct, line) == "127.0.0.1"


@pytest.mark.parametrize("line", HEADERS_NOBODY_READS)
async def test_other_headers_are_not_read_from_a_trusted_proxy_either(behind: Crowd, line: str) -> None:
    assert await seen(behind, line) == "127.0.0.1"
    assert await seen(behind, line, f"X-Forwarded-For: {CLIENT}") == CLIENT


async def test_a_neighbour_of_the_trusted_proxy_is_nobody(behind: Crowd) -> None:
    assert await seen(behind, f"X-Forwarded-For: {CLIENT}", source="127.0.0.2") == "127.0.0.2"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([CLIENT], CLIENT, id="one hop"),
        pytest.param([f"6.6.6.6, {CLIENT}"], CLIENT, id="what the client wrote stands left"),
        pytest.param([f"10.0.0.9, {CLIENT}"], CLIENT, id="a trusted address that the client wrote"),
        pytest.param([f"127.0.0.1, 10.0.0.9, {CLIENT}, 10.0.0.8"], CLIENT, id="two trusted hops"),
        pytest.param(["6.6.6.6", CLIENT], CLIENT, id="two headers are one list"),
        pytest.param([CLIENT, "10.0.0.8"], CLIENT, id="the proxy's in a header of its own"),
        pytest.param([CLIENT, "10.0.0.8, 10.0.0.7"], CLIENT, id="many of both"),
        pytest.param([f"{CLIENT}:51234"], CLIENT, id="a port"),
        pytest.param(["2001:db8::7"], "2001:db8::7", id="IPv6"),
        pytest.param(["2001:DB8:0:0:0:0:0:7"], "2001:db8::7", id="IPv6 in another spelling"),
        pytest.param(["[2001:db8::7]"], "2001:db8::7", id="IPv6 in brackets"),
        pytest.param(["[2001:db8::7]:443"], "2001:db8::7", id="IPv6 with a port"),
        pytest.param([f"::ffff:{CLIENT}"], CLIENT, id="IPv4 within IPv6"),
        pytest.param(["6.6.6.6, fd00::1"], "6.6.6.6", id="a trusted hop over IPv6"),
        pytest.param(["::ffff:10.0.0.8"], "10.0.0.8", id="a trusted hop within IPv6"),
        pytest.param(["10.0.0.8"], "10.0.0.8", id="trusted hops alone"),
        pytest.param([f"{CLIENT},"], "127.0.0.1", id="an empty entry"),
        pytest.param([f"{CLIENT}, unknown"], "127.0.0.1", id="a word"),
        pytest.param([f"{CLIENT}, 10.0.0.8, "], "127.0.0.1", id="an empty entry behind a proxy"),
        pytest.param([f"{CLIENT}, _hidden, 10.0.0.8"], "10.0.0.8", id="a word behind a proxy"),
        pytest.param(["010.0.0.8"], "127.0.0.1", id="leading zeros"),
        pytest.param(["10.8"], "127.0.0.1", id="a short form"),
        pytest.param(["0x7f000001"], "127.0.0.1", id="a hexadecimal form"),
        pytest.param(["203.0.113.7.evil.example"], "127.0.0.1", id="a name"),
        pytest.param(["203.0.113.0/24"], "127.0.0.1", id="a network"),
        pytest.param(["fe80::1%eth0"], "127.0.0.1", id="a zone"),
        pytest.param(["203.0.113.7:port"], "127.0.0.1", id="a port that is none"),
        pytest.param(["203.0.113.7\xff"], "127.0.0.1", id="bytes that are no text"),
        pytest.param(['for="203.0.113.7"'], "127.0.0.1", id="the other header's form"),
        pytest.param([", ".join(["6.6.6.6"] + ["10.0.0.8"] * 600)], "10.0.0.8", id="more hops than anybody has"),
    ],
)
async def test_the_list_is_walked_from_the_proxy_outwards(behind: Crowd, lines: list[str], expected: str) -> None:
    assert await seen(behind, *(f"X-Forwarded-For: {line}" for line in lines)) == expected


# -- PROXY protocol ---------------------------------------------------------------------------------------------------


def header(source: str = CLIENT, *, command: int = 0x21, length: int | None = None, more: bytes = b"") -> bytes:
    """Returns a header of version 2 for a client that connected to 192.0.2.1 or 2001:db8::1."""
    kind, family, target = socket.AF_INET, 0x11, "192.0.2.1"
    if ":" in source:
        kind, family, target = socket.AF_INET6, 0x21, "2001:db8::1"
    addresses = socket.inet_pton(kind, source) + socket.inet_pton(kind, target)
    rest = addresses + struct.pack("!HH", 51234, 443) + more
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest) if length is None else length) + rest


@pytest.mark.parametrize("source", [CLIENT, "2001:db8:7::7"])
async def test_a_trusted_proxys_header_says_who_the_client_is(proxied: Crowd, source: str) -> None:
    assert await seen(proxied, first=header(source)) == source


async def test_extensions_are_passed_over_and_not_a_byte_of_the_request_with_them(proxied: Crowd) -> None:
    extension = b"\x04" + struct.pack("!H", 100) + bytes(100)
    assert await seen(proxied, first=header(more=extension)) == CLIENT


async def test_the_clients_own_forwarded_header_is_not_believed_behind_it(proxied: Crowd) -> None:
    assert await seen(proxied, "X-Forwarded-For: 6.6.6.6", first=header()) == CLIENT


async def test_a_proxy_in_front_of_the_proxy_is_believed(proxied: Crowd) -> None:
    assert await seen(proxied, "X-Forwarded-For: 6.6.6.6", first=header("10.0.0.9")) == "6.6.6.6"


async def test_a_second_header_is_no_request(proxied: Crowd) -> None:
    client = await proxied.client()
    client.say(header() + header("6.6.6.6") + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b" 400 " in (await client.rest()).splitlines()[0]


async def test_the_proxy_itself_may_ask_after_health(proxied: Crowd) -> None:
    client = await proxied.client()
    client.say(header(command=0x20) + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200 OK" in await client.hear()
    unknown = await proxied.client()
    unknown.say(SIGNATURE + b"\x21\x00\x00\x00" + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200 OK" in await unknown.hear()


async def test_a_header_from_nobody_we_trust_is_not_even_read(proxied: Crowd) -> None:
    before = proxied.ended("proxy_untrusted")
    client = await proxied.client("127.0.0.2")
    client.say(header() + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await client.rest() == b""
    assert proxied.ended("proxy_untrusted") == before + 1


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", id="a request"),
        pytest.param(b"PROXY TCP4 6.6.6.6 192.0.2.1 1 2\r\nGET /healthz HTTP/1.1\r\n\r\n", id="version 1"),
        pytest.param(header(command=0x11) + b"x", id="another version"),
        pytest.param(header(command=0x22) + b"x", id="another command"),
        pytest.param(header(length=4) + b"x", id="addresses cut short"),
        pytest.param(header(length=MOST_BYTES + 1) + bytes(MOST_BYTES), id="too long"),
        pytest.param(header(length=65535), id="far too long"),
        pytest.param(SIGNATURE[:11] + b"\x00" + header()[12:], id="another signature"),
    ],
)
async def test_a_header_that_cannot_be_read_ends_the_connection(proxied: Crowd, data: bytes) -> None:
    before = proxied.ended("proxy_header")
    client = await proxied.client()
    client.say(data)
    assert await client.rest() == b""
    assert proxied.ended("proxy_header") == before + 1


async def test_a_header_that_drips_or_never_comes_ends_within_its_deadline(proxied: Crowd) -> None:
    before = proxied.ended("proxy_header")
    silent, slow = await proxied.client(), await proxied.client()

    async def drip(client: Client) -> None:
        for byte in header():
            client.say(bytes([byte]))
            await asyncio.sleep(0.1)

    dripping = asyncio.create_task(drip(slow))
    assert await silent.rest() == b""
    assert await slow.rest() == b""
    dripping.cancel()
    assert proxied.ended("proxy_header") == before + 2


async def test_connections_are_counted_by_whom_the_proxy_speaks_for(proxied: Crowd) -> None:
    working: list[Client] = []
    gateway: RunningGateway = proxied.gateway
    gateway.backend.goes_on.clear()
    ask = f"GET /v1/access?feature=a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SECRET_KEY}\r\n\r\n".encode()
    calls = len(gateway.backend.calls)
    for number in range(3):
        working.append(await proxied.client())
        working[-1].say(header(f"2001:db8:9:9::{number}") + ask)
    await until(lambda: len(gateway.backend.calls) == calls + 3)
    one_more = await proxied.client()
    one_more.say(header("2001:db8:9:9:ffff::1") + ask)
    assert await one_more.rest() == b"", "a /64 is one client"
    assert await seen_health(proxied, header("2001:db8:9:a::1"))
    gateway.backend.goes_on.set()
    for client in working:
        assert b"200 OK" in await client.hear()


async def seen_health(crowd: Crowd, first: bytes) -> bool:
    """Asks after health as somebody."""
    client = await crowd.client()
    client.say(first + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    return b"200 OK" in await client.hear()
