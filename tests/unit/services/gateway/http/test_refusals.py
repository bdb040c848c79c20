"""Refusals that hold for a moment: for how long, how many, and what is said as time goes on."""

from types import SimpleNamespace
from typing import Any

from libs.clock import FixedClock
from libs.durations import Durations
from libs.telemetry import SECONDS as BOUNDS
from services.gateway.http.activity import Still
from services.gateway.http.answer import Answer
from services.gateway.http.exchange import Exchange, RequestIds
from services.gateway.http.limits.decision import Decision, State
from services.gateway.http.limits.limit import Limit
from services.gateway.http.limits.refusal import Refusal
from services.gateway.http.refusals import KEPT_SECONDS, LONGEST_KEPT, MOST_KEPT, Refusals

SECONDS = Durations(BOUNDS)
STILL: Any = None


class World:
    """Refusals, a clock, and what was told."""

    def __init__(self) -> None:
        self.now = 100.0
        self.told: list[tuple[str, float]] = []
        self.remembered = 0
        self.refusals = Refusals(
            RequestIds(lambda size: bytes(range(256)) * (size // 256)),
            self,
            clock=FixedClock(),
            monotonic=lambda: self.now,
        )

    def repeat(self, former: Still, request_id: str, at: float, seconds: float) -> None:
        self.told.append((request_id, at))

    def remember(self) -> None:
        self.remembered += 1

    def refuse(
        self, request: Any, *, reason: str = "route_unknown", refusal: Refusal | None = None, **rest: Any
    ) -> None:
        exchange = Exchange(request, "first", self.now, 0.0, request.raw_path, "", "192.0.2.1", None)
        exchange.problem, exchange.refusal = reason, refusal
        for name, value in rest.items():
            setattr(exchange, name, value)
        answer = Answer(404, {"X-Request-Id": "first"}, b'{"instance":"urn:first","end":1}')
        self.refusals.keep(exchange, answer, STILL, SECONDS, self.remember)


def request(path: str = "/a", *headers: tuple[bytes, bytes], peer: str = "192.0.2.1", **rest: Any) -> Any:
    return SimpleNamespace(
        method="GET",
        raw_path=path,
        raw_headers=headers,
        headers={name.decode(): value.decode() for name, value in headers},
        version=(1, 1),
        protocol=SimpleNamespace(peer=(peer, 1)),
        body_exists=False,
        **rest,
    )


def test_it_is_said_again_with_a_name_of_its_own_until_its_time_is_over() -> None:
    world = World()
    world.refuse(request())

    world.now += KEPT_SECONDS - 0.001
    answer = world.refusals.again(request())
    assert answer is not None
    name = answer.headers["X-Request-Id"]
    assert name != "first"
    assert answer.body == f'{{"instance":"urn:{name}","end":1}}'.encode()
    assert world.told == [(name, FixedClock().wall().timestamp())]
    assert world.remembered == 1
    world.now += 0.001
    assert world.refusals.again(request()) is None


def test_a_name_that_the_client_gives_is_kept() -> None:
    world, named = World(), request("/a", (b"X-Request-Id", b"first"))
    world.refuse(named)

    answer = world.refusals.again(named)

    assert answer is not None
    assert answer.headers["X-Request-Id"] == "first"


def test_only_who_sends_the_same_from_the_same_place_is_told() -> None:
    world = World()
    world.refuse(request("/a", (b"A", b"1")))

    others = [
        request("/b", (b"A", b"1")),
        request("/a", (b"A", b"2")),
        request("/a", (b"A", b"1"), (b"A", b"1")),
        request("/a", (b"A", b"1"), peer="192.0.2.2"),
    ]

    assert [world.refusals.again(other) for other in others] == [None] * 4
    assert world.refusals.again(request("/a", (b"A", b"1"))) is not None


def test_what_is_left_of_a_quota_is_said_as_of_now_and_no_longer_than_it_holds() -> None:
    world = World()
    limit = Limit("read-server", "key", 10, 10)
    now = round(world.now * 1_000_000)
    decided = Decision([limit], [State(9_300_000, 700_000)], refused_until=now + 700_000)
    world.refuse(request(), reason="rate_limited", refusal=Refusal(decided, 1, now))

    said = []
    for _ in range(3):
        answer = world.refusals.again(request())
        assert answer is not None
        said.append((answer.headers["RateLimit"], answer.headers["Retry-After"]))
        world.now += 0.2
    assert said == [(f'"read-server";r={units};t={left}', "1") for units, left in ((0, 10), (0, 10), (1, 9))]
    world.now = 100.69
    later = world.refusals.again(request())
    assert later is not None
    world.now = 100.7
    assert world.refusals.again(request()) is None


def test_what_is_counted_against_quotas_is_counted_again_or_looked_at_anew() -> None:
    world = World()
    counted: list[dict[str, str] | None] = [{"RateLimit": "a"}, {"RateLimit": "b"}, None]
    world.refuse(request(), reason="scope_missing", recount=lambda: counted.pop(0))

    said = [world.refusals.again(request()) for _ in range(3)]

    assert [None if answer is None else answer.headers["RateLimit"] for answer in said] == ["a", "b", None]
    assert len(world.told) == 2


def test_what_cannot_be_said_again_is_not_kept() -> None:
    world = World()
    world.refuse(request(), reason="scope_missing")  # said before it was counted
    world.refuse(request(), reason="scope_missing", recount=dict, called=True)  # by the service, which may change
    world.refuse(request(), recount=dict)
    world.refuse(request(), reason="rate_limited")  # refused by the store just now, which will be asked again
    world.refuse(request("/" + "x" * LONGEST_KEPT))
    world.refuse(request("/a", (b"A", b"x" * LONGEST_KEPT)))
    posted = request()
    posted.body_exists = True
    world.refuse(posted)

    assert len(world.refusals) == 0


def test_a_flood_of_different_requests_is_kept_within_bounds_and_forgotten() -> None:
    world = World()
    for number in range(MOST_KEPT + 50):
        world.refuse(request(f"/{number}"))

    assert len(world.refusals) == MOST_KEPT
    assert world.refusals.again(request("/0")) is None
    assert world.refusals.again(request(f"/{MOST_KEPT}")) is not None
    world.refusals.forget()
    assert world.refusals.again(request(f"/{MOST_KEPT}")) is None
