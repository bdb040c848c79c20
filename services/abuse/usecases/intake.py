"""Owns bringing activities that others sent into the streams: all of them, or whoever sent them hears of it."""

from collections.abc import Sequence

from gatefold.activity.v1 import activity_pb2

from libs.activity import FIELD, LONGEST_STREAM, MOST_IN_BATCH, shard_of, stream_of
from libs.redis_client import Store


class Intake:
    """Writes activities to the streams of their shards."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def take(self, activities: Sequence[activity_pb2.Activity]) -> None:
        """Adds activities in batches; raises `unavailable("store_unavailable")`."""
        sharded: dict[int, list[activity_pb2.Activity]] = {}
        for activity in activities:
            sharded.setdefault(shard_of(activity), []).append(activity)
        for shard, held in sharded.items():
            for start in range(0, len(held), MOST_IN_BATCH):
                batch = activity_pb2.ActivityBatch(activities=held[start : start + MOST_IN_BATCH])
                await self._store.xadd(
                    stream_of(shard), {FIELD: batch.SerializeToString()}, maxlen=LONGEST_STREAM, approximate=True
                )
