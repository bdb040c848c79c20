"""Tests of libs/background."""

import asyncio
import io

import pytest

from libs import background, errors
from libs.background import Background, Stop
from libs.telemetry import Telemetry


def made() -> tuple[Background, Telemetry]:
    telemetry = Telemetry("x", stream=io.StringIO())
    return Background(telemetry, lambda size: b"\0" * size), telemetry


def failures(telemetry: Telemetry, task: str) -> float | None:
    return telemetry.registry.get_sample_value("gatefold_background_failures_total", {"task": task})


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "FIRST_PAUSE_SECONDS", 0.001)


async def test_loops_run_from_start_until_stop() -> None:
    loops, _ = made()
    began, ended = asyncio.Event(), asyncio.Event()

    async def work(stop: Stop) -> None:
        began.set()
        await stop.wait()
        ended.set()

    loops.add("early", work)
    assert not began.is_set()
    loops.start()
    await began.wait()
    began.clear()
    loops.add("late", work)
    await began.wait()
    await loops.stop()

    assert ended.is_set()


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("boom"),
        errors.unavailable("database_unavailable", "Away."),
        asyncio.CancelledError("something it awaited"),
    ],
)
async def test_a_loop_that_fails_is_started_again_and_counted(error: BaseException) -> None:
    loops, telemetry = made()
    attempts = 0
    recovered = asyncio.Event()

    async def work(stop: Stop) -> None:
        nonlocal attempts
        attempts += 1
        if attempts <= 3:
            raise error
        recovered.set()
        await stop.wait()

    loops.add("work", work)
    assert failures(telemetry, "work") == 0
    loops.start()
    async with asyncio.timeout(10):
        await recovered.wait()
    await loops.stop()

    assert (attempts, failures(telemetry, "work")) == (4, 3)


async def test_one_failing_loop_leaves_the_others_alone() -> None:
    loops, telemetry = made()
    failed_often, steady = asyncio.Event(), asyncio.Event()
    attempts = 0

    async def failing(stop: Stop) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 3:
            failed_often.set()
        raise RuntimeError

    async def working(stop: Stop) -> None:
        await failed_often.wait()
        steady.set()
        await stop.wait()

    loops.add("failing", failing)
    loops.add("working", working)
    loops.start()
    await steady.wait()
    await loops.stop()

    assert failures(telemetry, "working") == 0


async def test_stopping_does_not_wait_for_a_pause_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "FIRST_PAUSE_SECONDS", 3600)
    monkeypatch.setattr(background, "LONGEST_PAUSE_SECONDS", 3600)
    loops, _ = made()
    began = asyncio.Event()

    async def failing(stop: Stop) -> None:
        began.set()
        raise RuntimeError

    loops.add("failing", failing)
    loops.start()
    await began.wait()

    async with asyncio.timeout(60):
        await loops.stop()


async def test_a_loop_that_does_not_end_is_cancelled_when_time_is_up() -> None:
    loops, _ = made()
    began, cancelled = asyncio.Event(), asyncio.Event()

    async def deaf(stop: Stop) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    loops.add("deaf", deaf)
    loops.start()
    await began.wait()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await loops.stop()

    assert cancelled.is_set()


async def test_a_name_is_given_once() -> None:
    loops, _ = made()

    async def work(stop: Stop) -> None:
        await stop.wait()

    loops.add("work", work)
    with pytest.raises(ValueError, match="already"):
        loops.add("work", work)
