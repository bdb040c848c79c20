"""The embedded Valkey: who gets in, what they may do, and what is there after a kill."""

import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
import redis.asyncio
from redis.exceptions import ConnectionError, ResponseError  # noqa: A004

from infra.local.placement import StoreError
from infra.local.valkey import ValkeyServer
from libs.config import Secret

PASSWORD = Secret("p@ss:word/ 1\r\n%")


@pytest.fixture
def state() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="gf-"))
    folder.chmod(0o711)
    yield folder / "valkey"
    shutil.rmtree(folder)


@pytest.fixture
def server(state: Path) -> Iterator[ValkeyServer]:
    """A durable server, running."""
    server = ValkeyServer(state, PASSWORD)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def client(server: ValkeyServer) -> AsyncIterator["redis.asyncio.Redis"]:
    client = redis.asyncio.Redis.from_url(server.url().reveal())
    yield client
    await client.aclose()


async def test_only_the_named_user_gets_in(server: ValkeyServer, client: "redis.asyncio.Redis") -> None:
    assert await client.ping()
    for url in (f"unix://{server.socket}", f"unix://gatefold:wrong@{server.socket}"):
        stranger = redis.asyncio.Redis.from_url(url)
        with pytest.raises((ConnectionError, ResponseError), match=r"authenticated|username-password"):
            await stranger.ping()
        await stranger.aclose()
    assert not ValkeyServer(server.home, Secret("wrong")).ping()


@pytest.mark.parametrize(
    "command", ["CONFIG GET maxmemory", "SHUTDOWN NOSAVE", "ACL LIST", "DEBUG SLEEP 0", "REPLICAOF NO ONE", "SAVE"]
)
async def test_the_user_does_not_administer_the_server(client: "redis.asyncio.Redis", command: str) -> None:
    with pytest.raises(ResponseError, match=r"permission|not allowed"):
        await client.execute_command(*command.split())  # type: ignore[no-untyped-call]


async def test_what_was_written_is_there_after_a_stop_and_after_a_kill(server: ValkeyServer) -> None:
    client = redis.asyncio.Redis.from_url(server.url().reveal())
    await client.set("kept", "1")
    await client.aclose()
    server.stop()
    assert server.pid() is None
    server.start()
    pid = server.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    psutil.Process(pid).wait(10)
    server.start()
    client = redis.asyncio.Redis.from_url(server.url().reveal())
    assert await client.get("kept") == b"1"
    await client.aclose()


def test_it_runs_as_somebody_unprivileged_in_a_closed_directory(server: ValkeyServer) -> None:
    pid = server.pid()
    assert pid is not None
    assert psutil.Process(pid).uids().effective != 0
    for name in ("data", "socket"):
        assert (server.home / name).stat().st_mode & 0o777 == 0o700
    assert PASSWORD.reveal() not in (server.home / "data" / "users.acl").read_text()


def test_a_second_start_is_refused_while_it_runs(server: ValkeyServer, state: Path) -> None:
    with pytest.raises(StoreError, match="already running"):
        ValkeyServer(state, PASSWORD).start()


@pytest.mark.parametrize("folder", ["valkey", "v" * 100])
@pytest.mark.parametrize("tcp", [False, True])
def test_a_new_object_finds_and_stops_what_another_left_running(
    state: Path, folder: str, tcp: bool, unused_tcp_port: int
) -> None:
    """Also where the server's title does not name the directory: by its port, or a socket that had to be elsewhere."""
    left = ValkeyServer(state.with_name(folder), PASSWORD, port=unused_tcp_port if tcp else 0)
    left.start()
    another = ValkeyServer(state.with_name(folder), PASSWORD)
    try:
        assert another.pid() == left.pid()
        another.stop()
        assert not left.ping()
    finally:
        left.stop()
        shutil.rmtree(left.sockets)


def test_a_neighbour_whose_directory_begins_alike_is_left_alone(server: ValkeyServer, state: Path) -> None:
    neighbour = ValkeyServer(state.with_name("valkey-2"), PASSWORD)
    neighbour.start()
    server.stop()
    try:
        ValkeyServer(state, PASSWORD).stop()
        assert neighbour.ping()
    finally:
        neighbour.stop()


async def test_it_listens_on_loopback_when_asked(state: Path, unused_tcp_port: int) -> None:
    server = ValkeyServer(state, PASSWORD, port=unused_tcp_port, append=False)
    server.start()
    try:
        client = redis.asyncio.Redis(port=unused_tcp_port, username="gatefold", password=PASSWORD.reveal())
        assert await client.ping()
        await client.aclose()
    finally:
        server.stop()


def test_a_failed_start_says_why(state: Path) -> None:
    server = ValkeyServer(state, PASSWORD, memory_mb=-1)
    with pytest.raises(StoreError, match=r"(?s)Valkey did not start:.*maxmemory"):
        server.start()
