"""Owns replacing one's own password: by will, or because it has become known to attackers."""

from libs import caller, errors
from libs.clock import WallClock
from libs.postgres import Connection, Database, as_tenant
from services.auth.domain import challenge, session
from services.auth.domain.challenge import Challenge
from services.auth.domain.password import StoredPassword
from services.auth.domain.sign_in import CHANGE_PASSWORD, Door
from services.auth.repository import accounts, challenges, credentials, people
from services.auth.usecases import doors
from services.auth.usecases.attempts import Attempts
from services.auth.usecases.challenges import Challenges
from services.auth.usecases.password_policy import PasswordPolicy, words_of
from services.auth.usecases.passwords import PasswordHasher
from services.auth.usecases.registration import refuse_endless
from services.auth.usecases.sessions import Pair, end_all, end_waiting
from services.auth.usecases.sign_in import LookUp, SignIn, Waiting, credentials_invalid


class OwnPassword:
    """Passwords of readers, staff and operators, replaced by themselves."""

    def __init__(
        self,
        db: Database,
        hasher: PasswordHasher,
        policy: PasswordPolicy,
        challenges: Challenges,
        standing: LookUp,
        sign_in: SignIn,
        attempts: Attempts,
        clock: WallClock,
    ) -> None:
        self._db = db
        self._hasher = hasher
        self._policy = policy
        self._challenges = challenges
        self._standing = standing
        self._sign_in = sign_in
        self._attempts = attempts
        self._clock = clock

    async def change(self, current: str, new: str, *, keep_sessions: bool) -> None:
        """Replaces the caller's password; ends their other sessions unless they are to go on, and tells them by mail.

        Raises `invalid("current_password_wrong")` and as `PasswordPolicy.check`, and as `Attempts.guarded`: whoever
        stole a session is to guess no password with it.
        """
        who = caller.current()
        door = doors.own()
        refuse_endless(current)
        target = await self._attempts.target_of(door, "/v1/session/change_password")
        held = await self._attempts.guarded(target, lambda: self.proven(door, current))
        if held is None:
            raise errors.invalid("current_password_wrong", "This is not your password.", field="current_password")
        fresh, notice = await self._prepare(door, new)
        async with self._db.tenant(door.owner, "change_password") as conn:
            await self._replace(conn, door, held, fresh, notice)
            await self._attempts.remember(conn, door)
            if keep_sessions:
                # Whatever waits has begun with the old password.
                await end_waiting(conn, door)
            else:
                await end_all(conn, door, self._clock.wall(), session.PASSWORD_CHANGED, but=who.session)

    async def complete(self, token: str, new: str) -> Pair | Waiting:
        """Goes on with a sign-in whose password has become known to attackers; every other session ends.

        Raises `unauthenticated("sign_in_expired")` and as `PasswordPolicy.check`.
        """
        pending = await self._sign_in.waiting(token, CHANGE_PASSWORD)
        door = pending.door
        held = await self._held(door)
        if held is None:
            raise errors.not_found("principal_not_found", "There is nobody to sign in any more.")
        fresh, notice = await self._prepare(door, new)

        async def write(conn: Connection) -> None:
            async with as_tenant(conn, door.owner):
                await self._replace(conn, door, held, fresh, notice)
            await end_all(conn, door, self._clock.wall(), session.PASSWORD_CHANGED)

        return await self._sign_in.changed(pending, write)

    async def proven(self, door: Door, password: str) -> StoredPassword | None:
        """Returns what is stored of a password that is right; None for a wrong one, at equal work."""
        refuse_endless(password)
        held = await self._held(door)
        verdict = await self._hasher.verify(password, held)
        return held if verdict.matches else None

    async def hold(self, conn: Connection, door: Door, proven: StoredPassword) -> None:
        """Keeps a password that was proven from changing until the transaction ends.

        Raises `unauthenticated("credentials_invalid")` when it was changed in the meantime.
        """
        if door.kind == session.SUBSCRIBER:
            held = await credentials.hold_password(conn, door.account, door.principal, proven.version)
        else:
            held = await people.hold_password(conn, door.principal, proven.version)
        if not held:
            raise credentials_invalid()

    async def _prepare(self, door: Door, new: str) -> tuple[StoredPassword, Challenge]:
        email, name = await self._challenges.contact(door)
        async with self._db.transaction("find_account", read_only=True) as conn:
            publisher = await accounts.find(conn, door.account)
        standing = await self._standing(door)
        strong = bool(standing.factors) or standing.factor_required
        await self._policy.check(new, words_of(publisher, email, name), field="new_password", strong=strong)
        fresh = await self._hasher.hash(new)
        return fresh, await self._challenges.prepare_for(door, challenge.PASSWORD_CHANGED)

    async def _held(self, door: Door) -> StoredPassword | None:
        async with self._db.tenant(door.owner, "read_password", read_only=True) as conn:
            if door.kind == session.SUBSCRIBER:
                credential = await credentials.find(conn, door.account, door.principal)
                return credential.password if credential else None
            found = await people.find_many(conn, [door.principal])
        return found[0].password if found else None

    async def _replace(
        self, conn: Connection, door: Door, old: StoredPassword, new: StoredPassword, notice: Challenge
    ) -> None:
        """Stores the password with what follows from it: links from older mails work no longer, and a mail tells."""
        if door.kind == session.SUBSCRIBER:
            changed = await credentials.change_password(conn, door.account, door.principal, old, new)
        else:
            changed = await people.change_password(conn, door.principal, old, new)
        if not changed:
            raise errors.conflict("concurrent_change", "Another change got in the way; try again.")
        await challenges.void_of(conn, door.owner, door.principal, challenge.BY_PASSWORD)
        await self._challenges.store_for(conn, door, notice)
