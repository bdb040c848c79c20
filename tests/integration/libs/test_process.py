"""Tests of libs/process, on processes of their own."""

import asyncio
import os
import signal
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import orjson
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[3]


class Small:
    """tests/support/small_service.py in a process of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lines: list[dict[str, Any]] = []
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, mode: str = "", **variables: str) -> None:
        environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'gen'}",
            "GATEFOLD_LISTEN": f"unix:{self.directory}/small.sock",
            "GATEFOLD_METRICS_LISTEN": f"unix:{self.directory}/admin.sock",
            "GATEFOLD_READY_FILE": str(self.directory / "ready"),
            **variables,
        }
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.small_service", mode, str(self.directory),
            env={name: value for name, value in environ.items() if value != "unset"},
            cwd=ROOT, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def logged(self, message: str) -> dict[str, Any]:
        """Reads log lines up to the one with this message."""
        assert self.process is not None
        assert self.process.stderr is not None
        async with asyncio.timeout(60):
            while raw := await self.process.stderr.readline():
                line = orjson.loads(raw)
                self.lines.append(line)
                if line["message"] == message:
                    return line
        raise AssertionError(f"ended without: {message}; wrote {self.lines}")

    async def end(self, number: signal.Signals | None = signal.SIGTERM) -> int:
        """Sends the signal, reads what is left and returns the exit code."""
        assert self.process is not None
        if number is not None:
            self.process.send_signal(number)
        async with asyncio.timeout(60):
            _, rest = await self.process.communicate()
        self.rest = rest.decode()
        for raw in rest.splitlines():
            if raw.startswith(b"{"):
                self.lines.append(orjson.loads(raw))
        assert self.process.returncode is not None
        return self.process.returncode

    def marks(self) -> list[str]:
        path = self.directory / "marks"
        return path.read_text().splitlines() if path.exists() else []

    def messages(self) -> list[str]:
        return [line["message"] for line in self.lines]

    async def composed(self) -> bool:
        return (self.directory / "small.sock").exists() and '"process"' not in (await self.get("/readyz"))[1]

    async def get(self, path: str) -> tuple[int, str]:
        connector = aiohttp.UnixConnector(str(self.directory / "admin.sock"))
        async with aiohttp.ClientSession(connector=connector) as session, session.get(f"http://small{path}") as answer:
            return answer.status, await answer.text()


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gf-") as path:
        yield Path(path)


@pytest.fixture
async def small(directory: Path) -> AsyncIterator[Small]:
    made = Small(directory)
    yield made
    if made.process is not None and made.process.returncode is None:
        made.process.kill()
        await made.process.communicate()


async def test_a_service_starts_serves_and_drains(small: Small) -> None:
    await small.start()
    await small.logged("ready")

    assert (small.directory / "ready").read_text() == f"{small.process.pid}\n"  # type: ignore[union-attr]
    assert await small.get("/healthz") == (200, "ok\n")
    assert await small.get("/readyz") == (200, '{"ready":true,"checks":{"store":"ok"}}\n')
    status, metrics = await small.get("/metrics")
    assert status == 200
    assert 'gatefold_background_failures_total{task="loop"} 0.0' in metrics
    async with grpc.aio.insecure_channel(f"unix:{small.directory}/small.sock") as channel:
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert health.status == health_pb2.HealthCheckResponse.SERVING

    assert await small.end() == 0
    assert small.messages()[-2:] == ["draining", "stopped"]
    assert not (small.directory / "ready").exists()
    # Loops end before what they use is closed, and that in the opposite order of opening.
    assert small.marks() == ["loop began", "reading loop began", "loop ended", "closed second", "closed first"]


async def test_the_sockets_are_for_their_owner_alone(small: Small) -> None:
    await small.start()
    await small.logged("ready")

    modes = {name: stat.S_IMODE((small.directory / name).stat().st_mode) for name in ("small.sock", "admin.sock")}

    assert modes == {"small.sock": 0o600, "admin.sock": 0o600}


async def test_what_stays_is_not_looked_through_again_and_again(small: Small) -> None:
    await small.start("settled")
    await small.logged("ready")

    assert "left alone: True" in small.marks()


async def test_interrupting_drains_too(small: Small) -> None:
    await small.start()
    await small.logged("ready")

    assert await small.end(signal.SIGINT) == 0
    assert small.messages()[-1] == "stopped"


async def test_a_service_killed_in_its_tracks_starts_again_on_its_sockets(small: Small) -> None:
    await small.start()
    await small.logged("ready")
    assert await small.end(signal.SIGKILL) == -signal.SIGKILL

    await small.start()
    await small.logged("ready")

    assert await small.end() == 0


async def test_a_service_runs_in_a_child_forked_from_a_parent_that_imported_grpc(small: Small) -> None:
    await small.start("forked")
    await small.logged("ready")
    child = int((small.directory / "ready").read_text())
    async with grpc.aio.insecure_channel(f"unix:{small.directory}/small.sock") as channel:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())

    os.kill(child, signal.SIGTERM)

    assert small.process is not None
    assert child != small.process.pid
    assert await small.end(None) == 0


async def test_readiness_names_the_check_that_fails_and_comes_back_by_itself(small: Small) -> None:
    await small.start("not ready")
    await until(small.composed)

    status, body = await small.get("/readyz")
    assert (status, body) == (503, '{"ready":false,"checks":{"store":"store_unavailable"}}\n')
    assert (await small.get("/healthz"))[0] == 200
    assert not (small.directory / "ready").exists()

    (small.directory / "now ready").touch()
    await small.logged("ready")
    assert (await small.get("/readyz"))[0] == 200


async def test_a_check_that_breaks_shows_no_more_than_its_kind(small: Small) -> None:
    await small.start("check breaks")
    await until(small.composed)

    assert await small.get("/readyz") == (503, '{"ready":false,"checks":{"store":"RuntimeError"}}\n')


async def test_closed_mode_starts_only_loops_that_change_nothing(small: Small) -> None:
    await small.start(GATEFOLD_CLOSED_MODE="true")
    await small.logged("ready")

    assert await small.end() == 0
    assert "loop began" not in small.marks()
    assert "reading loop began" in small.marks()


async def test_a_loop_that_does_not_end_is_cut_short(small: Small) -> None:
    await small.start("deaf", GATEFOLD_DRAIN_SECONDS="0.1")
    await small.logged("ready")

    assert await small.end() == 0
    assert "drain cut short" in small.messages()
    assert small.marks()[-3:] == ["loop ended", "closed second", "closed first"]


async def test_everything_missing_is_named_and_nothing_is_started(small: Small) -> None:
    await small.start(GATEFOLD_LISTEN="unset", GATEFOLD_METRICS_LISTEN="unset", GATEFOLD_DRAIN_SECONDS="soon")

    assert await small.end(None) == 78
    assert small.rest == (
        "small: GATEFOLD_LISTEN is missing; GATEFOLD_METRICS_LISTEN is missing; "
        "GATEFOLD_DRAIN_SECONDS must be a number\n"
    )


async def test_a_service_that_cannot_be_composed_says_why_and_closes_what_it_opened(small: Small) -> None:
    await small.start("broken")

    assert await small.end(None) == 1
    (line,) = (line for line in small.lines if line["level"] == "error")
    assert line["message"] == "could not start"
    assert "RuntimeError" in line["error"]
    assert small.marks() == ["closed second", "closed first"]


async def test_a_service_whose_database_is_away_says_so_in_one_line(small: Small) -> None:
    await small.start("database away")

    assert await small.end(None) == 1
    (line,) = (line for line in small.lines if line["level"] == "error")
    assert line["why"] == "database_unavailable: The database is away."
    assert "error" not in line


async def test_an_address_that_is_taken_by_no_socket_is_said(small: Small) -> None:
    (small.directory / "admin.sock").mkdir()

    await small.start()

    assert await small.end(None) == 1
    assert [line["message"] for line in small.lines if line["level"] == "error"] == ["could not start"]


async def test_a_ready_file_that_cannot_be_written_ends_the_service(small: Small) -> None:
    await small.start(GATEFOLD_READY_FILE=f"{small.directory}/missing/ready")

    assert await small.end(None) == 1
    (line,) = (line for line in small.lines if line["level"] == "error")
    assert "missing/ready" in line["why"]


async def test_a_service_can_be_ended_while_it_is_composed(small: Small) -> None:
    await small.start("stuck")
    await until(lambda: bool(small.marks()))

    assert await small.end() == 0
    assert small.marks() == ["stuck", "closed second", "closed first"]
