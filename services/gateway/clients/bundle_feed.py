"""Owns the stream by which gateways learn of new versions; each entry is whole, so that none needs another."""

import asyncio
from typing import Any

from gatefold.gateway.v1 import bundle_pb2
from google.protobuf.message import DecodeError

from libs.redis_client import Store

STREAM = "gatefold:bundles"
FIELD = b"snapshot"
MOST_ENTRIES = 3
BLOCK_MILLISECONDS = 400
_PATIENCE_SECONDS = 2.0


class BundleFeed:
    """Tells, and is told."""

    def __init__(self, store: Store, blocking: Store) -> None:
        """`blocking` is a client of its own, for reads that wait."""
        self._store = store
        self._blocking = blocking

    async def tell(self, snapshot: bundle_pb2.Snapshot) -> None:
        """Adds a version; raises `unavailable("store_unavailable")`. Telling twice does no harm."""
        packed = snapshot.SerializeToString()
        await self._store.xadd(STREAM, {FIELD: packed}, maxlen=MOST_ENTRIES, approximate=False)

    async def after(self, last: bytes, *, waits: bool = True) -> tuple[list[bundle_pb2.Snapshot], bytes, int]:
        """Reads entries behind `last` (`b"0"` is the beginning), waiting a moment for some where `waits` says so.

        Returns them, the new last, and how many could not be read. Raises `unavailable`, RedisError or TimeoutError.
        """
        block = BLOCK_MILLISECONDS if waits else None
        async with asyncio.timeout(_PATIENCE_SECONDS):
            answer: Any = await self._blocking.xread({STREAM: last}, count=MOST_ENTRIES, block=block)
        found: list[bundle_pb2.Snapshot] = []
        unreadable = 0
        for _, entries in answer or ():
            for entry, fields in entries:
                last = entry
                try:
                    found.append(bundle_pb2.Snapshot.FromString(fields.get(FIELD, b"")))
                except DecodeError:
                    unreadable += 1
        return found, last, unreadable
