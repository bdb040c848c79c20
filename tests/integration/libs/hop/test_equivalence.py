"""Calls in frames do what gRPC calls of their own do: the same random scenarios go both ways and are compared."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from gatefold.billing.v1 import catalogue_pb2, catalogue_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import trace

from libs import caller, deadline, errors
from libs.caller import Caller, CallerKind
from libs.errors import GatefoldError, Kind, Violation
from libs.hop.config import FRAME_BYTES, HopConfig
from tests.support.net import STAFF, Net
from tests.support.waiting import until

PATIENCE_SECONDS = 60.0

CATALOGUE = catalogue_pb2.DESCRIPTOR.services_by_name["CatalogueService"]

_texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=30)
_names = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
_failures = st.builds(
    lambda kind, reason, detail, violations, metadata, wait: GatefoldError(
        kind, reason, detail, violations=violations, metadata=metadata, retry_after_seconds=wait
    ),
    st.sampled_from(Kind),
    _names,
    _texts,
    st.lists(st.builds(Violation, _names, _names, _texts), max_size=3),
    st.dictionaries(_names, _texts, max_size=3),
    st.none() | st.integers(0, 1000),
)


@dataclass(frozen=True)
class Act:
    """What one call does: what is sent, as whom, and how it ends."""

    ends: str
    """`answers`, `fails`, `breaks`, `aborts`, `codes`, `is cancelled`, `times out`."""
    failure: GatefoldError
    size: int
    who: Caller
    extra: tuple[tuple[str, str | bytes], ...]
    code: grpc.StatusCode
    text: str


_who = st.builds(
    lambda kind, scopes, key: replace(STAFF, kind=kind, scopes=frozenset(scopes), idempotency_key=key),
    st.sampled_from([CallerKind.STAFF, CallerKind.STAFF, CallerKind.STAFF, CallerKind.SUBSCRIBER, CallerKind.SERVICE]),
    st.sampled_from([("catalogue:write",), ("catalogue:write",), ("catalogue:write",), ()]),
    st.none() | st.just("key"),
)
_extras = st.lists(
    st.tuples(st.just("x-text"), st.text("abc XYZ.-", min_size=1, max_size=9).map(str.strip).filter(bool))
    | st.tuples(st.just("x-bytes-bin"), st.binary(max_size=20)),
    max_size=3,
).map(tuple)
_acts = st.lists(
    st.builds(
        Act,
        st.sampled_from(
            ["answers", "answers", "fails", "fails", "breaks", "aborts", "codes", "is cancelled", "times out"]
        ),
        _failures,
        st.sampled_from([0, 1, 100, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 3 * FRAME_BYTES]),
        _who,
        _extras,
        st.sampled_from([code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]),
        _texts,
    ),
    min_size=1,
    max_size=8,
)


@dataclass
class Seen:
    """What both sides saw of the calls of one run, by their numbers."""

    results: dict[int, Any] = field(default_factory=dict)
    begun: dict[int, Any] = field(default_factory=dict)
    ended: dict[int, str] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)


class Actor(catalogue_pb2_grpc.CatalogueServiceServicer):
    """Does what a call's act says, when the test lets it."""

    def __init__(self) -> None:
        self.acts: list[Act] = []
        self.gates: list[asyncio.Event] = []
        self.seen = Seen()

    def start(self, acts: list[Act]) -> Seen:
        """Begins a run."""
        self.acts, self.gates, self.seen = acts, [asyncio.Event() for _ in acts], Seen()
        return self.seen

    async def CreateProduct(self, request: catalogue_pb2.CreateProductRequest, context: Any) -> catalogue_pb2.Product:
        number, seen = int(request.external_id), self.seen
        act = self.acts[number]
        remaining = deadline.remaining()
        seen.begun[number] = (
            caller.current(),
            request.SerializeToString(deterministic=True),
            sorted((key, value) for key, value in context.invocation_metadata() if key.startswith("x-")),
            trace.get_current_span().get_span_context().trace_id,
            remaining is not None and 0 < remaining <= PATIENCE_SECONDS + 1,
            {name: list(values) for name, values in context.auth_context().items()},
        )
        try:
            await self.gates[number].wait()
            return await self._act(act, context)
        except asyncio.CancelledError:
            seen.ended[number] = "cancelled"
            raise
        finally:
            seen.ended.setdefault(number, "finished")
            seen.order.append(number)

    async def _act(self, act: Act, context: Any) -> catalogue_pb2.Product:
        if act.ends == "fails":
            raise act.failure
        if act.ends == "breaks":
            raise RuntimeError(act.text)
        if act.ends == "aborts":
            await context.abort(act.code, act.text, act.extra)
        if act.ends == "codes":
            context.set_code(act.code)
            context.set_details(act.text)
        context.set_trailing_metadata(act.extra)
        return catalogue_pb2.Product(name="n" * act.size)


def _whole(name: str) -> Any:
    async def unimplemented(self: object, request: object, context: object) -> None:
        raise errors.internal("not_in_this_test", "This stand-in does not answer that.")

    return unimplemented


for _method in CATALOGUE.methods:
    if _method.name != "CreateProduct":
        setattr(Actor, _method.name, _whole(_method.name))


class Both:
    """One server, and two clients of it: one that speaks in frames and one that does not."""

    def __init__(self, directory: Path) -> None:
        self.net = Net(directory)
        self.actor = Actor()
        self.net.catalogue = self.actor  # type: ignore[assignment]

    async def start(self) -> None:
        await self.net.wire.start()
        await self.net.serve()
        framed, plain = self.net.channel("gateway"), self.net.channel("gateway", hop=HopConfig(hop=False))
        self.ways = [catalogue_pb2_grpc.CatalogueServiceStub(channel) for channel in (framed, plain)]

    async def run(self, stub: Any, acts: list[Act], order: list[int]) -> Seen:
        """Makes all calls at once, and lets them end in that order."""
        seen = self.actor.start(acts)
        with self.net.client_telemetry.tracer.start_as_current_span("outer") as outer:
            calls = [asyncio.create_task(self._call(stub, number, act, seen)) for number, act in enumerate(acts)]
            trace_id = outer.get_span_context().trace_id
        # Who is not let in ends at once, and who times out may do so before it began.
        lasting = [n for n, act in enumerate(acts) if act.ends != "times out"]
        await until(lambda: all(n in seen.begun or n in seen.results for n in lasting))
        for number in order:
            if acts[number].ends == "times out":
                continue
            if acts[number].ends == "is cancelled":
                calls[number].cancel()
            else:
                self.actor.gates[number].set()
            await asyncio.wait((calls[number],))
            await until(lambda number=number: number not in seen.begun or number in seen.ended)
        await asyncio.gather(*calls, return_exceptions=True)
        await until(lambda: seen.begun.keys() == seen.ended.keys())
        for number, begun in seen.begun.items():
            assert begun[3] == trace_id
            seen.begun[number] = (*begun[:3], *begun[4:])
        return seen

    async def _call(self, stub: Any, number: int, act: Act, seen: Seen) -> None:
        timeout = 0.1 if act.ends == "times out" else PATIENCE_SECONDS
        request = catalogue_pb2.CreateProductRequest(
            name="n" * (act.size if act.size < FRAME_BYTES else 1), external_id=str(number)
        )
        # Who is not let in might learn of it before the time is over, or after.
        who = STAFF if act.ends == "times out" else act.who
        with caller.acting(replace(who, request_id=f"req_{number}")):
            try:
                answer = await stub.CreateProduct(request, timeout=timeout, metadata=act.extra)
                seen.results[number] = answer.SerializeToString(deterministic=True)
            except GatefoldError as error:
                # On a busy machine the time is over before anything was sent, which says so in other words.
                seen.results[number] = error.kind if act.ends == "times out" else vars(error)
            except asyncio.CancelledError:
                seen.results[number] = "cancelled"
                raise


@pytest.fixture(scope="module")
async def both() -> AsyncIterator[Both]:
    with tempfile.TemporaryDirectory(prefix="gf-") as directory:
        made = Both(Path(directory))
        await made.start()
        yield made
        await made.net.close()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
async def test_calls_in_frames_do_what_calls_of_their_own_do(both: Both, data: st.DataObject) -> None:
    acts = data.draw(_acts)
    order = data.draw(st.permutations(range(len(acts))))
    framed, plain = [await both.run(stub, acts, order) for stub in both.ways]

    assert framed.results == plain.results
    lasting = [n for n, act in enumerate(acts) if act.ends != "times out"]
    assert {n: framed.begun.get(n) for n in lasting} == {n: plain.begun.get(n) for n in lasting}
    assert {n: framed.ended.get(n) for n in lasting} == {n: plain.ended.get(n) for n in lasting}
    assert [n for n in framed.order if n in lasting] == [n for n in plain.order if n in lasting]
    for seen in (framed, plain):
        assert {seen.ended[n] for n in seen.ended if n not in lasting} <= {"cancelled"}
    assert both.net.streams == both.net.hop.hop_streams
