"""Every role at every endpoint, as docs/roles.md says; and attacks on the team: raising oneself, losing the owner."""

import asyncio
import importlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from gatefold.auth.v1 import team_pb2
from google.protobuf.descriptor import MethodDescriptor

from infra.local.valkey import ValkeyServer
from libs import admission, ids, policies
from libs.caller import Caller, CallerKind
from libs.clock import FixedClock
from libs.config import Secret
from libs.errors import GatefoldError, Kind
from libs.policies import Policy
from libs.postgres import violated
from services.auth.domain import roles
from services.auth.domain.session import Session
from services.auth.domain.sign_in import Door
from services.auth.repository import people
from services.auth.usecases.sessions import Sessions
from tests.conftest import ServiceDb
from tests.support import factors
from tests.support.auth import AuthHouse, Publisher, running

ROOT = Path(__file__).resolve().parents[2]
ACCOUNT = UUID(int=7)


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


def matrix() -> dict[str, frozenset[str]]:
    """The scopes of each role, as the page tells people."""
    text = (ROOT / "docs" / "roles.md").read_text()
    lines = [line.strip("|").split("|") for line in text.splitlines() if "|" in line]
    header = [cell.strip() for cell in lines[0]]
    held: dict[str, set[str]] = {role: set() for role in header[1:]}
    for cells in lines[2:]:
        scope, *marks = (cell.strip() for cell in cells)
        for role, mark in zip(header[1:], marks, strict=True):
            if mark:
                held[role].add(scope.strip("`"))
    return {role: frozenset(scopes) for role, scopes in held.items()}


def staff_endpoints() -> Iterator[Policy]:
    for path in sorted((ROOT / "protos").rglob("*.proto")):
        name = path.relative_to(ROOT / "protos").with_suffix("").as_posix().replace("/", ".")
        for service in importlib.import_module(f"{name}_pb2").DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                found = _policy(method)
                if CallerKind.STAFF in found.callers:
                    yield found


def _policy(method: MethodDescriptor) -> Policy:
    return policies.of(f"/{method.containing_service.full_name}/{method.name}")


@pytest.mark.case("auth-70")
def test_the_page_says_what_the_code_does() -> None:
    assert matrix() == dict(roles.ROLE_SCOPES)


@pytest.mark.case("auth-70")
@pytest.mark.parametrize("role", roles.ROLES)
def test_each_role_gets_exactly_what_the_page_says_at_each_endpoint(role: str) -> None:
    documented = matrix()[role]
    who = Caller(
        CallerKind.STAFF, "per_1", ACCOUNT, role=role, scopes=roles.scopes_of(role), person=ACCOUNT, session=ACCOUNT
    )
    endpoints = list(staff_endpoints())
    assert len(endpoints) > 30
    for policy in endpoints:
        allowed = not policy.scope or policy.scope in documented
        assert admitted(policy, who) == allowed, f"{role} at {policy.method}"


def admitted(policy: Policy, who: Caller) -> bool:
    try:
        admission.admit(policy, admission.EDGE, who, closed=False)
    except GatefoldError as error:
        if error.reason != "scope_missing":
            raise
        return False
    return True


async def member(house: AuthHouse, publisher: Publisher, role: "team_pb2.Role.ValueType") -> tuple[str, UUID, str]:
    """Invites somebody who accepts; returns member, person and address."""
    email = house.fresh("staff")
    invite = team_pb2.InviteMemberRequest(email=email, role=role)
    await house.call(house.staff(publisher.live), house.team.InviteMember, invite)
    token = await house.token(publisher.live, "invite_member")
    accept = team_pb2.AcceptInvitationRequest(token=token, name="Stan", password="correct horse battery")
    made = await house.call(house.anonymous(), house.team.AcceptInvitation, accept)
    assert isinstance(made, team_pb2.Member)
    return made.id, ids.decode("per", made.person_id), email


def acting(publisher: Publisher, person: UUID, role: str, *, live: bool = True) -> Caller:
    account = publisher.live if live else publisher.test
    return Caller(
        CallerKind.STAFF, ids.encode("per", person), account, live, roles.scopes_of(role), role,
        person=person, session=person, request_id=f"req_{role}",
    )  # fmt: skip


async def change(house: AuthHouse, who: Caller, member_id: str, role: "team_pb2.Role.ValueType") -> team_pb2.Member:
    answer = await house.call(who, house.team.ChangeRole, team_pb2.ChangeRoleRequest(id=member_id, role=role))
    assert isinstance(answer, team_pb2.Member)
    return answer


async def remove(house: AuthHouse, who: Caller, member_id: str) -> None:
    await house.call(who, house.team.RemoveMember, team_pb2.RemoveMemberRequest(id=member_id))


@pytest.mark.case("auth-70")
async def test_nobody_raises_themselves_and_only_owners_move_owners(house: AuthHouse) -> None:
    publisher = await house.publisher()
    own, person, _ = await member(house, publisher, team_pb2.ROLE_ADMIN)
    admin = acting(publisher, person, roles.ADMIN)
    other, _, _ = await member(house, publisher, team_pb2.ROLE_SUPPORT)
    owner = ids.encode("mem", publisher.member)
    for attack in (
        change(house, admin, own, team_pb2.ROLE_OWNER),
        change(house, admin, own, team_pb2.ROLE_SUPPORT),
        change(house, admin, other, team_pb2.ROLE_OWNER),
        change(house, admin, owner, team_pb2.ROLE_SUPPORT),
        remove(house, admin, owner),
    ):
        with pytest.raises(GatefoldError) as raised:
            await attack
        assert (raised.value.kind, raised.value.reason) == (Kind.FORBIDDEN, "role_above_own")
    assert (await change(house, admin, other, team_pb2.ROLE_FINANCE)).role == team_pb2.ROLE_FINANCE
    with pytest.raises(GatefoldError, match="scope_missing"):
        await change(house, acting(publisher, person, roles.SUPPORT), other, team_pb2.ROLE_SUPPORT)


@pytest.mark.case("auth-70")
async def test_the_last_owner_stays(house: AuthHouse) -> None:
    publisher = await house.publisher()
    owner = acting(publisher, publisher.owner, roles.OWNER)
    own = ids.encode("mem", publisher.member)
    for attack in (
        change(house, owner, own, team_pb2.ROLE_ADMIN),
        remove(house, owner, own),
        house.call(owner, house.team.LeaveTeam, team_pb2.LeaveTeamRequest()),
    ):
        with pytest.raises(GatefoldError) as raised:
            await attack
        assert (raised.value.kind, raised.value.reason) == (Kind.PRECONDITION, "last_owner")
    assert (await house.sign_in_staff(publisher.owner_email)).access_token


@pytest.mark.case("auth-70")
async def test_two_owners_who_leave_at_once_leave_one(house: AuthHouse) -> None:
    publisher = await house.publisher()
    _, person, _ = await member(house, publisher, team_pb2.ROLE_OWNER)
    owners = [acting(publisher, one, roles.OWNER) for one in (publisher.owner, person)]
    results = await asyncio.gather(
        *(house.call(one, house.team.LeaveTeam, team_pb2.LeaveTeamRequest()) for one in owners),
        return_exceptions=True,
    )
    refused = [result for result in results if isinstance(result, GatefoldError)]
    assert [error.reason for error in refused] == ["last_owner"]


async def test_the_database_keeps_an_owner_when_two_go_at_once(house: AuthHouse) -> None:
    publisher = await house.publisher()
    second, _, _ = await member(house, publisher, team_pb2.ROLE_OWNER)
    both_gone = asyncio.Barrier(2)

    async def go(membership: UUID) -> None:
        async with house.app.tenant(publisher.live, "go") as conn:
            held = await people.lock_membership(conn, publisher.live, membership=membership)
            assert held is not None
            await people.remove(conn, publisher.live, held)
            await both_gone.wait()

    results = await asyncio.gather(
        *(go(one) for one in (publisher.member, ids.decode("mem", second))), return_exceptions=True
    )
    assert [violated(result) for result in results if isinstance(result, Exception)] == ["membership_last_owner"]


async def test_a_role_counts_at_once_and_who_is_removed_is_out(house: AuthHouse) -> None:
    publisher = await house.publisher()
    own, person, email = await member(house, publisher, team_pb2.ROLE_SUPPORT)
    owner = acting(publisher, publisher.owner, roles.OWNER)
    sessions = [await house.sign_in_staff(email, account=account) for account in (publisher.live, publisher.test)]
    await change(house, owner, own, team_pb2.ROLE_READ_ONLY)
    for tokens in sessions:
        with pytest.raises(GatefoldError, match="invalid_grant"):
            await house.refresh(tokens.refresh_token)
    fresh = await house.sign_in_staff(email)
    assert (await house.claims(fresh.access_token))["role"] == "read_only"
    await remove(house, owner, own)
    with pytest.raises(GatefoldError, match="invalid_grant"):
        await house.refresh(fresh.refresh_token)
    with pytest.raises(GatefoldError, match="account_not_found"):
        await house.sign_in_staff(email)
    async with house.app.transaction("routes") as conn:
        assert not await conn.fetchval("SELECT EXISTS (SELECT FROM staff_route WHERE person_id = $1)", person)
    events = await house.events(publisher.live)
    assert [kind for kind in events if kind.startswith("member.")] == ["member.role_changed", "member.removed"]


@pytest.mark.parametrize("what", ["role", "removal"])
async def test_a_sign_in_that_waits_dies_with_the_role_that_it_began_with(house: AuthHouse, what: str) -> None:
    publisher = await house.publisher()
    own, _, email = await member(house, publisher, team_pb2.ROLE_ADMIN)
    owner = acting(publisher, publisher.owner, roles.OWNER)
    who = await house.holder(await house.sign_in_staff(email))
    phone = await factors.begin(house, who)
    await factors.confirm(house, who, phone)
    waiting = [await house.sign_in_staff(email, account=account) for account in (publisher.live, publisher.test)]
    if what == "role":
        await change(house, owner, own, team_pb2.ROLE_READ_ONLY)
    else:
        await remove(house, owner, own)
    for one in waiting:
        with pytest.raises(GatefoldError, match="sign_in_expired"):
            await factors.complete(house, one, phone.next_code())


@pytest.mark.parametrize("what", ["role", "removal"])
async def test_a_sign_in_under_way_while_a_role_changes_begins_with_the_new_one(
    house: AuthHouse, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    publisher = await house.publisher()
    own, _, email = await member(house, publisher, team_pb2.ROLE_ADMIN)
    owner = acting(publisher, publisher.owner, roles.OWNER)
    begin, arrived, go = Sessions.begin, asyncio.Event(), asyncio.Event()

    async def slow(self: Sessions, door: Door, acr: str) -> Session:
        assert door.role == roles.ADMIN
        arrived.set()
        await go.wait()
        return await begin(self, door, acr)

    monkeypatch.setattr(Sessions, "begin", slow)
    signing_in = asyncio.create_task(house.sign_in_staff(email))
    await asyncio.wait_for(arrived.wait(), 10)
    if what == "removal":
        await remove(house, owner, own)
        go.set()
        with pytest.raises(GatefoldError, match="credentials_invalid"):
            await signing_in
        return
    await change(house, owner, own, team_pb2.ROLE_READ_ONLY)
    go.set()
    assert (await house.claims((await signing_in).access_token))["role"] == roles.READ_ONLY


async def test_a_withdrawn_invitation_works_no_longer(house: AuthHouse) -> None:
    publisher = await house.publisher()
    invite = team_pb2.InviteMemberRequest(email=house.fresh("staff"), role=team_pb2.ROLE_SALES)
    invited = await house.call(house.staff(publisher.live), house.team.InviteMember, invite)
    assert isinstance(invited, team_pb2.Member)
    token = await house.token(publisher.live, "invite_member")
    await remove(house, acting(publisher, publisher.owner, roles.OWNER), invited.id)
    accept = team_pb2.AcceptInvitationRequest(token=token, name="Stan", password="correct horse battery")
    with pytest.raises(GatefoldError, match="token_invalid"):
        await house.call(house.anonymous(), house.team.AcceptInvitation, accept)


@pytest.mark.case("auth-70")
async def test_members_of_another_account_are_not_found_and_the_test_account_has_no_team_of_its_own(
    house: AuthHouse,
) -> None:
    one, other = await house.publisher(), await house.publisher()
    theirs, _, _ = await member(house, one, team_pb2.ROLE_SUPPORT)
    stranger = acting(other, other.owner, roles.OWNER)
    for attack in (change(house, stranger, theirs, team_pb2.ROLE_ADMIN), remove(house, stranger, theirs)):
        with pytest.raises(GatefoldError, match="member_not_found"):
            await attack
    for attack in (
        change(house, acting(one, one.owner, roles.OWNER, live=False), theirs, team_pb2.ROLE_ADMIN),
        remove(house, acting(one, one.owner, roles.OWNER, live=False), theirs),
    ):
        with pytest.raises(GatefoldError, match="team_is_live"):
            await attack


async def test_the_matrix_is_shown_to_everybody(house: AuthHouse) -> None:
    answer = await house.call(house.anonymous(), house.team.ListRoles, team_pb2.ListRolesRequest())
    assert isinstance(answer, team_pb2.ListRolesResponse)
    shown = {team_pb2.Role.Name(one.role).removeprefix("ROLE_").lower(): frozenset(one.scopes) for one in answer.data}
    assert shown == matrix()
