"""Owns reading activities from the shards of their stream, as one group of replicas (libs/activity.py writes them)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from libs.activity import FIELD, stream_of
from libs.redis_client import Store

GROUP = "abuse"
ENTRIES = 16
"""Read at once: some thousands of activities."""
BLOCK_MILLISECONDS = 400
BEGINNING = "0-0"


@dataclass(frozen=True)
class Entry:
    """One entry of a shard's stream; `batch` is None where it has none."""

    id: str
    batch: bytes | None

    @property
    def received_ms(self) -> int:
        """When the stream took it, Unix milliseconds."""
        return int(self.id.partition("-")[0])


class ActivityLog:
    """Reads shards; raises `unavailable("store_unavailable")`. One replica reads a shard at a time, by its lease."""

    def __init__(self, blocking: Store, store: Store, replica: str) -> None:
        self._blocking = blocking
        self._store = store
        self._replica = replica

    async def read(self, shard: int) -> list[Entry]:
        """Reads what nobody has read, waiting a moment for it; makes the group where it is not, or no longer."""
        try:
            answer = await self._blocking.xreadgroup(
                GROUP, self._replica, {stream_of(shard): ">"}, count=ENTRIES, block=BLOCK_MILLISECONDS
            )
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            await self._make(shard)
            return []
        streams: Any = answer or ()
        return [entry for _, found in streams for entry in _entries(found)]

    async def unfinished(self, shard: int, idle_seconds: float) -> list[Entry]:
        """Takes over entries that somebody read so long ago and did not finish."""
        try:
            answer = await self._store.xautoclaim(
                stream_of(shard), GROUP, self._replica, int(idle_seconds * 1000), BEGINNING, count=ENTRIES
            )
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            return []
        return _entries(answer[1])

    async def again(self, shard: int, after: str) -> list[Entry]:
        """Reads a part of what the group has read after a place: to know again what was known."""
        last = await self._last_read(shard)
        if last is None:
            return []
        found = await self._store.xrange(stream_of(shard), min=f"({after}", max=last, count=ENTRIES)
        return _entries(found)

    async def finish(self, shard: int, entries: Sequence[Entry]) -> None:
        """Says that entries are worked off."""
        if entries:
            await self._store.xack(stream_of(shard), GROUP, *(entry.id for entry in entries))

    async def lag(self, shard: int) -> int:
        """Counts entries that are not read yet; 0 where that cannot be told."""
        group = await self._group(shard)
        return int(group.get("lag") or 0) if group else 0

    async def _last_read(self, shard: int) -> str | None:
        group = await self._group(shard)
        return _text(group["last-delivered-id"]) if group else None

    async def _group(self, shard: int) -> Mapping[str, Any] | None:
        try:
            groups: list[dict[str, Any]] = await self._store.xinfo_groups(stream_of(shard))
        except ResponseError as error:
            if "no such key" not in str(error):
                raise
            return None
        return next((group for group in groups if _text(group["name"]) == GROUP), None)

    async def _make(self, shard: int) -> None:
        try:
            # From the beginning: what lies there was never read, or the store was emptied.
            await self._store.xgroup_create(stream_of(shard), GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise


def _entries(found: Any) -> list[Entry]:
    # An entry that was trimmed while it waited has no fields any more.
    return [Entry(_text(entry), (fields or {}).get(FIELD)) for entry, fields in found if entry is not None]


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
