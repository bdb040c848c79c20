"""Owns mirroring the list of breached passwords by range: resumable, and again only for what has changed since."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import orjson

from services.auth.clients.breach_corpus import ENTRY_BYTES, SEGMENT_DIGITS
from services.auth.clients.breach_range import PREFIX_DIGITS, RangeSource, SourceAwayError

SEGMENTS = 16**SEGMENT_DIGITS
_RANGES = 16 ** (PREFIX_DIGITS - SEGMENT_DIGITS)
_AT_ONCE = 32
_ATTEMPTS = 5
_PAUSE_SECONDS = 0.5


class BreachSync:
    """Writes a folder of segments for BreachCorpus; each is whole or not there, so it may be killed anywhere."""

    def __init__(self, source: RangeSource, folder: Path, progress: Callable[[int, int, int], None]) -> None:
        self._source = source
        self._folder = folder
        self._progress = progress
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def run(self, segments: range = range(SEGMENTS)) -> int:
        """Mirrors the segments; returns how many entries they hold. Raises SourceAwayError after five attempts."""
        self._folder.mkdir(parents=True, exist_ok=True)
        entries = 0
        for done, number in enumerate(segments, 1):
            entries += await self._segment(f"{number:0{SEGMENT_DIGITS}x}")
            self._progress(done, len(segments), entries)
        return entries

    async def _segment(self, name: str) -> int:
        """Takes a segment's ranges; those that are what they were come from the ETags and entries kept of last time."""
        path, kept = self._folder / f"{name}.bin", self._folder / f"{name}.json"
        known: dict[str, str] = orjson.loads(kept.read_bytes()) if kept.exists() and path.exists() else {}
        old = _by_range(path.read_bytes()) if known else {}
        prefixes = [f"{name}{number:0{PREFIX_DIGITS - SEGMENT_DIGITS}x}" for number in range(_RANGES)]
        taken = await asyncio.gather(*(self._range(prefix, known.get(prefix, "")) for prefix in prefixes))
        entries: list[bytes] = []
        for prefix, (suffixes, _) in zip(prefixes, taken, strict=True):
            if suffixes is None:
                entries += old.get(prefix, [])
            else:
                entries += [bytes.fromhex(prefix + suffix)[:ENTRY_BYTES] for suffix in suffixes]
        if any(suffixes is not None for suffixes, _ in taken):
            etags = {prefix: etag for prefix, (_, etag) in zip(prefixes, taken, strict=True) if etag}
            # The ETags go first and come last: never do they speak of entries that are not there.
            kept.unlink(missing_ok=True)
            _write(path, b"".join(sorted(set(entries))))
            _write(kept, orjson.dumps(etags))
        return len(set(entries))

    async def _range(self, prefix: str, etag: str) -> tuple[frozenset[str] | None, str]:
        async with self._room:
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    found = await self._source.fetch(prefix.upper(), etag=etag)
                except SourceAwayError:
                    if attempt == _ATTEMPTS:
                        raise
                    await asyncio.sleep(_PAUSE_SECONDS * attempt)
                else:
                    return found.suffixes, found.etag
        raise AssertionError("the last attempt returns or raises")


def _by_range(content: bytes) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = defaultdict(list)
    for start in range(0, len(content), ENTRY_BYTES):
        entry = content[start : start + ENTRY_BYTES]
        found[entry.hex()[:PREFIX_DIGITS]].append(entry)
    return found


def _write(path: Path, content: bytes) -> None:
    fresh = path.with_suffix(path.suffix + ".new")
    fresh.write_bytes(content)
    fresh.replace(path)
