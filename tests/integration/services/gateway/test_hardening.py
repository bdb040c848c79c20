"""Slow and half requests, proxies, drain: each ends as stated and the gateway goes on."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infra.local.valkey import ValkeyServer
from tests.support.gateway import SECRET_KEY, RunningGateway, running_gateway


def post(more: str = "", *, length: int = 34) -> bytes:
    return (
        f"POST /v1/products HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SECRET_KEY}\r\n{more}"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


@pytest.fixture
async def impatient(run_directory: Path, valkey_server: ValkeyServer) -> AsyncIterator[RunningGateway]:
    """A gateway that waits a moment for bodies, and believes a proxy."""
    settings = {"body_seconds": "0.2", "trusted_proxies": "127.0.0.0/8,10.0.0.0/8", "hsts_seconds": "86400"}
    async with running_gateway(run_directory, valkey_server.url(), **settings) as running:
        yield running


async def test_a_body_that_drips_is_a_408(impatient: RunningGateway) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", impatient.port)
    writer.write(post())

    async def drip() -> None:
        while True:
            writer.write(b" ")
            await asyncio.sleep(0.05)

    dripping = asyncio.create_task(drip())
    answer = await reader.readuntil(b'"}')
    dripping.cancel()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"reason":"body_timeout"' in answer
    assert b"Connection: close" in answer
    assert impatient.backend.calls == []


async def test_a_client_that_goes_away_is_no_fault(impatient: RunningGateway) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", impatient.port)
    writer.write(post() + b'{"name"')
    await writer.drain()
    writer.transport.abort()
    assert (await impatient.ask("GET", "/v1/offers", credential=SECRET_KEY)).status == 200
    assert impatient.metric("gatefold_gateway_problems_total", reason="internal_error") == 0


async def test_two_lengths_or_a_length_and_chunks_are_refused(impatient: RunningGateway) -> None:
    for more in ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"):
        answer = await impatient.raw(post(more))
        assert b" 400 " in answer.splitlines()[0]
    assert impatient.backend.calls == []


async def test_the_address_is_what_the_trusted_proxy_says(impatient: RunningGateway) -> None:
    for forwarded, expected in (
        ("203.0.113.7", "203.0.113.7"),
        ("198.51.100.1, 203.0.113.7", "203.0.113.7"),
        ("198.51.100.1, 203.0.113.7, 10.1.2.3", "203.0.113.7"),
        ("nonsense", "127.0.0.1"),
    ):
        await impatient.ask("GET", "/v1/offers", credential=SECRET_KEY, headers={"X-Forwarded-For": forwarded})
        assert impatient.backend.last()[1].address == expected


async def test_hsts_is_sent_when_it_is_configured(impatient: RunningGateway) -> None:
    answer = await impatient.ask("GET", "/healthz")
    assert answer.headers["Strict-Transport-Security"] == "max-age=86400; includeSubDomains"


async def test_a_forwarded_address_is_not_believed_without_a_proxy(gateway: RunningGateway) -> None:
    await gateway.ask("GET", "/v1/offers", credential=SECRET_KEY, headers={"X-Forwarded-For": "203.0.113.7"})
    assert gateway.backend.last()[1].address == "127.0.0.1"


async def test_a_request_in_flight_is_answered_while_the_gateway_drains(fresh_gateway: RunningGateway) -> None:
    backend = fresh_gateway.backend
    backend.goes_on.clear()
    asking = asyncio.create_task(fresh_gateway.ask("GET", "/v1/access?feature=premium", credential=SECRET_KEY))
    await backend.entered.wait()
    (server,) = fresh_gateway.process._servers
    draining = asyncio.create_task(server.drain(5))
    await asyncio.sleep(0)
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", fresh_gateway.port)
    backend.goes_on.set()
    assert (await asking).status == 200
    await draining
