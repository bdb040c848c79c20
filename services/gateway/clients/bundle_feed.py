"""Owns the stream by which gateways learn of new versions; each entry is whole, so that none needs another."""

from gatefold.gateway.v1 import bundle_pb2
from google.protobuf.message import DecodeError

from libs.events import listening
from libs.events.listening import Last
from libs.redis_client import Store

STREAM = "gatefold:bundles"
FIELD = b"snapshot"
MOST_ENTRIES = 3
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

    async def after(self, last: Last, *, waits: bool = True) -> tuple[list[bundle_pb2.Snapshot], Last, int]:
        """Reads entries behind `last` (`b"0"` is the beginning), waiting a moment for some where `waits` says so.

        Returns them, the new last, and how many could not be read. Raises `unavailable`, RedisError or TimeoutError.
        """
        told, last = await listening.read(
            self._blocking, STREAM, last, count=MOST_ENTRIES, waits=waits, patience_seconds=_PATIENCE_SECONDS
        )
        found: list[bundle_pb2.Snapshot] = []
        for fields in told:
            try:
                found.append(bundle_pb2.Snapshot.FromString(fields.get(FIELD, b"")))
            except DecodeError:
                continue
        return found, last, len(told) - len(found)
