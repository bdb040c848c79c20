"""Owns connecting to what the gateway keeps in Valkey and PostgreSQL, and closing it in the end."""

from libs import redis_client
from libs.config import Secret
from libs.postgres import Database, Role
from libs.process import Process
from libs.redis_client import RedisConfig, Store
from services.gateway.config import GatewayConfig


class Stores:
    """The common store, and connections of their own for those that would wait for others, or make them wait."""

    def __init__(self, process: Process, settings: GatewayConfig) -> None:
        self._process = process
        self._settings = settings
        self.common = self._kept(redis_client.connect(settings.redis))

    def blocking(self) -> Store:
        """Returns a connection for reads that wait for news."""
        return self._kept(redis_client.connect(self._settings.redis, blocking_seconds=1, most_connections=1))

    def apart(self) -> Store:
        """Returns a connection on which nobody else waits for an answer."""
        return self._kept(redis_client.connect(self._settings.redis, most_connections=1))

    def counters(self) -> Store:
        """Returns the store of rate limits, which is the common one where none is stated."""
        url = self._settings.rate_redis_url
        return self.common if url is None else self._kept(redis_client.connect(RedisConfig(url)))

    async def databases(self) -> tuple[Database, Database] | None:
        """Returns pools for requests and for jobs, which connect when first used; None where none is stated."""
        app, jobs = self._settings.postgres_app_dsn, self._settings.postgres_jobs_dsn
        if app is None or jobs is None:
            return None
        return await self._database(app, "app"), await self._database(jobs, "jobs")

    async def _database(self, dsn: Secret, role: Role) -> Database:
        database = await Database.open(
            dsn,
            service="gateway",
            role=role,
            pool_size=self._settings.postgres_pool_size,
            kill_points=self._process.kill_points,
            telemetry=self._process.telemetry,
            statement_cache_size=self._settings.postgres_statement_cache_size,
        )
        self._process.on_drain(database.close)
        return database

    def _kept(self, store: Store) -> Store:
        self._process.on_drain(store.aclose)
        return store
