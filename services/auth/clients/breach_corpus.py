"""Owns the offline list of breached passwords: sorted SHA-1 prefixes in memory-mapped files, looked up by bisection."""

import mmap
from functools import lru_cache
from pathlib import Path

ENTRY_BYTES = 8
"""Of each SHA-1; that a good password meets one of a thousand million by chance is one in 2^34."""
SEGMENT_DIGITS = 3


class BreachCorpus:
    """One file, or a folder of segments named by the first three hex digits of what they hold (`0fa.bin`)."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError when a file is there that is no such list."""
        self._path = path
        self._whole = None if path.is_dir() else _opened(path)
        self._segment = lru_cache(maxsize=None)(self._load)

    def holds(self, digest: bytes) -> bool:
        """Tells whether a password with this SHA-1 is on the list."""
        entries = self._whole or self._segment(digest.hex()[:SEGMENT_DIGITS])
        if entries is None:
            return False
        wanted = digest[:ENTRY_BYTES]
        low, high = 0, len(entries) // ENTRY_BYTES
        while low < high:
            middle = (low + high) // 2
            found = entries[middle * ENTRY_BYTES : (middle + 1) * ENTRY_BYTES]
            if found == wanted:
                return True
            if found < wanted:
                low = middle + 1
            else:
                high = middle
        return False

    def _load(self, name: str) -> mmap.mmap | None:
        segment = self._path / f"{name}.bin"
        return _opened(segment) if segment.exists() and segment.stat().st_size else None


def _opened(path: Path) -> mmap.mmap:
    if not path.is_file() or path.stat().st_size == 0 or path.stat().st_size % ENTRY_BYTES:
        raise ValueError(f"{path.name} is no list of breached passwords")
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
