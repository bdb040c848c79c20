"""Operators and staff: bootstrap, sign-in, the team."""

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest
from gatefold.auth.v1 import session_pb2, team_pb2

from libs import ids
from libs.clock import FixedClock
from libs.errors import GatefoldError, Kind
from services.auth.__main__ import bootstrap_operator
from services.auth.domain import roles
from tests.support.auth import PASSWORD, AuthHouse, Publisher


async def bootstrap(house: AuthHouse, token: str, email: str, request_id: str | None = None) -> UUID:
    request = session_pb2.BootstrapOperatorRequest(token=token, email=email, name="Olga", password=PASSWORD)
    answer = await house.call(house.anonymous(request_id), house.sessions.BootstrapOperator, request)
    assert isinstance(answer, session_pb2.BootstrapOperatorResponse)
    return ids.decode("per", answer.person_id)


async def new_token(house: AuthHouse) -> str:
    # The command runs by the machine's clock, which is the test's here.
    token = await bootstrap_operator(house.environ)
    async with house.app.transaction("now") as conn:
        await conn.execute(
            "UPDATE bootstrap_token SET expires_at = $1 WHERE spent_at IS NULL",
            house.clock.wall() + timedelta(hours=24),
        )
    return token


async def invite(
    house: AuthHouse, publisher: Publisher, email: str, role: int, *, inviter: str = roles.OWNER, key: str | None = None
) -> team_pb2.Member:
    request = team_pb2.InviteMemberRequest(email=email, role=role)  # type: ignore[arg-type]
    who = house.staff(publisher.live, inviter, key=key)
    answer = await house.call(who, house.team.InviteMember, request)
    assert isinstance(answer, team_pb2.Member)
    return answer


async def members(house: AuthHouse, account: UUID, *, live: bool = True) -> list[team_pb2.Member]:
    who = house.staff(account, live=live)
    answer = await house.call(who, house.team.ListMembers, team_pb2.ListMembersRequest())
    assert isinstance(answer, team_pb2.ListMembersResponse)
    return list(answer.data)


@pytest.mark.case("auth-71")
async def test_a_fresh_installation_has_nobody_and_a_bootstrap_token_makes_one_operator(house: AuthHouse) -> None:
    token = await new_token(house)
    emails = [house.fresh("operator") for _ in range(4)]
    answers = await asyncio.gather(*(bootstrap(house, token, email) for email in emails), return_exceptions=True)
    assert len([answer for answer in answers if isinstance(answer, UUID)]) == 1
    refusals = [answer for answer in answers if isinstance(answer, GatefoldError)]
    assert [error.reason for error in refusals] == ["token_spent"] * 3
    for email, answer in zip(emails, answers, strict=True):
        if isinstance(answer, UUID):
            claims = await house.claims((await house.sign_in_staff(email)).access_token)
            assert (claims["kind"], claims["role"], claims["scope"]) == ("PLATFORM_OPERATOR", "operator", "")
            assert (claims["sub"], "account" in claims) == (ids.encode("per", answer), False)
        else:
            with pytest.raises(GatefoldError, match="credentials_invalid"):
                await house.sign_in_staff(email)


async def test_an_operators_session_is_refreshed_and_belongs_to_no_account(house: AuthHouse) -> None:
    email = house.fresh("operator")
    await bootstrap(house, await new_token(house), email)
    tokens = await house.sign_in_staff(email)
    assert tokens.account_id == ""
    again = await house.refresh(tokens.refresh_token)
    assert (await house.claims(again.access_token))["kind"] == "PLATFORM_OPERATOR"


async def test_a_bootstrap_token_expires_is_replaced_by_a_newer_one_and_stored_hashed(house: AuthHouse) -> None:
    older = await new_token(house)
    newer = await new_token(house)
    with pytest.raises(GatefoldError, match="token_invalid"):
        await bootstrap(house, older, house.fresh("operator"))
    async with house.app.transaction("dump") as conn:
        rows = await conn.fetch("SELECT bootstrap_token::text FROM bootstrap_token")
    assert all(newer.removeprefix("gfbt_") not in row[0] for row in rows)
    assert isinstance(house.clock, FixedClock)
    house.clock.advance(timedelta(hours=24))
    with pytest.raises(GatefoldError, match="token_expired"):
        await bootstrap(house, newer, house.fresh("operator"))


async def test_a_repeated_bootstrap_request_is_answered_as_it_was(house: AuthHouse) -> None:
    token, email = await new_token(house), house.fresh("operator")
    person = await bootstrap(house, token, email, "req_first")
    assert await bootstrap(house, token, email, "req_first") == person
    with pytest.raises(GatefoldError, match="token_spent"):
        await bootstrap(house, token, email, "req_second")


async def test_a_weak_password_does_not_spend_the_bootstrap_token(house: AuthHouse) -> None:
    token, email = await new_token(house), house.fresh("operator")
    request = session_pb2.BootstrapOperatorRequest(token=token, email=email, name="Olga", password="short")
    with pytest.raises(GatefoldError, match="password_too_short"):
        await house.call(house.anonymous(), house.sessions.BootstrapOperator, request)
    await bootstrap(house, token, email)


async def test_an_invited_owner_sets_a_password_and_works_live_and_test(house: AuthHouse) -> None:
    publisher = await house.publisher()
    tokens = await house.sign_in_staff(publisher.owner_email)
    claims = await house.claims(tokens.access_token)
    assert (claims["kind"], claims["role"], claims["live"]) == ("STAFF", "owner", True)
    assert claims["account"] == ids.encode("acct", publisher.live)
    assert set(str(claims["scope"]).split()) == roles.SCOPES
    test = await house.sign_in_staff(publisher.owner_email, account=publisher.test)
    claims = await house.claims(test.access_token)
    assert (claims["account"], claims["live"], claims["role"]) == (
        ids.encode("acct", publisher.test),
        False,
        "owner",
    )
    claims = await house.claims((await house.refresh(test.refresh_token)).access_token)
    assert (claims["account"], claims["role"]) == (ids.encode("acct", publisher.test), "owner")


async def test_staff_cannot_sign_in_to_an_account_they_do_not_work_for(house: AuthHouse) -> None:
    mine, other = await house.publisher(), await house.publisher()
    for account in (other.live, other.test, UUID(int=99)):
        with pytest.raises(GatefoldError) as raised:
            await house.sign_in_staff(mine.owner_email, account=account)
        assert (raised.value.kind, raised.value.reason) == (Kind.NOT_FOUND, "account_not_found")
        # Without the password the account makes no difference.
        with pytest.raises(GatefoldError, match="credentials_invalid"):
            await house.sign_in_staff(mine.owner_email, "wrong password for all", account)


async def test_a_person_of_two_publishers_proves_the_password_and_then_chooses(house: AuthHouse) -> None:
    one, other = await house.publisher(), await house.publisher()
    await invite(house, other, one.owner_email, team_pb2.ROLE_FINANCE)
    token = await house.token(other.live, "invite_member")
    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await house.accept(token, "not the password of Ada")
    member = await house.accept(token)
    assert ids.decode("per", member.person_id) == one.owner
    with pytest.raises(GatefoldError) as raised:
        await house.sign_in_staff(one.owner_email)
    assert raised.value.reason == "account_required"
    assert set(raised.value.metadata["accounts"].split(",")) == {
        ids.encode("acct", one.live),
        ids.encode("acct", other.live),
    }
    claims = await house.claims((await house.sign_in_staff(one.owner_email, account=other.live)).access_token)
    assert claims["role"] == "finance"


@pytest.mark.case("auth-15")
async def test_an_invitation_names_no_password_and_works_once_for_72_hours(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh("member")
    invited = await invite(house, publisher, email, team_pb2.ROLE_SUPPORT)
    assert (invited.active, invited.person_id, invited.email, invited.name) == (False, "", email, "")
    letter = await house.describe(await house.newest_challenge(publisher.live))
    assert letter.email == email
    assert letter.link.startswith("https://staff.gatefold.example/accept?token=gfct_")
    assert letter.expires_at.ToDatetime().timestamp() - house.clock.wall().replace(tzinfo=None).timestamp() == 72 * 3600
    token = await house.token(publisher.live, "invite_member")
    answers = await asyncio.gather(*(house.accept(token) for _ in range(4)), return_exceptions=True)
    assert len([answer for answer in answers if isinstance(answer, team_pb2.Member)]) == 1
    with pytest.raises(GatefoldError, match="token_spent"):
        await house.accept(token)
    assert (await house.claims((await house.sign_in_staff(email)).access_token))["role"] == "support"

    await invite(house, publisher, house.fresh("member"), team_pb2.ROLE_SUPPORT)
    token = await house.token(publisher.live, "invite_member")
    assert isinstance(house.clock, FixedClock)
    house.clock.advance(timedelta(hours=72))
    with pytest.raises(GatefoldError, match="token_expired"):
        await house.accept(token)


async def test_a_repeated_acceptance_of_one_request_is_answered_as_it_was(house: AuthHouse) -> None:
    publisher = await house.publisher()
    await invite(house, publisher, house.fresh("member"), team_pb2.ROLE_SALES)
    token = await house.token(publisher.live, "invite_member")
    member = await house.accept(token, request_id="req_accept")
    assert await house.accept(token, request_id="req_accept") == member
    assert (member.name, member.active) == ("Ada Owner", True)


async def test_inviting_again_ends_the_older_mail_and_keeps_one_member(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh("member")
    first = await invite(house, publisher, email, team_pb2.ROLE_SUPPORT)
    older = await house.token(publisher.live, "invite_member")
    second = await invite(house, publisher, email.capitalize(), team_pb2.ROLE_FINANCE)
    assert second.id == first.id
    with pytest.raises(GatefoldError, match="token_invalid"):
        await house.accept(older)
    member = await house.accept(await house.token(publisher.live, "invite_member"))
    assert member.role == team_pb2.ROLE_FINANCE
    with pytest.raises(GatefoldError, match="member_exists"):
        await invite(house, publisher, email, team_pb2.ROLE_ADMIN)


async def test_a_repeated_invitation_with_the_same_key_sends_one_mail(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh("member")
    first = await invite(house, publisher, email, team_pb2.ROLE_SUPPORT, key="once")
    mails = (await house.events(publisher.live)).count("challenge.requested")
    assert await invite(house, publisher, email, team_pb2.ROLE_SUPPORT, key="once") == first
    assert (await house.events(publisher.live)).count("challenge.requested") == mails
    with pytest.raises(GatefoldError, match="idempotency_key_reused"):
        await invite(house, publisher, email, team_pb2.ROLE_FINANCE, key="once")


@pytest.mark.case("auth-70")
async def test_only_an_owner_invites_an_owner(house: AuthHouse) -> None:
    publisher = await house.publisher()
    with pytest.raises(GatefoldError, match="role_above_own"):
        await invite(house, publisher, house.fresh(), team_pb2.ROLE_OWNER, inviter=roles.ADMIN)
    await invite(house, publisher, house.fresh(), team_pb2.ROLE_OWNER)
    with pytest.raises(GatefoldError, match="scope_missing"):
        await invite(house, publisher, house.fresh(), team_pb2.ROLE_READ_ONLY, inviter=roles.DEVELOPER)
    with pytest.raises(GatefoldError, match="role_invalid"):
        await invite(house, publisher, house.fresh(), team_pb2.ROLE_UNSPECIFIED)


async def test_the_team_is_listed_from_both_sides_page_by_page_and_no_further(house: AuthHouse) -> None:
    publisher, other = await house.publisher(), await house.publisher()
    emails = [house.fresh("member") for _ in range(2)]
    for email in emails:
        await invite(house, publisher, email, team_pb2.ROLE_SUPPORT)
    found = await members(house, publisher.live)
    assert [one.email for one in found] == [*reversed(emails), publisher.owner_email]
    assert [one.active for one in found] == [False, False, True]
    assert await members(house, publisher.test, live=False) == found
    assert [one.email for one in await members(house, other.live)] == [other.owner_email]
    seen, cursor = [], ""
    while True:
        request = team_pb2.ListMembersRequest(limit=1, cursor=cursor)
        answer = await house.call(house.staff(publisher.live), house.team.ListMembers, request)
        assert isinstance(answer, team_pb2.ListMembersResponse)
        seen += list(answer.data)
        cursor = answer.next_cursor
        if not cursor:
            break
    assert seen == found


async def test_people_are_invited_in_the_live_account(house: AuthHouse) -> None:
    publisher = await house.publisher()
    request = team_pb2.InviteMemberRequest(email=house.fresh(), role=team_pb2.ROLE_SUPPORT)
    with pytest.raises(GatefoldError, match="team_is_live"):
        await house.call(house.staff(publisher.test, live=False), house.team.InviteMember, request)


async def test_a_new_person_who_accepts_two_invitations_at_once_becomes_one_person(house: AuthHouse) -> None:
    publishers = [await house.publisher(), await house.publisher()]
    email = house.fresh("member")
    waiting = []
    for publisher in publishers:
        await invite(house, publisher, email, team_pb2.ROLE_SUPPORT)
        waiting.append(await house.token(publisher.live, "invite_member"))
    answers = await asyncio.gather(*(house.accept(token) for token in waiting), return_exceptions=True)
    for token, answer in zip(waiting, answers, strict=True):
        if isinstance(answer, GatefoldError):
            assert answer.reason == "concurrent_change"
            await house.accept(token)
    for publisher in publishers:
        claims = await house.claims((await house.sign_in_staff(email, account=publisher.live)).access_token)
        assert claims["role"] == "support"
    found = [await members(house, publisher.live) for publisher in publishers]
    assert len({one.person_id for team in found for one in team if one.email == email}) == 1
