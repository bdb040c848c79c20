"""Attacks on the streams that carry calls between services: frames by hand, sensible or not."""

import asyncio
import io
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from gatefold.billing.v1 import catalogue_pb2
from gatefold.clock.v1 import clock_pb2, clock_pb2_grpc
from gatefold.mux.v1.mux_pb2 import Answer, Call, CarryRequest, CarryResponse, Entry

from libs.caller import Caller, CallerKind, CallerSigner, CallerVerifier, service_caller
from libs.clock import FixedClock, SystemClock
from libs.grpc_server import GrpcServer
from libs.grpc_stack import CALLER_KEY
from libs.hop.config import FRAME_BYTES, METADATA_BYTES, METHOD, HopConfig
from libs.telemetry import Telemetry
from tests.support.certificates import Authority
from tests.support.net import ACCOUNT, DRAINED, KEYS, STAFF, ClockStandIn, Net, never
from tests.support.waiting import PATIENCE_SECONDS, until

DRAINED_METHOD = "/gatefold.clock.v1.ClockService/Drained"
CREATE_METHOD = "/gatefold.billing.v1.CatalogueService/CreateProduct"
AUTH = service_caller("auth", ACCOUNT, live=False, request_id="req_1")
EOF = grpc.aio.EOF  # type: ignore[attr-defined]


def token(issuer: str = "auth", who: Caller = AUTH, audience: str = "billing", **options: Any) -> str:
    keys = options.get("keys", {f"{issuer}>{audience}": KEYS[f"{issuer}>billing"]})
    return CallerSigner(issuer, keys, options.get("clock", SystemClock())).sign(who, audience)


def entry(text: str) -> Entry:
    return Entry(key=CALLER_KEY, value=text.encode())


def drained(number: int, caller_token: str | None = None, **fields: Any) -> Call:
    return Call(id=number, method=DRAINED_METHOD, metadata=[entry(caller_token or token())], **fields)


class Attacker:
    """A stream, and what its other end says."""

    def __init__(self, channel: grpc.aio.Channel, opening: str | None) -> None:
        carry: Any = channel.stream_stream(METHOD, None, None)
        self.stream = carry(metadata=() if opening is None else ((CALLER_KEY, opening),))
        self._answers: list[Answer] = []

    async def send(self, *calls: Call, cancelled: Iterable[int] = ()) -> None:
        await self.stream.write(CarryRequest(calls=calls, cancelled=cancelled).SerializeToString())

    async def answer(self) -> Answer:
        """Returns the next answer."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not self._answers:
                raw = await self.stream.read()
                assert raw is not EOF
                self._answers += CarryResponse.FromString(raw).answers
        return self._answers.pop(0)

    async def ask(self, call: Call) -> Answer:
        await self.send(call)
        return await self.answer()

    async def end(self) -> tuple[grpc.StatusCode, list[Answer]]:
        """Reads to the end; returns how it ended, and what came before."""
        came: list[Answer] = []
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while (raw := await self.stream.read()) is not EOF:
                    came += CarryResponse.FromString(raw).answers
        except grpc.aio.AioRpcError as error:
            return error.code(), came
        return await self.stream.code(), came


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    with tempfile.TemporaryDirectory(prefix="gf-") as directory:
        made = Net(Path(directory), HopConfig(hop_calls=8, hop_bytes=100_000, hop_call_bytes=50_000))
        await made.wire.start()
        await made.serve()
        yield made
        await made.close()


@asynccontextmanager
async def attacking(net: Net, opening: str | None = "") -> AsyncIterator[Attacker]:
    async with grpc.aio.insecure_channel(f"unix:{net.socket}") as channel:
        yield Attacker(channel, token() if opening == "" else opening)


@pytest.fixture
async def attacker(net: Net) -> AsyncIterator[Attacker]:
    async with attacking(net) as made:
        yield made


async def still_serves(net: Net) -> bool:
    async with attacking(net) as honest:
        answer = await honest.ask(drained(1))
        return answer.code == 0 and clock_pb2.DrainedResponse.FromString(answer.payload) == DRAINED


def nothing_is_left(net: Net) -> Iterator[object]:
    assert net.server is not None
    return iter(net.server._hop._streams)


# Who may open a stream.


# Made by each test for itself, because they end after half a minute.
WRONG_TOKENS: dict[str, tuple[Callable[[], str], grpc.StatusCode]] = {
    "nonsense": (lambda: "nonsense", grpc.StatusCode.UNAUTHENTICATED),
    "wrong key": (lambda: token(keys={"auth>billing": (b"x" * 32,)}), grpc.StatusCode.UNAUTHENTICATED),
    "other audience": (lambda: token(audience="notify"), grpc.StatusCode.UNAUTHENTICATED),
    "expired": (lambda: token(clock=FixedClock()), grpc.StatusCode.UNAUTHENTICATED),
    "a person": (lambda: token("auth", STAFF), grpc.StatusCode.PERMISSION_DENIED),
    "another service": (lambda: token("auth", _service("notify")), grpc.StatusCode.PERMISSION_DENIED),
    "not named": (lambda: token("stranger", _service("stranger")), grpc.StatusCode.PERMISSION_DENIED),
}


def _service(name: str) -> Caller:
    return service_caller(name, ACCOUNT, request_id="r")


@pytest.mark.parametrize("wrong", WRONG_TOKENS)
async def test_a_stream_is_opened_by_named_services_alone(net: Net, wrong: str) -> None:
    opening, code = WRONG_TOKENS[wrong]
    async with attacking(net, opening()) as attacker:
        ended, came = await attacker.end()

    assert (ended, came) == (code, [])
    assert await still_serves(net)


async def test_nobody_in_particular_opens_no_stream(net: Net) -> None:
    async with attacking(net, None) as attacker:
        assert await attacker.end() == (grpc.StatusCode.UNAUTHENTICATED, [])


async def test_the_edge_opens_streams_as_itself_and_not_as_whom_it_serves(net: Net) -> None:
    async with attacking(net, token("gateway", STAFF)) as attacker:
        assert await attacker.end() == (grpc.StatusCode.PERMISSION_DENIED, [])


# Who may make a call in it.


@pytest.mark.parametrize("wrong", WRONG_TOKENS)
async def test_who_opened_the_stream_counts_for_no_call_in_it(net: Net, attacker: Attacker, wrong: str) -> None:
    caller_token, code = WRONG_TOKENS[wrong]

    answer = await attacker.ask(drained(1, caller_token()))

    assert answer.code == code.value[0]
    assert net.clock.calls == 0
    assert (await attacker.ask(drained(2))).code == 0


@pytest.mark.parametrize("key", [None, CALLER_KEY + "-bin", CALLER_KEY.upper(), "x-" + CALLER_KEY])
async def test_a_call_without_a_caller_is_nobodys(net: Net, attacker: Attacker, key: str | None) -> None:
    metadata = [] if key is None else [Entry(key=key, value=token().encode())]

    answer = await attacker.ask(Call(id=1, method=DRAINED_METHOD, metadata=metadata))

    assert answer.code == grpc.StatusCode.UNAUTHENTICATED.value[0]
    assert net.clock.calls == 0


async def test_scopes_of_the_call_before_are_not_those_of_the_next(net: Net, attacker: Attacker) -> None:
    def create(number: int, who: Caller) -> Call:
        return Call(id=number, method=CREATE_METHOD, metadata=[entry(token("gateway", who))])

    first = await attacker.ask(create(1, STAFF))
    second = await attacker.ask(create(2, replace(STAFF, scopes=frozenset({"catalogue:read"}))))
    third = await attacker.ask(create(3, Caller(CallerKind.ANONYMOUS, "anonymous", request_id="r")))

    denied = grpc.StatusCode.PERMISSION_DENIED.value[0]
    assert [first.code, second.code, third.code] == [0, denied, denied]
    assert net.catalogue.calls == 1


async def test_a_closed_service_refuses_changes_in_frames_too() -> None:
    with tempfile.TemporaryDirectory(prefix="gf-") as directory:
        net = Net(Path(directory))
        await net.wire.start()
        await net.serve(closed=True)
        async with attacking(net) as attacker:
            advance = Call(id=2, method="/gatefold.clock.v1.ClockService/Advance", metadata=[entry(token())])
            answers = [await attacker.ask(drained(1)), await attacker.ask(advance)]
        await net.close()

    assert [answer.code for answer in answers] == [0, grpc.StatusCode.UNAVAILABLE.value[0]]
    assert net.clock.calls == 1


async def test_a_stolen_caller_is_of_no_use_in_the_stream_of_another_service(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "gatefold")
    stand_in = ClockStandIn()
    server = GrpcServer(
        "billing",
        "127.0.0.1:0",
        verifier=CallerVerifier("billing", KEYS, SystemClock()),
        telemetry=Telemetry("billing", stream=io.StringIO()),
        tls=authority.issue("billing"),
    )
    server.add(clock_pb2_grpc.add_ClockServiceServicer_to_server, stand_in)
    await server.start()
    files = authority.issue("notify")
    ca, certificate, key = (path.read_bytes() for path in (files.ca, files.certificate, files.key))
    credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    options = (("grpc.ssl_target_name_override", "billing"),)
    async with grpc.aio.secure_channel(f"127.0.0.1:{server.port}", credentials, options) as channel:
        thief = Attacker(channel, token("notify", service_caller("notify", None, request_id="r")))
        answer = await thief.ask(drained(1, token("auth")))
        pretender = Attacker(channel, token("auth"))
        ended, _ = await pretender.end()
    await server.drain(0)

    assert answer.code == grpc.StatusCode.UNAUTHENTICATED.value[0]
    assert ended is grpc.StatusCode.UNAUTHENTICATED
    assert stand_in.calls == 0


# Frames that break the rules.


@pytest.mark.parametrize(
    "frames",
    [
        [b"\xff\xff\xff"],
        [b"\x0a\x05ab"],
        [CarryRequest(calls=[drained(0)]).SerializeToString()],
        [CarryRequest(calls=[drained(1), drained(1)]).SerializeToString()],
        [CarryRequest(calls=[drained(5)]).SerializeToString(), CarryRequest(calls=[drained(4)]).SerializeToString()],
        # A key that is no text.
        [b"\x0a\x09\x08\x01\x22\x05\x0a\x03\xff\xfe\xfd"],
    ],
    ids=["nonsense", "cut short", "id 0", "twice", "falling", "a key that is no text"],
)
async def test_who_breaks_the_rules_has_the_stream_ended_and_its_calls_with_it(
    net: Net, attacker: Attacker, frames: list[bytes]
) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def answer(request: object) -> clock_pb2.DrainedResponse:
        if began.is_set():
            return DRAINED
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    if len(frames[0]) < 20:
        # Those that can be read begin calls of their own.
        net.clock.answer = answer
        await attacker.send(drained(1))
        await began.wait()
    for frame in frames:
        await attacker.stream.write(frame)

    code, _ = await attacker.end()

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    if began.is_set():
        async with asyncio.timeout(60):
            await ended.wait()
    assert await still_serves(net)
    await until(lambda: not list(nothing_is_left(net)))


async def test_nonsense_before_the_window_has_come_ends_the_stream_too(net: Net) -> None:
    async def attack() -> grpc.StatusCode:
        async with attacking(net) as attacker:
            await attacker.stream.write(b"\xff")
            code, _ = await attacker.end()
            return code

    codes = await asyncio.gather(*(attack() for _ in range(100)))

    assert set(codes) == {grpc.StatusCode.INVALID_ARGUMENT}


@pytest.mark.parametrize(
    "method",
    [
        "",
        "/",
        "Drained",
        "/gatefold.clock.v1.ClockService/",
        "/gatefold.clock.v1.ClockService/drained",
        "/grpc.health.v1.Health/Check",
        "/gatefold.privacy.v1.SubjectData/Export",
        METHOD,
        "/" + "x" * 60_000,
    ],
)
async def test_there_are_no_other_methods_than_those_with_one_answer(net: Net, attacker: Attacker, method: str) -> None:
    answer = await attacker.ask(Call(id=1, method=method, metadata=[entry(token())]))

    assert answer.code == grpc.StatusCode.UNIMPLEMENTED.value[0]
    assert (await attacker.ask(drained(2))).code == 0


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"payload": b"\xff\xff"}, grpc.StatusCode.INTERNAL),
        ({"payload": bytes(50_001)}, grpc.StatusCode.RESOURCE_EXHAUSTED),
        ({"payload": bytes(1_000_000)}, grpc.StatusCode.RESOURCE_EXHAUSTED),
        ({"metadata": [Entry(key="x", value=bytes(METADATA_BYTES))]}, grpc.StatusCode.RESOURCE_EXHAUSTED),
        ({"metadata": [Entry(key=f"x-{n}") for n in range(20_000)]}, grpc.StatusCode.RESOURCE_EXHAUSTED),
        ({"metadata": [Entry(key="x", value=b"\xff")]}, grpc.StatusCode.INTERNAL),
        ({"metadata": [Entry(key="traceparent", value=b"00-zz")]}, grpc.StatusCode.UNAUTHENTICATED),
    ],
)
async def test_a_call_that_cannot_be_taken_is_answered_and_harms_no_other(
    net: Net, attacker: Attacker, fields: dict[str, Any], code: grpc.StatusCode
) -> None:
    bad = Call(id=1, method=DRAINED_METHOD, **{"metadata": [entry(token())], **fields})
    await attacker.send(bad, drained(2))

    answers = {answer.id: answer.code for answer in [await attacker.answer(), await attacker.answer()]}

    assert answers == {1: code.value[0], 2: 0}


async def test_a_frame_beyond_every_bound_ends_the_stream_and_nothing_else(net: Net, attacker: Attacker) -> None:
    await attacker.send(Call(id=1, method="x", payload=bytes(17 * 2**20)))

    code, _ = await attacker.end()

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await still_serves(net)


@pytest.mark.parametrize("timeout_micros", [0, 2**64 - 1])
async def test_deadlines_of_any_length_are_taken(attacker: Attacker, timeout_micros: int) -> None:
    assert (await attacker.ask(drained(1, timeout_micros=timeout_micros))).code == 0


async def test_a_deadline_is_kept_without_whoever_asked_for_it(net: Net, attacker: Attacker) -> None:
    ended = asyncio.Event()
    net.clock.answer = never(ended)

    late = await attacker.ask(drained(1, timeout_micros=200_000))

    assert late.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
    assert ended.is_set() or net.clock.calls == 0


@pytest.mark.parametrize("length", [10, 600_000])
async def test_metadata_of_an_answer_goes_with_its_last_part(net: Net, attacker: Attacker, length: int) -> None:
    async def answer(request: object) -> clock_pb2.DrainedResponse:
        net.clock.contexts[-1].set_trailing_metadata((("x-text", "a"), ("x-bytes-bin", b"\xff")))
        return clock_pb2.DrainedResponse(waiting={"x" * length: 1})

    net.clock.answer = answer
    await attacker.send(drained(1))
    parts = [await attacker.answer()]
    while parts[-1].more:
        parts.append(await attacker.answer())

    whole = clock_pb2.DrainedResponse.FromString(b"".join(part.payload for part in parts))
    assert len(next(iter(whole.waiting))) == length
    assert [len(part.trailing) for part in parts] == [0] * (len(parts) - 1) + [2]
    assert all(len(part.payload) <= FRAME_BYTES for part in parts)


async def test_an_answer_with_too_much_metadata_is_not_sent(net: Net, attacker: Attacker) -> None:
    async def answer(request: object) -> clock_pb2.DrainedResponse:
        net.clock.contexts[-1].set_trailing_metadata((("x-text", "a" * METADATA_BYTES),))
        return DRAINED

    net.clock.answer = answer

    assert (await attacker.ask(drained(1))).code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]


async def test_cancelling_what_is_not_under_way_does_nothing(net: Net, attacker: Attacker) -> None:
    await attacker.send(cancelled=range(100_000))
    await attacker.send(drained(1), cancelled=[0, 2, 2**64 - 1])

    answer = await attacker.answer()
    assert (answer.id, answer.code) == (1, 0)
    await attacker.send(cancelled=[1, 1, 1])
    assert (await attacker.ask(drained(2))).code == 0


async def test_calls_begun_and_cancelled_in_one_frame_are_answered_and_leave_nothing(
    net: Net, attacker: Attacker
) -> None:
    await attacker.send(*(drained(number) for number in range(1, 9)), cancelled=range(1, 9))

    codes = {(await attacker.answer()).code for _ in range(8)}

    assert codes == {grpc.StatusCode.CANCELLED.value[0]}
    assert net.clock.calls == 0
    assert (await attacker.ask(drained(9))).code == 0


# Taking more than one's share.


async def test_calls_beyond_the_window_are_refused_and_not_begun(net: Net, attacker: Attacker) -> None:
    go_on = asyncio.Event()

    async def answer(request: object) -> clock_pb2.DrainedResponse:
        await go_on.wait()
        return DRAINED

    net.clock.answer = answer
    await attacker.send(*(drained(number) for number in range(1, 101)))

    refused = [await attacker.answer() for _ in range(92)]
    go_on.set()
    served = [await attacker.answer() for _ in range(8)]

    assert all(one.refused for one in refused)
    assert [one.refused or one.code for one in served] == [0] * 8
    assert net.clock.calls == 8


async def test_bytes_beyond_the_window_are_refused_and_not_begun(net: Net, attacker: Attacker) -> None:
    go_on = asyncio.Event()

    async def answer(request: object) -> None:
        await go_on.wait()

    net.catalogue.answer = answer
    request = catalogue_pb2.CreateProductRequest(name="n" * 40_000).SerializeToString()
    calls = [
        Call(id=number, method=CREATE_METHOD, metadata=[entry(token("gateway", STAFF))], payload=request)
        for number in range(1, 6)
    ]
    await attacker.send(*calls)

    refused = [await attacker.answer() for _ in range(3)]
    go_on.set()

    assert all(one.refused for one in refused)
    assert [(await attacker.answer()).code for _ in range(2)] == [0, 0]
    assert net.catalogue.calls == 2


async def test_who_does_not_read_is_not_read_from_and_costs_no_more_than_a_bound(net: Net, attacker: Attacker) -> None:
    size, count = 40_000, 1_000

    async def answer(request: object) -> clock_pb2.DrainedResponse:
        return clock_pb2.DrainedResponse(waiting={"x" * size: 1})

    net.clock.answer = answer

    async def flood() -> None:
        for number in range(1, count + 1):
            await attacker.send(drained(number))

    flooding = asyncio.create_task(flood())
    assert net.server is not None
    await until(lambda: [stream for stream in net.server._hop._streams if stream._crowded is not None])  # type: ignore[union-attr]
    (stream,) = net.server._hop._streams
    assert net.clock.calls < count / 2
    # What waits, and the calls that were under way when it became too much.
    assert stream._outbox_bytes <= 100_000 + 8 * (size + 100)

    # Once it reads, nothing is missing: what was taken is answered, and the rest refused or taken later.
    answers = [await attacker.answer() for _ in range(count)]
    await flooding
    assert sorted(one.id for one in answers) == list(range(1, count + 1))
    assert {one.code for one in answers} == {0}


async def test_who_goes_away_leaves_nothing_running(net: Net) -> None:
    began, ended = 0, 0

    async def answer(request: object) -> clock_pb2.DrainedResponse:
        nonlocal began, ended
        began += 1
        try:
            await asyncio.Event().wait()
        finally:
            ended += 1
        raise AssertionError

    net.clock.answer = answer
    async with attacking(net) as attacker:
        await attacker.send(*(drained(number) for number in range(1, 9)))
        await until(lambda: began == 8)

    await until(lambda: ended == 8)
    await until(lambda: not list(nothing_is_left(net)))


async def test_who_says_nothing_more_is_still_answered(net: Net, attacker: Attacker) -> None:
    await attacker.send(*(drained(number) for number in range(1, 9)))
    await attacker.stream.done_writing()

    code, came = await attacker.end()

    assert code is grpc.StatusCode.OK
    assert sorted(one.id for one in came) == list(range(1, 9))


async def test_who_takes_no_note_of_a_drain_is_refused(net: Net, attacker: Attacker) -> None:
    assert (await attacker.ask(drained(1))).code == 0
    server = net.server
    assert server is not None

    draining = asyncio.create_task(server.drain(60))
    await until(lambda: server._hop._draining)
    late = await attacker.ask(drained(2))
    await attacker.stream.done_writing()
    await draining

    assert late.refused
    assert net.clock.calls == 1


async def test_who_takes_no_note_of_a_drain_cannot_hold_it_up(net: Net, attacker: Attacker) -> None:
    assert (await attacker.ask(drained(1))).code == 0
    assert net.server is not None

    async with asyncio.timeout(60):
        await net.server.drain(0.2)

    code, _ = await attacker.end()
    assert code is not grpc.StatusCode.OK
