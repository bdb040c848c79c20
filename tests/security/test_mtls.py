"""Attacks on the trust between services, with mutual TLS on loopback."""

import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from uuid import UUID

import grpc
import pytest
from gatefold.clock.v1 import clock_pb2, clock_pb2_grpc

from libs import caller
from libs.caller import CallerSigner, CallerVerifier, service_caller
from libs.clock import ClockServicer, FixedClock, SystemClock
from libs.errors import GatefoldError, Kind
from libs.grpc_client import Channels, GrpcConfig
from libs.grpc_server import GrpcServer
from libs.hop.config import HopConfig
from libs.kill_points import KillPoints
from libs.telemetry import Telemetry
from libs.tls import Tls
from tests.support.certificates import Authority

ACCOUNT = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
KEYS = {"auth>billing": (b"a" * 32,), "notify>billing": (b"n" * 32,)}
# How long a connection is tried for that must not come about.
SHORT = 1.0
NOTHING = clock_pb2.DrainedRequest()

Serve = Callable[[Tls], AbstractAsyncContextManager["Open"]]
Open = Callable[..., "clock_pb2_grpc.ClockServiceAsyncStub"]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "gatefold")


@pytest.fixture(autouse=True)
def _as_auth() -> Iterator[None]:
    with caller.acting(service_caller("auth", ACCOUNT, live=False, request_id="r")):
        yield


@asynccontextmanager
async def serving(tls: Tls, hop: HopConfig) -> AsyncIterator[Open]:
    """Serves billing with these certificates; yields what opens a client's stub on it, as the service auth."""

    async def none_stored() -> dict[UUID, object]:
        return {}

    async def store(account: UUID, offset: object) -> None:
        raise AssertionError

    server = GrpcServer(
        "billing",
        "127.0.0.1:0",
        verifier=CallerVerifier("billing", KEYS, SystemClock()),
        telemetry=Telemetry("billing", stream=io.StringIO()),
        tls=tls,
        hop=hop,
    )
    servicer = ClockServicer(FixedClock(), none_stored, store, {})  # type: ignore[arg-type]
    server.add(clock_pb2_grpc.add_ClockServiceServicer_to_server, servicer)
    await server.start()
    opened: list[Channels] = []

    def open_client(files: Tls | None, connect_seconds: float = 20) -> "clock_pb2_grpc.ClockServiceAsyncStub":
        config = GrpcConfig(
            peers=json.dumps({"billing": f"127.0.0.1:{server.port}"}),
            tls_ca=files.ca if files else None,
            tls_cert=files.certificate if files else None,
            tls_key=files.key if files else None,
            connect_seconds=connect_seconds,
            hop=hop,
        )
        channels = Channels(
            "auth",
            config,
            CallerSigner("auth", KEYS, SystemClock()),
            telemetry=Telemetry("auth", stream=io.StringIO()),
            kill_points=KillPoints("auth"),
        )
        opened.append(channels)
        return clock_pb2_grpc.ClockServiceStub(channels.channel("billing"))

    yield open_client
    for channels in opened:
        await channels.close()
    await server.drain(0)


@pytest.fixture(params=[True, False], ids=["frames", "plain"])
def billing(request: pytest.FixtureRequest) -> Serve:
    """Serves billing; calls go as frames or as gRPC calls of their own, and are refused alike."""
    return partial(serving, hop=HopConfig(hop=request.param))


async def refusal(call: Awaitable[object]) -> tuple[Kind, str]:
    with pytest.raises(GatefoldError) as caught:
        await call
    return caught.value.kind, caught.value.reason


async def test_the_right_name_by_the_right_authority_is_let_in(billing: Serve, authority: Authority) -> None:
    async with billing(authority.issue("billing")) as client:
        assert (await client(authority.issue("auth")).Drained(NOTHING, timeout=30)).drained


async def test_one_of_several_names_is_enough(billing: Serve, authority: Authority) -> None:
    names = ("auth.gatefold.svc", "auth")

    async with billing(authority.issue("billing.gatefold.svc", "billing")) as client:
        assert (await client(authority.issue(*names)).Drained(NOTHING, timeout=30)).drained


async def test_a_common_name_counts_where_there_are_no_other_names(billing: Serve, authority: Authority) -> None:
    async with billing(authority.issue("billing")) as client:
        assert (await client(authority.issue(common_name="auth")).Drained(NOTHING, timeout=30)).drained


@pytest.mark.parametrize("names", [("notify",), ("auth.evil.example",), ("authx",), ("xauth",), ("AUTH",), ("*",)])
async def test_a_certificate_of_another_name_is_refused(
    billing: Serve, authority: Authority, names: tuple[str, ...]
) -> None:
    async with billing(authority.issue("billing")) as client:
        stub = client(authority.issue(*names))

        assert await refusal(stub.Drained(NOTHING, timeout=30)) == (Kind.INTERNAL, "service_distrusted")


async def test_a_common_name_does_not_count_beside_other_names(billing: Serve, authority: Authority) -> None:
    async with billing(authority.issue("billing")) as client:
        stub = client(authority.issue("notify", common_name="auth"))

        assert await refusal(stub.Drained(NOTHING, timeout=30)) == (Kind.INTERNAL, "service_distrusted")


async def test_a_caller_token_that_was_stolen_is_of_no_use_to_another_service(
    billing: Serve, authority: Authority
) -> None:
    stolen = CallerSigner("auth", KEYS, SystemClock()).sign(caller.outgoing("auth"), "billing")
    async with billing(authority.issue("billing")) as client:
        thief = client(authority.issue("notify"))

        # The thief's own client signs as auth here, and presents the stolen token beside it.
        call = thief.Drained(NOTHING, metadata=(("gatefold-caller", stolen),))
        assert await refusal(call) == (Kind.INTERNAL, "service_distrusted")


async def test_a_certificate_by_another_authority_is_refused(
    billing: Serve, authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "stranger")

    async with billing(authority.issue("billing")) as client:
        stub = client(stranger.issue("auth", trusting=authority), SHORT)

        assert (await refusal(stub.Drained(NOTHING, timeout=30)))[0] is Kind.UNAVAILABLE


async def test_a_client_without_a_certificate_is_refused(billing: Serve, authority: Authority) -> None:
    async with billing(authority.issue("billing")) as client:
        assert await refusal(client(None, SHORT).Drained(NOTHING, timeout=30)) == (
            Kind.UNAVAILABLE,
            "service_unavailable",
        )


async def test_a_client_that_only_trusts_the_authority_is_refused(authority: Authority) -> None:
    files = authority.issue("billing")
    server = GrpcServer(
        "billing",
        "127.0.0.1:0",
        verifier=CallerVerifier("billing", KEYS, SystemClock()),
        telemetry=Telemetry("billing", stream=io.StringIO()),
        tls=files,
    )
    await server.start()
    credentials = grpc.ssl_channel_credentials(files.ca.read_bytes())
    options = (("grpc.ssl_target_name_override", "billing"),)
    async with grpc.aio.secure_channel(f"127.0.0.1:{server.port}", credentials, options) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await clock_pb2_grpc.ClockServiceStub(channel).Drained(NOTHING, timeout=5)
    await server.drain(0)

    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_server_by_another_authority_is_not_trusted(
    billing: Serve, authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "stranger")

    async with billing(stranger.issue("billing", trusting=authority)) as client:
        assert (await refusal(client(authority.issue("auth"), SHORT).Drained(NOTHING, timeout=30)))[
            0
        ] is Kind.UNAVAILABLE


async def test_a_server_of_another_name_is_not_trusted(billing: Serve, authority: Authority) -> None:
    async with billing(authority.issue("notify")) as client:
        assert (await refusal(client(authority.issue("auth"), SHORT).Drained(NOTHING, timeout=30)))[
            0
        ] is Kind.UNAVAILABLE


async def test_a_certificate_that_has_expired_is_refused(billing: Serve, authority: Authority) -> None:
    async with billing(authority.issue("billing")) as client:
        assert (await refusal(client(authority.issue("auth", days=-1), SHORT).Drained(NOTHING, timeout=30)))[
            0
        ] is Kind.UNAVAILABLE
