"""Runs a relay or a consumer as a process of its own, so that a test can see it killed: settings come on stdin."""

import asyncio
import sys
from pathlib import Path

import orjson

from libs.caller import CallerSigner
from libs.clock import SystemClock
from libs.config import Secret
from libs.events import Consumer
from libs.grpc_client import Channels, GrpcConfig
from libs.kill_points import KillPoints
from libs.outbox import Relay
from libs.postgres import Database
from libs.redis_client import RedisConfig, connect
from libs.telemetry import Telemetry
from tests.support.events import CONSUMER, KEYS, PRODUCER, note


async def relay(dsn: Secret, redis_url: Secret, points: KillPoints) -> None:
    """Relays until the process is ended."""
    database = await Database.open(dsn, service="teller", role="jobs", pool_size=2, kill_points=points)
    store, telemetry = connect(RedisConfig(redis_url)), Telemetry(PRODUCER)
    relay = Relay(database, store, PRODUCER, clock=SystemClock(), kill_points=points, telemetry=telemetry)
    await relay.run(asyncio.Event())


async def consume(dsn: Secret, redis_url: Secret, points: KillPoints, peers: str) -> None:
    """Consumes until the process is ended."""
    database = await Database.open(dsn, service="listener", role="app", pool_size=4, kill_points=points)
    clock, telemetry = SystemClock(), Telemetry(CONSUMER)
    signer = CallerSigner(CONSUMER, KEYS, clock)
    channels = Channels(CONSUMER, GrpcConfig(peers=peers), signer, telemetry=telemetry, kill_points=points)
    store = connect(RedisConfig(redis_url))
    consumer = Consumer(
        CONSUMER, (PRODUCER,), database, store, channels, note, points, clock=clock, telemetry=telemetry
    )
    await consumer.run(asyncio.Event())


def main() -> None:
    """Reads the settings and runs."""
    settings = orjson.loads(sys.stdin.buffer.read())
    service = PRODUCER if settings["role"] == "relay" else CONSUMER
    points = KillPoints(service, kill_at=settings["kill_at"], kill_log=Path(settings["kill_log"]))
    dsn, redis_url = Secret(settings["dsn"]), Secret(settings["redis_url"])
    if settings["role"] == "relay":
        asyncio.run(relay(dsn, redis_url, points))
    else:
        asyncio.run(consume(dsn, redis_url, points, settings["peers"]))


if __name__ == "__main__":
    main()
