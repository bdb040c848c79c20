"""Slow and half requests, proxies, drain: each ends as stated and the gateway goes on."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infra.local.valkey import ValkeyServer
from tests.support.crowd import crowd_of
from tests.support.gateway import OTHER_ACCOUNT, SECRET_KEY, RunningGateway, api_key, running_gateway
from tests.support.waiting import until

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


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


async def test_a_body_that_nobody_reads_gets_no_answer_of_its_own(impatient: RunningGateway) -> None:
    size = 70_000  # more than headers may have
    reader, writer = await asyncio.open_connection("127.0.0.1", impatient.port)
    writer.write(f"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode())
    heard = await reader.readuntil(b'"ok"}')
    writer.write(b"x" * size)
    writer.write_eof()
    heard += await reader.read()
    writer.close()
    assert heard.startswith(b"HTTP/1.1 200 ")
    assert heard.count(b"HTTP/1.1 ") == 1


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


async def test_a_draining_gateway_says_so_first_and_with_every_answer(fresh_gateway: RunningGateway) -> None:
    backend = fresh_gateway.backend
    async with crowd_of(fresh_gateway) as crowd:
        kept = await crowd.client()
        kept.say(HEALTH)
        assert b"Connection: close" not in await kept.hear()
        # An answer on its way keeps the gateway from ending.
        backend.goes_on.clear()
        asking = asyncio.create_task(fresh_gateway.ask("GET", "/v1/access?feature=premium", credential=SECRET_KEY))
        await backend.entered.wait()
        draining = asyncio.create_task(crowd.server.drain(20))
        await until(lambda: crowd.connections.draining)
        kept.say(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        heard = await kept.rest()
        assert b"HTTP/1.1 503 " in heard
        assert b'"reason":"draining"' in heard
        assert b"Connection: close" in heard
        backend.goes_on.set()
        answer = await asking
        assert (answer.status, answer.headers["Connection"]) == (200, "close")
        await draining
        assert len(crowd.connections) == 0


async def test_the_gateway_goes_on_for_a_while_after_it_says_that_it_drains(
    run_directory: Path, valkey_server: ValkeyServer
) -> None:
    notice = {"drain_notice_seconds": "0.5"}
    async with running_gateway(run_directory, valkey_server.url(), **notice) as gateway, crowd_of(gateway) as crowd:
        draining = asyncio.create_task(crowd.server.drain(5))
        await asyncio.sleep(0)
        assert (await gateway.ask("GET", "/readyz")).reason == "draining"
        assert (await gateway.ask("GET", "/v1/offers", credential=SECRET_KEY)).status == 200
        await draining
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", gateway.port)


async def test_too_much_at_once_is_refused_before_anybody_is_asked_who_it_is(
    run_directory: Path, valkey_server: ValkeyServer
) -> None:
    few = {"in_flight": "2"}
    async with running_gateway(run_directory, valkey_server.url(), **few) as gateway:
        backend = gateway.backend
        path = "/v1/access?feature=premium"
        other = api_key(body="o" * 43)
        backend.add_key(other, account=OTHER_ACCOUNT, scopes=("access:read",))
        backend.goes_on.clear()
        asking = [asyncio.create_task(gateway.ask("GET", path, credential=SECRET_KEY))]
        await until(lambda: len(backend.calls) == 1)
        asking.append(asyncio.create_task(gateway.ask("GET", path, credential=other)))
        await until(lambda: len(backend.calls) == 2)
        looked_up = len(backend.lookups)
        shed = await gateway.ask("GET", path, credential=api_key(body="n" * 43))
        assert (shed.status, shed.reason) == (503, "overloaded")
        assert int(shed.headers["Retry-After"]) >= 1
        assert len(backend.lookups) == looked_up, "the key was not looked at"
        assert (await gateway.ask("GET", "/healthz")).status == 200
        assert (
            sum(gateway.metric("gatefold_gateway_shed_total", criticality=one) for one in ("low", "normal", "high"))
            == 1
        )
        backend.goes_on.set()
        assert [answer.status for answer in await asyncio.gather(*asking)] == [200, 200]


async def test_the_lag_of_the_event_loop_is_measured(fresh_gateway: RunningGateway) -> None:
    fresh_gateway.process._background.start()
    await until(lambda: fresh_gateway.metric("gatefold_gateway_loop_lag_seconds") > 0)
    await fresh_gateway.process._background.stop()


async def test_pages_and_answers_tell_browsers_what_not_to_do(gateway: RunningGateway) -> None:
    api = (await gateway.ask("GET", "/v1/offers", credential=SECRET_KEY)).headers
    problem = (await gateway.ask("GET", "/v1/nothing")).headers
    page = (await gateway.ask("GET", "/docs")).headers
    hosted = (await gateway.ask("GET", "/oauth2/authorize")).headers
    for headers in (api, problem, page, hosted):
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["Server"] == "gatefold"
        assert "Strict-Transport-Security" not in headers, "this one speaks plain HTTP"
    for headers in (api, problem):
        assert headers["Cache-Control"] == "no-store"
    for headers in (page, hosted):
        assert "camera=()" in headers["Permissions-Policy"]
    assert page["Cross-Origin-Opener-Policy"] == "same-origin"
    # Applications may have it in a window of their own that comes back to them.
    assert hosted["Cross-Origin-Opener-Policy"] == "unsafe-none"
