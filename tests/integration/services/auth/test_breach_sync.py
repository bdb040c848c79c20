"""Mirroring the list of breached passwords by range, against a server of the protocol."""

import hashlib
from pathlib import Path

import pytest

from services.auth.clients.breach_corpus import BreachCorpus
from services.auth.clients.breach_range import RangeSource, SourceAwayError
from services.auth.usecases.breach_sync import BreachSync
from tests.support.range_server import RangeServer, serving

SEGMENT = range(0x5BA, 0x5BC)
IN_SEGMENT = "password"
"""Its SHA-1 begins with 5baa6."""


async def sync(server: RangeServer, folder: Path, told: list[tuple[int, int, int]] | None = None) -> int:
    heard = [] if told is None else told
    source = RangeSource(server.url, 5)
    try:
        return await BreachSync(source, folder, lambda *numbers: heard.append(numbers)).run(SEGMENT)
    finally:
        await source.close()


async def test_what_the_server_knows_is_found_on_disk_afterwards(tmp_path: Path) -> None:
    told: list[tuple[int, int, int]] = []
    async with serving() as server:
        server.learn(IN_SEGMENT)
        assert await sync(server, tmp_path, told) == 1
    corpus = BreachCorpus(tmp_path)
    assert corpus.holds(hashlib.sha1(IN_SEGMENT.encode()).digest())
    assert not corpus.holds(hashlib.sha1(b"correct horse battery").digest())
    assert told == [(1, 2, 1), (2, 2, 1)]


async def test_the_next_time_only_what_has_changed_is_fetched(tmp_path: Path) -> None:
    async with serving() as server:
        server.learn(IN_SEGMENT)
        await sync(server, tmp_path)
        assert (len(server.asked), server.unchanged) == (512, 0)
        server.known.add("5BB00" + "A" * 35)
        assert await sync(server, tmp_path) == 2
        assert (len(server.asked), server.unchanged) == (1024, 511)
    corpus = BreachCorpus(tmp_path)
    assert corpus.holds(bytes.fromhex("5BB00" + "A" * 35))
    assert corpus.holds(hashlib.sha1(IN_SEGMENT.encode()).digest()), "kept from the first time"


async def test_broken_off_it_goes_on_with_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.auth.usecases.breach_sync._PAUSE_SECONDS", 0.001)
    async with serving() as server:
        server.learn(IN_SEGMENT)
        server.broken = True
        with pytest.raises(SourceAwayError):
            await sync(server, tmp_path)
        assert list(tmp_path.iterdir()) == [], "no segment is half there"
        server.broken = False
        await sync(server, tmp_path)
        (tmp_path / "5bb.bin").unlink()
        server.asked.clear()
        server.unchanged = 0
        assert await sync(server, tmp_path) == 1
        assert (len(server.asked), server.unchanged) == (512, 256), (
            "what is not there is fetched, whatever its ETags say"
        )
        # Killed between a segment and its ETags: the segment is fetched anew, the other is not.
        (tmp_path / "5ba.json").unlink()
        server.asked.clear()
        server.unchanged = 0
        assert await sync(server, tmp_path) == 1
        assert (len(server.asked), server.unchanged) == (512, 256)


async def test_padding_is_no_password() -> None:
    async with serving() as server:
        source = RangeSource(server.url, 5)
        found = await source.fetch("5BAA6", padded=True)
        await source.close()
    assert found.suffixes == frozenset()
