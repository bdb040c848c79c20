"""Owns a gateway as a process of its own on a core of its own, in front of services that answer at once."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import psutil

from infra.local.settings import free_port
from tests.support.auth_process import ServiceProcess
from tests.support.gateway import running_gateway
from tests.support.stores import RunDirectory, new_valkey


@asynccontextmanager
async def gateway_process(core: int, **settings: str) -> AsyncIterator[tuple[int, psutil.Process]]:
    """Yields its port and the process; `settings` are GATEFOLD_ variables without the prefix, in lower case."""
    directory = RunDirectory()
    async with AsyncExitStack() as stack:
        stack.callback(directory.remove)
        valkey = new_valkey(directory.path / "valkey")
        valkey.start()
        stack.callback(valkey.stop)
        services = await stack.enter_async_context(running_gateway(directory.path, valkey.url()))
        port = free_port()
        environ = {
            **services.environ,
            "GATEFOLD_LISTEN": f"unix:{directory.path}/bench.sock",
            "GATEFOLD_HTTP_LISTEN": f"127.0.0.1:{port}",
            **{f"GATEFOLD_{name.upper()}": value for name, value in settings.items()},
        }
        gateway = ServiceProcess("gateway", environ, directory.path, "bench")
        stack.push_async_callback(gateway.stop)
        await gateway.start()
        process = psutil.Process(gateway.pid)
        pin(process, core)
        yield port, process


def pin(process: psutil.Process, core: int) -> None:
    """Keeps a process, and all its threads, on one core."""
    for thread in process.threads():
        os.sched_setaffinity(thread.id, {core})
