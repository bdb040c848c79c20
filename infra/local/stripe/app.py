"""Owns the composition of the simulator: store, engine, API, admin, browser pages, the loop that sends webhooks."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from pathlib import Path

from aiohttp import web

from infra.local.stripe.admin import Admin
from infra.local.stripe.api import Api
from infra.local.stripe.deliveries import Deliveries
from infra.local.stripe.engine import Engine
from infra.local.stripe.faults import Faults
from infra.local.stripe.store import Store
from libs.clock import SystemClock, WallClock

_BROWSER = files("infra.local.stripe") / "browser"
_TYPES = (("elements.js", "text/javascript"), ("frame.html", "text/html"), ("frame.js", "text/javascript"))


def create_app(
    state: Path | None,
    *,
    clock: WallClock | None = None,
    randomness: Callable[[int], bytes] = os.urandom,
    first_retry_seconds: float = 0.5,
    longest_retry_seconds: float = 30.0,
) -> web.Application:
    """Returns the simulator as an application; `state` is its SQLite file (None: in memory)."""
    told_by = clock or SystemClock()
    store = Store(state)
    faults = Faults(store)
    deliveries = Deliveries(
        store,
        told_by,
        faults,
        first_retry_seconds=first_retry_seconds,
        longest_retry_seconds=longest_retry_seconds,
    )
    engine = Engine(store, told_by, randomness, deliveries.add)
    app = web.Application(client_max_size=1 << 20)
    Admin(engine, faults, deliveries).add_to(app)
    for name, content_type in _TYPES:
        app.router.add_get(f"/elements/v1/{name}", _file(name, content_type))
    app.router.add_route("*", "/{path:.*}", Api(engine, faults).serve)

    async def sending(app: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(deliveries.run())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        store.close()

    app.cleanup_ctx.append(sending)
    return app


def _file(name: str, content_type: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    text = (_BROWSER / name).read_text(encoding="utf-8")

    async def serve(request: web.Request) -> web.Response:
        return web.Response(text=text, content_type=content_type)

    return serve


@asynccontextmanager
async def running(app: web.Application, port: int = 0) -> AsyncIterator[str]:
    """Serves the application on loopback within the block; yields its address, `http://127.0.0.1:…`."""
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
