"""Clients that hold on to what they get, or send what cannot be: each ends as stated, and the honest one is served."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infra.local.valkey import ValkeyServer
from services.gateway.domain.bounds import ConnectionBounds
from tests.support.crowd import Client, Crowd, crowd_of
from tests.support.gateway import SECRET_KEY, running_gateway
from tests.support.waiting import until

pytestmark = pytest.mark.case("edge-12")

BOUNDS = ConnectionBounds()
WIDE = '{"strict.address":[1000000,60],"read.address":[1000000,60],"read.server":[1000000,60]}'
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
AUTHORIZED = f"Authorization: Bearer {SECRET_KEY}\r\n".encode()
MANY = 1500


@pytest.fixture(scope="module")
async def shared(run_directory: Path, valkey_server: ValkeyServer) -> AsyncIterator[Crowd]:
    """A gateway with few connections to give and the stated deadlines, by a clock of the test's."""
    settings = {
        "connections": "300",
        "connections_per_client": "100000",
        "body_seconds": "2",
        "body_grace_seconds": "0.3",
        "body_bytes_per_second": "1000",
        "rate_quotas": WIDE,
    }
    async with running_gateway(run_directory, valkey_server.url(), **settings) as gateway, crowd_of(gateway) as crowd:
        yield crowd


@pytest.fixture
async def crowd(shared: Crowd) -> AsyncIterator[Crowd]:
    """The module's crowd, with nobody in it but the honest client."""
    await honest(shared)
    yield shared
    for client in shared.clients:
        client.writer.transport.abort()
    shared.clients.clear()
    await until(lambda: len(shared.connections) <= 1)
    await honest(shared)


async def honest(crowd: Crowd) -> None:
    """An honest request, answered by a service."""
    answer = await crowd.gateway.ask("GET", "/v1/offers", credential=SECRET_KEY)
    assert answer.status == 200


# -- silence ----------------------------------------------------------------------------------------------------------


async def test_a_connection_that_says_nothing_ends(crowd: Crowd) -> None:
    silent = await crowd.client()
    await crowd.until_state("new", 1)
    crowd.later(BOUNDS.first_byte_seconds - 0.1)
    assert crowd.state("new") == 1
    await honest(crowd)
    crowd.later(0.1)
    assert await silent.rest() == b""
    assert crowd.ended("first_byte") >= 1


async def test_a_connection_is_kept_between_requests_and_not_for_ever(crowd: Crowd) -> None:
    idle = await crowd.client()
    idle.say(HEALTH)
    assert b" 200 OK" in await idle.hear()
    await until(lambda: crowd.state("new") == 0)
    before = crowd.ended("idle")
    crowd.later(BOUNDS.idle_seconds - 0.1)
    assert crowd.ended("idle") == before
    idle.say(HEALTH)
    assert b" 200 OK" in await idle.hear()
    crowd.later(BOUNDS.idle_seconds)
    assert (await idle.rest()).endswith(b'{"status":"ok"}')


async def test_headers_that_drip_end_with_408_however_often_a_byte_comes(crowd: Crowd) -> None:
    slow = await crowd.client()
    slow.say(b"G")
    await crowd.until_state("header", 1)
    for byte in b"ET /healthz HTTP/1.1\r\nHos":
        slow.say(bytes([byte]))
        crowd.later(BOUNDS.header_seconds / 30)
        await honest(crowd)
    assert crowd.state("header") == 1
    crowd.later(BOUNDS.header_seconds / 5)
    heard = await slow.rest()
    assert heard.startswith(b"HTTP/1.1 408 ")
    assert b'"reason":"header_timeout"' in heard
    assert b"Connection: close" in heard
    assert crowd.ended("header_timeout") >= 1


async def test_headers_that_drip_behind_an_answered_request_end_too(crowd: Crowd) -> None:
    slow = await crowd.client()
    slow.say(HEALTH)
    await slow.hear()
    slow.say(b"GET /he")
    await crowd.until_state("header", 1)
    crowd.later(BOUNDS.header_seconds)
    assert b" 408 " in await slow.rest()


async def test_a_body_slower_than_the_least_rate_is_a_408(crowd: Crowd) -> None:
    slow = await crowd.client()
    slow.say(_post(b"Content-Length: 100000\r\n"))

    async def drip() -> None:
        while True:
            slow.say(b" ")
            await asyncio.sleep(0.01)

    dripping = asyncio.create_task(drip())
    await honest(crowd)
    heard = await slow.rest()
    dripping.cancel()
    assert heard.startswith(b"HTTP/1.1 408 ")
    assert b'"reason":"body_timeout"' in heard
    assert crowd.gateway.backend.calls == [call for call in crowd.gateway.backend.calls if call[0] != "CreateProduct"]


async def test_a_body_that_never_comes_is_a_408(crowd: Crowd) -> None:
    for framing in (b"Content-Length: 10\r\n", b"Transfer-Encoding: chunked\r\n"):
        silent = await crowd.client()
        silent.say(_post(framing))
        await honest(crowd)
        assert (await silent.rest()).startswith(b"HTTP/1.1 408 ")


# -- numbers ----------------------------------------------------------------------------------------------------------


async def test_the_longest_idle_connections_give_way_to_new_ones(crowd: Crowd) -> None:
    before = crowd.ended("evicted_process")
    for number in range(MANY):
        client = await crowd.client()
        if number % 2:
            client.say(HEALTH)
        if number % 100 == 0:
            await honest(crowd)
            assert crowd.state("open") <= 300
    await honest(crowd)
    await until(lambda: crowd.ended("evicted_process") - before >= MANY - 300)
    assert crowd.state("open") <= 300


async def test_half_requests_give_way_too(crowd: Crowd) -> None:
    for _ in range(400):
        (await crowd.client()).say(b"GET / HT")
    await honest(crowd)
    assert crowd.state("open") <= 300
    await until(lambda: crowd.state("header") >= 250)
    await honest(crowd)


async def test_one_client_cannot_take_what_others_need(run_directory: Path, valkey_server: ValkeyServer) -> None:
    settings = {"connections_per_client": "20", "connections": "100", "rate_quotas": WIDE}
    async with running_gateway(run_directory, valkey_server.url(), **settings) as gateway, crowd_of(gateway) as crowd:
        neighbour = await crowd.client("127.0.0.3")
        neighbour.say(HEALTH)
        await neighbour.hear()
        for _ in range(200):
            await crowd.client("127.0.0.2")
        await until(lambda: crowd.ended("evicted_client") >= 180)
        assert crowd.connections.of_client("127.0.0.2") <= 20
        assert crowd.ended("evicted_process") == 0
        neighbour.say(HEALTH)
        assert b"200 OK" in await neighbour.hear(), "the neighbour's connection is still there"


async def test_a_client_whose_connections_all_work_gets_no_more(
    run_directory: Path, valkey_server: ValkeyServer
) -> None:
    settings = {"connections_per_client": "2", "rate_quotas": WIDE}
    async with running_gateway(run_directory, valkey_server.url(), **settings) as gateway, crowd_of(gateway) as crowd:
        gateway.backend.goes_on.clear()
        asking = b"GET /v1/access?feature=premium HTTP/1.1\r\nHost: x\r\n" + AUTHORIZED + b"\r\n"
        working = [await crowd.client("127.0.0.2") for _ in range(2)]
        for client in working:
            client.say(asking)
        await until(lambda: len(gateway.backend.calls) == 2)
        assert await (await crowd.client("127.0.0.2")).rest() == b""
        assert crowd.ended("refused_client") == 1
        gateway.backend.goes_on.set()
        for client in working:
            assert b"200 OK" in await client.hear()


async def test_a_connection_ends_after_so_many_requests_or_so_long(
    run_directory: Path, valkey_server: ValkeyServer
) -> None:
    settings = {"connection_requests": "3", "connection_seconds": "100", "rate_quotas": WIDE}
    async with running_gateway(run_directory, valkey_server.url(), **settings) as gateway, crowd_of(gateway) as crowd:
        busy = await crowd.client()
        for _ in range(2):
            busy.say(HEALTH)
            assert b"Connection: close" not in await busy.hear()
        busy.say(HEALTH)
        assert b"Connection: close" in await busy.rest()
        old = await crowd.client()
        old.say(HEALTH)
        await old.hear()
        crowd.clock.now += 100
        old.say(HEALTH)
        assert b"Connection: close" in await old.rest()


# -- floods -----------------------------------------------------------------------------------------------------------


async def test_a_pipelining_flood_is_served_one_by_one_and_held_back(crowd: Crowd) -> None:
    greedy = await crowd.client(receive_buffer=4096)
    served = crowd.server.requests
    ask = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n"
    greedy.say(ask * 2000)
    await crowd.until_state("slow_reader", 1)
    await honest(crowd)
    (held,) = [one for one in crowd.connections.open() if one.writing_paused]
    assert len(held._messages) <= 32
    assert held.transport is not None
    assert held.transport.get_write_buffer_size() < 8_000_000
    assert crowd.server.requests - served < 100
    crowd.later(BOUNDS.write_seconds)
    await greedy.rest()
    assert crowd.ended("write") >= 1
    await honest(crowd)


async def test_who_is_refused_again_and_again_waits_and_gives_way_and_nobody_else_does(
    run_directory: Path, valkey_server: ValkeyServer
) -> None:
    settings = {"refusals_per_client": "10", "refusal_seconds": "3600", "connections_per_client": "60"}
    async with running_gateway(run_directory, valkey_server.url(), **settings) as gateway, crowd_of(gateway) as crowd:
        flood = [await crowd.client("127.0.0.2") for _ in range(60)]
        for client in flood:
            client.say(b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n")
        await crowd.until_state("held", 50)
        served = crowd.server.requests
        for client in flood:
            client.say(b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n")
        await crowd.until_state("held", 60)
        assert crowd.server.requests - served == 10, "whose answer is held is asked nothing more"
        await honest(crowd)
        neighbour = await crowd.client("127.0.0.2")
        neighbour.say(b"GET /v1/offers HTTP/1.1\r\nHost: x\r\n" + AUTHORIZED + b"\r\n")
        assert b" 200 OK" in await neighbour.hear(), "what is not refused is not held, wherever it comes from"
        assert crowd.ended("evicted_client") == 1
        for client in flood[:30]:
            client.writer.transport.abort()
        await until(lambda: crowd.state("held") in (29, 30))
        crowd.connections.restraint.end()
        await crowd.until_state("held", 0)
        told = [b" 404 " in await client.hear() for client in flood[30:]]
        assert told.count(True) >= 29


@pytest.mark.parametrize("header", [b"Content-Encoding: gzip\r\n", b"Transfer-Encoding: gzip, chunked\r\n"])
async def test_what_is_compressed_is_never_unfolded(crowd: Crowd, header: bytes) -> None:
    bomb = gzip.compress(bytes(20_000_000))
    length = b"" if header.startswith(b"Transfer") else b"Content-Length: %d\r\n" % len(bomb)
    client = await crowd.client()
    client.say(_post(header + length))
    heard = await client.rest()
    assert heard.startswith(b"HTTP/1.1 415 ")
    assert b'"reason":"content_encoding_unsupported"' in heard


async def test_a_body_larger_than_allowed_is_refused_before_it_is_sent_and_while_it_is(crowd: Crowd) -> None:
    stated = await crowd.client()
    stated.say(_post(b"Content-Length: 999999999\r\n"))
    assert (await stated.rest()).startswith(b"HTTP/1.1 413 ")
    unstated = await crowd.client()
    unstated.say(_post(b"Transfer-Encoding: chunked\r\n") + b"10000\r\n" + b" " * 65536 + b"\r\n")
    for _ in range(8):
        unstated.say(b"10000\r\n" + b" " * 65536 + b"\r\n")
    assert (await unstated.hear()).startswith(b"HTTP/1.1 413 ")


async def test_too_many_or_too_large_headers_are_refused(crowd: Crowd) -> None:
    many = b"".join(b"A%d: b\r\n" % number for number in range(200))
    client = await crowd.client()
    client.say(b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + many + b"\r\n")
    assert b" 400 " in (await client.rest()).splitlines()[0]
    large = await crowd.client()
    large.say(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
    await crowd.until_state("header", 1)
    for number in range(90):
        large.say(b"A%d: " % number + b"b" * 7000 + b"\r\n")
    await large.rest()
    assert crowd.ended("header_bytes") == 1


CHUNKED = b"Transfer-Encoding: chunked\r\n"
HIDDEN = b"GET /v1/hidden HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(b"Content-Length: 5\r\n" + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN, id="length and chunks"),
        pytest.param(CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n" + HIDDEN, id="chunks and length"),
        pytest.param(b"Content-Length: 0\r\nContent-Length: 37\r\n\r\n" + HIDDEN, id="two lengths"),
        pytest.param(b"Content-Length: 0, 0\r\n\r\n" + HIDDEN, id="a list of lengths"),
        pytest.param(b"Content-Length: +0\r\n\r\n" + HIDDEN, id="a signed length"),
        pytest.param(b"Content-Length: 0x0\r\n\r\n" + HIDDEN, id="a hexadecimal length"),
        pytest.param(b"Content-Length: 99999999999999999999\r\n\r\n" + HIDDEN, id="a length beyond numbers"),
        pytest.param(CHUNKED + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n" + HIDDEN, id="two codings"),
        pytest.param(b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN, id="an unknown coding"),
        pytest.param(b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n" + HIDDEN, id="chunks that are not last"),
        pytest.param(b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + HIDDEN, id="a space before the colon"),
        pytest.param(b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + HIDDEN, id="a control character"),
        pytest.param(CHUNKED + b"\r\n-1\r\n\r\n" + HIDDEN, id="a negative chunk"),
        pytest.param(CHUNKED + b"\r\nfffffffffffffffff\r\n" + HIDDEN, id="a chunk beyond numbers"),
        pytest.param(CHUNKED + b"\r\n0\n\n" + HIDDEN, id="chunks by bare LF"),
        pytest.param(b"X: y\n\r\n" + HIDDEN, id="a header by bare LF"),
        pytest.param(b"X: y\rZ: z\r\n\r\n" + HIDDEN, id="a bare CR"),
        pytest.param(b"X: y\r\n z\r\n\r\n" + HIDDEN, id="a folded line"),
        pytest.param(b"X: \x00\r\n\r\n" + HIDDEN, id="a NUL"),
        pytest.param(b"X y: z\r\n\r\n" + HIDDEN, id="a space in a name"),
        pytest.param(b": z\r\n\r\n" + HIDDEN, id="no name"),
        pytest.param(b"Host: y\r\n\r\n" + HIDDEN, id="two hosts"),
    ],
)
async def test_what_two_servers_could_read_differently_is_read_by_none(crowd: Crowd, lines: bytes) -> None:
    before = list(crowd.gateway.backend.calls)
    client = await crowd.client()
    client.say(b"POST /v1/products HTTP/1.1\r\nHost: x\r\n" + AUTHORIZED + lines)
    heard = await client.rest()
    assert b" 400 " in heard.splitlines()[0]
    assert b'"reason":"request_malformed"' in heard
    assert heard.count(b"HTTP/1.") == 1, "what stands behind it is no second request"
    assert crowd.gateway.backend.calls == before
    await honest(crowd)


@pytest.mark.parametrize(
    "line",
    [
        b"GET /healthz HTTP/1.1\nHost: x\n\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.9\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
        bytes(range(256)) * 10,
    ],
    ids=["bare LF", "no host", "an unknown version", "HTTP/2", "a long target", "TLS", "noise"],
)
async def test_what_is_no_request_ends_the_connection(crowd: Crowd, line: bytes) -> None:
    client = await crowd.client()
    client.say(line)
    assert b" 400 " in (await client.rest()).splitlines()[0]
    await honest(crowd)


def _post(framing: bytes) -> bytes:
    start = b"POST /v1/products HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return start + AUTHORIZED + framing + b"\r\n"


async def test_the_target_is_bounded(crowd: Crowd) -> None:
    client: Client = await crowd.client()
    client.say(b"GET /" + b"a" * 8050 + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b'"reason":"target_malformed"' in await client.rest()
