"""Owns the gateway that most tests of a folder share; its conftest.py takes these fixtures in."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infra.local.valkey import ValkeyServer
from tests.support.gateway import RunningGateway, running_gateway

# Tests share one address; what is about limits sets its own.
WIDE = '{"strict.address":[100000,60],"read.address":[100000,60]}'


@pytest.fixture(scope="module")
async def shared_gateway(run_directory: Path, valkey_server: ValkeyServer) -> AsyncIterator[RunningGateway]:
    """The gateway that the tests of a module share."""
    async with running_gateway(run_directory, valkey_server.url(), rate_quotas=WIDE) as running:
        yield running


@pytest.fixture
def gateway(shared_gateway: RunningGateway) -> RunningGateway:
    """A gateway with toy services behind it and a real Valkey."""
    shared_gateway.backend.forget()
    return shared_gateway


@pytest.fixture
async def fresh_gateway(run_directory: Path, valkey_server: ValkeyServer) -> AsyncIterator[RunningGateway]:
    """A gateway of the test's own, with nothing in its caches."""
    async with running_gateway(run_directory, valkey_server.url(), rate_quotas=WIDE) as running:
        yield running
