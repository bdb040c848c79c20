"""Owns getting back in with a mail: a new password, and the registration's link once more."""

from libs import caller
from libs.clock import WallClock
from libs.postgres import PLATFORM, Database
from services.auth.domain import challenge as rules
from services.auth.domain import session
from services.auth.domain.password import StoredPassword
from services.auth.domain.sign_in import Door
from services.auth.repository import accounts, credentials, imported_passwords, people
from services.auth.usecases.challenges import Challenges, token_invalid
from services.auth.usecases.enrolment import Enrolled, Enrolment, untaken
from services.auth.usecases.password_policy import PasswordPolicy, words_of
from services.auth.usecases.passwords import PasswordHasher
from services.auth.usecases.sessions import end_all
from services.auth.usecases.sign_in import LookUp, Remember
from services.auth.usecases.unlocks import Unlocks


class Recovery:
    """Forgotten passwords of readers, staff and operators, and mails that did not arrive."""

    def __init__(
        self,
        db: Database,
        hasher: PasswordHasher,
        policy: PasswordPolicy,
        standing: LookUp,
        challenges: Challenges,
        unlocks: Unlocks,
        enrolment: Enrolment,
        remember: Remember,
        clock: WallClock,
    ) -> None:
        self._db = db
        self._hasher = hasher
        self._policy = policy
        self._standing = standing
        self._challenges = challenges
        self._unlocks = unlocks
        self._enrolment = enrolment
        self._remember = remember
        self._clock = clock

    async def request_reset(self, email: str) -> None:
        """Has a link mailed to the reader with the address, if there is one."""
        who = caller.current()
        await self._challenges.ask(rules.RESET_PASSWORD, who.require_account(), email, live=who.live)

    async def request_staff_reset(self, email: str) -> None:
        """Has a link mailed to the person with the address, if there is one."""
        await self._challenges.ask(rules.RESET_PASSWORD, PLATFORM, email, live=True)

    async def complete_reset(self, token: str, password: str) -> None:
        """Sets a new password, once; all sessions end, and the next sign-in asks for whatever factor is set up.

        The token is void as soon as another address counts, even one confirmed at this moment. Raises as
        `Challenges.by_token`, and as `PasswordPolicy.check`, which leaves the token as it is.
        """
        account, found = await self._challenges.by_token(token, rules.RESET_PASSWORD)
        door = await self._challenges.door_of(account, found.subject)
        if found.spent_at is not None:
            await self._unlocks.lift(door)
            return
        hashed = await self._taken(door, password)
        ready = await self._first(door, found.email_index, hashed)
        notice = await self._challenges.prepare_for(door, rules.PASSWORD_CHANGED)
        with untaken():
            async with self._db.tenant(account, "complete_reset") as conn:
                await self._challenges.spend(conn, account, found, found.subject)
                if ready is not None:
                    done = await imported_passwords.address_of(conn, account, found.subject) is not None
                    await self._enrolment.store(conn, account, ready, live=door.live)
                elif door.kind == session.SUBSCRIBER:
                    done = await credentials.set_password(conn, account, found.subject, found.email_index, hashed)
                else:
                    done = await people.set_password(conn, found.subject, found.email_index, hashed)
                if not done:
                    raise token_invalid()
                await self._challenges.void_of(conn, account, found.subject, rules.BY_PASSWORD)
                await end_all(conn, door, self._clock.wall(), session.PASSWORD_RESET)
                await self._challenges.store_for(conn, door, notice)
                # Strangers are to keep nobody from using the new password here: no other network is known any more.
                await self._remember(conn, door)
        await self._unlocks.lift(door)

    async def resend_verification(self, email: str) -> None:
        """Mails the link of a registration that waits once more, if there is one."""
        who = caller.current()
        await self._challenges.send_again(who.require_account(), email, live=who.live)

    async def _first(self, door: Door, email_index: bytes, password: StoredPassword) -> Enrolled | None:
        """Returns the credential of a reader whose password was imported, and who proves the mailbox with a reset.

        None for one who has a credential.
        """
        if door.kind != session.SUBSCRIBER:
            return None
        async with self._db.tenant(door.account, "find_credential", read_only=True) as conn:
            if await imported_passwords.address_of(conn, door.account, door.principal) is None:
                return None
        return await self._enrolment.prepare(door, await self._challenges.contact(door), email_index, password)

    async def _taken(self, door: Door, password: str) -> StoredPassword:
        email, name = await self._challenges.contact(door)
        async with self._db.transaction("find_account", read_only=True) as conn:
            publisher = await accounts.find(conn, door.account)
        standing = await self._standing(door)
        strong = bool(standing.factors) or standing.factor_required
        await self._policy.check(password, words_of(publisher, email, name), strong=strong)
        return await self._hasher.hash(password)
