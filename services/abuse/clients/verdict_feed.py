"""Owns the stream by which everybody who acts on verdicts learns of them."""

from collections.abc import Sequence

from gatefold.activity.v1 import activity_pb2

from libs.redis_client import Store

STREAM = "gatefold:verdicts"
FIELD = "batch"
MOST_ENTRIES = 4_096


class VerdictFeed:
    """Tells of verdicts."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def tell(self, verdicts: Sequence[activity_pb2.Verdict]) -> None:
        """Adds an entry; raises `unavailable("store_unavailable")`. Telling twice does no harm."""
        batch = activity_pb2.VerdictBatch(verdicts=verdicts)
        await self._store.xadd(STREAM, {FIELD: batch.SerializeToString()}, maxlen=MOST_ENTRIES, approximate=True)
