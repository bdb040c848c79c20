"""Owns what becomes of a team's members: other roles, being kept out, removal, leaving."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from gatefold.auth.v1 import event_pb2

from libs import caller, errors, ids, outbox
from libs.clock import WallClock
from libs.ids import IdSource
from libs.postgres import Connection, Database, as_tenant, violated
from services.auth.domain import challenge, roles, session
from services.auth.domain.sign_in import Door
from services.auth.domain.team import Membership
from services.auth.repository import accounts, challenges, disabled_sign_ins, people, sessions, sign_ins
from services.auth.usecases.facts import Facts
from services.auth.usecases.unlocks import Lift


class Members:
    """The members of teams. Everything happens in the live account, which keeps the team."""

    def __init__(self, db: Database, clock: WallClock, make: IdSource, facts: Facts, release: Lift) -> None:
        self._db = db
        self._clock = clock
        self._make = make
        self._facts = facts
        self._release = release

    async def change_role(self, member: UUID, role: str) -> Membership:
        """Gives a member another role and ends their sessions, so that it counts at once.

        Raises `not_found("member_not_found")`, `forbidden("role_above_own")`, `precondition("last_owner")` and
        `precondition("team_is_live")`.
        """
        who = caller.current()
        account = _live_account()
        async with self.changing(account, "change_role") as conn:
            held = await _locked(conn, account, member)
            if not roles.may_move(who.role, held.role, role, own=held.person == who.person):
                raise _above_own()
            return await self.give_role(conn, account, held, role)

    async def disable(self, member: UUID) -> Membership:
        """Keeps a member out of the account and its sibling; at other publishers nothing changes.

        Raises as `change_role`, and `precondition("member_not_active")` for an invitation, which can be withdrawn.
        """
        who = caller.current()
        account = _live_account()
        async with self.changing(account, "disable_member") as conn:
            held = await _locked(conn, account, member)
            if not roles.may_move(who.role, held.role, None, own=held.person == who.person):
                raise _above_own()
            if held.person is None:
                raise errors.precondition("member_not_active", "This invitation was not accepted; withdraw it instead.")
            return await self.keep_out(conn, account, held, held.person)

    async def enable(self, member: UUID) -> Membership:
        """Lets a member sign in again. Raises as `change_role`."""
        who = caller.current()
        account = _live_account()
        async with self.changing(account, "enable_member") as conn:
            held = await _locked(conn, account, member)
            if not roles.may_move(who.role, held.role, None, own=held.person == who.person):
                raise _above_own()
            return held if held.person is None else await self.let_in(conn, account, held, held.person)

    async def unlock(self, member: UUID) -> Membership:
        """Ends what a member must wait after wrong passwords, wherever they sign in.

        Raises as `disable`, and as `Attempts.release`.
        """
        who = caller.current()
        account = _live_account()
        async with self._db.tenant(account, "find_member") as conn:
            held = await _locked(conn, account, member)
        if not roles.may_move(who.role, held.role, None, own=held.person == who.person):
            raise _above_own()
        if held.person is None:
            raise errors.precondition("member_not_active", "This invitation was not accepted; withdraw it instead.")
        await self._release(Door(session.STAFF, account, live=True, principal=held.person))
        return held

    async def remove(self, member: UUID) -> None:
        """Removes a member or withdraws an invitation. Raises as `change_role`."""
        who = caller.current()
        account = _live_account()
        async with self.changing(account, "remove_member") as conn:
            held = await _locked(conn, account, member)
            if not roles.may_move(who.role, held.role, None, own=held.person == who.person):
                raise _above_own()
            await self.take_out(conn, account, held)

    async def leave(self) -> None:
        """Removes the caller from the team of their account; `precondition("last_owner")` for the last owner."""
        who = caller.current()
        async with self._db.transaction("find_account", read_only=True) as conn:
            found = await accounts.find(conn, who.require_account())
        if found is None or who.person is None:
            raise _not_found()
        async with self.changing(found.team, "leave_team") as conn:
            held = await people.lock_membership(conn, found.team, person=who.person)
            if held is None:
                raise _not_found()
            await self.take_out(conn, found.team, held)

    async def give_role(self, conn: Connection, account: UUID, held: Membership, role: str) -> Membership:
        """Gives a locked member a role, whoever asks, in a transaction of `changing`."""
        if held.role == role:
            return held
        changed = await people.set_role(conn, account, held.id, role)
        await self._follow(conn, account, changed, "member.role_changed", session.ROLE_CHANGED)
        return changed

    async def keep_out(self, conn: Connection, account: UUID, held: Membership, person: UUID) -> Membership:
        """Keeps a locked member out, whoever asks, in a transaction of `changing`."""
        if await disabled_sign_ins.since(conn, account, [person]):
            return held
        now = self._clock.wall()
        changed = await people.count_change(conn, account, held.id)
        await self._follow(conn, account, changed, "member.disabled", session.DISABLED)
        for place in await places_of(conn, account):
            async with as_tenant(conn, place):
                await disabled_sign_ins.disable(conn, place, self._make.new(), now, person=person)
        await people.close_route(conn, account, person)
        return changed

    async def let_in(self, conn: Connection, account: UUID, held: Membership, person: UUID) -> Membership:
        """Lets a locked member in again, whoever asks, in a transaction of `changing`."""
        if not await disabled_sign_ins.since(conn, account, [person]):
            return held
        await self._forget_disabled(conn, account, person)
        await people.open_route(conn, account, person)
        changed = await people.count_change(conn, account, held.id)
        await self._follow(conn, account, changed, "member.enabled", None)
        return changed

    async def take_out(self, conn: Connection, account: UUID, held: Membership) -> None:
        """Removes a locked member, whoever asks, in a transaction of `changing`."""
        await people.remove(conn, account, held)
        if held.person is not None:
            # Whoever is invited again comes in anew.
            await self._forget_disabled(conn, account, held.person)
        await challenges.void_of(conn, account, held.id, (challenge.INVITE_MEMBER,))
        await self._follow(conn, account, held, "member.removed", session.ROLE_CHANGED)

    async def _forget_disabled(self, conn: Connection, account: UUID, person: UUID) -> None:
        for place in await places_of(conn, account):
            async with as_tenant(conn, place):
                await disabled_sign_ins.enable(conn, place, person)

    async def _follow(self, conn: Connection, account: UUID, member: Membership, kind: str, reason: str | None) -> None:
        """Tells, and for a reason ends the member's sessions and waiting sign-ins in the account and its test sibling.

        Sign-ins that are under way are waited for; those after them read what the member is then.
        """
        removed = kind == "member.removed"
        data = event_pb2.MemberChanged(
            member_id=ids.encode("mem", member.id),
            person_id=ids.encode("per", member.person) if member.person else "",
            role="" if removed else member.role,
        )
        sequence = member.sequence + 1 if removed else member.sequence
        event = self._facts.make(kind, account, ("membership", member.id), data, live=True, sequence=sequence)
        await outbox.append(conn, event=event)
        if member.person is None or reason is None:
            return
        for place in await places_of(conn, account):
            async with as_tenant(conn, place):
                await sign_ins.remove_of(conn, place, member.person)
                await sign_ins.hold_off(conn, place, member.person)
                await sessions.revoke_all_of(conn, place, member.person, self._clock.wall(), reason)

    @asynccontextmanager
    async def changing(self, account: UUID, name: str) -> AsyncIterator[Connection]:
        """A transaction that changes a team; raises `precondition("last_owner")` at its end when no owner is left."""
        try:
            async with self._db.tenant(account, name) as conn:
                yield conn
        except Exception as error:
            if violated(error) == "membership_last_owner":
                raise errors.precondition(
                    "last_owner", "A team keeps an owner: make somebody else one first."
                ) from error
            raise


async def places_of(conn: Connection, account: UUID) -> tuple[UUID, ...]:
    """Reads the account with its sibling, in which its members have sessions too."""
    found = await accounts.find(conn, account)
    return (account, found.sibling) if found else (account,)


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
