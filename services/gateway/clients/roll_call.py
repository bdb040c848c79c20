"""Owns where each gateway says which version it holds: a hash in the store, whose entries are believed for seconds."""

from datetime import datetime, timedelta
from typing import Any

from gatefold.gateway.v1 import firewall_pb2
from google.protobuf.message import DecodeError

from libs.redis_client import Store

KEY = "gatefold:gateways"
FRESH = timedelta(seconds=15)
"""Who was not heard of for so long is away."""
FORGET_SECONDS = 60


class RollCall:
    """Who is there."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def report(self, gateway: firewall_pb2.Gateway) -> None:
        """Says what one gateway holds; raises `unavailable("store_unavailable")`."""
        pipeline = self._store.pipeline()
        pipeline.hset(KEY, gateway.name, gateway.SerializeToString())
        pipeline.expire(KEY, FORGET_SECONDS)
        await pipeline.execute()

    async def leave(self, name: str) -> None:
        """Says that a gateway is gone."""
        await self._store.hdel(KEY, name)

    async def present(self, now: datetime) -> list[firewall_pb2.Gateway]:
        """Returns who was heard of within 15 seconds, by name; forgets who was not."""
        found: list[firewall_pb2.Gateway] = []
        gone: list[bytes] = []
        reported: Any = await self._store.hgetall(KEY)
        for name, packed in reported.items():
            try:
                gateway = firewall_pb2.Gateway.FromString(packed)
                fresh = now - gateway.seen_at.ToDatetime(tzinfo=now.tzinfo) <= FRESH
            except (DecodeError, ValueError):
                fresh = False
            if fresh:
                found.append(gateway)
            else:
                gone.append(name)
        if gone:
            await self._store.hdel(KEY, *gone)
        return sorted(found, key=lambda gateway: gateway.name)
