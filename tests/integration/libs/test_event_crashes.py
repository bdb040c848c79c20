"""Relays and consumers killed by SIGKILL: what they leave is finished by the next one, and nothing is doubled."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest

from infra.local.valkey import ValkeyServer
from libs.events.stream import stream_key
from libs.ids import IdMaker
from libs.migrate.files import ROOT
from libs.outbox import outbox_waiting
from tests.support.events import CONSUMER, PRODUCER, Events
from tests.support.stores import role_dsn
from tests.support.waiting import until


@asynccontextmanager
async def started(
    role: str, dsn: str, store: ValkeyServer, kill_at: str | None, log: Path, peers: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.event_process", stdin=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert process.stdin is not None
    settings = {
        "role": role,
        "dsn": dsn,
        "redis_url": store.url().reveal(),
        "kill_at": kill_at,
        "kill_log": str(log),
        "peers": peers,
    }
    process.stdin.write(orjson.dumps(settings))
    process.stdin.write_eof()
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize(
    "point", ["before-publish:relay_outbox", "after-publish:relay_outbox", "before-commit:relay_outbox"]
)
async def test_a_relay_killed_before_it_marked_publishes_again_and_nothing_is_doubled(
    events: Events, ids: IdMaker, valkey_server: ValkeyServer, tmp_path: Path, point: str
) -> None:
    account, aggregate = ids.new(), ids.new()
    await events.tell_many(account, aggregate, 3)
    dsn = role_dsn(events.told_to.owner_dsn, "teller_jobs").reveal()
    log = tmp_path / "points"
    async with started("relay", dsn, valkey_server, f"{PRODUCER}:{point}", log, "{}") as relay:
        assert await asyncio.wait_for(relay.wait(), 30) == -signal.SIGKILL
    published = 0 if point.startswith("before-publish") else 1
    assert await events.redis.xlen(stream_key(PRODUCER)) == published
    assert await outbox_waiting(events.told_to.jobs, account) == 3

    async def all_out() -> bool:
        return await outbox_waiting(events.told_to.jobs, account) == 0

    async with started("relay", dsn, valkey_server, f"{PRODUCER}:{point}", log, "{}"), events.consuming():
        await until(all_out)
        await events.sees(account, 3)
        await events.acknowledged()
    assert await events.redis.xlen(stream_key(PRODUCER)) == published + 1
    assert await events.seen(account) == [(aggregate, 1), (aggregate, 2), (aggregate, 3)]


@pytest.mark.parametrize(
    ("point", "seen"),
    [
        ("before-commit:consume_invoice_paid#2", 1),
        ("after-commit:consume_invoice_paid#2", 2),
        ("before-ack:consume", 3),
        ("after-ack:consume", 3),
    ],
)
async def test_a_killed_consumer_is_followed_by_one_that_finishes_and_doubles_nothing(
    events: Events, ids: IdMaker, valkey_server: ValkeyServer, tmp_path: Path, point: str, seen: int
) -> None:
    account, aggregate = ids.new(), ids.new()
    await events.tell_many(account, aggregate, 3)
    await events.relay().publish()
    dsn = role_dsn(events.heard_by.owner_dsn, "listener_app").reveal()
    kill_at = f"{CONSUMER}:{point}"
    async with started("consume", dsn, valkey_server, kill_at, tmp_path / "points", events.peers) as consumer:
        assert await asyncio.wait_for(consumer.wait(), 30) == -signal.SIGKILL
    assert len(await events.seen(account)) == seen
    assert await events.pending() == (0 if point.startswith("after-ack") else 1)
    async with events.consuming(claim_seconds=0.01, idle_seconds=0.0):
        await events.sees(account, 3)
        await events.acknowledged()
    assert await events.seen(account) == [(aggregate, 1), (aggregate, 2), (aggregate, 3)]
