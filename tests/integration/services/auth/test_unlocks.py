"""Lifting a lock by mail: by who has the mailbox, once, and again only where the answer was lost."""

import asyncio
from datetime import timedelta
from typing import cast

import pytest
from gatefold.auth.v1 import recovery_pb2

from libs import caller
from libs.clock import FixedClock
from libs.errors import GatefoldError
from libs.postgres import PLATFORM
from libs.vault import Vault
from services.auth.domain import session
from services.auth.domain.sign_in import Door
from services.auth.repository import credentials, people
from services.auth.usecases.unlocks import Unlocks
from tests.support.auth import AuthHouse


class Locks:
    """Who was let in again."""

    def __init__(self, house: AuthHouse, vault: Vault) -> None:
        self.lifted: list[Door] = []
        self._house = house
        self._challenges = house.challenges(vault)
        self._unlocks = Unlocks(house.app, self._challenges, [self._lift])

    async def _lift(self, door: Door) -> None:
        self.lifted.append(door)

    async def offer(self, door: Door) -> None:
        async with self._house.app.tenant(door.owner, "read_index", read_only=True) as conn:
            if door.kind == session.SUBSCRIBER:
                index = await credentials.index_of(conn, door.owner, door.principal)
            else:
                index = await people.index_of(conn, door.principal)
        assert index is not None
        with caller.serving(self._house.page(door.account)):
            await self._challenges.offer_unlock(door.owner, index)

    async def unlock(self, token: str, request_id: str | None = None) -> None:
        with caller.serving(self._house.anonymous(request_id)):
            await self._unlocks.unlock(token)


@pytest.fixture
def locks(house: AuthHouse, vault: Vault) -> Locks:
    return Locks(house, vault)


@pytest.mark.case("auth-32")
async def test_a_link_lifts_the_lock_of_whom_it_was_mailed_to_once(house: AuthHouse, locks: Locks) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    subject = await house.reader(publisher.live, email)
    door = Door(session.SUBSCRIBER, publisher.live, live=True, principal=subject)
    await locks.offer(door)
    older = await house.token(publisher.live, "unlock")
    await locks.offer(door)
    assert await house.token(publisher.live, "unlock") == older, "it still works: one an hour is enough"
    cast("FixedClock", house.clock).advance(timedelta(hours=1))
    await locks.offer(door)
    letter = await house.describe(await house.newest_challenge(publisher.live))
    assert (letter.purpose, letter.email) == ("unlock", email)
    token = await house.token(publisher.live, "unlock")
    with pytest.raises(GatefoldError, match="token_invalid"):
        await locks.unlock(older)
    assert locks.lifted == []
    await locks.unlock(token, "req_lost")
    assert locks.lifted == [door]
    await locks.unlock(token, "req_lost")
    with pytest.raises(GatefoldError, match="token_spent"):
        await locks.unlock(token)
    assert locks.lifted == [door, door]


@pytest.mark.case("auth-32")
async def test_a_person_is_let_in_again_wherever_they_work(house: AuthHouse, locks: Locks) -> None:
    publisher = await house.publisher()
    door = Door(session.STAFF, publisher.test, live=False, principal=publisher.owner)
    await locks.offer(door)
    token = await house.token(PLATFORM, "unlock")
    answers = await asyncio.gather(*(locks.unlock(token) for _ in range(4)), return_exceptions=True)
    assert sum(answer is None for answer in answers) == 1
    assert {(one.owner, one.principal) for one in locks.lifted} == {(door.owner, door.principal)}


async def test_another_token_lifts_no_lock(house: AuthHouse) -> None:
    publisher = await house.publisher()
    await house.register(publisher.live, house.fresh())
    token = await house.token(publisher.live, "verify_registration")
    with pytest.raises(GatefoldError, match="token_invalid"):
        await house.call(house.anonymous(), house.recovery.Unlock, recovery_pb2.UnlockRequest(token=token))
