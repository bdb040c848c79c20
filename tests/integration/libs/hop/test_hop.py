"""What is the hop's own: windows, what was not sent, draining, peers that take no frames, peers that go away."""

import asyncio
import contextvars
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from gatefold.billing.v1 import catalogue_pb2, catalogue_pb2_grpc
from gatefold.clock.v1 import clock_pb2, clock_pb2_grpc
from gatefold.mux.v1.mux_pb2 import CarryResponse, Window

from libs import caller, errors, grpc_client
from libs.caller import CallerVerifier, service_caller
from libs.clock import SystemClock
from libs.errors import GatefoldError, Kind
from libs.grpc_server import MESSAGE_BYTES, GrpcServer
from libs.hop.client import Hop
from libs.hop.config import HopConfig
from libs.telemetry import Telemetry
from tests.support.hop_peer import Frames, for_ever, peer
from tests.support.net import ACCOUNT, DRAINED, KEYS, NOTHING, STAFF, CatalogueStandIn, Net, failure
from tests.support.waiting import until

PLENTY_SECONDS = 60.0


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gf-") as path:
        yield Path(path)


@pytest.fixture
async def net(directory: Path) -> AsyncIterator[Net]:
    made = Net(directory)
    await made.wire.start()
    yield made
    await made.close()


@pytest.fixture(autouse=True)
def _as_auth() -> Iterator[None]:
    with caller.acting(service_caller("auth", ACCOUNT, live=False, request_id="req_1")):
        yield


def catalogue(net: Net, **options: Any) -> Any:
    return catalogue_pb2_grpc.CatalogueServiceStub(net.channel("gateway", **options))


def create(stub: Any, *, key: str | None = None, timeout: float = PLENTY_SECONDS, **fields: str) -> Any:
    """A change, which without a key must not be made twice."""

    async def call() -> catalogue_pb2.Product:
        with caller.acting(replace(STAFF, idempotency_key=key)):
            answer: catalogue_pb2.Product = await stub.CreateProduct(
                catalogue_pb2.CreateProductRequest(**fields), timeout=timeout
            )
            return answer

    return call()


# Which way a call goes.


async def test_calls_go_in_frames_on_two_streams_from_the_first_on(net: Net) -> None:
    await net.serve()
    stub = net.clock_stub()

    await stub.Drained(NOTHING, timeout=PLENTY_SECONDS)
    await stub.Drained(NOTHING, timeout=PLENTY_SECONDS)

    assert net.clock.in_frames == [True, True]
    await until(lambda: net.streams == 2)


async def test_a_long_request_goes_by_itself(net: Net) -> None:
    net.hop = HopConfig(hop_call_bytes=1000)
    await net.serve()
    stub = catalogue(net, hop=HopConfig())

    for size in (900, 1100):
        await create(stub, name="n" * size)

    assert net.catalogue.in_frames == [True, False]


async def test_a_request_is_long_when_its_own_side_says_so(net: Net) -> None:
    await net.serve()
    stub = catalogue(net, hop=HopConfig(hop_call_bytes=1000))

    for size in (900, 1100):
        await create(stub, name="n" * size)

    assert net.catalogue.in_frames == [True, False]


async def test_a_peer_that_takes_no_frames_is_called_without_them_and_asked_again_when_it_is_another(net: Net) -> None:
    net.hop = HopConfig(hop=False)
    old = await net.serve()
    stub = net.clock_stub(hop=HopConfig())
    await stub.Drained(NOTHING, timeout=PLENTY_SECONDS)
    await old.drain(0)
    net.hop = HopConfig()
    await net.serve()

    await stub.Drained(NOTHING, timeout=PLENTY_SECONDS)

    assert net.clock.in_frames == [False, True]


async def test_a_service_that_may_not_open_a_stream_calls_without_frames(net: Net) -> None:
    await net.serve()

    error = await failure(net.clock_stub("stranger").Drained(NOTHING, timeout=PLENTY_SECONDS))

    assert (error.kind, error.reason) == (Kind.INTERNAL, "service_distrusted")
    assert net.streams == 0


# Windows.


class Crowd:
    """Counts how many calls are under way at once, until they are let go."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.go_on = asyncio.Event()

    async def answer(self, request: object) -> clock_pb2.DrainedResponse:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.go_on.wait()
        finally:
            self.now -= 1
        return DRAINED


async def test_no_more_calls_are_under_way_than_the_peer_allows(net: Net) -> None:
    net.hop = HopConfig(hop_calls=3, hop_streams=2)
    crowd = Crowd()
    net.clock.answer = crowd.answer
    await net.serve()
    stub = net.clock_stub()

    calls = [asyncio.create_task(stub.Drained(NOTHING, timeout=PLENTY_SECONDS)) for _ in range(40)]
    await until(lambda: crowd.now == 6)
    crowd.go_on.set()

    assert await asyncio.gather(*calls) == [DRAINED] * 40
    assert crowd.most == 6
    assert net.clock.calls == 40


async def test_no_more_bytes_are_under_way_than_the_peer_allows(net: Net) -> None:
    net.hop = HopConfig(hop_bytes=2500, hop_call_bytes=1100, hop_streams=1)
    crowd = Crowd()
    net.catalogue.answer = crowd.answer
    await net.serve()
    stub = catalogue(net)

    calls = [asyncio.create_task(create(stub, name="n" * 1000)) for _ in range(10)]
    await until(lambda: crowd.now == 2)
    crowd.go_on.set()
    await asyncio.gather(*calls)

    assert crowd.most == 2
    assert net.catalogue.in_frames == [True] * 10


async def test_who_waits_for_a_place_waits_no_longer_than_its_deadline_and_not_with_too_many(net: Net) -> None:
    net.hop = HopConfig(hop_calls=1, hop_streams=1, hop_waiting=1)
    crowd = Crowd()
    net.clock.answer = crowd.answer
    await net.serve()
    stub = net.clock_stub()
    first = asyncio.create_task(stub.Drained(NOTHING, timeout=PLENTY_SECONDS))
    await until(lambda: crowd.now == 1)

    late = await failure(stub.Drained(NOTHING, timeout=0.05))
    waiting = asyncio.create_task(stub.Drained(NOTHING, timeout=PLENTY_SECONDS))
    await asyncio.sleep(0)
    one_too_many = await failure(stub.Drained(NOTHING, timeout=PLENTY_SECONDS))
    crowd.go_on.set()

    assert (late.kind, late.reason) == (Kind.TIMEOUT, "deadline_exceeded")
    assert (one_too_many.kind, one_too_many.reason) == (Kind.UNAVAILABLE, "service_unavailable")
    assert await asyncio.gather(first, waiting) == [DRAINED] * 2
    assert net.clock.calls == 2


async def test_a_turn_that_somebody_does_not_take_goes_to_the_next(net: Net) -> None:
    async def script(frames: Frames) -> None:
        await frames.window(Window(calls=0, bytes=1000, call_bytes=1000))
        await for_ever()

    async with peer(net.socket, script):
        config = HopConfig(hop_streams=1)
        async with grpc.aio.insecure_channel(f"unix:{net.socket}") as channel:
            hop = Hop(
                "billing",
                lambda: channel,
                tuple,
                config,
                message_bytes=MESSAGE_BYTES,
                randomness=os.urandom,
                telemetry=net.client_telemetry,
            )
            ends = time.monotonic() + PLENTY_SECONDS
            first, second = [asyncio.create_task(hop.stream(1, ends)) for _ in range(2)]
            await until(lambda: net.streams == 1)
            # One place, and the first is given up in the same moment in which it is its turn.
            (stream,) = hop._streams
            stream._calls = 1
            hop.freed()
            first.cancel()

            assert await second is stream
            await hop.close()
        assert first.cancelled()


async def test_a_call_that_nobody_waits_for_keeps_its_place_until_the_peer_has_ended_it(net: Net) -> None:
    net.hop = HopConfig(hop_calls=1, hop_streams=1)
    begun, end, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def stubborn(request: object) -> clock_pb2.DrainedResponse:
        if begun.is_set():
            return DRAINED
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await end.wait()
            ended.set()
        raise AssertionError

    net.clock.answer = stubborn
    await net.serve()
    stub = net.clock_stub()
    first = asyncio.create_task(stub.Drained(NOTHING, timeout=PLENTY_SECONDS))
    await begun.wait()
    first.cancel()
    await asyncio.wait((first,))

    late = await failure(stub.Drained(NOTHING, timeout=0.05))
    assert late.reason == "deadline_exceeded"
    end.set()
    assert await stub.Drained(NOTHING, timeout=PLENTY_SECONDS) == DRAINED
    assert ended.is_set()
    assert net.clock.calls == 2


async def test_a_call_given_up_before_it_was_sent_is_not_sent(net: Net) -> None:
    """The peer does not read, so that most of the calls cannot be sent yet when they are given up."""
    go_on, names = asyncio.Event(), list[str]()

    async def script(frames: Frames) -> None:
        await frames.window(Window(calls=1000, bytes=2**31, call_bytes=100_000))
        await go_on.wait()
        while (call := await frames.call()) is not None:
            request = catalogue_pb2.CreateProductRequest.FromString(call.payload)
            names.append(request.external_id)
            await frames.answer(call.id)

    async with peer(net.socket, script):
        stub = catalogue(net, hop=HopConfig(hop_streams=1))
        calls = [asyncio.create_task(create(stub, name="n" * 90_000)) for _ in range(100)]
        await until(lambda: net.streams == 1)
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        last = asyncio.create_task(create(stub, external_id="last"))
        go_on.set()
        await last

    assert names[-1] == "last"
    assert len(names) < 100


# Long answers.


@pytest.mark.parametrize(("length", "fits"), [(MESSAGE_BYTES, True), (MESSAGE_BYTES + 1, False)])
async def test_an_answer_of_the_greatest_length_passes_and_no_longer_one(net: Net, length: int, fits: bool) -> None:
    async def answer(request: object) -> catalogue_pb2.Product:
        made = catalogue_pb2.Product(name="n" * (length - 5))
        assert made.ByteSize() == length
        return made

    net.catalogue.answer = answer
    await net.serve()

    if fits:
        assert (await create(catalogue(net))).ByteSize() == length
    else:
        assert (await failure(create(catalogue(net)))).reason == "message_too_large"


async def test_short_answers_pass_between_the_parts_of_a_long_one(net: Net) -> None:
    order: list[str] = []

    net.hop = HopConfig(hop_streams=1)
    await net.serve()
    stub = net.clock_stub()

    async def long(request: object) -> clock_pb2.DrainedResponse:
        if caller.current().request_id == "long":
            return clock_pb2.DrainedResponse(waiting={"x" * (15 * 2**20): 1})
        return DRAINED

    net.clock.answer = long

    async def call(name: str) -> None:
        with caller.acting(service_caller("auth", ACCOUNT, request_id=name)):
            await stub.Drained(NOTHING, timeout=PLENTY_SECONDS)
        order.append(name)

    await asyncio.gather(call("long"), call("short"))

    assert order == ["short", "long"]


async def test_many_calls_with_long_metadata_and_long_errors_fit_into_frames(net: Net) -> None:
    """In one message they would be more than gRPC takes."""
    net.hop = HopConfig(hop_streams=1)
    together = asyncio.Barrier(700)
    violations = [errors.Violation("f" * 300, "rule", "d" * 300) for _ in range(50)]

    async def answer(request: object) -> clock_pb2.DrainedResponse:
        await together.wait()
        raise errors.invalid("many", "Many.", violations=violations)

    net.clock.answer = answer
    await net.serve()
    stub = net.clock_stub()
    metadata = (("x-long", "x" * 40_000),)

    ends = await asyncio.gather(
        *(stub.Drained(NOTHING, timeout=PLENTY_SECONDS, metadata=metadata) for _ in range(700)), return_exceptions=True
    )

    assert {len(end.violations) for end in ends if isinstance(end, GatefoldError) and end.reason == "many"} == {50}
    assert {type(end) for end in ends} == {GatefoldError}
    assert net.clock.calls == 700


# Peers that do as they like.


async def test_what_the_peer_did_not_begin_is_called_again_whatever_it_does(net: Net) -> None:
    heard: list[bytes] = []

    async def script(frames: Frames) -> None:
        await frames.window()
        while (call := await frames.call()) is not None:
            heard.append(call.payload)
            if len(heard) < 3:
                await frames.answer(call.id, refused=True)
            else:
                await frames.answer(call.id, catalogue_pb2.Product(id="prod_1").SerializeToString())

    async with peer(net.socket, script):
        product = await create(catalogue(net))

    assert product.id == "prod_1"
    assert len(heard) == 3


async def test_calling_again_what_was_not_begun_has_an_end(net: Net) -> None:
    heard = 0

    async def script(frames: Frames) -> None:
        nonlocal heard
        await frames.window()
        while (call := await frames.call()) is not None:
            heard += 1
            await frames.answer(call.id, refused=True)

    async with peer(net.socket, script):
        error = await failure(create(catalogue(net)))

    assert (error.kind, error.reason) == (Kind.UNAVAILABLE, "service_unavailable")
    assert 3 < heard < 20


@pytest.mark.parametrize(("key", "calls"), [(None, 1), ("once", grpc_client.ATTEMPTS)])
async def test_a_stream_that_ends_before_the_answer_leaves_the_outcome_unknown(
    net: Net, key: str | None, calls: int
) -> None:
    heard = 0

    async def script(frames: Frames) -> None:
        nonlocal heard
        await frames.window()
        if await frames.call() is not None:
            heard += 1

    async with peer(net.socket, script):
        error = await failure(create(catalogue(net), key=key))

    assert (error.kind, error.reason) == (Kind.UNAVAILABLE, "outcome_unknown")
    assert heard == calls


@pytest.mark.parametrize(
    "nonsense",
    [b"\xff\xff\xff", CarryResponse(window=Window(calls=2**32 - 1)).SerializeToString() + b"\x0f"],
)
async def test_a_peer_that_speaks_nonsense_leaves_the_outcome_unknown_and_nothing_behind(
    net: Net, nonsense: bytes
) -> None:
    async def script(frames: Frames) -> None:
        await frames.window()
        await frames.call()
        await frames.say(nonsense)
        await for_ever()

    async with peer(net.socket, script):
        error = await failure(create(catalogue(net)))

    assert error.reason == "outcome_unknown"


async def test_answers_to_what_was_not_asked_are_passed_over(net: Net) -> None:
    async def script(frames: Frames) -> None:
        await frames.window()
        while (call := await frames.call()) is not None:
            for number in (0, call.id + 1, 2**64 - 1):
                await frames.answer(number, b"\xff")
            await frames.answer(call.id, DRAINED.SerializeToString())
            await frames.answer(call.id, b"\xff")

    async with peer(net.socket, script):
        stub = net.clock_stub()
        assert [await stub.Drained(NOTHING, timeout=PLENTY_SECONDS) for _ in range(3)] == [DRAINED] * 3


async def test_an_answer_that_becomes_too_long_is_not_waited_for(net: Net) -> None:
    go_on = asyncio.Event()

    async def script(frames: Frames) -> None:
        await frames.window()
        call = await frames.call()
        assert call is not None
        for _ in range(6):
            await frames.answer(call.id, bytes(MESSAGE_BYTES // 5), more=True)
        while not frames.cancelled:
            await frames.hear()
        await frames.answer(call.id)
        await go_on.wait()

    async with peer(net.socket, script):
        stub = catalogue(net, hop=HopConfig(hop_streams=1))
        assert (await failure(create(stub))).reason == "message_too_large"
        go_on.set()


async def test_what_was_not_sent_when_a_stream_broke_goes_on_the_next(net: Net) -> None:
    """The first peer does not read, and goes away: what it was sent may have been done, the rest was not."""
    go_away, again = asyncio.Event(), False

    async def script(frames: Frames) -> None:
        nonlocal again
        await frames.window(Window(calls=1000, bytes=2**31, call_bytes=100_000))
        if not again:
            again = True
            await go_away.wait()
            return
        while (call := await frames.call()) is not None:
            await frames.answer(call.id)

    async with peer(net.socket, script):
        stub = catalogue(net, hop=HopConfig(hop_streams=1))
        calls = [asyncio.create_task(create(stub, name="n" * 90_000)) for _ in range(100)]
        await until(lambda: net.streams == 1)
        await asyncio.sleep(0)
        go_away.set()
        ends = await asyncio.gather(*calls, return_exceptions=True)

    lost = [end for end in ends if isinstance(end, GatefoldError)]
    assert {end.reason for end in lost} == {"outcome_unknown"}
    assert 0 < len(lost) < 100


async def test_a_stream_that_breaks_with_the_connection_keeps_calls_from_the_others_of_it(net: Net) -> None:
    """The other has not heard of it yet: what is under way there may still be answered, and nothing is added."""
    numbers = itertools.count()
    under_way, lost, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
    first: list[tuple[Frames, int]] = []

    async def serve(frames: Frames, name: str) -> None:
        while (call := await frames.call()) is not None:
            await frames.answer(call.id, catalogue_pb2.Product(id=name).SerializeToString())

    async def script(frames: Frames) -> None:
        number = next(numbers)
        if number == 0:
            await frames.window()
            call = await frames.call()
            assert call is not None
            first.append((frames, call.id))
            under_way.set()
            await serve(frames, "of the old connection")
            ended.set()
        elif number == 1:
            await under_way.wait()
            await frames.window()
            await lost.wait()
            await frames.lose()
        else:
            await frames.window()
            await serve(frames, "of the new connection")

    async with peer(net.socket, script):
        stub = catalogue(net, hop=HopConfig(hop_streams=2))
        slow = asyncio.create_task(create(stub))
        await until(lambda: net.streams == 2)
        lost.set()
        await until(lambda: net.streams < 2)

        assert (await create(stub)).id == "of the new connection"

        ((frames, call),) = first
        await frames.answer(call, catalogue_pb2.Product(id="slow").SerializeToString())
        assert (await slow).id == "slow"
        async with asyncio.timeout(PLENTY_SECONDS):
            await ended.wait()


async def test_a_call_begins_with_nothing_of_whoever_opened_the_stream_or_started_the_server(net: Net) -> None:
    names: set[str] = set()

    async def answer(request: object) -> clock_pb2.DrainedResponse:
        names.update(variable.name for variable in contextvars.copy_context())
        return DRAINED

    net.clock.answer = answer
    await net.serve()

    await net.clock_stub().Drained(NOTHING, timeout=PLENTY_SECONDS)

    assert {"gatefold_caller", "gatefold_deadline"} <= names
    assert "gatefold_acting" not in names


async def test_a_window_that_closes_holds_calls_back_until_it_opens(net: Net) -> None:
    closed, open_again, heard = asyncio.Event(), asyncio.Event(), 0

    async def script(frames: Frames) -> None:
        nonlocal heard
        await frames.window()
        first = await frames.call()
        assert first is not None
        await frames.window(Window())
        await frames.answer(first.id, DRAINED.SerializeToString())
        closed.set()
        await open_again.wait()
        assert heard == 0
        await frames.window()
        while (call := await frames.call()) is not None:
            heard += 1
            await frames.answer(call.id, DRAINED.SerializeToString())

    async with peer(net.socket, script):
        stub = net.clock_stub(hop=HopConfig(hop_streams=1))
        await stub.Drained(NOTHING, timeout=PLENTY_SECONDS)
        await closed.wait()
        assert (await failure(stub.Drained(NOTHING, timeout=0.05))).reason == "deadline_exceeded"
        call = asyncio.create_task(stub.Drained(NOTHING, timeout=PLENTY_SECONDS))
        await asyncio.sleep(0)
        open_again.set()
        assert await call == DRAINED

    assert heard == 1


async def test_a_peer_that_never_opens_its_window_is_waited_for_until_the_deadline(net: Net) -> None:
    async with peer(net.socket, lambda _: for_ever()):
        error = await failure(net.clock_stub().Drained(NOTHING, timeout=1.5))

    assert (error.kind, error.reason) == (Kind.TIMEOUT, "deadline_exceeded")


async def test_calls_of_two_turns_go_as_one_frame_while_another_is_under_way(net: Net) -> None:
    frames_of: list[int] = []
    begun = asyncio.Event()

    async def script(frames: Frames) -> None:
        await frames.window()
        while (request := await frames.hear()) is not None:
            frames_of.append(len(request.calls))
            begun.set()
            if len(frames_of) > 1:
                for number in range(1, sum(frames_of) + 1):
                    await frames.answer(number, DRAINED.SerializeToString())

    async with peer(net.socket, script):
        stub = net.clock_stub(hop=HopConfig(hop_streams=1))
        calls = [asyncio.create_task(stub.Drained(NOTHING, timeout=PLENTY_SECONDS))]
        await begun.wait()
        for _ in range(2):
            calls.append(asyncio.create_task(stub.Drained(NOTHING, timeout=PLENTY_SECONDS)))
            await asyncio.sleep(0)
        assert await asyncio.gather(*calls) == [DRAINED] * 3

    assert frames_of == [1, 2]


async def test_a_peer_is_told_that_nobody_waits_any_more(net: Net) -> None:
    called, told = asyncio.Event(), asyncio.Event()
    numbers: list[int] = []

    async def script(frames: Frames) -> None:
        await frames.window()
        call = await frames.call()
        assert call is not None
        numbers.append(call.id)
        called.set()
        while not frames.cancelled:
            await frames.hear()
        numbers.extend(frames.cancelled)
        told.set()
        await for_ever()

    async with peer(net.socket, script):
        call = asyncio.create_task(net.clock_stub(hop=HopConfig(hop_streams=1)).Drained(NOTHING))
        await called.wait()
        call.cancel()
        async with asyncio.timeout(PLENTY_SECONDS):
            await told.wait()

    assert numbers == [1, 1]


async def test_closing_ends_what_is_under_way(net: Net) -> None:
    crowd = Crowd()
    net.clock.answer = crowd.answer
    await net.serve()
    channel = net.channel()
    call = asyncio.create_task(clock_pb2_grpc.ClockServiceStub(channel).Drained(NOTHING, timeout=PLENTY_SECONDS))
    await until(lambda: crowd.now == 1)

    await channel.close()

    assert (await failure(call)).kind is Kind.CANCELLED
    await until(lambda: crowd.now == 0)
    assert net.streams == 0


# Servers that come and go.


async def test_a_rollout_loses_no_call_and_makes_none_twice(net: Net) -> None:
    """Changes without a key are made all the while; the old server drains as the new one takes over."""
    made: list[str] = []
    servers: list[GrpcServer] = []
    counts = {"old": 0, "new": 0}

    async def serve(name: str) -> GrpcServer:
        stand_in = CatalogueStandIn()

        async def answer(request: catalogue_pb2.CreateProductRequest) -> None:
            await asyncio.sleep(0)
            counts[name] += 1
            made.append(request.name)

        stand_in.answer = answer
        server = GrpcServer(
            "billing",
            f"unix:{net.directory}/{name}.sock",
            verifier=CallerVerifier("billing", KEYS, SystemClock()),
            telemetry=Telemetry("billing", stream=net.log),
        )
        server.add(catalogue_pb2_grpc.add_CatalogueServiceServicer_to_server, stand_in)
        await server.start()
        servers.append(server)
        return server

    old = await serve("old")
    net.wire.lead(net.directory / "old.sock")
    stub = catalogue(net)
    numbers = iter(range(100_000))
    stop = asyncio.Event()
    asked: list[str] = []

    async def keep_calling() -> None:
        while not stop.is_set():
            name = str(next(numbers))
            asked.append(name)
            await create(stub, name=name)

    callers = [asyncio.create_task(keep_calling()) for _ in range(32)]
    await until(lambda: counts["old"] > 200)
    await serve("new")
    net.wire.lead(net.directory / "new.sock")
    await old.drain(PLENTY_SECONDS)
    await until(lambda: counts["new"] > 200)
    stop.set()
    await asyncio.gather(*callers)
    await servers[1].drain(0)

    assert sorted(made) == sorted(asked)


async def test_a_server_that_drains_waits_for_what_is_under_way_in_frames(net: Net) -> None:
    crowd = Crowd()
    net.clock.answer = crowd.answer
    server = await net.serve()
    calls = [asyncio.create_task(net.clock_stub().Drained(NOTHING, timeout=PLENTY_SECONDS)) for _ in range(5)]
    await until(lambda: crowd.now == 5)

    draining = asyncio.create_task(server.drain(PLENTY_SECONDS))
    await until(lambda: net.streams == 0)
    assert not draining.done()
    crowd.go_on.set()

    assert await asyncio.gather(*calls) == [DRAINED] * 5
    await draining
    assert net.clock.in_frames == [True] * 5


@contextmanager
def process(net: Net, mode: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "tests.support.hop_process", str(net.socket), mode]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        yield running
        running.stdin.close()


@pytest.mark.parametrize(("key", "repeated"), [(None, False), ("once", True)])
async def test_a_process_killed_in_mid_call_leaves_the_outcome_unknown_where_repeating_might_do_it_twice(
    net: Net, key: str | None, repeated: bool
) -> None:
    stub = catalogue(net)
    with process(net, "hangs") as hanging:
        assert hanging.stdout is not None
        call = asyncio.create_task(create(stub, key=key))
        assert await asyncio.to_thread(hanging.stdout.readline) == "called in a frame\n"
        os.kill(hanging.pid, signal.SIGKILL)
    with process(net, "answers") as answering:
        assert answering.stdout is not None
        if repeated:
            assert (await call).id == "prod_1"
            assert await asyncio.to_thread(answering.stdout.readline) == "called in a frame\n"
        else:
            assert (await failure(call)).reason == "outcome_unknown"
            assert (await create(stub)).id == "prod_1"
