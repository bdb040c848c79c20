"""Owns a service that does nothing much, for tests of how a process starts, works and ends."""

import asyncio
import gc
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import grpc

from libs import errors, process
from libs.background import Stop
from libs.caller import CallerVerifier
from libs.grpc_server import GrpcServer
from libs.process import Process


def compose_for(mode: str, directory: Path) -> process.Compose:
    """Returns the composition root; `mode` says what is to go wrong, `directory` is where it leaves its marks."""

    def mark(text: str) -> None:
        with (directory / "marks").open("a") as file:
            file.write(f"{text}\n")

    async def compose(made: Process, environ: Mapping[str, str] | None) -> None:
        async def closed(name: str) -> None:
            mark(f"closed {name}")

        made.on_drain(lambda: closed("first"))
        made.on_drain(lambda: closed("second"))
        if mode == "broken":
            raise RuntimeError("hunter2")
        if mode == "database away":
            raise errors.unavailable("database_unavailable", "The database is away.")
        if mode == "stuck":
            mark("stuck")
            await asyncio.Event().wait()

        async def check() -> None:
            if mode == "not ready" and not (directory / "now ready").exists():
                raise errors.unavailable("store_unavailable", "Away.")
            if mode == "check breaks":
                raise RuntimeError("hunter2")

        made.ready(check, "store")
        server = GrpcServer(
            "small",
            made.config.listen,
            verifier=CallerVerifier("small", {}, made.clock),
            telemetry=made.telemetry,
            closed=made.config.closed_mode,
        )
        await made.serve(server)

        async def loop(stop: Stop) -> None:
            mark("loop began")
            if mode == "settled":
                mark(f"left alone: {gc.get_freeze_count() > 1_000}")
            try:
                await (asyncio.Event() if mode == "deaf" else stop).wait()
            finally:
                mark("loop ended")

        made.background("loop", loop)

        async def reading_loop(stop: Stop) -> None:
            mark("reading loop began")
            await stop.wait()

        made.background("reading_loop", reading_loop, in_closed_mode=True)

    return compose


def main(mode: str, directory: Path) -> int:
    """Runs the service; in the mode `forked` in a child of this process, which has imported gRPC."""
    if mode != "forked":
        return process.run("small", compose_for(mode, directory))
    assert grpc.__version__
    child = os.fork()
    if child == 0:
        os._exit(process.run("small", compose_for(mode, directory)))
    (directory / "child").write_text(str(child))
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
