"""Runs the Stripe simulator: `python -m infra.local.stripe --port 12111 --state stripe.sqlite`."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from infra.local.stripe.app import create_app, running


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m infra.local.stripe", description=__doc__)
    parser.add_argument("--port", type=int, default=12111, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--state", type=Path, required=True, help="SQLite file that keeps everything")
    options = parser.parse_args(argv)
    options.state.parent.mkdir(parents=True, exist_ok=True)
    asyncio.run(_serve(options.state, options.port))
    return 0


async def _serve(state: Path, port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with running(create_app(state), port) as address:
        sys.stdout.write(f"Stripe simulator at {address}\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    sys.exit(main())
