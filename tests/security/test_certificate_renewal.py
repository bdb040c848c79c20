"""Certificates between services are renewed while both sides run: nobody restarts, and nothing is refused meanwhile."""

import asyncio
import io
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import UUID

import pytest
from gatefold.clock.v1 import clock_pb2_grpc

from libs import caller
from libs.caller import CallerSigner, CallerVerifier, service_caller
from libs.clock import SystemClock
from libs.errors import GatefoldError, Kind
from libs.grpc_client import Channels, GrpcConfig
from libs.grpc_server import GrpcServer
from libs.hop.config import HopConfig
from libs.kill_points import KillPoints
from libs.telemetry import Telemetry
from libs.tls import Tls
from tests.support.certificates import Authority
from tests.support.net import DRAINED, KEYS, NOTHING, ClockStandIn
from tests.support.waiting import until
from tests.support.wire import Wire

ACCOUNT = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
SHORT = 1.0
"""How long a connection is tried for that must not come about."""


@pytest.fixture(autouse=True)
def _as_auth() -> Iterator[None]:
    with caller.acting(service_caller("auth", ACCOUNT, live=False, request_id="r")):
        yield


class Mounted:
    """One service's certificate files, as they are mounted: their contents change, their paths do not."""

    def __init__(self, folder: Path, files: Tls) -> None:
        folder.mkdir()
        self.tls = Tls(folder / "ca.pem", folder / "tls.crt", folder / "tls.key")
        self.hold(files.certificate, files.key)
        self.trust(files.ca)

    def trust(self, *authorities: Path) -> None:
        """Trusts these authorities from now on."""
        _swap(self.tls.ca, b"".join(path.read_bytes() for path in authorities))

    def hold(self, certificate: Path, key: Path) -> None:
        """Has another certificate from now on."""
        _swap(self.tls.certificate, certificate.read_bytes())
        _swap(self.tls.key, key.read_bytes())


def _swap(path: Path, content: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.rename(path)


class House:
    """billing, which serves, and clients of it that are auth, behind a wire that can be cut."""

    def __init__(self, folder: Path, hop: bool, stack: AsyncExitStack) -> None:
        self.folder = folder
        self.hop = HopConfig(hop=hop)
        self.stack = stack
        self.wire = Wire(folder / "wire.sock", folder / "billing.sock")
        self.telemetry = {name: Telemetry(name, stream=io.StringIO()) for name in ("auth", "billing")}

    async def serve(self, files: Tls) -> None:
        """Serves with these files until the test ends."""
        server = GrpcServer(
            "billing",
            f"unix:{self.folder}/billing.sock",
            verifier=CallerVerifier("billing", KEYS, SystemClock()),
            telemetry=self.telemetry["billing"],
            tls=files,
            hop=self.hop,
        )
        server.add(clock_pb2_grpc.add_ClockServiceServicer_to_server, ClockStandIn())
        await server.start()
        self.stack.push_async_callback(server.drain, 0)
        await self.wire.start()
        self.stack.push_async_callback(self.wire.stop)

    def client(self, files: Tls, connect_seconds: float = 20) -> "clock_pb2_grpc.ClockServiceAsyncStub":
        """Opens a client."""
        config = GrpcConfig(
            peers=json.dumps({"billing": f"unix:{self.folder}/wire.sock"}),
            tls_ca=files.ca,
            tls_cert=files.certificate,
            tls_key=files.key,
            connect_seconds=connect_seconds,
            hop=self.hop,
        )
        channels = Channels(
            "auth",
            config,
            CallerSigner("auth", KEYS, SystemClock()),
            telemetry=self.telemetry["auth"],
            kill_points=KillPoints("auth"),
        )
        self.stack.push_async_callback(channels.close)
        return clock_pb2_grpc.ClockServiceStub(channels.channel("billing"))

    async def connects_anew(self, stub: "clock_pb2_grpc.ClockServiceAsyncStub", result: str, count: int) -> None:
        """Takes the client's connection away until it has seen its files changed so often, and has it call."""
        await self.wire.stop()
        calling = asyncio.create_task(stub.Drained(NOTHING, timeout=30))
        await until(lambda: self.changes("auth", result) >= count)
        await self.wire.start()
        assert await calling == DRAINED

    def changes(self, service: str, result: str) -> float:
        """Returns how often a service has seen its files changed."""
        labels = {"result": result}
        found = self.telemetry[service].registry.get_sample_value("gatefold_service_certificate_changes_total", labels)
        return found or 0.0


@pytest.fixture(params=[True, False], ids=["frames", "plain"])
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        yield House(tmp_path, request.param, stack)


async def refused(stub: "clock_pb2_grpc.ClockServiceAsyncStub") -> bool:
    try:
        await stub.Drained(NOTHING, timeout=30)
    except GatefoldError as error:
        return error.kind is Kind.UNAVAILABLE
    return False


async def test_an_authority_is_replaced_while_both_sides_run(house: House, tmp_path: Path) -> None:
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    billing, auth = (Mounted(tmp_path / name, old.issue(name)) for name in ("billing", "auth"))
    await house.serve(billing.tls)
    stub = house.client(auth.tls)
    assert await stub.Drained(NOTHING, timeout=30) == DRAINED
    stranger = new.issue("auth", trusting=old)
    assert await refused(house.client(stranger, SHORT)), "nobody trusts the new authority yet"

    for each in (billing, auth):
        each.trust(old.path, new.path)
    await house.connects_anew(stub, "taken", 1)
    assert await house.client(stranger).Drained(NOTHING, timeout=30) == DRAINED

    for each, name in ((billing, "billing"), (auth, "auth")):
        fresh = new.issue(name)
        each.hold(fresh.certificate, fresh.key)
    assert await stub.Drained(NOTHING, timeout=30) == DRAINED, "a connection that stands is kept"
    await house.connects_anew(stub, "taken", 2)

    for each in (billing, auth):
        each.trust(new.path)
    await house.connects_anew(stub, "taken", 3)
    assert await refused(house.client(old.issue("auth", trusting=new), SHORT)), "nobody trusts the old one any more"
    assert await refused(house.client(new.issue("auth", trusting=old), SHORT)), "the server's own is by the new one"
    assert house.changes("billing", "taken") >= 3
    assert house.changes("billing", "unusable") == 0


async def test_files_that_do_not_belong_together_leave_those_before(house: House, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "gatefold")
    billing, auth = (Mounted(tmp_path / name, authority.issue(name)) for name in ("billing", "auth"))
    await house.serve(billing.tls)
    stub = house.client(auth.tls)
    assert await stub.Drained(NOTHING, timeout=30) == DRAINED
    for each, name in ((billing, "billing"), (auth, "auth")):
        shutil.copy(authority.issue(f"{name}.other").key, each.tls.key)
    await house.connects_anew(stub, "unusable", 1)
    assert house.changes("billing", "unusable") >= 1
    assert house.changes("billing", "taken") == house.changes("auth", "taken") == 0
    for each, name in ((billing, "billing"), (auth, "auth")):
        fresh = authority.issue(name, days=2)
        each.hold(fresh.certificate, fresh.key)
    await house.connects_anew(stub, "taken", 1)
    assert house.changes("billing", "taken") == house.changes("auth", "taken") == 1
