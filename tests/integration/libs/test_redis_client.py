"""Tests of libs/redis_client on a real Valkey."""

import asyncio
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.exceptions import AuthenticationError

from infra.local.valkey import ValkeyServer
from libs.config import Secret
from libs.errors import GatefoldError, Kind
from libs.redis_client import RedisConfig, Store, connect
from tests.support.waiting import until


@pytest.fixture
def nowhere() -> Iterator[RedisConfig]:
    with tempfile.TemporaryDirectory(prefix="gf-") as path:
        yield RedisConfig(Secret(f"unix://{path}/valkey.sock"))


async def away(call: object) -> GatefoldError:
    with pytest.raises(GatefoldError) as caught:
        await call  # type: ignore[misc]
    return caught.value


async def test_commands_and_pipelines_are_answered_in_bytes(redis: Store) -> None:
    await redis.set("a", "1")
    pipeline = redis.pipeline(transaction=False)
    pipeline.incr("a")
    pipeline.get("a")

    assert await pipeline.execute() == [2, b"2"]


async def test_a_store_that_is_away_is_said_to_be(nowhere: RedisConfig) -> None:
    client = connect(nowhere)

    error = await away(client.get("a"))

    assert (error.kind, error.reason, error.retry_after_seconds) == (Kind.UNAVAILABLE, "store_unavailable", 1)
    await client.aclose()


async def test_a_pipeline_to_a_store_that_is_away_is_said_to_be(nowhere: RedisConfig) -> None:
    client = connect(nowhere)
    pipeline = client.pipeline()
    pipeline.get("a")

    assert (await away(pipeline.execute())).reason == "store_unavailable"
    await client.aclose()


async def test_a_store_that_does_not_answer_is_given_up() -> None:
    with tempfile.TemporaryDirectory(prefix="gf-") as path, socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{path}/valkey.sock")
        silent.listen()
        client = connect(RedisConfig(Secret(f"unix://{path}/valkey.sock")))

        assert (await away(client.get("a"))).reason == "store_unavailable"
        await client.aclose()


async def test_a_broken_connection_is_replaced_without_anybody_noticing(redis: Store) -> None:
    await redis.set("a", "1")
    for connection in redis.connection_pool._available_connections:
        connection._writer.transport.abort()

    assert await redis.get("a") == b"1"


async def test_a_wrong_password_is_no_reason_to_try_again_later(valkey_server: ValkeyServer) -> None:
    url = valkey_server.url().reveal()
    password = url.split("//")[1].split("@")[0].split(":")[1]
    client = connect(RedisConfig(Secret(url.replace(f":{password}@", ":wrong@"))))

    with pytest.raises(AuthenticationError):
        await client.get("a")
    await client.aclose()


async def test_a_consumers_client_may_wait_longer_than_others_answer(valkey_server: ValkeyServer, redis: Store) -> None:
    consumer = connect(RedisConfig(valkey_server.url()), blocking_seconds=30)
    await redis.xgroup_create("stream", "group", mkstream=True)
    waiting = asyncio.create_task(consumer.xreadgroup("group", "me", {"stream": ">"}, block=30_000))

    async def is_waiting() -> bool:
        return bool((await redis.info("clients"))["blocked_clients"])

    await until(is_waiting)

    await redis.xadd("stream", {"event": "1"})

    ((_, ((_, fields),)),) = await waiting
    assert fields == {b"event": b"1"}
    await consumer.aclose()


def test_only_a_consumers_client_waits_longer() -> None:
    config = RedisConfig(Secret("redis://localhost"))

    assert connect(config).connection_pool.connection_kwargs["socket_timeout"] == 2
    assert connect(config, blocking_seconds=5).connection_pool.connection_kwargs["socket_timeout"] == 7


def test_the_address_is_a_secret() -> None:
    assert "hunter2" not in repr(RedisConfig(Secret("redis://:hunter2@x")))


def test_an_unreadable_address_is_refused() -> None:
    with pytest.raises(ValueError, match="scheme"):
        connect(RedisConfig(Secret(str(Path("/nowhere")))))


async def test_more_commands_at_once_than_connections_wait_their_turn(
    valkey_server: ValkeyServer, redis: Store
) -> None:
    client = connect(RedisConfig(valkey_server.url()), most_connections=2)

    answers = await asyncio.gather(*(client.incr("count") for _ in range(50)))

    assert sorted(answers) == list(range(1, 51))
    await client.aclose()
