"""Owns gatefold.auth.v1.TeamService."""

from gatefold.auth.v1 import team_pb2, team_pb2_grpc

from libs import errors, ids
from services.auth.domain import roles
from services.auth.servicer import page
from services.auth.usecases.team import Member, Team

_ROLES = {
    team_pb2.ROLE_OWNER: roles.OWNER,
    team_pb2.ROLE_ADMIN: roles.ADMIN,
    team_pb2.ROLE_FINANCE: roles.FINANCE,
    team_pb2.ROLE_SUPPORT: roles.SUPPORT,
    team_pb2.ROLE_SALES: roles.SALES,
    team_pb2.ROLE_DEVELOPER: roles.DEVELOPER,
    team_pb2.ROLE_PRIVACY_OFFICER: roles.PRIVACY_OFFICER,
    team_pb2.ROLE_READ_ONLY: roles.READ_ONLY,
}
_NUMBERS = {role: number for number, role in _ROLES.items()}


class TeamServicer(team_pb2_grpc.TeamServiceServicer):
    """The team of an account."""

    def __init__(self, team: Team) -> None:
        self._team = team

    async def InviteMember(self, request: team_pb2.InviteMemberRequest, context: object) -> team_pb2.Member:
        """Invites a person."""
        role = _ROLES.get(request.role)
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
        role=_NUMBERS[held.role],
        active=held.person is not None,
    )
    response.invited_at.FromDatetime(held.invited_at)
    return response
