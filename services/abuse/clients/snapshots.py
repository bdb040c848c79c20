"""Owns snapshots of what was counted: one a shard, in the object store, so that whoever takes over goes on from it."""

import struct
import zlib

from libs.errors import GatefoldError, Kind
from libs.object_store import ObjectStore

_MAGIC = b"gfab1"
_HEAD = struct.Struct(">64sI")


class Snapshots:
    """Keeps the latest snapshot of each shard, with the place in its stream up to which it counts."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def keep(self, shard: int, place: str, packed: bytes) -> None:
        """Replaces a shard's snapshot; raises `unavailable("object_store_unavailable")`."""
        await self._store.put(_key(shard), _MAGIC + _HEAD.pack(place.encode(), zlib.crc32(packed)) + packed)

    async def latest(self, shard: int) -> tuple[str, bytes] | None:
        """Returns a shard's snapshot and its place; None where there is none, or a damaged one."""
        try:
            kept = await self._store.get(_key(shard))
        except GatefoldError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            return None
        start = len(_MAGIC) + _HEAD.size
        if not kept.startswith(_MAGIC) or len(kept) < start:
            return None
        place, check = _HEAD.unpack_from(kept, len(_MAGIC))
        packed = kept[start:]
        return (place.rstrip(b"\0").decode(), packed) if zlib.crc32(packed) == check else None


def _key(shard: int) -> str:
    return f"shards/{shard}.snapshot"
