"""Signing in with another provider: who becomes whom, what is added to whom, and what ends with it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infra.local.valkey import ValkeyServer
from libs import ids
from libs.config import Secret
from libs.errors import GatefoldError, Kind
from tests.conftest import ServiceDb
from tests.support.federation import Abroad, abroad


@pytest.fixture(scope="module")
async def world(
    service_db: ServiceDb,
    keys_dsn: Secret,
    valkey_server: ValkeyServer,
    key_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Abroad]:
    folder = tmp_path_factory.mktemp("auth")
    database = await service_db("auth")
    async with abroad(database, keys_dsn.reveal(), valkey_server.url().reveal(), key_file, folder) as found:
        yield found


@pytest.fixture(autouse=True)
def honest(world: Abroad) -> None:
    world.provider.honest()


@pytest.mark.case("auth-64")
async def test_a_reader_who_is_not_known_becomes_one_and_is_known_by_the_providers_identifier(world: Abroad) -> None:
    publisher = await world.house.publisher()
    provider = await world.set_up(publisher.live)
    email = world.house.fresh()
    world.provider.person = {"sub": "reader-1", "email": email, "email_verified": True, "name": "Rita"}
    first = await world.finish(await world.send(publisher.live, provider))
    claims = await world.house.claims(first.access_token)
    assert (claims["kind"], claims["acr"], claims["federated"]) == ("SUBSCRIBER", "aal1", True)
    assert (await world.house.events(publisher.live)).count("subscriber.registered") == 1
    # Another address, or none: still the same person. Another identifier with the same address: somebody else.
    for told in ({"sub": "reader-1", "email": world.house.fresh(), "email_verified": True}, {"sub": "reader-1"}):
        world.provider.person = told
        again = await world.finish(await world.send(publisher.live, provider))
        assert again.principal_id == first.principal_id
    world.provider.person = {"sub": "READER-1", "email": email, "email_verified": True}
    with pytest.raises(GatefoldError) as raised:
        await world.finish(await world.send(publisher.live, provider))
    assert (raised.value.kind, raised.value.reason) == (Kind.PRECONDITION, "identity_link_needed")
    assert ids.decode("subj", first.principal_id)
