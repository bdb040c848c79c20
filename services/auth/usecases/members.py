"""Owns what becomes of a team's members: other roles, removal, leaving."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from gatefold.auth.v1 import event_pb2

from libs import caller, errors, ids, outbox
from libs.clock import WallClock
from libs.postgres import Connection, Database, as_tenant, violated
from services.auth.domain import challenge, roles, session
from services.auth.domain.team import Membership
from services.auth.repository import accounts, challenges, people, sessions
from services.auth.usecases.facts import Facts


class Members:
    """The members of teams. Everything happens in the live account, which keeps the team."""

    def __init__(self, db: Database, clock: WallClock, facts: Facts) -> None:
        self._db = db
        self._clock = clock
        self._facts = facts

    async def change_role(self, member: UUID, role: str) -> Membership:
        """Gives a member another role and ends their sessions, so that it counts at once.

        Raises `not_found("member_not_found")`, `forbidden("role_above_own")`, `precondition("last_owner")` and
        `precondition("team_is_live")`.
        """
        who = caller.current()
        account = _live_account()
        async with self._changing(account, "change_role") as conn:
            held = await _locked(conn, account, member)
            if not roles.may_move(who.role, held.role, role, own=held.person == who.person):
                raise _above_own()
            if held.role == role:
                return held
            changed = await people.set_role(conn, account, held.id, role)
            await self._follow(conn, account, changed, "member.role_changed", role)
        return changed

    async def remove(self, member: UUID) -> None:
        """Removes a member or withdraws an invitation. Raises as `change_role`."""
        who = caller.current()
        account = _live_account()
        async with self._changing(account, "remove_member") as conn:
            held = await _locked(conn, account, member)
            if not roles.may_move(who.role, held.role, None, own=held.person == who.person):
                raise _above_own()
            await self._remove(conn, account, held)

    async def leave(self) -> None:
        """Removes the caller from the team of their account; `precondition("last_owner")` for the last owner."""
        who = caller.current()
        async with self._db.transaction("find_account", read_only=True) as conn:
            found = await accounts.find(conn, who.require_account())
        if found is None or who.person is None:
            raise _not_found()
        async with self._changing(found.team, "leave_team") as conn:
            held = await people.lock_membership(conn, found.team, person=who.person)
            if held is None:
                raise _not_found()
            await self._remove(conn, found.team, held)

    async def _remove(self, conn: Connection, account: UUID, held: Membership) -> None:
        await people.remove(conn, account, held)
        await challenges.void_of(conn, account, held.id, (challenge.INVITE_MEMBER,))
        await self._follow(conn, account, held, "member.removed", "")

    async def _follow(self, conn: Connection, account: UUID, member: Membership, kind: str, role: str) -> None:
        """Ends the member's sessions in the account and its test sibling, and tells."""
        sequence = member.sequence if role else member.sequence + 1
        data = event_pb2.MemberChanged(
            member_id=ids.encode("mem", member.id),
            person_id=ids.encode("per", member.person) if member.person else "",
            role=role,
        )
        event = self._facts.make(kind, account, ("membership", member.id), data, live=True, sequence=sequence)
        await outbox.append(conn, event=event)
        found = await accounts.find(conn, account)
        if member.person is None or found is None:
            return
        for place in (account, found.sibling):
            async with as_tenant(conn, place):
                await sessions.revoke_all_of(conn, place, member.person, self._clock.wall(), session.ROLE_CHANGED)

    @asynccontextmanager
    async def _changing(self, account: UUID, name: str) -> AsyncIterator[Connection]:
        try:
            async with self._db.tenant(account, name) as conn:
                yield conn
        except Exception as error:
            if violated(error) == "membership_last_owner":
                raise errors.precondition(
                    "last_owner", "A team keeps an owner: make somebody else one first."
                ) from error
            raise


def _live_account() -> UUID:
    who = caller.current()
    if not who.live:
        raise errors.precondition("team_is_live", "The team is kept in the live account: change it there.")
    return who.require_account()


async def _locked(conn: Connection, account: UUID, member: UUID) -> Membership:
    held = await people.lock_membership(conn, account, membership=member)
    if held is None:
        raise _not_found()
    return held


def _not_found() -> errors.GatefoldError:
    return errors.not_found("member_not_found", "There is no such member.")


def _above_own() -> errors.GatefoldError:
    return errors.forbidden("role_above_own", "Only an owner makes and unmakes owners, and nobody raises themselves.")
