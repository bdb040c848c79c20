"""Owns the yardstick of HTTP benchmarks: aiohttp that does nothing but answer, in a process of its own."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import uvloop
from aiohttp import web

from infra.local.settings import ROOT


@contextmanager
def bare_process(answer: str) -> Iterator[tuple[int, psutil.Process]]:
    """Runs it; yields its port and the process."""
    command = [sys.executable, "-m", "tests.support.bare_server", answer]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as made:
        assert made.stdout is not None
        assert made.stdin is not None
        yield int(made.stdout.readline()), psutil.Process(made.pid)
        made.stdin.close()


async def serve(answer: bytes) -> None:
    """Answers every GET with the same bytes; prints its port, and ends with its standard input."""

    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=answer, content_type="application/json")

    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sys.stdout.write(f"{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.buffer.read)
    await runner.cleanup()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(serve(sys.argv[1].encode()))
