"""Who is refused again and again waits for it, and nobody else does."""

import asyncio

import pytest

from services.gateway.domain.bounds import ConnectionBounds
from services.gateway.http.restraint import Restraint
from tests.support.crowd import Clock
from tests.support.waiting import until

BOUNDS = ConnectionBounds(refusals_per_client=2, refusal_seconds=3600)
SOON = ConnectionBounds(refusals_per_client=2, refusal_seconds=0.001)


@pytest.fixture
async def clock() -> Clock:
    return Clock()


async def test_few_refusals_are_told_at_once_in_every_second(clock: Clock) -> None:
    restraint: Restraint[str] = Restraint(BOUNDS, monotonic=clock)
    for _ in range(3):
        for _ in range(2):
            await restraint.hold("connection", "203.0.113.7")
        clock.now += 1
    assert len(restraint) == 0


async def test_the_next_one_waits_and_holds_up_no_other_client(clock: Clock) -> None:
    restraint: Restraint[str] = Restraint(BOUNDS, monotonic=clock)
    held = [asyncio.create_task(restraint.hold(f"connection {n}", "203.0.113.7")) for n in range(5)]
    await until(lambda: len(restraint) == 3)
    await restraint.hold("other", "203.0.113.8")
    assert list(restraint) == ["connection 2", "connection 3", "connection 4"]
    assert [task.done() for task in held] == [True, True, False, False, False]
    restraint.release("connection 3")
    await held[3]
    assert list(restraint) == ["connection 2", "connection 4"]
    restraint.end()
    await asyncio.gather(*held)


async def test_what_is_held_is_told_in_the_end(clock: Clock) -> None:
    restraint: Restraint[str] = Restraint(SOON, monotonic=clock)
    await asyncio.gather(*(restraint.hold(f"connection {n}", "203.0.113.7") for n in range(20)))
    assert len(restraint) == 0


async def test_of_too_many_the_one_held_longest_is_told(clock: Clock) -> None:
    restraint: Restraint[str] = Restraint(BOUNDS, monotonic=clock, most=2)
    held = [asyncio.create_task(restraint.hold(f"call {n}", "203.0.113.7")) for n in range(5)]
    await held[2]
    assert list(restraint) == ["call 3", "call 4"]
    # Who is not held takes nobody's place.
    await restraint.hold("another's call", "203.0.113.8")
    assert list(restraint) == ["call 3", "call 4"]
    restraint.end()
    await asyncio.gather(*held)


async def test_who_speaks_for_many_is_never_held(clock: Clock) -> None:
    restraint: Restraint[str] = Restraint(BOUNDS, monotonic=clock)
    for _ in range(10):
        await restraint.hold("proxy", "")


async def test_nothing_is_held_once_the_process_ends(clock: Clock) -> None:
    restraint: Restraint[str] = Restraint(BOUNDS, monotonic=clock)
    held = [asyncio.create_task(restraint.hold(f"connection {n}", "203.0.113.7")) for n in range(5)]
    await until(lambda: len(restraint) == 3)
    restraint.end()
    await asyncio.gather(*held)
    await restraint.hold("late", "203.0.113.7")


async def test_who_stops_waiting_is_forgotten(clock: Clock) -> None:
    restraint: Restraint[str] = Restraint(BOUNDS, monotonic=clock)
    held = [asyncio.create_task(restraint.hold(f"connection {n}", "203.0.113.7")) for n in range(3)]
    await until(lambda: len(restraint) == 1)
    held[2].cancel()
    await asyncio.wait(held)
    assert len(restraint) == 0
