"""Owns the fixtures that all tests share: real stores, fresh databases, a clock that stands still."""

import os

# Stores are started by fork and exec beside threads of gRPC, whose fork handlers may crash there and are not needed.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from infra.local.valkey import ValkeyServer
from libs.clock import FixedClock
from libs.config import Secret
from libs.ids import IdMaker
from libs.migrate import Component
from libs.redis_client import RedisConfig, Store, connect
from libs.vault import Vault, VaultConfig, create_key_file
from tests.support.stores import RunDirectory, ServiceDatabase, TestPostgres, new_valkey

# How long an example takes says something of the machine, not of the code.
settings.register_profile("gatefold", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gatefold")

ServiceDb = Callable[..., Awaitable[ServiceDatabase]]

SERVICES_WITH_KEYS = ("auth", "subscriber", "billing", "notify", "abuse")


@pytest.fixture(scope="session")
def run_directory() -> Iterator[Path]:
    """A directory that lasts as long as the test run (of one worker, under pytest-xdist)."""
    directory = RunDirectory()
    yield directory.path
    directory.remove()


@pytest.fixture(scope="session")
def postgres_server(run_directory: Path) -> Iterator[TestPostgres]:
    """A real PostgreSQL server."""
    postgres = TestPostgres(run_directory / "postgres")
    postgres.server.start()
    yield postgres
    postgres.server.stop()


@pytest.fixture(scope="session")
def valkey_server(run_directory: Path) -> Iterator[ValkeyServer]:
    """A real Valkey server."""
    server = new_valkey(run_directory / "valkey")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
async def service_db(postgres_server: TestPostgres) -> AsyncIterator[ServiceDb]:
    """`await service_db("billing")` returns (app, jobs, owner_dsn); the same database within a test module."""
    opened: dict[str, ServiceDatabase] = {}

    async def open_database(
        service: str, *, components: Sequence[Component] | None = None, pool_size: int = 4
    ) -> ServiceDatabase:
        if service not in opened:
            name = await postgres_server.service_database(service, components)
            opened[service] = await postgres_server.open(name, service, pool_size=pool_size)
        return opened[service]

    yield open_database
    for database in opened.values():
        await database.app.close()
        await database.jobs.close()


@pytest.fixture(scope="module")
async def keys_dsn(postgres_server: TestPostgres) -> Secret:
    """The DSN of a fresh keys database, as a service has it; the same within a test module."""
    name = await postgres_server.keys_database(SERVICES_WITH_KEYS)
    return postgres_server.dsn(name, "billing_keys")


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the key provider that belongs to the module's keys database."""
    path = tmp_path_factory.mktemp("vault") / "provider.key"
    create_key_file(path)
    return path


@pytest.fixture
async def vault(keys_dsn: Secret, key_file: Path, clock: FixedClock) -> AsyncIterator[Vault]:
    """A vault on the module's keys database."""
    opened = await Vault.open(VaultConfig(keys_dsn=keys_dsn, key_file=key_file), clock)
    yield opened
    await opened.close()


@pytest.fixture
async def redis(valkey_server: ValkeyServer) -> AsyncIterator[Store]:
    """A client of an empty Valkey."""
    client = connect(RedisConfig(valkey_server.url()))
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
def clock() -> FixedClock:
    """A clock that stands still until the test moves it."""
    return FixedClock()


@pytest.fixture
def ids(clock: FixedClock) -> IdMaker:
    """Makes identifiers by the test's clock."""
    return IdMaker(clock, os.urandom)
