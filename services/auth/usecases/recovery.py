"""Owns getting back in with a mail: a new password, and the registration's link once more."""

from libs import caller
from libs.clock import WallClock
from libs.ids import IdSource
from libs.postgres import PLATFORM, Database
from libs.vault import Vault
from services.auth.domain import challenge as rules
from services.auth.domain import session
from services.auth.domain.password import StoredPassword
from services.auth.domain.sign_in import Door
from services.auth.repository import accounts, credentials, people
from services.auth.repository import challenges as stored
from services.auth.usecases import addresses
from services.auth.usecases.challenges import Challenges, token_invalid
from services.auth.usecases.password_policy import PasswordPolicy, words_of
from services.auth.usecases.passwords import PasswordHasher
from services.auth.usecases.sessions import end_all
from services.auth.usecases.sign_in import LookUp
from services.auth.usecases.staff import People


class Recovery:
    """Forgotten passwords of readers, staff and operators, and mails that did not arrive."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        hasher: PasswordHasher,
        policy: PasswordPolicy,
        standing: LookUp,
        challenges: Challenges,
        persons: People,
        clock: WallClock,
        make: IdSource,
    ) -> None:
        self._db = db
        self._vault = vault
        self._hasher = hasher
        self._policy = policy
        self._standing = standing
        self._challenges = challenges
        self._people = persons
        self._clock = clock
        self._make = make

    async def request_reset(self, email: str) -> None:
        """Has a link mailed to the reader with the address, if there is one; the steps are the same if not."""
        who = caller.current()
        await self._challenges.ask_reader(rules.RESET_PASSWORD, who.require_account(), email, live=who.live)

    async def request_staff_reset(self, email: str) -> None:
        """Has a link mailed to the person with the address, if there is one; the steps are the same if not."""
        address = addresses.checked(email)
        index = await self._people.index(address)
        known = await self._people.find(index)
        subject = known.id if known else self._make.new()
        contact, name = (await self._people.contacts([subject])).get(subject, (address, ""))
        prepared = await self._challenges.prepare(
            rules.RESET_PASSWORD, PLATFORM, subject, contact, name, inert=known is None
        )
        async with self._db.tenant(PLATFORM, "request_reset") as conn:
            await self._challenges.void(conn, PLATFORM, rules.RESET_PASSWORD, index)
            await self._challenges.store(conn, PLATFORM, prepared, live=True)

    async def complete_reset(self, token: str, password: str) -> None:
        """Sets a new password, once; all sessions end, and the next sign-in asks for whatever factor is set up.

        The token is void as soon as another address counts, even one confirmed at this moment. Raises as
        `Challenges.by_token`, and as `PasswordPolicy.check`, which leaves the token as it is.
        """
        account, found = await self._challenges.by_token(token, rules.RESET_PASSWORD)
        if found.spent_at is not None:
            return
        door = await self._challenges.door_of(account, found.subject)
        hashed = await self._taken(door, password)
        notice = await self._challenges.prepare_for(door, rules.PASSWORD_CHANGED)
        async with self._db.tenant(account, "complete_reset") as conn:
            await self._challenges.spend(conn, account, found, found.subject)
            if door.kind == session.SUBSCRIBER:
                done = await credentials.set_password(conn, account, found.subject, found.email_index, hashed)
            else:
                done = await people.set_password(conn, found.subject, found.email_index, hashed)
            if not done:
                raise token_invalid()
            await self._challenges.void_of(conn, account, found.subject, rules.BY_PASSWORD)
            await end_all(conn, door, self._clock.wall(), session.PASSWORD_RESET)
            await self._challenges.store_for(conn, door, notice)

    async def resend_verification(self, email: str) -> None:
        """Mails a waiting registration's link again; the steps are the same when none waits.

        Where several wait, each with another password, nothing says which one the owner of the mailbox made: then none
        is sent, and registering anew is the way.
        """
        who = caller.current()
        account = who.require_account()
        address = addresses.checked(email)
        index = await self._vault.blind_index(account, "email", address)
        async with self._db.tenant(account, "find_registration", read_only=True) as conn:
            waiting = await stored.open_registrations(conn, account, index, self._clock.wall())
        (found,) = waiting if len(waiting) == 1 else (None,)
        contact, name = await self._challenges.opened(account, found) if found else (address, "")
        prepared = await self._challenges.prepare(
            rules.VERIFY_REGISTRATION,
            account,
            found.subject if found else self._make.new(),
            contact,
            name,
            password=found.password if found else None,
            inert=found is None,
        )
        async with self._db.tenant(account, "resend_verification") as conn:
            await self._challenges.store(conn, account, prepared, live=who.live)

    async def _taken(self, door: Door, password: str) -> StoredPassword:
        email, name = await self._challenges.contact(door)
        async with self._db.transaction("find_account", read_only=True) as conn:
            publisher = await accounts.find(conn, door.account)
        standing = await self._standing(door)
        strong = bool(standing.factors) or standing.factor_required
        await self._policy.check(password, words_of(publisher, email, name), strong=strong)
        return await self._hasher.hash(password)
