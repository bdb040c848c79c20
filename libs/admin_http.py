"""Owns the port that only operators see: /healthz, /readyz and /metrics."""

import asyncio
from collections.abc import Awaitable, Callable

import orjson
from aiohttp import web

from libs import sockets
from libs.errors import GatefoldError
from libs.telemetry import Telemetry

Check = Callable[[], Awaitable[None]]

_CHECK_SECONDS = 2.0


class AdminServer:
    """Answers whether the process lives, whether it can work, and what it measured."""

    def __init__(self, listen: str, telemetry: Telemetry) -> None:
        self._listen = listen
        self._telemetry = telemetry
        self._checks: dict[str, Check] = {}
        self._state = "starting"
        self._runner: web.AppRunner | None = None

    def add(self, name: str, check: Check) -> None:
        """Adds a check that readiness depends on."""
        self._checks[name] = check

    def composed(self) -> None:
        """From now on the checks decide."""
        self._state = ""

    def draining(self) -> None:
        """From now on the service is not ready."""
        self._state = "draining"

    async def start(self) -> None:
        """Listens."""
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1)
        await self._runner.setup()
        path = sockets.path_of(self._listen)
        if path is None:
            host, port = sockets.split(self._listen)
            await web.TCPSite(self._runner, host, port).start()
            return
        with sockets.binding(path):
            await web.UnixSite(self._runner, path).start()

    async def stop(self) -> None:
        """Stops listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def failing(self) -> dict[str, str]:
        """Returns what keeps the service from being ready: check and reason; empty when it is ready."""
        if self._state:
            return {"process": self._state}
        names = list(self._checks)
        reasons = await asyncio.gather(*(self._run(name) for name in names))
        return {name: reason for name, reason in zip(names, reasons, strict=True) if reason}

    async def _run(self, name: str) -> str:
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                await self._checks[name]()
        except TimeoutError:
            return "timed out"
        except GatefoldError as error:
            return error.reason
        except Exception as error:  # noqa: BLE001 — whatever it is, it is the check's answer
            return type(error).__name__
        return ""

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        failing = await self.failing()
        checks = {name: failing.get(name, "ok") for name in (*self._checks, *failing)}
        body = orjson.dumps({"ready": not failing, "checks": checks}, option=orjson.OPT_APPEND_NEWLINE)
        return web.Response(body=body, status=503 if failing else 200, content_type="application/json")

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._telemetry.metrics(), headers={"Content-Type": "text/plain; version=0.0.4"})
