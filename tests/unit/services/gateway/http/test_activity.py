"""What is told of requests, and to whom: what is kept of callers is what would be found out anew."""

import io
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from gatefold.activity.v1.activity_pb2 import Activity

from libs import ids
from libs.activity import ActivityStream, Pseudonyms, shard_of
from libs.caller import Caller, CallerKind
from libs.clock import FixedClock
from libs.telemetry import Telemetry
from services.gateway.http import activity
from services.gateway.http.activity import Activities
from services.gateway.http.clients import Clients
from services.gateway.http.exchange import Exchange
from services.gateway.http.places import Places

HIDDEN = Pseudonyms("pepper")
READER = Caller(
    CallerKind.SUBSCRIBER, "subj_1", account=UUID(int=7), subject=UUID(int=1), session=UUID(int=9), scopes=frozenset()
)


class World:
    """Activities, and what they became."""

    def __init__(self) -> None:
        telemetry = Telemetry("tests", stream=io.StringIO())
        unused: Any = None
        self.stream = ActivityStream(unused, telemetry)
        self.clients = Clients(HIDDEN, Places(None, None, telemetry))
        self.activities = Activities(self.stream, HIDDEN, self.clients, clock=FixedClock())

    def exchange(self, caller: Caller | None, address: str = "192.0.2.1", agent: str = "Firefox/1") -> Exchange:
        request: Any = SimpleNamespace(method="GET")
        made = Exchange(request, "r", 0.0, 1_000_000.25, "/a", "", address, None, agent)
        made.client, made.program = self.clients.of(address), self.clients.program(agent)
        made.caller = caller
        return made

    def told(self) -> list[tuple[int, Activity]]:
        """Returns what was told since it was asked last, with the shards."""
        found = [(shard, Activity.FromString(packed)) for shard, packed in self.stream._held]
        self.stream._held.clear()
        return found

    def one(self, caller: Caller | None, status: int = 200, **rest: Any) -> Activity:
        self.activities.record(self.exchange(caller, **rest), status, seconds=0.5, body_bytes=12)
        return self.told()[0][1]


def test_callers_who_differ_in_anything_that_is_told_are_told_apart() -> None:
    world = World()
    others = [
        READER,
        replace(READER, actor="subj_2"),
        replace(READER, account=UUID(int=8)),
        replace(READER, session=UUID(int=10)),
        replace(READER, session=None),
        replace(READER, kind=CallerKind.STAFF),
        Caller(CallerKind.ANONYMOUS, "anonymous"),
        None,
    ]
    for caller in (*others, *reversed(others)):
        one = world.one(caller)
        kind = caller.kind if caller else None
        assert one.caller_kind == (kind.name if kind else "")
        assert one.account_id == (ids.encode("acct", caller.account) if caller and caller.account else "")
        known = caller is not None and kind is not CallerKind.ANONYMOUS
        assert one.actor_hash == (HIDDEN.of("actor", caller.actor) if caller and known else b"")
        session = ids.encode("ses", caller.session) if caller and caller.session else ""
        assert one.session_hash == HIDDEN.of("session", session)
        assert bool(one.device_hash) is bool(session)


def test_a_device_is_a_persons_with_a_program() -> None:
    world = World()
    devices = {world.one(READER, agent=agent).device_hash for agent in ("Firefox/1", "Chrome/1", "Firefox/2", "")}
    assert len(devices) == 3, "a version makes no other device"


def test_what_moves_is_said_anew_each_time() -> None:
    world = World()
    exchange = world.exchange(READER)
    exchange.problem, exchange.values, exchange.body_bytes = "not_found", ("a", "b"), 3
    world.activities.record(exchange, 404, seconds=0.5, body_bytes=12)
    still = world.activities.still(exchange, 404, body_bytes=12)
    world.activities.repeat(still, "again", 2_000_000.0, 0.25)
    (_, first), (_, again) = world.told()
    assert (first.request_id, first.duration_micros, first.time.seconds, first.time.nanos) == (
        "r",
        500_000,
        1_000_000,
        250_000_000,
    )
    assert (again.request_id, again.duration_micros, again.time.seconds, again.time.nanos) == (
        "again",
        250_000,
        2_000_000,
        0,
    )
    assert first.target_hash == HIDDEN.of("target", "a/b")
    for moving in ("time", "request_id", "duration_micros"):
        first.ClearField(moving)  # type: ignore[arg-type]
        again.ClearField(moving)  # type: ignore[arg-type]
    assert first == again
    assert (again.problem_reason, again.http_response_status_code, again.http_request_body_size) == (
        "not_found",
        404,
        3,
    )
    assert again.http_response_body_size == 12
    plain = world.one(None)
    assert (plain.problem_reason, plain.target_hash, plain.http_request_body_size) == ("", b"", 0)


def test_the_shard_is_the_accounts_and_the_network_is_told_now_and_then_who_was_let_in() -> None:
    world = World()
    addresses = [f"192.0.{number}.1" for number in range(64)]
    home = shard_of(Activity(account_id=ids.encode("acct", UUID(int=7))))
    apart = next(one for one in addresses if world.clients.of(one).shard != home)
    same = next(one for one in addresses if world.clients.of(one).shard == home)

    def told(address: str, caller: Caller | None, status: int) -> list[tuple[int, int]]:
        world.activities.record(world.exchange(caller, address), status, seconds=0.5, body_bytes=0)
        return [(shard, one.reach) for shard, one in world.told()]

    around = world.clients.of(apart).shard
    whole, platform = Activity.REACH_UNSPECIFIED, Activity.REACH_PLATFORM
    assert told(apart, READER, 403) == [(home, whole)]
    assert told(apart, replace(READER, kind=CallerKind.SECRET_KEY), 200) == [(home, whole)]
    assert told(apart, READER, 200) == [(home, whole), (around, platform)]
    assert told(apart, READER, 200) == [(home, whole)]
    assert told(same, READER, 200) == [(home, whole)]
    assert told("", READER, 200) == [(home, whole)]
    assert told(apart, None, 404) == [(around, whole)]


def test_callers_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity, "_MOST_REMEMBERED", 10)
    world = World()
    for number in range(100):
        world.one(replace(READER, actor=f"subj_{number}"))
        assert len(world.activities._senders) <= 10


def test_what_could_not_be_read_is_told_without_a_method() -> None:
    world = World()
    world.activities.record_unreadable("192.0.2.1", "r", 400, "request_malformed")
    [(shard, one)] = world.told()
    assert (one.http_request_method, one.http_response_status_code, one.problem_reason) == (
        "_OTHER",
        400,
        "request_malformed",
    )
    assert one.client_address_hash == HIDDEN.of("address", "192.0.2.1")
    assert shard == shard_of(one)
    assert one.time.seconds == int(FixedClock().wall().timestamp())
