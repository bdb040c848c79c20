"""Tests of libs/deadline."""

import asyncio

from libs import deadline


def test_without_a_deadline_nothing_remains_known() -> None:
    assert deadline.remaining() is None


def test_an_inner_deadline_does_not_outlive_the_outer() -> None:
    with deadline.within(1):
        with deadline.within(1000):
            remaining = deadline.remaining()
            assert remaining is not None
            assert remaining <= 1
        with deadline.within(0.5):
            assert (deadline.remaining() or 0) <= 0.5
    assert deadline.remaining() is None


def test_what_has_passed_remains_as_nothing() -> None:
    with deadline.within(-5):
        assert deadline.remaining() == 0


async def test_a_deadline_that_a_task_enters_ends_with_it() -> None:
    async def call() -> float | None:
        deadline.enter(10)
        return deadline.remaining()

    assert (await asyncio.create_task(call()) or 0) > 0
    assert deadline.remaining() is None
