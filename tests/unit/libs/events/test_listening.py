"""Whoever follows a stream asks now and then, often while the stream is away, and outlasts what passes."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from libs.errors import GatefoldError, internal, unavailable
from libs.events.listening import ASK_SECONDS, OFTEN_SECONDS, Listening, read


class House:
    """A stream and its service, and the time that a read of the stream takes."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.stop = asyncio.Event()
        self.asked: list[float] = []
        self.failures: list[str] = []
        self.heard = 0
        self.rounds = 0
        self.fails: Callable[[str, int], Exception | None] = lambda part, number: None

    async def hear(self) -> None:
        self.rounds += 1
        self.now += 0.25
        if self.rounds == 100:
            self.stop.set()
        self._raise("stream")

    async def ask(self) -> None:
        self.asked.append(self.now)
        self._raise("service")

    def _raise(self, part: str) -> None:
        error = self.fails(part, self.rounds)
        if error is not None:
            raise error

    def run(self) -> Awaitable[None]:
        def answered() -> None:
            self.heard += 1

        return Listening(
            self.hear,
            self.ask,
            failed=lambda error, part: self.failures.append(part),
            heard=answered,
            monotonic=lambda: self.now,
        ).run(self.stop)

    def gaps(self) -> list[float]:
        return [later - sooner for sooner, later in zip(self.asked, self.asked[1:], strict=False)]


@pytest.fixture
async def house(monkeypatch: pytest.MonkeyPatch) -> House:
    found = House()

    async def pause(stop: asyncio.Event, seconds: float) -> None:
        found.now += seconds

    monkeypatch.setattr("libs.events.listening.pause", pause)
    return found


async def test_it_is_asked_now_and_then_though_the_stream_is_there(house: House) -> None:
    await house.run()
    assert len(house.asked) == 100 * 0.25 // ASK_SECONDS
    assert set(house.gaps()) == {ASK_SECONDS}
    assert house.heard == 100 + len(house.asked)
    assert house.failures == []


async def test_it_is_asked_often_while_the_stream_is_away_and_for_a_while_after(house: House) -> None:
    house.fails = lambda part, number: TimeoutError() if part == "stream" and number <= 10 else None
    await house.run()
    assert house.failures == ["stream"] * 10
    often = house.gaps().count(OFTEN_SECONDS)
    assert often >= 10 + ASK_SECONDS / OFTEN_SECONDS / 2
    assert ASK_SECONDS in house.gaps()


async def test_what_passes_is_outlasted_and_told(house: House) -> None:
    house.fails = lambda part, number: unavailable("away", "It is away.") if part == "service" else None
    await house.run()
    assert house.failures == ["service"] * len(house.asked)
    assert house.heard == 100


async def test_what_does_not_pass_is_raised(house: House) -> None:
    house.fails = lambda part, number: internal("broken", "It is broken.") if part == "service" else None
    with pytest.raises(GatefoldError, match="broken"):
        await house.run()


async def test_a_stream_is_read_from_an_entry_on() -> None:
    class Store:
        async def xread(self, streams: dict[str, str], *, count: int, block: int) -> object:
            return [[b"s", [(b"5-0", {b"a": b"1"}), (b"6-0", {b"a": b"2"})]]] if streams == {"s": "4-0"} else []

    assert await read(Store(), "s", "4-0") == ([{b"a": b"1"}, {b"a": b"2"}], b"6-0")
    assert await read(Store(), "s", "6-0") == ([], "6-0")
