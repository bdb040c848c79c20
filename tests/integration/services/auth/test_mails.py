"""Mails about signing in: to whom they go, what they say, and what is left of them."""

from datetime import timedelta
from uuid import UUID

import pytest
from gatefold.privacy.v1 import subject_data_pb2

from libs import caller, ids
from libs.errors import GatefoldError, Kind
from libs.postgres import PLATFORM
from libs.privacy import SubjectDataServicer
from libs.vault import Vault
from services.auth.__main__ import PERSONAL_TABLES
from services.auth.domain import challenge as rules
from services.auth.domain import roles, session
from services.auth.domain.challenge import Challenge
from services.auth.domain.sign_in import Door
from tests.support.auth import AuthHouse


async def mailed(house: AuthHouse, vault: Vault, door: Door, purpose: str, **details: str) -> Challenge:
    """Has a mail sent, in a transaction of the account that whoever goes in works for."""
    challenges = house.challenges(vault)
    with caller.serving(house.anonymous()):
        prepared = await challenges.prepare_for(door, purpose, details=details)
        async with house.app.tenant(door.account, "notice") as conn:
            await challenges.store_for(conn, door, prepared)
            assert await conn.fetchval("SELECT current_setting('app.account_id')") == str(door.account)
    return prepared


def test_every_mail_has_a_lifetime_and_no_link_lives_longer_than_it_should() -> None:
    assert rules.LIFETIMES[rules.RESET_PASSWORD] <= timedelta(hours=1)
    assert rules.LIFETIMES[rules.MAGIC_LINK] <= timedelta(minutes=10)
    assert rules.LIFETIMES[rules.EMAIL_CODE] <= timedelta(minutes=10)
    assert rules.LIFETIMES.keys() > rules.WITH_TOKEN


async def test_a_notice_goes_to_the_readers_own_address_and_tells_its_details(house: AuthHouse, vault: Vault) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    door = Door(session.SUBSCRIBER, publisher.live, live=True, principal=await house.reader(publisher.live, email))
    prepared = await mailed(house, vault, door, rules.NEW_DEVICE, device="Firefox on Linux", place="Lyon")
    assert await house.newest_challenge(publisher.live) == prepared.id
    letter = await house.describe(prepared.id)
    assert (letter.purpose, letter.email, letter.publication) == ("new_device", email, "The Daily")
    assert dict(letter.details) == {"device": "Firefox on Linux", "place": "Lyon"}
    assert (letter.link, letter.code) == ("", "")


async def test_a_persons_mail_lies_under_the_platform_whichever_account_they_work_in(
    house: AuthHouse, vault: Vault
) -> None:
    publisher = await house.publisher()
    door = Door(session.STAFF, publisher.test, live=False, principal=publisher.owner, role=roles.OWNER)
    prepared = await mailed(house, vault, door, rules.FACTOR_ADDED, factor="Authenticator app")
    assert await house.newest_challenge(PLATFORM) == prepared.id
    letter = await house.describe(prepared.id)
    assert (letter.email, letter.name, letter.publication) == (publisher.owner_email, "Ada Owner", "Gatefold")
    async with house.app.tenant(publisher.test, "look", read_only=True) as conn:
        assert await conn.fetchval("SELECT count(*) FROM challenge WHERE id = $1", prepared.id) == 0
    link = await house.describe((await mailed(house, vault, door, rules.UNLOCK)).id)
    assert link.link.startswith("https://staff.gatefold.example/recover#purpose=unlock&token=gfct_")


async def test_nobody_is_written_to_who_is_not_known(house: AuthHouse, vault: Vault) -> None:
    publisher = await house.publisher()
    for door in (
        Door(session.SUBSCRIBER, publisher.live, live=True, principal=UUID(int=4)),
        Door(session.OPERATOR, PLATFORM, live=True, principal=UUID(int=4)),
    ):
        with pytest.raises(GatefoldError) as raised:
            await house.challenges(vault).prepare_for(door, rules.NEW_DEVICE)
        assert (raised.value.kind, raised.value.reason) == (Kind.NOT_FOUND, "principal_not_found")


async def test_what_a_mail_told_is_exported_and_erased_with_its_reader(house: AuthHouse, vault: Vault) -> None:
    publisher = await house.publisher()
    subject = await house.reader(publisher.live, house.fresh())
    door = Door(session.SUBSCRIBER, publisher.live, live=True, principal=subject)
    prepared = await mailed(house, vault, door, rules.NEW_DEVICE, device="A very distinct browser")
    port = SubjectDataServicer("auth", house.app, vault, PERSONAL_TABLES, clock=house.clock)
    text = ids.encode("subj", subject)
    with caller.serving(house.service("compliance", publisher.live)):
        exported = b"".join(
            [part.json_lines async for part in port.Export(subject_data_pb2.ExportRequest(subject_id=text), None)]  # type: ignore[arg-type]
        ).decode()
        assert '"device":"A very distinct browser"' in exported.replace('": "', '":"')
        plan = await port.PlanErase(subject_data_pb2.PlanEraseRequest(subject_id=text), None)  # type: ignore[arg-type]
        await port.Erase(subject_data_pb2.EraseRequest(subject_id=text, plan_hash=plan.plan_hash), None)  # type: ignore[arg-type]
    with pytest.raises(GatefoldError, match="challenge_over"):
        await house.describe(prepared.id)
