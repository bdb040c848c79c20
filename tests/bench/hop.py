"""An empty RPC between two services, in frames on a long-lived stream against a unary call of its own."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import uvloop
from gatefold.clock.v1 import clock_pb2, clock_pb2_grpc

from libs import caller
from libs.caller import CallerSigner, service_caller
from libs.clock import SystemClock
from libs.grpc_client import Channels, GrpcConfig
from libs.hop.config import HopConfig
from libs.kill_points import KillPoints
from libs.telemetry import Telemetry
from tests.bench.harness import Bench
from tests.support.hop_process import serve
from tests.support.net import KEYS, NOTHING

GOAL = 3.0


class Empty(clock_pb2_grpc.ClockServiceServicer):
    """Answers at once."""

    async def Advance(self, request: object, context: object) -> clock_pb2.AdvanceResponse:
        return clock_pb2.AdvanceResponse()

    async def Drained(self, request: object, context: object) -> clock_pb2.DrainedResponse:
        return clock_pb2.DrainedResponse(drained=True)


async def measure(bench: Bench) -> None:
    """The server is a process of its own; signing, policy, trace and metrics are those of every call."""
    with tempfile.TemporaryDirectory(prefix="gf-") as folder:
        address = f"unix:{folder}/billing.sock"
        with _served(address):
            await _measure(bench, address)


@contextmanager
def _served(address: str) -> Iterator[None]:
    command = [sys.executable, "-m", "tests.bench.hop", address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.stdin.close()


async def _measure(bench: Bench, address: str) -> None:
    hop, plain = _channels(address, HopConfig()), _channels(address, HopConfig(hop=False))
    framed, alone = (clock_pb2_grpc.ClockServiceStub(made.channel("billing")) for made in (hop, plain))
    # As at the edge, each call belongs to a request, whose trace is not recorded.
    request = Telemetry("auth").tracer.start_as_current_span("request")
    with request, caller.acting(service_caller("auth", UUID(int=7), live=False, request_id="req_1")):
        for concurrency, goal in ((1, None), (64, GOAL)):
            await bench.compare(
                f"hop-{concurrency}",
                lambda: framed.Drained(NOTHING),
                lambda: alone.Drained(NOTHING),
                named="the same call as a gRPC call of its own",
                concurrency=concurrency,
                goal=goal,
                seconds=0.6,
            )
    for made in (hop, plain):
        await made.close()


def _channels(address: str, hop: HopConfig) -> Channels:
    return Channels(
        "auth",
        GrpcConfig(peers=json.dumps({"billing": address}), hop=hop),
        CallerSigner("auth", KEYS, SystemClock()),
        telemetry=Telemetry("auth"),
        kill_points=KillPoints("auth"),
    )


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], clock_pb2_grpc.add_ClockServiceServicer_to_server, Empty()))
