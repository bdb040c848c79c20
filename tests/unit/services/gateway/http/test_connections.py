"""Connections by themselves: what gives way to what, and what is waited for how long."""

import io
from typing import cast

import pytest

from libs.telemetry import Telemetry
from services.gateway.domain.bounds import ConnectionBounds
from services.gateway.http.connection import Connection
from services.gateway.http.connections import Connections
from tests.support.crowd import Clock

BOUNDS = ConnectionBounds(connections=4, connections_per_client=2)


class Socket:
    """What is left of a connection without aiohttp: it is told to end, and says how."""

    def __init__(self, client: str = "") -> None:
        self.client = client
        self.ended = ""

    def force_close(self) -> None:
        self.ended = "closed"

    def refuse(self, why: str) -> None:
        self.ended = why

    def abort(self) -> None:
        self.ended = "aborted"


class House:
    """Connections, a clock, and a count."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.telemetry = Telemetry("tests", stream=io.StringIO())
        self.connections = Connections(BOUNDS, monotonic=self.clock, telemetry=self.telemetry)

    def open(self, client: str = "") -> Connection:
        """Opens a connection, a moment after the last."""
        self.clock.now += 0.001
        made = cast("Connection", Socket(client))
        self.connections.opened(made)
        return made

    def later(self, seconds: float) -> None:
        """Moves the clock and looks for what has waited too long."""
        self.clock.now += seconds
        self.connections.sweep()


def how(connection: Connection) -> str:
    return cast("Socket", connection).ended


@pytest.fixture
async def house() -> House:
    return House()


async def test_an_answer_that_nobody_takes_is_thrown_away_though_its_connection_was_to_end(house: House) -> None:
    one = house.open()
    house.connections.serves(one)
    house.connections.ends(one)
    house.later(BOUNDS.write_seconds - 1)
    assert how(one) == ""
    house.later(1)
    assert how(one) == "aborted"


async def test_what_was_closed_for_waiting_is_aborted_when_it_does_not_go(house: House) -> None:
    one = house.open()
    house.later(BOUNDS.first_byte_seconds)
    assert how(one) == "closed"
    house.later(BOUNDS.write_seconds)
    assert how(one) == "aborted"


async def test_a_slow_reader_is_waited_for_anew_when_it_reads(house: House) -> None:
    one = house.open()
    house.connections.serves(one)
    for _ in range(3):
        house.connections.writes(one)
        house.later(BOUNDS.write_seconds - 1)
        house.connections.written(one)
    assert how(one) == ""
    house.connections.writes(one)
    house.later(BOUNDS.write_seconds)
    assert how(one) == "aborted"


async def test_who_works_is_never_ended_by_time(house: House) -> None:
    one = house.open()
    house.connections.serves(one)
    house.later(10_000)
    assert how(one) == ""


async def test_the_longest_idle_gives_way_first_then_the_silent_then_half_requests_and_never_who_works(
    house: House,
) -> None:
    half, silent, early, late = (house.open() for _ in range(4))
    for one in (late, early):
        house.connections.serves(one)
    house.connections.rests(early)
    house.connections.rests(late)
    house.connections.begins(half)
    order = []
    for _ in range(4):
        assert house.connections.room("", 0)
        (ended,) = [one for one in (half, silent, early, late) if how(one) and one not in order]
        order.append(ended)
        house.connections.closed(ended)
        working = house.open()
        house.connections.serves(working)
    assert order == [early, late, silent, half]
    assert not house.connections.room("", 0), "all work"


async def test_connections_that_are_being_opened_count(house: House) -> None:
    for _ in range(2):
        house.connections.serves(house.open())
    assert house.connections.room("", 1)
    assert not house.connections.room("", 2)


async def test_a_clients_own_longest_idle_gives_way_and_nobody_elses(house: House) -> None:
    other, own = house.open("b"), house.open("a")
    house.connections.serves(house.open("a"))
    assert house.connections.room("a", 0)
    assert (how(other), how(own)) == ("", "closed")
    house.connections.closed(own)
    house.connections.serves(house.open("a"))
    assert not house.connections.room("a", 0)
    assert house.connections.room("", 0)


async def test_nothing_is_kept_of_what_is_gone(house: House) -> None:
    for client in ("a", "b", ""):
        one = house.open(client)
        house.connections.serves(one)
        house.connections.writes(one)
        house.connections.closed(one)
        # Its last answer may end after it does.
        house.connections.rests(one)
        house.connections.ends(one)
    assert len(house.connections) == 0
    assert (house.connections.of_client("a"), house.connections.of_client("b")) == (0, 0)
    house.later(10_000)
    for state in ("open", "new", "idle", "header", "slow_reader", "ending"):
        assert house.telemetry.registry.get_sample_value("gatefold_gateway_connections", {"state": state}) == 0


async def test_draining_waits_for_who_works_and_closes_the_idle(house: House) -> None:
    idle = house.open()
    house.connections.serves(idle)
    house.connections.rests(idle)
    await house.connections.drain(0)
    assert how(idle) == "closed"
    assert house.connections.draining
