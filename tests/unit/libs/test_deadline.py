"""Tests of libs/deadline."""

import asyncio

from libs import deadline


def test_without_a_deadline_nothing_remains_known() -> None:
    assert deadline.remaining() is None


async def test_a_later_deadline_does_not_outlive_an_earlier_one() -> None:
    async def call() -> tuple[float, float]:
        deadline.enter(1)
        deadline.enter(1000)
        first = deadline.remaining() or 0
        deadline.enter(0.5)
        return first, deadline.remaining() or 0

    first, then = await asyncio.create_task(call())
    assert first <= 1
    assert then <= 0.5


async def test_what_has_passed_remains_as_nothing() -> None:
    async def call() -> float | None:
        deadline.enter(-5)
        return deadline.remaining()

    assert await asyncio.create_task(call()) == 0


async def test_a_deadline_that_a_task_enters_ends_with_it() -> None:
    async def call() -> float | None:
        deadline.enter(10)
        return deadline.remaining()

    assert (await asyncio.create_task(call()) or 0) > 0
    assert deadline.remaining() is None
