"""Owns gatefold.auth.v1.TeamService."""

from gatefold.auth.v1 import team_pb2, team_pb2_grpc

from libs import caller, errors, ids
from services.auth.domain import roles
from services.auth.servicer import page
from services.auth.usecases.members import Members
from services.auth.usecases.team import Member, Team

ROLES = {
    team_pb2.ROLE_OWNER: roles.OWNER,
    team_pb2.ROLE_ADMIN: roles.ADMIN,
    team_pb2.ROLE_FINANCE: roles.FINANCE,
    team_pb2.ROLE_SUPPORT: roles.SUPPORT,
    team_pb2.ROLE_SALES: roles.SALES,
    team_pb2.ROLE_DEVELOPER: roles.DEVELOPER,
    team_pb2.ROLE_PRIVACY_OFFICER: roles.PRIVACY_OFFICER,
    team_pb2.ROLE_READ_ONLY: roles.READ_ONLY,
}
NUMBERS = {role: number for number, role in ROLES.items()}


class TeamServicer(team_pb2_grpc.TeamServiceServicer):
    """The team of an account."""

    def __init__(self, team: Team, members: Members) -> None:
        self._team = team
        self._members = members

    async def InviteMember(self, request: team_pb2.InviteMemberRequest, context: object) -> team_pb2.Member:
        """Invites a person."""
        role = ROLES.get(request.role)
        if role is None:
            raise errors.invalid("role_invalid", "A member needs a role.", field="role")
        return _member(await self._team.invite(request, role))

    async def ListMembers(self, request: team_pb2.ListMembersRequest, context: object) -> team_pb2.ListMembersResponse:
        """Lists the team."""
        limit = page.size(request.limit)
        shown, last = page.cut(await self._team.list_members(page.before("mem", request.cursor), limit + 1), limit)
        return team_pb2.ListMembersResponse(
            data=[_member(one) for one in shown],
            next_cursor=ids.encode("mem", last.membership.id) if last else "",
        )

    async def ChangeRole(self, request: team_pb2.ChangeRoleRequest, context: object) -> team_pb2.Member:
        """Gives a member another role."""
        role = ROLES.get(request.role)
        if role is None:
            raise errors.invalid("role_invalid", "A member needs a role.", field="role")
        changed = await self._members.change_role(ids.decode("mem", request.id, field="id"), role)
        return _member(await self._team.shown(caller.current().require_account(), changed))

    async def RemoveMember(
        self, request: team_pb2.RemoveMemberRequest, context: object
    ) -> team_pb2.RemoveMemberResponse:
        """Removes a member."""
        await self._members.remove(ids.decode("mem", request.id, field="id"))
        return team_pb2.RemoveMemberResponse()

    async def DisableMember(self, request: team_pb2.DisableMemberRequest, context: object) -> team_pb2.Member:
        """Keeps a member out."""
        changed = await self._members.disable(ids.decode("mem", request.id, field="id"))
        return _member(await self._team.shown(caller.current().require_account(), changed))

    async def UnlockMember(self, request: team_pb2.UnlockMemberRequest, context: object) -> team_pb2.Member:
        """Ends a member's wait."""
        held = await self._members.unlock(ids.decode("mem", request.id, field="id"))
        return _member(await self._team.shown(caller.current().require_account(), held))

    async def EnableMember(self, request: team_pb2.EnableMemberRequest, context: object) -> team_pb2.Member:
        """Lets a member in again."""
        changed = await self._members.enable(ids.decode("mem", request.id, field="id"))
        return _member(await self._team.shown(caller.current().require_account(), changed))

    async def LeaveTeam(self, request: team_pb2.LeaveTeamRequest, context: object) -> team_pb2.LeaveTeamResponse:
        """Removes the caller from their team."""
        await self._members.leave()
        return team_pb2.LeaveTeamResponse()

    async def ListRoles(self, request: team_pb2.ListRolesRequest, context: object) -> team_pb2.ListRolesResponse:
        """Shows the matrix."""
        return team_pb2.ListRolesResponse(
            data=[team_pb2.RoleScopes(role=NUMBERS[role], scopes=sorted(roles.scopes_of(role))) for role in roles.ROLES]
        )

    async def AcceptInvitation(self, request: team_pb2.AcceptInvitationRequest, context: object) -> team_pb2.Member:
        """Accepts an invitation."""
        return _member(await self._team.accept(request.token, request.name, request.password))


def _member(member: Member) -> team_pb2.Member:
    held = member.membership
    response = team_pb2.Member(
        id=ids.encode("mem", held.id),
        person_id=ids.encode("per", held.person) if held.person else "",
        email=member.email,
        name=member.name,
        role=NUMBERS[held.role],
        active=held.person is not None,
    )
    response.invited_at.FromDatetime(held.invited_at)
    if member.disabled_at is not None:
        response.disabled_at.FromDatetime(member.disabled_at)
    return response
