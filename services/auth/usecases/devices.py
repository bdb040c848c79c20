"""Owns the devices that people are signed in on: sealing them, listing them, ending the sessions on them."""

from dataclasses import dataclass
from uuid import UUID

from libs import caller, errors
from libs.clock import WallClock
from libs.postgres import Connection, Database, as_tenant
from libs.vault import Vault
from services.auth.domain import challenge, roles, session
from services.auth.domain.device import Device
from services.auth.domain.session import Session
from services.auth.domain.sign_in import Door
from services.auth.repository import accounts, people, sessions
from services.auth.usecases import doors
from services.auth.usecases.challenges import Challenges
from services.auth.usecases.sessions import device_of, end_all, places_of

MOST_LISTED = 100


@dataclass(frozen=True)
class SignedIn:
    """A session, with the device it was started on."""

    held: Session
    device: Device
    current: bool


class Devices:
    """Sessions as their owners see them, and as staff end them."""

    def __init__(self, db: Database, vault: Vault, challenges: Challenges, clock: WallClock) -> None:
        self._db = db
        self._vault = vault
        self._challenges = challenges
        self._clock = clock

    async def own(self) -> list[SignedIn]:
        """Returns the caller's sessions that are not over, newest first, in every account; 100 at most."""
        door, current = doors.own(), caller.current().session
        now = self._clock.wall()
        found: list[Session] = []
        async with self._db.tenant(door.owner, "list_sessions", read_only=True) as conn:
            for account in await places_of(conn, door):
                async with as_tenant(conn, account):
                    found += await sessions.alive_of(conn, account, door.principal, now, MOST_LISTED)
        found = [held for held in found if not session.over(held, now)]
        found.sort(key=lambda held: held.id, reverse=True)
        cipher = await self._vault.cipher(door.owner, door.principal)
        return [SignedIn(held, device_of(cipher, held), held.id == current) for held in found[:MOST_LISTED]]

    async def end_own(self, key: UUID) -> None:
        """Ends one of the caller's sessions; `not_found("session_not_found")` for anybody else's, or one that is over.

        Of two ends of one session both succeed.
        """
        door = doors.own()
        async with self._db.transaction("find_session", read_only=True) as conn:
            account = await sessions.account_of(conn, key)
        if account is not None:
            async with self._db.tenant(account, "end_session") as conn:
                held = await sessions.lock(conn, account, key)
                if held is not None and _belongs(held, door):
                    if await sessions.revoke(conn, account, key, self._clock.wall(), session.ENDED):
                        await self._tell(conn, door)
                    return
        raise errors.not_found("session_not_found", "There is no such session.")

    async def end_others(self) -> int:
        """Ends all of the caller's sessions but the one in use; returns how many."""
        door, current = doors.own(), caller.current().session
        async with self._db.tenant(door.owner, "end_other_sessions") as conn:
            ended = await end_all(conn, door, self._clock.wall(), session.ENDED, but=current)
            if ended:
                await self._tell(conn, door)
            return ended

    async def sign_out(self) -> None:
        """Ends the session in use."""
        who = caller.current()
        door = doors.own()
        if who.session is not None:
            async with self._db.tenant(door.account, "sign_out") as conn:
                await sessions.revoke(conn, door.account, who.session, self._clock.wall(), session.SIGNED_OUT)

    async def end_of_subscriber(self, subject: UUID) -> int:
        """Ends all sessions of a reader of the caller's account; 0 for one who has none, or is nobody."""
        who = caller.current()
        account = who.require_account()
        async with self._db.tenant(account, "end_subscriber_sessions") as conn:
            ended = await sessions.revoke_all_of(conn, account, subject, self._clock.wall(), session.ENDED_BY_STAFF)
            if ended:
                await self._tell(conn, Door(session.SUBSCRIBER, account, who.live, subject))
            return ended

    async def end_of_member(self, member: UUID) -> int:
        """Ends a member's sessions in the caller's account and its sibling, not those at other publishers.

        Raises `not_found("member_not_found")`, and `forbidden("role_above_own")` for an owner, whom owners alone sign
        out: nobody else is to keep one from acting.
        """
        who = caller.current()
        account = who.require_account()
        async with self._db.transaction("find_account", read_only=True) as conn:
            own = await accounts.find(conn, account)
        if own is None:
            raise _no_member()
        now, ended = self._clock.wall(), 0
        async with self._db.tenant(own.team, "end_member_sessions") as conn:
            found = await people.find_membership(conn, own.team, member)
            if found is None:
                raise _no_member()
            if not roles.may_move(who.role, found.role, None, own=False):
                raise errors.forbidden("role_above_own", "Only an owner signs an owner out.")
            if found.person is not None:
                for place in (own.id, own.sibling):
                    async with as_tenant(conn, place):
                        ended += await sessions.revoke_all_of(conn, place, found.person, now, session.ENDED_BY_STAFF)
                if ended:
                    await self._tell(conn, Door(session.STAFF, own.id, own.live, found.person))
        return ended

    async def _tell(self, conn: Connection, door: Door) -> None:
        await self._challenges.tell(conn, door, challenge.SESSION_ENDED)


def _belongs(held: Session, door: Door) -> bool:
    reader = door.kind == session.SUBSCRIBER
    if held.principal != door.principal or (held.kind == session.SUBSCRIBER) != reader:
        return False
    # A reader is one of an account; a person is the same in every account.
    return not reader or held.account == door.account


def _no_member() -> errors.GatefoldError:
    return errors.not_found("member_not_found", "There is no such member.")
