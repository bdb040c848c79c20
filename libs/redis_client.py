"""Owns the way to Valkey or Redis: one client with short timeouts whose connection errors say what they mean."""

from dataclasses import dataclass, field
from typing import Any, cast

import redis.asyncio
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import (  # the client's own errors carry these names
    AuthenticationError,
    ConnectionError,  # noqa: A004
    TimeoutError,  # noqa: A004
)

from libs import errors
from libs.config import Secret

TIMEOUT_SECONDS = 2.0
CONNECT_TIMEOUT_SECONDS = 1.0


@dataclass(frozen=True)
class RedisConfig:
    """`redis://user:password@host:port/db`, `rediss://…` or `unix://user:password@/path.sock?db=0`."""

    redis_url: Secret = field(repr=False)


def connect(config: RedisConfig, *, blocking_seconds: float = 0, most_connections: int = 32) -> "Store":
    """Returns a client; nothing is sent before its first command. Answers are bytes.

    `blocking_seconds` is the longest that a command of this client waits on purpose (XREADGROUP BLOCK): consumers
    take a client of their own, so that everything else fails within two seconds when the store is away. A command is
    sent once more over a new connection when its connection proves broken, so what is sent must bear repeating.
    """
    pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
        config.redis_url.reveal(),
        # Whoever comes when all connections are taken waits for one, as long as for an answer.
        max_connections=most_connections,
        timeout=TIMEOUT_SECONDS,
        socket_timeout=TIMEOUT_SECONDS + blocking_seconds,
        socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
        retry=Retry(ConstantBackoff(0.02), 1, supported_errors=(ConnectionError,)),
        # Answers keep one shape whatever the server speaks, and a new connection asks nothing but to sign in.
        protocol=2,
        driver_info=None,
    )
    return cast("Store", Store.from_pool(pool))  # it makes the class it is called on, which its annotation does not say


class Store(redis.asyncio.Redis):
    """redis.asyncio's client; a store that is away raises `unavailable("store_unavailable")`."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Sends one command."""
        try:
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except (ConnectionError, TimeoutError, OSError) as error:
            raise _meant_by(error) from error

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> "StorePipeline":
        """Returns a pipeline: commands are collected and sent together by `execute`."""
        return StorePipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


class StorePipeline(Pipeline):
    """redis.asyncio's pipeline, with the same translation."""

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Sends all commands and returns their answers in order."""
        try:
            return await super().execute(raise_on_error)
        except (ConnectionError, TimeoutError, OSError) as error:
            raise _meant_by(error) from error


def _meant_by(error: Exception) -> Exception:
    if isinstance(error, AuthenticationError) or isinstance(error.__cause__, AuthenticationError):
        # Waiting does not mend wrong credentials: to be seen as the fault it is.
        return AuthenticationError("the store refuses this service's credentials")
    return errors.unavailable("store_unavailable", "A store of the platform is away for a moment.", 1)
