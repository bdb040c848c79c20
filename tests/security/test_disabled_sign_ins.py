"""Whoever staff keep out: no way in, nothing told, and no sign-in slips through beside it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from gatefold.auth.v1 import (
    password_pb2,
    recovery_pb2,
    session_pb2,
    sign_in_pb2,
    subscriber_session_pb2,
    team_pb2,
)
from gatefold.privacy.v1 import subject_data_pb2
from google.protobuf.message import Message

from infra.local.valkey import ValkeyServer
from libs import caller, ids
from libs.caller import Caller
from libs.clock import FixedClock
from libs.config import Secret
from libs.errors import GatefoldError
from libs.privacy import SubjectDataServicer
from libs.vault import Vault
from services.auth.__main__ import PERSONAL_TABLES
from services.auth.domain import roles
from tests.conftest import ServiceDb
from tests.support import factors
from tests.support.auth import PASSWORD, AuthHouse, Publisher, running
from tests.support.waiting import blocked


@pytest.fixture(scope="module")
async def house(
    service_db: ServiceDb,
    keys_dsn: Secret,
    valkey_server: ValkeyServer,
    key_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[AuthHouse]:
    database, folder = await service_db("auth"), tmp_path_factory.mktemp("auth")
    url = valkey_server.url().reveal()
    async with running(database, keys_dsn.reveal(), url, key_file, folder, FixedClock()) as found:
        yield found


async def reader_of(house: AuthHouse) -> tuple[UUID, str, UUID]:
    publisher = await house.publisher()
    email = house.fresh()
    return publisher.live, email, await house.reader(publisher.live, email)


async def disable(house: AuthHouse, account: UUID, subject: UUID) -> sign_in_pb2.SubscriberSignIn:
    request = sign_in_pb2.DisableSubscriberSignInRequest(subscriber_id=ids.encode("subj", subject))
    answer = await house.call(house.staff(account, roles.SUPPORT), house.sign_ins.DisableSubscriberSignIn, request)
    assert isinstance(answer, sign_in_pb2.SubscriberSignIn)
    return answer


async def enable(house: AuthHouse, account: UUID, subject: UUID) -> None:
    request = sign_in_pb2.EnableSubscriberSignInRequest(subscriber_id=ids.encode("subj", subject))
    await house.call(house.staff(account, roles.SUPPORT), house.sign_ins.EnableSubscriberSignIn, request)


async def refusal(house: AuthHouse, who: Caller, method: object, request: Message) -> tuple[object, ...]:
    with pytest.raises(GatefoldError) as caught:
        await house.call(who, method, request)
    error = caught.value
    return error.kind, error.reason, error.detail, dict(error.metadata)


async def sign_in_refused(house: AuthHouse, account: UUID, email: str, password: str) -> tuple[object, ...]:
    request = subscriber_session_pb2.SignInRequest(email=email, password=password)
    return await refusal(house, house.page(account), house.readers.SignIn, request)


@pytest.mark.case("auth-20")
async def test_a_disabled_readers_right_password_is_answered_as_a_wrong_one_at_equal_work(house: AuthHouse) -> None:
    account, email, subject = await reader_of(house)
    before = house.units()
    wrong = await sign_in_refused(house, account, email, "not the right words")
    work = house.units() - before
    await disable(house, account, subject)
    before = house.units()
    assert await sign_in_refused(house, account, email, PASSWORD) == wrong
    assert house.units() - before == work
    await enable(house, account, subject)
    await house.sign_in(account, email)


@pytest.mark.case("auth-49")
@pytest.mark.case("auth-60")
async def test_disabling_ends_sessions_and_their_refreshes_at_once(house: AuthHouse) -> None:
    account, email, subject = await reader_of(house)
    tokens = await house.sign_in(account, email)
    shown = await disable(house, account, subject)
    assert shown.HasField("disabled_at")
    with pytest.raises(GatefoldError, match="invalid_grant"):
        await house.refresh(tokens.refresh_token)
    assert (await disable(house, account, subject)).disabled_at == shown.disabled_at
    await enable(house, account, subject)
    with pytest.raises(GatefoldError, match="invalid_grant"):
        await house.refresh(tokens.refresh_token)
    events = await house.events(account)
    assert [kind for kind in events if "sign_in_" in kind] == [
        "subscriber.sign_in_disabled",
        "subscriber.sign_in_enabled",
    ]


@pytest.mark.case("auth-19")
async def test_no_mail_goes_to_a_disabled_reader_and_the_answer_is_the_same(house: AuthHouse) -> None:
    account, email, subject = await reader_of(house)
    await disable(house, account, subject)
    request = recovery_pb2.RequestPasswordResetRequest(email=email)
    unknown = recovery_pb2.RequestPasswordResetRequest(email=house.fresh("nobody"))
    told = await house.call(house.page(account), house.recovery.RequestPasswordReset, request)
    assert told == await house.call(house.page(account), house.recovery.RequestPasswordReset, unknown)
    with pytest.raises(GatefoldError, match="challenge_"):
        await house.token(account, "reset_password")


async def test_a_link_that_was_mailed_before_is_void(house: AuthHouse) -> None:
    account, email, subject = await reader_of(house)
    request = recovery_pb2.RequestPasswordResetRequest(email=email)
    await house.call(house.page(account), house.recovery.RequestPasswordReset, request)
    token = await house.token(account, "reset_password")
    await disable(house, account, subject)
    with pytest.raises(GatefoldError, match="token_"):
        await house.complete_reset(token, "another good long passphrase")


async def test_the_database_itself_lets_nobody_in_who_is_disabled(house: AuthHouse) -> None:
    account, email, subject = await reader_of(house)
    await house.sign_in(account, email)
    await disable(house, account, subject)
    with pytest.raises(asyncpg.CheckViolationError, match="disabled"):
        async with house.app.tenant(account, "test") as conn:
            await conn.execute(
                """
                INSERT INTO session (account_id, id, kind, live, subject_id, acr, salt, rotated_at, authenticated_at,
                    expires_at)
                SELECT account_id, gen_random_uuid(), kind, live, subject_id, acr, salt, rotated_at, authenticated_at,
                    expires_at FROM session WHERE subject_id = $1 LIMIT 1
                """,
                subject,
            )


async def test_no_sign_in_slips_through_while_a_reader_is_being_disabled(house: AuthHouse) -> None:
    account, email, subject = await reader_of(house)
    tries = [asyncio.create_task(house.sign_in(account, email)) for _ in range(10)]
    await asyncio.sleep(0.02)
    await disable(house, account, subject)
    for tokens in await asyncio.gather(*tries, return_exceptions=True):
        if isinstance(tokens, session_pb2.Tokens):
            with pytest.raises(GatefoldError, match="invalid_grant"):
                await house.refresh(tokens.refresh_token)


async def test_a_second_factor_that_is_being_finished_does_not_stop_a_reader_from_being_disabled(
    house: AuthHouse,
) -> None:
    someone, phone = await factors.with_phone(house)
    account, code = someone.publisher.live, phone.next_code()
    waiting = await someone.sign_in()
    lock = await asyncpg.connect(house.database.owner_dsn.reveal())
    watch = await asyncpg.connect(house.database.owner_dsn.reveal())

    try:
        async with lock.transaction():
            await lock.execute("SELECT id FROM factor WHERE id = $1 FOR UPDATE", ids.decode("fac", phone.id))
            finishing = asyncio.create_task(factors.complete(house, waiting, code))
            await blocked(watch, 1)
            disabling = asyncio.create_task(disable(house, account, someone.subject))
            await blocked(watch, 2)
        tokens = await finishing
        await disabling
    finally:
        await lock.close()
        await watch.close()
    with pytest.raises(GatefoldError, match="invalid_grant"):
        await house.refresh(tokens.refresh_token)


async def test_whom_another_account_disables_is_not_concerned(house: AuthHouse) -> None:
    account, email, subject = await reader_of(house)
    other = await house.publisher()
    request = sign_in_pb2.DisableSubscriberSignInRequest(subscriber_id=ids.encode("subj", subject))
    told = await refusal(house, house.staff(other.live), house.sign_ins.DisableSubscriberSignIn, request)
    assert told[1] == "sign_in_not_found"
    await house.sign_in(account, email)


async def test_an_erased_reader_leaves_no_row_of_having_been_disabled(house: AuthHouse, vault: Vault) -> None:
    account, _, subject = await reader_of(house)
    await disable(house, account, subject)
    port = SubjectDataServicer("auth", house.app, vault, PERSONAL_TABLES, clock=house.clock)
    text = ids.encode("subj", subject)
    with caller.serving(house.service("compliance", account)):
        plan = await port.PlanErase(subject_data_pb2.PlanEraseRequest(subject_id=text), None)  # type: ignore[arg-type]
        await port.Erase(subject_data_pb2.EraseRequest(subject_id=text, plan_hash=plan.plan_hash), None)  # type: ignore[arg-type]
    async with house.app.tenant(account, "count", read_only=True) as conn:
        assert await conn.fetchval("SELECT count(*) FROM disabled_sign_in") == 0


# Members.


async def member_of(house: AuthHouse, publisher: Publisher, role: str = roles.ADMIN) -> tuple[str, UUID, str]:
    """Returns a member's identifier, person and address."""
    email = house.fresh("member")
    number = team_pb2.Role.Value(f"ROLE_{role.upper()}")
    request = team_pb2.InviteMemberRequest(email=email, role=number)
    await house.call(house.staff(publisher.live), house.team.InviteMember, request)
    member = await house.accept(await house.token(publisher.live, "invite_member"))
    return member.id, ids.decode("per", member.person_id), email


async def keep_out(house: AuthHouse, publisher: Publisher, member: str) -> team_pb2.Member:
    request = team_pb2.DisableMemberRequest(id=member)
    answer = await house.call(house.staff(publisher.live), house.team.DisableMember, request)
    assert isinstance(answer, team_pb2.Member)
    return answer


@pytest.mark.case("auth-49")
async def test_a_disabled_member_is_out_of_the_account_and_its_sibling_alone(house: AuthHouse) -> None:
    publisher = await house.publisher()
    member, _, email = await member_of(house, publisher)
    elsewhere = await house.create_account(email)
    await house.accept(await house.token(ids.decode("acct", elsewhere.id), "invite_member"))
    held = [await house.sign_in_staff(email, account=place) for place in (publisher.live, publisher.test)]
    shown = await keep_out(house, publisher, member)
    assert shown.HasField("disabled_at")
    for tokens in held:
        with pytest.raises(GatefoldError, match="invalid_grant"):
            await house.refresh(tokens.refresh_token)
    for place in (publisher.live, publisher.test):
        with pytest.raises(GatefoldError, match="account_not_found"):
            await house.sign_in_staff(email, account=place)
    await house.sign_in_staff(email)
    request = team_pb2.EnableMemberRequest(id=member)
    await house.call(house.staff(publisher.live), house.team.EnableMember, request)
    for place in (publisher.live, publisher.test):
        await house.sign_in_staff(email, account=place)
    events = await house.events(publisher.live)
    assert [kind for kind in events if kind.startswith("member.")] == ["member.disabled", "member.enabled"]


async def test_the_list_says_who_is_disabled(house: AuthHouse) -> None:
    publisher = await house.publisher()
    member, _, _ = await member_of(house, publisher)
    await keep_out(house, publisher, member)
    listed = await house.call(house.staff(publisher.live), house.team.ListMembers, team_pb2.ListMembersRequest())
    assert isinstance(listed, team_pb2.ListMembersResponse)
    assert {one.id: one.HasField("disabled_at") for one in listed.data} == {
        member: True,
        ids.encode("mem", publisher.member): False,
    }


async def test_the_last_owner_cannot_be_disabled_and_two_at_once_leave_one(house: AuthHouse) -> None:
    publisher = await house.publisher()
    second, _, _ = await member_of(house, publisher, roles.OWNER)
    first = ids.encode("mem", publisher.member)
    done = await asyncio.gather(*(keep_out(house, publisher, one) for one in (first, second)), return_exceptions=True)
    refused = [one for one in done if isinstance(one, GatefoldError)]
    assert [one.reason for one in refused] == ["last_owner"]
    kept = first if done[0] is refused[0] else second
    # An owner who is kept out is none that the team could go on with: the other may not leave either.
    request = team_pb2.RemoveMemberRequest(id=kept)
    assert (await refusal(house, house.staff(publisher.live), house.team.RemoveMember, request))[1] == "last_owner"


async def test_an_admin_does_not_disable_an_owner_and_nobody_an_invitation(house: AuthHouse) -> None:
    publisher = await house.publisher()
    request = team_pb2.DisableMemberRequest(id=ids.encode("mem", publisher.member))
    who = house.staff(publisher.live, roles.ADMIN)
    assert (await refusal(house, who, house.team.DisableMember, request))[1] == "role_above_own"
    invited = await house.call(
        house.staff(publisher.live),
        house.team.InviteMember,
        team_pb2.InviteMemberRequest(email=house.fresh("late"), role=team_pb2.ROLE_SUPPORT),
    )
    assert isinstance(invited, team_pb2.Member)
    request = team_pb2.DisableMemberRequest(id=invited.id)
    assert (await refusal(house, house.staff(publisher.live), house.team.DisableMember, request))[1] == (
        "member_not_active"
    )


async def test_a_member_who_was_disabled_and_removed_comes_back_by_invitation(house: AuthHouse) -> None:
    publisher = await house.publisher()
    member, _, email = await member_of(house, publisher)
    await keep_out(house, publisher, member)
    await house.call(house.staff(publisher.live), house.team.RemoveMember, team_pb2.RemoveMemberRequest(id=member))
    request = team_pb2.InviteMemberRequest(email=email, role=team_pb2.ROLE_SUPPORT)
    await house.call(house.staff(publisher.live), house.team.InviteMember, request)
    await house.accept(await house.token(publisher.live, "invite_member"))
    await house.sign_in_staff(email, account=publisher.live)


async def test_a_sign_in_that_waited_for_a_new_password_ends_with_it(house: AuthHouse) -> None:
    account, email, subject = await reader_of(house)
    async with house.app.tenant(account, "test") as conn:
        await conn.execute("UPDATE credential SET password_must_change = true WHERE subject_id = $1", subject)
    request = subscriber_session_pb2.SignInRequest(email=email, password=PASSWORD)
    waiting = await house.call(house.page(account), house.readers.SignIn, request)
    assert isinstance(waiting, session_pb2.Tokens)
    await disable(house, account, subject)
    changed = password_pb2.CompletePasswordChangeRequest(
        pending_token=waiting.pending.token, new_password="another good long passphrase"
    )
    told = await refusal(house, house.anonymous(), house.passwords.CompletePasswordChange, changed)
    assert told[1] == "sign_in_expired"


async def test_right_passwords_of_a_disabled_reader_are_counted_as_wrong_ones(house: AuthHouse) -> None:
    account, email, subject = await reader_of(house)
    await disable(house, account, subject)
    for _ in range(10):
        await sign_in_refused(house, account, email, PASSWORD)
    assert (await sign_in_refused(house, account, email, PASSWORD))[1] == "sign_in_delayed"
