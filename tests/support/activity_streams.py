"""Owns reading the activities that services told, as the abuse service would."""

from gatefold.activity.v1 import activity_pb2

from libs.activity import FIELD, SHARDS, stream_of
from libs.redis_client import Store


async def entries(store: Store) -> list[bytes]:
    """Returns the raw batches of all shards, oldest first in each."""
    return [entry[FIELD] for shard in range(SHARDS) for _, entry in await store.xrange(stream_of(shard))]


async def activities(store: Store) -> list[activity_pb2.Activity]:
    """Returns all activities, in the order of their shards; without what is told once more for the platform."""
    return [
        activity
        for entry in await entries(store)
        for activity in activity_pb2.ActivityBatch.FromString(entry).activities
        if activity.reach != activity_pb2.Activity.REACH_PLATFORM
    ]
