"""Owns a billing service in a process of its own, to be killed: `python -m tests.support.hop_process SOCKET MODE`."""

import asyncio
import sys

import uvloop
from gatefold.billing.v1 import catalogue_pb2, catalogue_pb2_grpc

from libs.caller import CallerVerifier
from libs.clock import SystemClock
from libs.grpc_server import AddServicer, GrpcServer
from libs.hop.context import CallContext
from libs.telemetry import Telemetry
from tests.support.net import KEYS, CatalogueStandIn


class Catalogue(CatalogueStandIn):
    """Says that it was called; then it answers, or hangs."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self._mode = mode

    async def CreateProduct(
        self, request: catalogue_pb2.CreateProductRequest, context: object
    ) -> catalogue_pb2.Product:
        sys.stdout.write("called in a frame\n" if isinstance(context, CallContext) else "called\n")
        sys.stdout.flush()
        if self._mode == "hangs":
            await asyncio.Event().wait()
        return catalogue_pb2.Product(id="prod_1")


async def serve(address: str, add: AddServicer, servicer: object) -> None:
    """Serves as billing until standard input ends; says when it is ready."""
    server = GrpcServer(
        "billing", address, verifier=CallerVerifier("billing", KEYS, SystemClock()), telemetry=Telemetry("billing")
    )
    server.add(add, servicer)
    await server.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await server.drain(0)


if __name__ == "__main__":
    add = catalogue_pb2_grpc.add_CatalogueServiceServicer_to_server
    uvloop.run(serve(f"unix:{sys.argv[1]}", add, Catalogue(sys.argv[2])))
