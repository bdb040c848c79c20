"""Signing keys: published before use, rotated, sealed, and the same for all replicas."""

import asyncio
from datetime import timedelta

import pytest
from gatefold.auth.v1 import session_pb2

from libs.clock import FixedClock
from libs.errors import GatefoldError
from libs.ids import IdMaker
from libs.postgres import Database
from libs.vault import Vault
from services.auth.usecases.expiry import Expiry
from services.auth.usecases.signing_keys import SigningKeys
from services.auth.worker import Housekeeping
from tests.conftest import ServiceDb
from tests.support.auth import AuthHouse


@pytest.fixture
async def database(service_db: ServiceDb) -> Database:
    opened = await service_db("auth")
    async with opened.app.transaction("clear") as conn:
        await conn.execute("DELETE FROM signing_key")
    return opened.app


def replica(database: Database, vault: Vault, clock: FixedClock, ids: IdMaker) -> SigningKeys:
    return SigningKeys(database, vault, clock, ids)


async def states(keys: SigningKeys) -> dict[str, str]:
    return {key.kid: key.state for key in await keys.key_set()}


async def test_replicas_that_start_at_once_agree_on_one_active_and_one_next_key(
    database: Database, vault: Vault, clock: FixedClock, ids: IdMaker
) -> None:
    replicas = [replica(database, vault, clock, ids) for _ in range(4)]
    await asyncio.gather(*(keys.ensure() for keys in replicas))
    assert sorted((await states(replicas[0])).values()) == ["active", "next"]
    assert len({(await keys.active())[0] for keys in replicas}) == 1


@pytest.mark.case("auth-57")
async def test_a_key_is_published_before_it_signs_and_after_it_signed(
    database: Database, vault: Vault, clock: FixedClock, ids: IdMaker
) -> None:
    keys, other = replica(database, vault, clock, ids), replica(database, vault, clock, ids)
    await keys.ensure()
    (first,) = (kid for kid, state in (await states(keys)).items() if state == "active")
    (second,) = (kid for kid, state in (await states(keys)).items() if state == "next")
    assert (await other.active())[0] == first
    assert not await keys.rotate()
    clock.advance(timedelta(days=30))
    assert sorted(await asyncio.gather(keys.rotate(), other.rotate())) == [False, True]
    found = await states(keys)
    assert (found[first], found[second], len(found)) == ("retired", "active", 3)
    # The other replica follows within half a minute; what it signs until then can be verified.
    assert (await keys.active())[0] == second
    clock.advance(timedelta(seconds=30))
    assert (await other.active())[0] == second
    assert first in await states(keys)
    clock.advance(timedelta(hours=1))
    assert first not in await states(keys)


async def test_a_young_next_key_is_not_rotated_in_even_by_hand(
    database: Database, vault: Vault, clock: FixedClock, ids: IdMaker
) -> None:
    keys = replica(database, vault, clock, ids)
    await keys.ensure()
    with pytest.raises(GatefoldError, match="next_key_too_young"):
        await keys.rotate(even_if_young=True)
    clock.advance(timedelta(hours=24))
    assert await keys.rotate(even_if_young=True)


async def test_private_parts_are_sealed_and_gone_once_retired(
    service_db: ServiceDb, database: Database, vault: Vault, clock: FixedClock, ids: IdMaker
) -> None:
    keys = replica(database, vault, clock, ids)
    await keys.ensure()
    _, private = await keys.active()
    secret = private.private_numbers().private_value.to_bytes(32)
    clock.advance(timedelta(days=30))
    await keys.rotate()
    async with database.transaction("dump") as conn:
        rows = await conn.fetch("SELECT state, private_sealed FROM signing_key")
    assert sorted((row["state"], row["private_sealed"] is None) for row in rows) == [
        ("active", False),
        ("next", False),
        ("retired", True),
    ]
    assert all(secret not in (row["private_sealed"] or b"") for row in rows)
    clock.advance(timedelta(hours=2))
    await Expiry((await service_db("auth")).jobs, clock).clear()
    async with database.transaction("count") as conn:
        assert await conn.fetchval("SELECT count(*) FROM signing_key") == 2


async def test_housekeeping_rotates_what_is_due_and_ends_when_told(
    service_db: ServiceDb, database: Database, vault: Vault, clock: FixedClock, ids: IdMaker
) -> None:
    keys = replica(database, vault, clock, ids)
    await keys.ensure()
    (following,) = (kid for kid, state in (await states(keys)).items() if state == "next")
    clock.advance(timedelta(days=30))
    stop = asyncio.Event()
    loop = asyncio.create_task(Housekeeping(keys, Expiry((await service_db("auth")).jobs, clock)).run(stop))
    async with asyncio.timeout(10):
        while (await states(keys))[following] != "active":  # noqa: ASYNC110 — the database has no event to wait for
            await asyncio.sleep(0.01)
    stop.set()
    await asyncio.wait_for(loop, 10)


async def test_the_key_set_shows_public_members_alone(house: AuthHouse) -> None:
    answer = await house.call(house.anonymous(), house.sessions.GetKeySet, session_pb2.GetKeySetRequest())
    assert isinstance(answer, session_pb2.KeySet)
    for key in answer.keys:
        assert (key.kty, key.crv, key.use, key.alg) == ("EC", "P-256", "sig", "ES256")
        assert len(key.x) == len(key.y) == len(key.kid) == 43
    assert {field.name for field in session_pb2.JsonWebKey.DESCRIPTOR.fields} == {
        "kty", "crv", "x", "y", "kid", "use", "alg",
    }  # fmt: skip
