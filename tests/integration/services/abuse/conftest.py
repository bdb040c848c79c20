"""Owns the desk that tests of abuse's use cases work at."""

from uuid import UUID

import pytest

from libs.clock import FixedClock
from libs.ids import IdMaker
from libs.redis_client import Store
from tests.conftest import ServiceDb
from tests.support.abuse import Desk


@pytest.fixture
async def desk(service_db: ServiceDb, redis: Store, clock: FixedClock, ids: IdMaker) -> Desk:
    """Use cases on the module's database, on a day of the test's own."""
    database = await service_db("abuse")
    found = Desk(database, redis, clock, ids)
    await found.hold()
    return found


@pytest.fixture
def account(ids: IdMaker) -> UUID:
    """An account of the test's own."""
    return ids.new()
