"""Owns the life of a service: start, signals, background work, readiness, drain, exit."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import uvloop

from libs import config
from libs.admin_http import AdminServer
from libs.background import Background, Stop
from libs.clock import SystemClock
from libs.config import ConfigError
from libs.errors import GatefoldError
from libs.ids import IdMaker
from libs.kill_points import KillPoints
from libs.telemetry import Telemetry, TelemetryConfig
from libs.version import version

__all__ = ["Process", "ProcessConfig", "Stop", "run"]

Check = Callable[[], Awaitable[None]]
"""Raises when what it checks is not usable."""

_EXIT_FAILED = 1
_EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h
_READY_POLL_SECONDS = 0.1
_CYCLES_AFTER = 10_000
"""Objects more than went since cycles were looked for last."""


@dataclass(frozen=True)
class ProcessConfig:
    """How a service listens and ends.

    `listen` and `metrics_listen` are `unix:/path.sock` or `host:port`. `drain_seconds` is how long SIGTERM lets work
    finish. `closed_mode` refuses writes and starts no background work (after a restore, until replay is done).
    `ready_file` is written once the service is ready. `kill_at` and `kill_log` are for chaos tests (libs/kill_points).
    """

    listen: str
    metrics_listen: str
    drain_seconds: float = 20.0
    closed_mode: bool = False
    ready_file: Path | None = None
    kill_at: str | None = None
    kill_log: Path | None = None


class Served(Protocol):
    """A server that a process starts last and drains first."""

    async def start(self) -> None: ...

    async def drain(self, seconds: float) -> None: ...


class Process:
    """What a composition root is handed: clock, ids, telemetry, kill points, and hooks into the service's life."""

    def __init__(self, service: str, settings: ProcessConfig, telemetry: Telemetry) -> None:
        self.service = service
        self.config = settings
        self.telemetry = telemetry
        self.version = version()
        self.clock = SystemClock()
        self.ids = IdMaker(self.clock, os.urandom)
        self.kill_points = KillPoints(service, kill_at=settings.kill_at, kill_log=settings.kill_log)
        self._log = telemetry.logger("process")
        self._admin = AdminServer(settings.metrics_listen, telemetry)
        self._background = Background(telemetry, os.urandom)
        self._servers: list[Served] = []
        self._on_drain: list[Callable[[], Awaitable[None]]] = []
        self._stopping = asyncio.Event()

    def background(self, name: str, work: Callable[[Stop], Awaitable[None]], *, in_closed_mode: bool = False) -> None:
        """Runs a loop beside the requests from when the service is composed until it drains.

        The loop is handed an event that is set when it should end. When it raises it is started again, after a
        growing pause, and counted in gatefold_background_failures. Work that writes is not started in closed mode.
        """
        if self.config.closed_mode and not in_closed_mode:
            self._log.warning("not started in closed mode", extra={"task": name})
            return
        self._background.add(name, work)

    def on_drain(self, hook: Callable[[], Awaitable[None]]) -> None:
        """Calls `hook` at the end, when servers and background work have stopped; the last registered first."""
        self._on_drain.append(hook)

    def ready(self, check: Check, name: str) -> None:
        """Adds a check to /readyz; it raises when the service cannot do its work."""
        self._admin.add(name, check)

    async def serve(self, server: Served) -> None:
        """Starts a server, and drains it first when the service ends."""
        await server.start()
        self._servers.append(server)

    def stop(self) -> None:
        """Ends the service as SIGTERM does."""
        self._stopping.set()

    def stopping(self) -> bool:
        """Answers whether the service is to end; long work asks between its parts."""
        return self._stopping.is_set()

    async def live(self, compose: Coroutine[Any, Any, None] | Awaitable[None]) -> int:
        """Composes, serves until told to stop, drains; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        stopping = asyncio.ensure_future(self._stopping.wait())
        composing = asyncio.ensure_future(compose)
        announcing: asyncio.Task[None] | None = None
        try:
            await self._admin.start()
            await asyncio.wait((composing, stopping), return_when=asyncio.FIRST_COMPLETED)
            if composing.done():
                await composing
                _settle()
                self._background.start()
                self._admin.composed()
                announcing = asyncio.create_task(self._announce())
                await asyncio.wait((announcing, stopping), return_when=asyncio.FIRST_COMPLETED)
                if announcing.done():
                    await announcing
                await stopping
            return 0
        finally:
            await _cancelled(composing, announcing, stopping)
            await self._drain()

    async def _announce(self) -> None:
        """Waits until every check holds and says so, once."""
        while await self._admin.failing():  # noqa: ASYNC110 — what is checked lies outside and tells nobody
            await asyncio.sleep(_READY_POLL_SECONDS)
        if self.config.ready_file is not None:
            self.config.ready_file.write_text(f"{os.getpid()}\n")
        self._log.info("ready", extra={"listen": self.config.listen, "version": self.version})

    async def _drain(self) -> None:
        self._log.info("draining")
        self._admin.draining()
        if self.config.ready_file is not None:
            self.config.ready_file.unlink(missing_ok=True)
        try:
            async with asyncio.timeout(self.config.drain_seconds):
                await asyncio.gather(
                    self._background.stop(), *(server.drain(self.config.drain_seconds) for server in self._servers)
                )
        except TimeoutError:
            self._log.warning("drain cut short", extra={"seconds": self.config.drain_seconds})
        for hook in reversed(self._on_drain):
            try:
                async with asyncio.timeout(5):
                    await hook()
            except Exception:  # noqa: BLE001 — the others must still be closed
                self._log.exception("a resource did not close")
        await self._admin.stop()
        self.telemetry.close()
        self._log.info("stopped")


Compose = Callable[[Process, Mapping[str, str] | None], Awaitable[None]]


def run(service: str, compose: Compose, environ: Mapping[str, str] | None = None) -> int:
    """Runs a service to its end and returns the exit code.

    0 after SIGTERM or SIGINT, 78 for a configuration that cannot be used, 1 when the service could not be composed.
    It may be called in a process that was forked from one which imported gRPC and made no gRPC object.
    """
    try:
        settings = config.load(ProcessConfig, environ)
        telemetry = Telemetry(service, config.load(TelemetryConfig, environ))
    except ConfigError as error:
        sys.stderr.write(f"{service}: {error}\n")
        return _EXIT_CONFIG
    telemetry.capture_root()
    log = telemetry.logger("process")

    async def main() -> int:
        process = Process(service, settings, telemetry)
        return await process.live(compose(process, environ))

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(main())
    except ConfigError as error:
        log.error("configuration cannot be used", extra={"problems": list(error.problems)})  # noqa: TRY400 — no fault of the code
        return _EXIT_CONFIG
    except (GatefoldError, OSError) as error:
        log.error("could not start", extra={"why": str(error)})  # noqa: TRY400 — says itself what is away
        return _EXIT_FAILED
    except Exception:
        log.exception("could not start")
        return _EXIT_FAILED


def _settle() -> None:
    """Leaves what is there now to itself: it stays, and looking through it again and again is what pauses are made of.

    What comes and goes with requests is freed as it goes; cycles are looked for less often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_CYCLES_AFTER, 20, 20)


async def _cancelled(*tasks: asyncio.Future[Any] | None) -> None:
    for task in tasks:
        if task is not None and not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
