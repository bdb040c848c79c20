"""Owns the fixtures of events between services."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from libs.clock import FixedClock
from libs.ids import IdMaker
from libs.migrate.files import shared_components
from libs.redis_client import Store
from tests.conftest import ServiceDb
from tests.support.events import Events, between, consumer_components


@pytest.fixture(scope="session")
def listener_migrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the migrations of the consuming service are written."""
    return tmp_path_factory.mktemp("migrations")


@pytest.fixture
async def events(
    service_db: ServiceDb, listener_migrations: Path, redis: Store, clock: FixedClock, ids: IdMaker
) -> AsyncIterator[Events]:
    """A producer and a consumer of events with nothing told yet."""
    told_to = await service_db("teller", components=shared_components())
    heard_by = await service_db("listener", components=consumer_components(listener_migrations))
    async with told_to.jobs.transaction("empty_outbox") as conn:
        await conn.execute("DELETE FROM outbox")
    async with heard_by.app.transaction("forget_cursors") as conn:
        await conn.execute("DELETE FROM consumer_cursor")
    async with between(told_to, heard_by, redis, clock, ids) as pair:
        yield pair
