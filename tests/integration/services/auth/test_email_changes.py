"""Another address to sign in with: confirmed by the new mailbox, told to the former one, taken back by it."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from gatefold.auth.v1 import recovery_pb2, session_pb2, team_pb2

from libs import ids
from libs.caller import Caller
from libs.clock import FixedClock
from libs.errors import GatefoldError, Kind
from libs.postgres import PLATFORM
from tests.support.auth import PASSWORD, AuthHouse


async def request(house: AuthHouse, who: Caller, email: str) -> None:
    await house.call(who, house.recovery.RequestEmailChange, recovery_pb2.RequestEmailChangeRequest(email=email))


async def confirm(house: AuthHouse, token: str, request_id: str | None = None) -> None:
    asked = recovery_pb2.ConfirmEmailChangeRequest(token=token, password=PASSWORD)
    await house.call(house.anonymous(request_id), house.recovery.ConfirmEmailChange, asked)


async def revert(house: AuthHouse, token: str) -> None:
    asked = recovery_pb2.RevertEmailChangeRequest(token=token)
    await house.call(house.anonymous(), house.recovery.RevertEmailChange, asked)


async def reset(house: AuthHouse, account: UUID, email: str) -> str:
    asked = recovery_pb2.RequestPasswordResetRequest(email=email)
    await house.call(house.page(account), house.recovery.RequestPasswordReset, asked)
    return await house.token(account, "reset_password")


async def letters(house: AuthHouse, account: UUID, count: int) -> dict[str, tuple[str, str]]:
    """Returns address and link of the newest mails, by purpose."""
    async with house.database.jobs.transaction("read_outbox") as conn:
        rows = await conn.fetch(
            "SELECT aggregate_id FROM outbox WHERE account_id = $1 AND type = 'challenge.requested'"
            " ORDER BY position DESC LIMIT $2",
            account,
            count,
        )
    said = [await house.describe(ids.decode("chal", row["aggregate_id"])) for row in rows]
    return {letter.purpose: (letter.email, letter.link) for letter in said}


def token_of(link: str) -> str:
    return link.rpartition("token=")[2]


async def reader(house: AuthHouse, account: UUID) -> tuple[str, UUID, session_pb2.Tokens, Caller]:
    email = house.fresh()
    subject = await house.reader(account, email)
    tokens = await house.sign_in(account, email)
    return email, subject, tokens, await house.holder(tokens)


@pytest.mark.case("auth-36")
async def test_a_new_address_counts_once_its_mailbox_confirmed_and_the_profile_follows(
    house: AuthHouse,
) -> None:
    publisher = await house.publisher()
    former, subject, tokens, who = await reader(house, publisher.live)
    stale = await reset(house, publisher.live, former)
    present = house.fresh("present")
    await request(house, who, present)
    letter = await house.describe(await house.newest_challenge(publisher.live))
    assert (letter.purpose, letter.email) == ("change_email", present)
    # Not active until it is confirmed.
    await house.sign_in(publisher.live, former)
    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await house.sign_in(publisher.live, present)
    assert (publisher.live, present) not in house.subscriber.subjects

    token = token_of(letter.link)
    await confirm(house, token, request_id="req_lost")
    await confirm(house, token, request_id="req_lost")
    mails = await letters(house, publisher.live, 2)
    assert {purpose: email for purpose, (email, _) in mails.items()} == {
        "revert_email": former,
        "email_changed": present,
    }
    assert house.subscriber.subjects[(publisher.live, present)] == ids.encode("subj", subject)
    assert (publisher.live, former) not in house.subscriber.subjects
    await house.sign_in(publisher.live, present)
    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await house.sign_in(publisher.live, former)
    await house.refresh(tokens.refresh_token)
    # What went to the former address opens nothing any more, and is gone.
    async with house.app.tenant(publisher.live, "look", read_only=True) as conn:
        statement = "SELECT purpose FROM challenge WHERE subject_id = $1 AND spent_at IS NULL ORDER BY purpose"
        left = [row["purpose"] for row in await conn.fetch(statement, subject)]
    assert left == ["email_changed", "revert_email"]
    with pytest.raises(GatefoldError, match="token_invalid"):
        await house.complete_reset(stale, "an entirely different phrase")
    with pytest.raises(GatefoldError, match="token_spent"):
        await confirm(house, token)


@pytest.mark.case("auth-36")
async def test_the_former_address_takes_the_change_back_and_ends_every_session(house: AuthHouse) -> None:
    publisher = await house.publisher()
    former, subject, tokens, who = await reader(house, publisher.live)
    thief, second = house.fresh("thief"), house.fresh("second")
    await request(house, who, thief)
    await confirm(house, await house.token(publisher.live, "change_email"))
    first_mails = await letters(house, publisher.live, 2)
    # Whoever took the account over changes the address once more, and has a link to a new password under way.
    await request(house, who, second)
    await confirm(house, await house.token(publisher.live, "change_email"))
    thiefs_revert = token_of((await letters(house, publisher.live, 2))["revert_email"][1])
    stolen = await reset(house, publisher.live, second)

    await revert(house, token_of(first_mails["revert_email"][1]))
    with pytest.raises(GatefoldError, match="invalid_grant"):
        await house.refresh(tokens.refresh_token)
    for refused in (second, thief):
        with pytest.raises(GatefoldError, match="credentials_invalid"):
            await house.sign_in(publisher.live, refused)
    await house.sign_in(publisher.live, former)
    assert house.subscriber.subjects[(publisher.live, former)] == ids.encode("subj", subject)
    assert (await letters(house, publisher.live, 1))["email_changed"][0] == former
    with pytest.raises(GatefoldError, match="token_invalid"):
        await revert(house, thiefs_revert)
    with pytest.raises(GatefoldError, match="token_invalid"):
        await house.complete_reset(stolen, "an entirely different phrase")
    with pytest.raises(GatefoldError, match="token_spent"):
        await revert(house, token_of(first_mails["revert_email"][1]))


@pytest.mark.case("auth-36")
async def test_whoever_moved_the_address_on_takes_nothing_back_from_who_had_it_before(house: AuthHouse) -> None:
    publisher = await house.publisher()
    former, subject, _, who = await reader(house, publisher.live)
    thief, second = house.fresh("thief"), house.fresh("second")
    links = []
    for address in (thief, second):
        await request(house, who, address)
        await confirm(house, await house.token(publisher.live, "change_email"))
        links.append(token_of((await letters(house, publisher.live, 2))["revert_email"][1]))
    # The thief's first mailbox takes back its own loss, which must not cost the owner theirs.
    await revert(house, links[1])
    await house.sign_in(publisher.live, thief)
    await revert(house, links[0])
    await house.sign_in(publisher.live, former)
    assert house.subscriber.subjects[(publisher.live, former)] == ids.encode("subj", subject)


@pytest.mark.case("auth-36")
async def test_an_address_is_changed_after_a_fresh_sign_in_alone(house: AuthHouse) -> None:
    publisher = await house.publisher()
    _, _, _, who = await reader(house, publisher.live)
    assert isinstance(house.clock, FixedClock)
    house.clock.advance(timedelta(minutes=15, seconds=1))
    for stale in (who, replace(who, auth_time=None)):
        with pytest.raises(GatefoldError) as raised:
            await request(house, stale, house.fresh())
        assert (raised.value.kind, raised.value.reason) == (Kind.UNAUTHENTICATED, "authentication_insufficient")


async def test_a_person_changes_the_address_for_every_team(house: AuthHouse) -> None:
    publisher = await house.publisher()
    tokens = await house.sign_in_staff(publisher.owner_email)
    who = await house.holder(tokens)
    present = house.fresh("present")
    await request(house, who, present)
    letter = await house.describe(await house.newest_challenge(PLATFORM))
    assert (letter.email, letter.name) == (present, ""), "the mailbox may be anybody's"
    await confirm(house, token_of(letter.link))
    await house.sign_in_staff(present)
    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await house.sign_in_staff(publisher.owner_email)
    async with house.app.tenant(publisher.live, "look", read_only=True) as conn:
        indexes = [row["email_index"] for row in await conn.fetch("SELECT email_index FROM membership")]
    mails = await letters(house, PLATFORM, 2)
    assert mails["revert_email"][0] == publisher.owner_email
    await revert(house, token_of(mails["revert_email"][1]))
    async with house.app.tenant(publisher.live, "look", read_only=True) as conn:
        assert [row["email_index"] for row in await conn.fetch("SELECT email_index FROM membership")] != indexes
    await house.sign_in_staff(publisher.owner_email)
    with pytest.raises(GatefoldError, match="invalid_grant"):
        await house.refresh(tokens.refresh_token)


async def test_a_member_who_is_kept_out_is_found_by_their_present_address_all_the_same(house: AuthHouse) -> None:
    publisher, other = await house.publisher(), await house.publisher()
    invitation = team_pb2.InviteMemberRequest(email=publisher.owner_email, role=team_pb2.ROLE_SUPPORT)
    await house.call(house.staff(other.live), house.team.InviteMember, invitation)
    member = (await house.accept(await house.token(other.live, "invite_member"))).id
    await house.call(house.staff(other.live), house.team.DisableMember, team_pb2.DisableMemberRequest(id=member))
    who = await house.holder(await house.sign_in_staff(publisher.owner_email))
    present = house.fresh("present")
    await request(house, who, present)
    await confirm(house, token_of((await house.describe(await house.newest_challenge(PLATFORM))).link))
    again = team_pb2.InviteMemberRequest(email=present, role=team_pb2.ROLE_SUPPORT)
    with pytest.raises(GatefoldError, match="member_exists"):
        await house.call(house.staff(other.live), house.team.InviteMember, again)
    with pytest.raises(GatefoldError, match="account_not_found"):
        await house.sign_in_staff(present, account=other.live)
    assert (await house.sign_in_staff(present)).access_token, "there is one place alone to go to"
    # Who has the former address now is somebody else.
    invitation.role = team_pb2.ROLE_SALES
    await house.call(house.staff(other.live), house.team.InviteMember, invitation)
    await house.call(house.staff(other.live), house.team.EnableMember, team_pb2.EnableMemberRequest(id=member))
    await house.sign_in_staff(present, account=other.live)


async def test_an_address_that_somebody_has_gets_no_mail_and_the_same_answer(house: AuthHouse) -> None:
    publisher = await house.publisher()
    neighbour = house.fresh()
    await house.reader(publisher.live, neighbour)
    _, _, _, who = await reader(house, publisher.live)
    await request(house, who, neighbour)
    with pytest.raises(GatefoldError, match="challenge_over"):
        await house.describe(await house.newest_challenge(publisher.live))
    other = await house.publisher()
    tokens = await house.sign_in_staff(publisher.owner_email)
    await request(house, await house.holder(tokens), other.owner_email)
    with pytest.raises(GatefoldError, match="challenge_over"):
        await house.describe(await house.newest_challenge(PLATFORM))


async def test_an_address_that_was_taken_meanwhile_is_refused_and_nothing_changes(house: AuthHouse) -> None:
    publisher = await house.publisher()
    former, subject, _, who = await reader(house, publisher.live)
    wanted = house.fresh("wanted")
    await request(house, who, wanted)
    token = await house.token(publisher.live, "change_email")
    # A reader whom the publisher brought over has it; they have no credential yet.
    house.subscriber.subjects[(publisher.live, wanted)] = ids.encode("subj", UUID(int=9))
    with pytest.raises(GatefoldError, match="email_taken"):
        await confirm(house, token)
    del house.subscriber.subjects[(publisher.live, wanted)]
    # And a reader whom auth alone knows by it.
    await house.reader(publisher.live, wanted)
    del house.subscriber.subjects[(publisher.live, wanted)]
    with pytest.raises(GatefoldError, match="email_taken"):
        await confirm(house, token)
    await house.sign_in(publisher.live, former)
    assert house.subscriber.subjects[(publisher.live, former)] == ids.encode("subj", subject), "the profile went back"


async def test_a_change_and_its_taking_back_at_once_leave_profile_and_sign_in_agreed(house: AuthHouse) -> None:
    publisher = await house.publisher()
    former, subject, _, who = await reader(house, publisher.live)
    second, third = house.fresh("second"), house.fresh("third")
    await request(house, who, second)
    await confirm(house, await house.token(publisher.live, "change_email"))
    back = token_of((await letters(house, publisher.live, 2))["revert_email"][1])
    await request(house, who, third)
    forth = await house.token(publisher.live, "change_email")
    held = house.subscriber.hold()
    calls = [asyncio.create_task(revert(house, back))]
    await asyncio.wait_for(house.subscriber.arrivals.get(), 10)
    calls.append(asyncio.create_task(confirm(house, forth)))
    await asyncio.wait_for(house.subscriber.arrivals.get(), 10)
    house.subscriber.release(held)
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [answer is None for answer in answers].count(True) == 1, answers
    signed_in = []
    for email in (former, third):
        try:
            await house.sign_in(publisher.live, email)
        except GatefoldError:
            continue
        signed_in.append(email)
    assert [house.subscriber.subjects.get((publisher.live, email)) for email in signed_in] == [
        ids.encode("subj", subject)
    ]


async def test_a_confirmation_cut_off_after_the_profile_followed_is_finished_by_a_retry(house: AuthHouse) -> None:
    publisher = await house.publisher()
    _, subject, _, who = await reader(house, publisher.live)
    present = house.fresh("present")
    await request(house, who, present)
    token = await house.token(publisher.live, "change_email")
    held = house.subscriber.hold()
    cut = asyncio.create_task(confirm(house, token))
    await asyncio.wait_for(house.subscriber.arrivals.get(), 10)
    cut.cancel()
    await asyncio.gather(cut, return_exceptions=True)
    house.subscriber.release(held)
    await confirm(house, token)
    assert house.subscriber.subjects[(publisher.live, present)] == ids.encode("subj", subject)
    await house.sign_in(publisher.live, present, PASSWORD)
