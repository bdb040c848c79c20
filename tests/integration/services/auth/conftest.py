"""Owns the running auth service that the tests of a module share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infra.local.valkey import ValkeyServer
from libs.clock import FixedClock
from libs.config import Secret
from tests.conftest import ServiceDb
from tests.support.auth import AuthHouse, running


@pytest.fixture(scope="module")
async def house(
    service_db: ServiceDb,
    keys_dsn: Secret,
    valkey_server: ValkeyServer,
    key_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[AuthHouse]:
    """auth with all its parts; its clock only moves forward, so tests make their own accounts and sessions."""
    folder = tmp_path_factory.mktemp("auth")
    database = await service_db("auth")
    url = valkey_server.url().reveal()
    async with running(database, keys_dsn.reveal(), url, key_file, folder, FixedClock()) as found:
        yield found
