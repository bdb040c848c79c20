"""Owns a gateway in a process of its own whose connections wait by a clock that its standard input moves.

Its arguments are a folder, the store's URL and the settings as JSON. It prints its port, and the secret key it knows
is the tests' own. For each line, a number of seconds, it moves the clock, looks for what has waited too long, and
prints how many connections wait for what, and why others were ended, as one JSON line.
"""

import asyncio
import json
import sys
from pathlib import Path

import uvloop

from libs.config import Secret
from tests.support.crowd import Crowd
from tests.support.gateway import running_gateway

STATES = ("open", "new", "idle", "header")
ENDS = ("first_byte", "idle")


async def main(folder: str, redis_url: str, settings: str) -> None:
    """Serves until standard input ends."""
    async with running_gateway(Path(folder), Secret(redis_url), **json.loads(settings)) as gateway:
        crowd = Crowd(gateway)
        sys.stdout.write(f"{gateway.port}\n")
        sys.stdout.flush()
        while line := await asyncio.to_thread(sys.stdin.readline):
            crowd.later(float(line))
            told = {name: crowd.state(name) for name in STATES}
            told.update({f"ended {why}": crowd.ended(why) for why in ENDS})
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(main(*sys.argv[1:]))
