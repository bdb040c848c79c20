"""Owns the caller's own factors: listing, adding, renaming, removing."""

from dataclasses import replace
from uuid import UUID

from libs import caller, errors
from libs.clock import WallClock
from libs.ids import IdSource
from libs.postgres import PLATFORM, Connection, Database, as_tenant
from services.auth.domain import account as account_rules
from services.auth.domain import challenge, session
from services.auth.domain import factor as rules
from services.auth.domain.challenge import Challenge
from services.auth.domain.factor import Factor
from services.auth.domain.sign_in import Door
from services.auth.repository import accounts, factors, people
from services.auth.usecases import doors
from services.auth.usecases.challenges import Challenges
from services.auth.usecases.factor_access import FactorAccess
from services.auth.usecases.factor_attempts import FactorAttempts
from services.auth.usecases.second_factors import second_factor_wrong
from services.auth.usecases.sessions import Pair, Sessions, end_all, end_waiting
from services.auth.usecases.sign_in import LookUp, sign_in_expired
from services.auth.usecases.totp import Enrolment, Totp

LONGEST_NAME = 80
_PLATFORM_NAME = "Gatefold"
_EMAIL_NAME = "E-mail"


class Factors:
    """Second factors of readers, staff and operators. Adding or removing one ends the other sessions."""

    def __init__(
        self,
        db: Database,
        totp: Totp,
        access: FactorAccess,
        attempts: FactorAttempts,
        challenges: Challenges,
        sessions: Sessions,
        standing: LookUp,
        clock: WallClock,
        make: IdSource,
    ) -> None:
        self._db = db
        self._totp = totp
        self._access = access
        self._attempts = attempts
        self._challenges = challenges
        self._sessions = sessions
        self._standing = standing
        self._clock = clock
        self._make = make

    async def list_factors(self) -> tuple[list[Factor], int]:
        """Returns the caller's factors, oldest first, and how many recovery codes are left."""
        door = doors.own()
        async with self._db.tenant(door.owner, "list_factors", read_only=True) as conn:
            found = await factors.of_principal(conn, door.owner, door.principal)
            left = await factors.recovery_hashes(conn, door.owner, door.principal)
        return found, len(left)

    async def begin_totp(self, name: str) -> Enrolment:
        """Begins to add an app; raises `precondition("factors_too_many")`, and as `FactorAccess.require`."""
        door = doors.own()
        called = account_rules.checked_name(name, longest=LONGEST_NAME)
        await self._access.require(door)
        email, _ = await self._challenges.contact(door)
        issuer = await self.publication(door)
        enrolment = await self._totp.enrol(
            door, self._make.new(), called, self._clock.wall(), label=email, issuer=issuer
        )
        async with self._db.tenant(door.owner, "begin_totp") as conn:
            await factors.lock(conn, door.principal)
            await self._access.refuse_erased(conn, door)
            held = await factors.of_principal(conn, door.owner, door.principal)
            if len([one for one in held if one.kind == rules.TOTP]) >= rules.MOST_TOTP:
                raise errors.precondition("factors_too_many", f"There may be {rules.MOST_TOTP} apps; remove one first.")
            await factors.begin(conn, door.owner, door.principal, enrolment.factor)
        return enrolment

    async def confirm_totp(self, key: UUID, code: str) -> tuple[Factor, Pair]:
        """Sets an app up with a code that it shows; the session becomes `aal2` and gets its role back at once.

        Raises `not_found("factor_not_found")` for none that waits, `unauthenticated("second_factor_wrong")`,
        `too_many("second_factor_locked")`, and as `FactorAccess.require`.
        """
        door, held = doors.own(), doors.session()
        await self._access.require(door)
        now = self._clock.wall()
        async with self._db.tenant(door.owner, "read_factor", read_only=True) as conn:
            found = await factors.unconfirmed(conn, door.owner, door.principal, key, now - rules.CONFIRM_WITHIN)
        if found is None:
            raise _not_found()
        await self._attempts.claim(door)
        step = await self._totp.step(door, found, code)
        if step is None:
            raise second_factor_wrong()
        notice = await self.notice(door, challenge.FACTOR_ADDED, found.name)
        async with self._db.tenant(door.account, "confirm_totp") as conn:
            async with as_tenant(conn, door.owner):
                await factors.lock(conn, door.principal)
                await self._access.refuse_erased(conn, door)
                if not await factors.confirm(conn, door.owner, key, step, now):
                    raise _not_found()
            await self._attempts.succeeded(conn, door)
            await self.changed(conn, door, notice)
            strong = await self._sessions.strengthen(conn, door.account, held)
            if strong is None:
                raise sign_in_expired()
        return found, await self._sessions.access(strong)

    async def enable_email_codes(self) -> Factor:
        """Switches codes by mail on, or answers that they are; raises as `FactorAccess.require`."""
        door = doors.own()
        await self._access.require(door)
        fresh = Factor(self._make.new(), rules.EMAIL_CODE, _EMAIL_NAME, self._clock.wall())
        notice = await self.notice(door, challenge.FACTOR_ADDED, fresh.name)
        async with self._db.tenant(door.owner, "enable_email_codes") as conn:
            await factors.lock(conn, door.principal)
            await self._access.refuse_erased(conn, door)
            for one in await factors.of_principal(conn, door.owner, door.principal):
                if one.kind == rules.EMAIL_CODE:
                    return one
            await factors.add(conn, door.owner, door.principal, fresh)
            await self.changed(conn, door, notice)
        return fresh

    async def rename(self, key: UUID, name: str) -> Factor:
        """Gives a factor another name; raises `not_found("factor_not_found")`."""
        door = doors.own()
        called = account_rules.checked_name(name, longest=LONGEST_NAME)
        async with self._db.tenant(door.owner, "rename_factor") as conn:
            found = await factors.rename(conn, door.owner, door.principal, key, called)
        if found is None:
            raise _not_found()
        return found

    async def remove(self, key: UUID) -> None:
        """Removes a factor, and with the last one the recovery codes.

        Raises `not_found("factor_not_found")`, `precondition("last_factor")` where the account requires one, and as
        `FactorAccess.require`.
        """
        door = doors.own()
        await self._access.require(door)
        required = await self.required(door)
        async with self._db.tenant(door.owner, "read_factor", read_only=True) as conn:
            held = await factors.of_principal(conn, door.owner, door.principal)
        name = next((one.name for one in held if one.id == key), None)
        if name is None:
            raise _not_found()
        notice = await self.notice(door, challenge.FACTOR_REMOVED, name)
        async with self._db.tenant(door.owner, "remove_factor") as conn:
            await factors.lock(conn, door.principal)
            # Sign-ins that go on with it take themselves first and the factor second; so does this.
            await end_waiting(conn, door)
            if await factors.remove(conn, door.owner, door.principal, key) is None:
                raise _not_found()
            await self.settle_removal(conn, door, required=required)
            await self.changed(conn, door, notice)

    async def required(self, door: Door) -> bool:
        """Tells whether an account requires a factor of whoever goes in: the session's, or another they work for."""
        if (await self._standing(door)).factor_required:
            return True
        if door.owner != PLATFORM:
            return False
        async with self._db.transaction("find_accounts", read_only=True) as conn:
            others = await people.accounts_of(conn, door.principal)
        doors_of = (replace(door, kind=session.STAFF, account=account) for account in others if account != door.account)
        return any([(await self._standing(one)).factor_required for one in doors_of])

    async def settle_removal(self, conn: Connection, door: Door, *, required: bool) -> None:
        """Does what follows from a removal, in its transaction, under `factors.lock`."""
        if await factors.left(conn, door.owner, door.principal):
            return
        if required:
            raise errors.precondition("last_factor", "The account requires a second factor; add another one first.")
        await factors.remove_recovery_codes(conn, door.owner, door.principal)

    async def notice(self, door: Door, purpose: str, name: str) -> Challenge:
        """Returns the mail that tells of a change; for `changed`."""
        details = {"factor": name, **self._access.circumstances()}
        return await self._challenges.prepare_for(door, purpose, details=details)

    async def changed(self, conn: Connection, door: Door, notice: Challenge) -> None:
        """Does what follows from every change: a mail tells, and the other sessions end (ASVS 5.0 7.4.3)."""
        await self._challenges.store_for(conn, door, notice)
        await end_all(conn, door, self._clock.wall(), session.FACTORS_CHANGED, but=caller.current().session)

    async def publication(self, door: Door) -> str:
        """Returns whose factor it is called in an app or a browser."""
        if door.owner == PLATFORM:
            return _PLATFORM_NAME
        async with self._db.transaction("find_account", read_only=True) as conn:
            publisher = await accounts.find(conn, door.account)
        return publisher.name if publisher else _PLATFORM_NAME


def _not_found() -> errors.GatefoldError:
    return errors.not_found("factor_not_found", "There is no such factor.")
