"""Tests of libs/grpc_server and libs/grpc_client against each other, over real sockets."""

import asyncio
import io
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from gatefold.billing.v1 import catalogue_pb2, catalogue_pb2_grpc
from gatefold.clock.v1 import clock_pb2, clock_pb2_grpc
from gatefold.privacy.v1 import subject_data_pb2, subject_data_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry import trace

from libs import caller, deadline, errors, grpc_client
from libs.caller import Caller, CallerSigner, CallerVerifier, service_caller
from libs.clock import SystemClock
from libs.errors import GatefoldError, Kind
from libs.grpc_client import Channels, GrpcConfig
from libs.grpc_server import GrpcServer
from libs.hop.config import HopConfig
from libs.kill_points import KillPoints
from libs.policies import PolicyError
from libs.telemetry import Telemetry
from tests.support.net import ACCOUNT, DRAINED, KEYS, NOTHING, STAFF, Answer, Net, failure, never


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gf-") as path:
        yield Path(path)


@pytest.fixture(params=[True, False], ids=["frames", "plain"])
async def net(directory: Path, request: pytest.FixtureRequest) -> AsyncIterator[Net]:
    made = Net(directory, HopConfig(hop=request.param))
    await made.wire.start()
    yield made
    await made.close()


@pytest.fixture
def as_auth() -> Iterator[None]:
    with caller.acting(service_caller("auth", ACCOUNT, live=False, request_id="req_1")):
        yield


# What a served method sees.


async def test_the_servicer_is_handed_the_caller_that_was_sent(net: Net) -> None:
    seen: list[Caller] = []

    async def answer(request: object) -> clock_pb2.DrainedResponse:
        seen.append(caller.current())
        return DRAINED

    net.clock.answer = answer
    await net.serve()
    sent = service_caller("auth", ACCOUNT, live=False, request_id="req_9", on_behalf_of="key_1")

    with caller.acting(sent):
        response = await net.clock_stub().Drained(NOTHING)

    assert response == DRAINED
    assert seen == [sent]


async def test_calls_at_once_keep_their_callers_apart(net: Net) -> None:
    met = asyncio.Barrier(2)

    async def answer(request: object) -> clock_pb2.DrainedResponse:
        await met.wait()
        return clock_pb2.DrainedResponse(waiting={caller.current().request_id: 1})

    net.clock.answer = answer
    await net.serve()
    stub = net.clock_stub()

    async def call(request_id: str) -> str:
        with caller.acting(service_caller("auth", ACCOUNT, request_id=request_id)):
            return next(iter((await stub.Drained(NOTHING)).waiting))

    assert await asyncio.gather(call("one"), call("two")) == ["one", "two"]


@pytest.mark.usefixtures("as_auth")
async def test_one_trace_leads_through_both_services(net: Net) -> None:
    seen: list[int] = []

    async def answer(request: object) -> clock_pb2.DrainedResponse:
        seen.append(trace.get_current_span().get_span_context().trace_id)
        return DRAINED

    net.clock.answer = answer
    await net.serve()

    with net.client_telemetry.tracer.start_as_current_span("outer") as outer:
        await net.clock_stub().Drained(NOTHING)

    assert seen == [outer.get_span_context().trace_id]


@pytest.mark.usefixtures("as_auth")
async def test_both_sides_measure_each_call_by_outcome(net: Net) -> None:
    async def answer(request: object) -> clock_pb2.DrainedResponse:
        raise errors.conflict("busy", "Busy.")

    await net.serve()
    stub = net.clock_stub()
    await stub.Drained(NOTHING)
    net.clock.answer = answer
    await failure(stub.Drained(NOTHING))

    method = "/gatefold.clock.v1.ClockService/Drained"
    for registry, side in ((net.telemetry.registry, "server"), (net.client_telemetry.registry, "client")):
        for outcome in ("ok", "conflict"):
            labels = {"method": method, "outcome": outcome}
            assert registry.get_sample_value(f"gatefold_grpc_{side}_seconds_count", labels) == 1


# Errors.


@pytest.mark.usefixtures("as_auth")
async def test_an_error_arrives_as_it_was_raised(net: Net) -> None:
    raised = errors.invalid("too_short", "This is too short.", field="name", metadata={"least": "8"})

    async def answer(request: object) -> clock_pb2.DrainedResponse:
        raise raised

    net.clock.answer = answer
    await net.serve()

    assert vars(await failure(net.clock_stub().Drained(NOTHING))) == vars(raised)


@pytest.mark.usefixtures("as_auth")
async def test_what_nobody_foresaw_is_logged_and_not_told(net: Net) -> None:
    async def answer(request: object) -> clock_pb2.DrainedResponse:
        raise RuntimeError("the password is hunter2 at ada@example.org")

    net.clock.answer = answer
    await net.serve()

    error = await failure(net.clock_stub().Drained(NOTHING))

    assert (error.kind, error.reason) == (Kind.INTERNAL, "internal_error")
    assert "hunter2" not in str(error)
    (line,) = (line for line in net.logged() if line["level"] == "error")
    assert line["request_id"] == "req_1"
    assert line["method"] == "/gatefold.clock.v1.ClockService/Drained"
    assert "RuntimeError" in line["error"]
    assert "ada@example.org" not in line["error"]


# Who may call.


async def test_a_call_without_a_caller_is_refused(net: Net) -> None:
    await net.serve()
    async with grpc.aio.insecure_channel(f"unix:{net.socket}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await clock_pb2_grpc.ClockServiceStub(channel).Drained(NOTHING)

    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert net.clock.calls == 0


async def test_a_service_that_the_method_does_not_name_is_refused(net: Net) -> None:
    await net.serve()
    with caller.acting(service_caller("notify", ACCOUNT, live=False, request_id="r")):
        token = CallerSigner("notify", KEYS, SystemClock()).sign(caller.outgoing("notify"), "billing")
        async with grpc.aio.insecure_channel(f"unix:{net.socket}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await clock_pb2_grpc.ClockServiceStub(channel).Drained(NOTHING, metadata=(("gatefold-caller", token),))
        error = await failure(net.clock_stub("notify").Drained(NOTHING))

    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    # To whoever called notify this is a fault of the platform's, not of theirs.
    assert (error.kind, error.reason) == (Kind.INTERNAL, "service_distrusted")
    assert net.clock.calls == 0


async def test_scopes_are_checked_again_behind_the_edge(net: Net) -> None:
    await net.serve()
    stub = catalogue_pb2_grpc.CatalogueServiceStub(net.channel("gateway"))

    with caller.acting(STAFF):
        await stub.CreateProduct(catalogue_pb2.CreateProductRequest())
    with caller.acting(replace(STAFF, scopes=frozenset({"catalogue:read"}))):
        error = await failure(stub.CreateProduct(catalogue_pb2.CreateProductRequest()))

    assert (error.kind, error.reason) == (Kind.FORBIDDEN, "scope_missing")
    assert net.catalogue.calls == 1


@pytest.mark.usefixtures("as_auth")
async def test_a_closed_service_answers_reads_and_refuses_changes(net: Net) -> None:
    await net.serve(closed=True)
    stub = net.clock_stub()

    assert await stub.Drained(NOTHING) == DRAINED
    error = await failure(stub.Advance(clock_pb2.AdvanceRequest()))

    assert (error.kind, error.reason, error.retry_after_seconds) == (Kind.UNAVAILABLE, "closed_mode", 30)
    assert net.clock.calls == 1


# Streams.


async def _read(stream: AsyncIterator[subject_data_pb2.ExportResponse], into: list[str]) -> None:
    async for part in stream:
        into.append(part.table)  # noqa: PERF401 — what came before an error must be kept


def _part(table: str) -> subject_data_pb2.ExportResponse:
    return subject_data_pb2.ExportResponse(table=table)


@pytest.fixture
def as_compliance() -> Iterator[None]:
    with caller.acting(service_caller("compliance", ACCOUNT, request_id="req_1")):
        yield


@pytest.mark.usefixtures("as_compliance")
async def test_a_stream_arrives_in_order_and_then_its_error(net: Net) -> None:
    async def stream() -> AsyncIterator[subject_data_pb2.ExportResponse]:
        for table in ("a", "b", "c"):
            yield _part(table)
        raise errors.not_found("subject_erased", "Gone.")

    net.privacy.stream = stream
    await net.serve()
    arrived: list[str] = []

    error = await failure(
        _read(
            subject_data_pb2_grpc.SubjectDataStub(net.channel("compliance")).Export(subject_data_pb2.ExportRequest()),
            arrived,
        )
    )

    assert arrived == ["a", "b", "c"]
    assert (error.kind, error.reason) == (Kind.NOT_FOUND, "subject_erased")


@pytest.mark.usefixtures("as_compliance")
async def test_a_reader_who_goes_away_ends_the_stream_on_both_sides(net: Net) -> None:
    ended = asyncio.Event()

    async def stream() -> AsyncIterator[subject_data_pb2.ExportResponse]:
        try:
            while True:
                yield _part("a")
                await asyncio.sleep(0.001)
        finally:
            ended.set()

    net.privacy.stream = stream
    await net.serve()
    stub = subject_data_pb2_grpc.SubjectDataStub(net.channel("compliance"))
    parts = stub.Export(subject_data_pb2.ExportRequest())

    async for _ in parts:
        break
    await parts.aclose()  # type: ignore[attr-defined]

    async with asyncio.timeout(30):
        await ended.wait()


async def test_a_stream_is_refused_to_whom_it_is_not_for(net: Net) -> None:
    await net.serve()
    stub = subject_data_pb2_grpc.SubjectDataStub(net.channel("auth"))

    with caller.acting(service_caller("auth", ACCOUNT, request_id="r")):
        error = await failure(_read(stub.Export(subject_data_pb2.ExportRequest()), []))

    assert error.reason == "service_distrusted"


# Deadlines.


@pytest.mark.usefixtures("as_auth")
async def test_a_call_ends_at_its_deadline_on_both_sides(net: Net) -> None:
    ended = asyncio.Event()
    net.clock.answer = never(ended)
    await net.serve()

    error = await failure(net.clock_stub().Drained(NOTHING, timeout=0.2))

    assert (error.kind, error.reason) == (Kind.TIMEOUT, "deadline_exceeded")
    async with asyncio.timeout(30):
        await ended.wait()


@pytest.mark.usefixtures("as_auth")
async def test_a_call_does_not_outlive_the_request_that_made_it(net: Net) -> None:
    seen: list[float] = []

    async def answer(request: object) -> clock_pb2.DrainedResponse:
        seen.append(deadline.remaining() or 0)
        return DRAINED

    net.clock.answer = answer
    await net.serve()
    stub = net.clock_stub()

    await stub.Drained(NOTHING, timeout=600)

    async def within(seconds: float) -> None:
        deadline.enter(seconds)
        await stub.Drained(NOTHING, timeout=600)

    await asyncio.create_task(within(100))
    await stub.Drained(NOTHING)

    assert 110 < seen[0] <= 660
    # gRPC rounds a timeout up as it writes it.
    assert 5 < seen[1] <= 110
    assert 0 < seen[2] <= grpc_client.DEADLINE_SECONDS + 1


# A peer that is away, and what may be repeated.


@pytest.mark.usefixtures("as_auth")
async def test_a_peer_that_is_away_is_told_within_the_connect_deadline(net: Net) -> None:
    error = await failure(net.clock_stub(connect_seconds=0.05).Drained(NOTHING, timeout=60))

    assert (error.kind, error.reason, error.retry_after_seconds) == (Kind.UNAVAILABLE, "service_unavailable", 1)
    assert error.metadata["service"] == "billing"


@pytest.mark.usefixtures("as_auth")
async def test_a_peer_that_comes_back_is_found_again_without_a_new_channel(net: Net) -> None:
    server = await net.serve()
    stub = net.clock_stub(connect_seconds=0.05)
    patient = net.clock_stub(connect_seconds=20)
    await stub.Drained(NOTHING, timeout=30)
    await server.drain(0)
    assert (await failure(stub.Drained(NOTHING))).reason == "service_unavailable"

    waiting = asyncio.create_task(patient.Drained(NOTHING, timeout=30))
    await net.serve()

    assert await waiting == DRAINED


def cutting(net: Net, times: int) -> Answer:
    """Answers after having cut the connection, the first `times` times."""
    left = times

    async def answer(request: object) -> clock_pb2.DrainedResponse:
        nonlocal left
        if left:
            left -= 1
            net.wire.cut()
        return DRAINED

    return answer


@pytest.mark.usefixtures("as_auth")
async def test_a_read_whose_answer_was_lost_is_repeated(net: Net) -> None:
    net.clock.answer = cutting(net, 1)
    await net.serve()

    assert await net.clock_stub().Drained(NOTHING, timeout=30) == DRAINED
    assert net.clock.calls == 2


@pytest.mark.usefixtures("as_auth")
async def test_repeating_has_an_end(net: Net) -> None:
    net.clock.answer = cutting(net, 100)
    await net.serve()

    error = await failure(net.clock_stub().Drained(NOTHING, timeout=30))

    assert (error.kind, error.reason) == (Kind.UNAVAILABLE, "outcome_unknown")
    assert net.clock.calls == grpc_client.ATTEMPTS


@pytest.mark.parametrize(("key", "calls"), [(None, 1), ("once", 2)])
async def test_a_change_whose_outcome_is_unknown_is_repeated_only_with_an_idempotency_key(
    net: Net, key: str | None, calls: int
) -> None:
    net.catalogue.answer = cutting(net, 1)
    await net.serve()
    stub = catalogue_pb2_grpc.CatalogueServiceStub(net.channel("gateway"))

    with caller.acting(replace(STAFF, idempotency_key=key)):
        call = stub.CreateProduct(catalogue_pb2.CreateProductRequest(), timeout=30)
        if key is None:
            assert (await failure(call)).reason == "outcome_unknown"
        else:
            await call

    assert net.catalogue.calls == calls


@pytest.mark.usefixtures("as_auth")
async def test_an_answer_that_something_behind_is_away_is_not_repeated(net: Net) -> None:
    async def answer(request: object) -> clock_pb2.DrainedResponse:
        raise errors.unavailable("database_unavailable", "Away.", 7)

    net.clock.answer = answer
    await net.serve()

    error = await failure(net.clock_stub().Drained(NOTHING))

    assert (error.reason, error.retry_after_seconds) == ("database_unavailable", 7)
    assert net.clock.calls == 1


@pytest.mark.usefixtures("as_auth")
async def test_each_call_passes_its_kill_points(net: Net, tmp_path: Path) -> None:
    await net.serve()

    await net.clock_stub(kill_points=KillPoints("auth", kill_log=tmp_path / "points")).Drained(NOTHING)

    assert (tmp_path / "points").read_text().split() == ["auth:before-call:Drained", "auth:after-call:Drained"]


async def test_a_peer_without_an_address_is_a_fault_of_the_configuration(net: Net) -> None:
    channels = Channels(
        "auth",
        GrpcConfig(),
        CallerSigner("auth", KEYS, SystemClock()),
        telemetry=net.client_telemetry,
        kill_points=KillPoints("auth"),
    )

    with pytest.raises(GatefoldError, match="peer_unknown"):
        channels.channel("billing")


@pytest.mark.parametrize("peers", ["nonsense", "[]", '{"billing": 5}'])
def test_addresses_that_cannot_be_read_are_refused(peers: str) -> None:
    with pytest.raises(ValueError, match="peers must be"):
        GrpcConfig(peers=peers)


def test_certificate_files_come_together() -> None:
    with pytest.raises(ValueError, match="set together"):
        GrpcConfig(tls_ca=Path("ca.pem"))


# Sizes.


@pytest.mark.usefixtures("as_auth")
@pytest.mark.parametrize(("size", "fits"), [(8 * 2**20, True), (17 * 2**20, False)])
async def test_messages_of_up_to_sixteen_mebibytes_pass(net: Net, size: int, fits: bool) -> None:
    async def answer(request: object) -> clock_pb2.DrainedResponse:
        return clock_pb2.DrainedResponse(waiting={"x" * size: 1})

    net.clock.answer = answer
    await net.serve()
    call = net.clock_stub().Drained(NOTHING, timeout=60)

    if fits:
        assert len(next(iter((await call).waiting))) == size
    else:
        assert (await failure(call)).reason == "message_too_large"


@pytest.mark.usefixtures("as_auth")
async def test_an_error_with_many_violations_arrives(net: Net) -> None:
    raised = errors.invalid(
        "many", "Many.", violations=[errors.Violation(f"items[{n}].name", "rule", "ü" * 200) for n in range(500)]
    )

    async def answer(request: object) -> clock_pb2.DrainedResponse:
        raise raised

    net.clock.answer = answer
    await net.serve()

    error = await failure(net.clock_stub().Drained(NOTHING))

    assert error.reason == "many"
    assert error.violations == raised.violations[: len(error.violations)]
    assert len(error.violations) >= 50


# Start and end.


def server(listen: str) -> GrpcServer:
    return GrpcServer(
        "billing",
        listen,
        verifier=CallerVerifier("billing", KEYS, SystemClock()),
        telemetry=Telemetry("billing", stream=io.StringIO()),
    )


def test_a_method_without_a_policy_is_not_served() -> None:
    with pytest.raises(PolicyError, match=r"grpc\.health\.v1\.Health"):
        server("unix:/nowhere").add(health_pb2_grpc.add_HealthServicer_to_server, health_pb2_grpc.HealthServicer())


def test_a_method_that_is_not_asynchronous_is_not_served() -> None:
    with pytest.raises(TypeError, match="async def"):
        server("unix:/nowhere").add(
            clock_pb2_grpc.add_ClockServiceServicer_to_server, clock_pb2_grpc.ClockServiceServicer()
        )


async def test_the_socket_is_for_its_owner_alone_and_a_stale_one_makes_room(net: Net) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(net.socket))

    await net.serve()

    assert stat.S_IMODE(net.socket.stat().st_mode) == 0o600
    assert await _health(f"unix:{net.socket}") == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "billing:0"])
async def test_plain_tcp_that_other_machines_can_reach_is_refused(listen: str) -> None:
    with pytest.raises(ValueError, match="needs TLS"):
        await server(listen).start()


async def test_a_port_that_is_taken_is_not_shared() -> None:
    first = server("127.0.0.1:0")
    await first.start()
    try:
        with pytest.raises(RuntimeError):
            await server(f"127.0.0.1:{first.port}").start()
    finally:
        await first.drain(0)


async def _health(address: str, service: str = "") -> int:
    async with grpc.aio.insecure_channel(address) as channel:
        response = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
        return int(response.status)


async def test_health_is_told_by_service(net: Net) -> None:
    await net.serve()

    status = await _health(f"unix:{net.socket}", "gatefold.clock.v1.ClockService")

    assert status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.usefixtures("as_auth")
async def test_draining_lets_calls_in_flight_finish_and_takes_no_new_ones(net: Net) -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    async def answer(request: object) -> clock_pb2.DrainedResponse:
        began.set()
        await go_on.wait()
        return DRAINED

    net.clock.answer = answer
    running = await net.serve()
    in_flight = asyncio.create_task(net.clock_stub().Drained(NOTHING, timeout=60))
    await began.wait()

    draining = asyncio.create_task(running.drain(60))
    late = net.clock_stub(connect_seconds=0.2)
    assert (await failure(late.Drained(NOTHING))).kind is Kind.UNAVAILABLE
    assert not draining.done()
    go_on.set()

    assert await in_flight == DRAINED
    await draining
    assert net.clock.calls == 1
