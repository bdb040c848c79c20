"""Owns a billing service with stand-ins for its methods, and clients of it, behind a wire that can be cut."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

import grpc
import orjson
from gatefold.billing.v1 import catalogue_pb2, catalogue_pb2_grpc
from gatefold.clock.v1 import clock_pb2, clock_pb2_grpc
from gatefold.privacy.v1 import subject_data_pb2, subject_data_pb2_grpc

from libs import errors
from libs.caller import Caller, CallerKind, CallerSigner, CallerVerifier
from libs.clock import SystemClock
from libs.errors import GatefoldError
from libs.grpc_client import Channels, GrpcConfig
from libs.grpc_server import GrpcServer
from libs.hop.config import HopConfig
from libs.hop.context import CallContext
from libs.kill_points import KillPoints
from libs.telemetry import Telemetry
from tests.support.wire import Wire

ACCOUNT = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
KEYS = {
    f"{issuer}>billing": (issuer.ljust(32, "k").encode(),)
    for issuer in ("gateway", "auth", "notify", "compliance", "stranger")
}
NOTHING = clock_pb2.DrainedRequest()
DRAINED = clock_pb2.DrainedResponse(drained=True)

Answer = Callable[[Any], Awaitable[Any]]


class ClockStandIn(clock_pb2_grpc.ClockServiceServicer):
    """Answers as the test says, and counts."""

    def __init__(self) -> None:
        self.calls = 0
        self.contexts: list[Any] = []
        self.answer: Answer | None = None

    @property
    def in_frames(self) -> list[bool]:
        """Of each call of Drained whether it came in a frame."""
        return [isinstance(context, CallContext) for context in self.contexts]

    async def Drained(self, request: clock_pb2.DrainedRequest, context: object) -> clock_pb2.DrainedResponse:
        self.calls += 1
        self.contexts.append(context)
        return DRAINED if self.answer is None else await self.answer(request)

    async def Advance(self, request: clock_pb2.AdvanceRequest, context: object) -> clock_pb2.AdvanceResponse:
        self.calls += 1
        return clock_pb2.AdvanceResponse()


class CatalogueStandIn(catalogue_pb2_grpc.CatalogueServiceServicer):
    """Answers as the test says, and counts."""

    def __init__(self) -> None:
        self.calls = 0
        self.contexts: list[Any] = []
        self.answer: Answer | None = None

    @property
    def in_frames(self) -> list[bool]:
        """Of each call whether it came in a frame."""
        return [isinstance(context, CallContext) for context in self.contexts]

    async def CreateProduct(
        self, request: catalogue_pb2.CreateProductRequest, context: object
    ) -> catalogue_pb2.Product:
        self.calls += 1
        self.contexts.append(context)
        answer = None if self.answer is None else await self.answer(request)
        return answer if isinstance(answer, catalogue_pb2.Product) else catalogue_pb2.Product()


def never(ended: asyncio.Event) -> Answer:
    """Returns what does not answer, and says when it is not waited for any more."""

    async def answer(request: object) -> NoReturn:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    return answer


def _asynchronous(servicer: type) -> type:
    """Makes the methods that generated code leaves unimplemented asynchronous, as all served methods are."""

    async def unimplemented(self: object, request: object, context: object) -> None:
        raise errors.internal("not_in_this_test", "This stand-in does not answer that.")

    for name in vars(servicer.__mro__[1]):
        if name[0].isupper() and name not in vars(servicer):
            setattr(servicer, name, unimplemented)
    return servicer


_asynchronous(CatalogueStandIn)


@_asynchronous
class PrivacyStandIn(subject_data_pb2_grpc.SubjectDataServicer):
    """Streams what the test says."""

    def __init__(self) -> None:
        self.stream: Callable[[], AsyncIterator[Any]] | None = None

    async def Export(self, request: object, context: object) -> AsyncIterator[subject_data_pb2.ExportResponse]:
        assert self.stream is not None
        async for part in self.stream():
            yield part


class Net:
    """A billing service with its stand-ins, and clients of it, behind a wire that can be cut."""

    def __init__(self, directory: Path, hop: HopConfig | None = None) -> None:
        self.directory = directory
        self.hop = hop or HopConfig()
        self.socket = directory / "billing.sock"
        self.log = io.StringIO()
        self.clock, self.catalogue, self.privacy = ClockStandIn(), CatalogueStandIn(), PrivacyStandIn()
        self.telemetry = Telemetry("billing", stream=self.log)
        self.client_telemetry = Telemetry("client", stream=io.StringIO())
        self.wire = Wire(directory / "wire.sock", self.socket)
        self.server: GrpcServer | None = None
        self._channels: list[Channels] = []

    async def serve(self, *, closed: bool = False) -> GrpcServer:
        self.server = GrpcServer(
            "billing",
            f"unix:{self.socket}",
            verifier=CallerVerifier("billing", KEYS, SystemClock()),
            telemetry=self.telemetry,
            closed=closed,
            hop=self.hop,
        )
        self.server.add(clock_pb2_grpc.add_ClockServiceServicer_to_server, self.clock)
        self.server.add(catalogue_pb2_grpc.add_CatalogueServiceServicer_to_server, self.catalogue)
        self.server.add(subject_data_pb2_grpc.add_SubjectDataServicer_to_server, self.privacy)
        await self.server.start()
        return self.server

    def channel(
        self,
        service: str = "auth",
        *,
        connect_seconds: float = 20.0,
        kill_points: KillPoints | None = None,
        hop: HopConfig | None = None,
    ) -> grpc.aio.Channel:
        config = GrpcConfig(
            peers=json.dumps({"billing": f"unix:{self.directory}/wire.sock"}),
            connect_seconds=connect_seconds,
            hop=self.hop if hop is None else hop,
        )
        channels = Channels(
            service,
            config,
            CallerSigner(service, KEYS, SystemClock()),
            telemetry=self.client_telemetry,
            kill_points=kill_points or KillPoints(service),
        )
        self._channels.append(channels)
        return channels.channel("billing")

    def clock_stub(self, service: str = "auth", **options: Any) -> "clock_pb2_grpc.ClockServiceAsyncStub":
        return clock_pb2_grpc.ClockServiceStub(self.channel(service, **options))

    @property
    def streams(self) -> float:
        """Number of streams that carry calls of the clients just now."""
        found = self.client_telemetry.registry.get_sample_value("gatefold_grpc_hop_streams", {"peer": "billing"})
        return found or 0.0

    def logged(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.log.getvalue().splitlines()]

    async def close(self) -> None:
        for channels in self._channels:
            await channels.close()
        if self.server is not None:
            await self.server.drain(0)
        await self.wire.stop()


STAFF = Caller(CallerKind.STAFF, "per_1", account=ACCOUNT, scopes=frozenset({"catalogue:write"}), request_id="req_2")


async def failure(call: Awaitable[Any]) -> GatefoldError:
    """Returns what a call fails with."""
    try:
        await call
    except GatefoldError as error:
        return error
    raise AssertionError("the call was answered")
