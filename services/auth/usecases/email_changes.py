"""Owns changing the address that one signs in with: asked for, confirmed by the new, taken back by the former."""

import contextlib
import hmac
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from libs import caller, errors
from libs.clock import WallClock
from libs.postgres import PLATFORM, Connection, Database, as_tenant, violated
from libs.vault import Vault
from services.auth.clients.peers import Subjects
from services.auth.domain import challenge as rules
from services.auth.domain import session
from services.auth.domain.challenge import Challenge
from services.auth.domain.sign_in import Door
from services.auth.repository import CREDENTIAL_TABLE, PERSON_TABLE, challenges, credentials, people
from services.auth.usecases import addresses, doors
from services.auth.usecases.challenges import Challenges, principal_not_found
from services.auth.usecases.factor_attempts import FactorAttempts
from services.auth.usecases.own_password import OwnPassword
from services.auth.usecases.secrets import TokenSecrets
from services.auth.usecases.sessions import end_all
from services.auth.usecases.sign_in import Write, credentials_invalid
from services.auth.usecases.staff import EMAIL_FIELD

FRESH = timedelta(minutes=15)
"""How old the sign-in may be of somebody who changes their address; the policy says the same to the edge."""

_TAKEN = frozenset({"credential_email", "person_email", "membership_email"})


@dataclass(frozen=True)
class Move:
    """A change of address that is ready to be stored."""

    row: UUID
    """The credential, or the person."""
    former_sealed: bytes
    sealed: bytes
    index: bytes
    teams: dict[UUID, bytes]
    """How a person is found in each account whose member they are, also where they are kept out."""


class EmailChanges:
    """Addresses of readers, staff and operators."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        challenges: Challenges,
        subjects: Subjects,
        passwords: OwnPassword,
        attempts: FactorAttempts,
        secrets: TokenSecrets,
        clock: WallClock,
    ) -> None:
        self._db = db
        self._vault = vault
        self._challenges = challenges
        self._subjects = subjects
        self._passwords = passwords
        self._attempts = attempts
        self._secret = secrets.challenge
        self._clock = clock

    async def request(self, email: str) -> str:
        """Has a link mailed to the caller's new address; nothing changes until it is used.

        Returns what the browser is to keep until then.

        An address that somebody has gets no mail, and the answer is the same. Raises
        `unauthenticated("authentication_insufficient")` when the sign-in is not fresh.
        """
        who = caller.current()
        door = doors.own()
        address = addresses.checked(email)
        if who.auth_time is None or self._clock.wall() - who.auth_time > FRESH:
            raise errors.unauthenticated(
                "authentication_insufficient", "Sign in again, with a further factor if one is asked for."
            )
        _, name = await self._challenges.contact(door)
        index = await self._vault.blind_index(door.owner, "email", address)
        prepared = await self._challenges.prepare(
            rules.CHANGE_EMAIL, door.owner, door.principal, address, name, inert=await self._is_taken(door, index)
        )
        async with self._db.tenant(door.owner, "request_email_change") as conn:
            await self._challenges.void_of(conn, door.owner, door.principal, {rules.CHANGE_EMAIL})
            await self._challenges.store_asked(conn, door.owner, prepared, live=door.live or door.owner == PLATFORM)
        return rules.kept_secret(prepared.id, self._secret)

    async def confirm(self, token: str, browser_secret: str, password: str) -> None:
        """Makes the new address the one that counts, and tells the former one how to take it back.

        Whoever reads the mail need not be who asked for it: it takes what the asking browser keeps, or the password.
        Links that were sent to the former address are void. Raises as `Challenges.by_token`, as `_asked`, and
        `precondition("email_taken")`.
        """
        account, found = await self._challenges.by_token(token, rules.CHANGE_EMAIL)
        if found.spent_at is not None:
            return
        door = await self._challenges.door_of(account, found.subject)
        still = await self._asked(door, found, browser_secret, password)
        email, name = await self._challenges.opened(account, found)
        # To the address that counts until now.
        revert = await self._challenges.prepare_for(door, rules.REVERT_EMAIL)
        notice = await self._challenges.prepare(rules.EMAIL_CHANGED, account, found.subject, email, name)

        async def write(conn: Connection) -> None:
            await self._challenges.spend(conn, account, found, found.subject)
            await self._challenges.void_of(conn, account, found.subject, rules.BY_ADDRESS)
            await still(conn)
            await self._challenges.store_for(conn, door, revert)
            await self._challenges.store_for(conn, door, notice)

        await self._move(door, email, write)

    async def revert(self, token: str) -> None:
        """Makes the former address count again, ends all sessions and whatever else was mailed. Raises as `confirm`.

        What earlier addresses were mailed to take theirs back stays: whoever took an account over and moved it on and
        on would else void it with a link of their own.
        """
        account, found = await self._challenges.by_token(token, rules.REVERT_EMAIL)
        if found.spent_at is not None:
            return
        door = await self._challenges.door_of(account, found.subject)
        email, name = await self._challenges.opened(account, found)
        notice = await self._challenges.prepare(rules.EMAIL_CHANGED, account, found.subject, email, name)

        async def write(conn: Connection) -> None:
            await self._challenges.spend(conn, account, found, found.subject)
            await self._challenges.void_of(conn, account, found.subject, rules.BY_ADDRESS)
            await challenges.void_newer(conn, account, found)
            await end_all(conn, door, self._clock.wall(), session.EMAIL_REVERTED)
            await self._challenges.store_for(conn, door, notice)

        await self._move(door, email, write)

    async def _asked(self, door: Door, found: Challenge, browser_secret: str, password: str) -> Write:
        """Returns what holds in the transaction of the change, once it is shown that whoever asked confirms.

        Raises `invalid("password_required")`, `unauthenticated("credentials_invalid")` and
        `too_many("second_factor_locked")`.
        """
        if hmac.compare_digest(rules.kept_secret(found.id, self._secret).encode(), browser_secret.encode()):
            return _nothing
        if not password:
            raise errors.invalid("password_required", "Give the password of the account.", field="password")
        await self._attempts.claim(door)
        stored = await self._passwords.proven(door, password)
        if stored is None:
            raise credentials_invalid()

        async def hold(conn: Connection) -> None:
            await self._passwords.hold(conn, door, stored)
            await self._attempts.succeeded(conn, door)

        return hold

    async def _is_taken(self, door: Door, index: bytes) -> bool:
        async with self._db.tenant(door.owner, "find_address", read_only=True) as conn:
            if door.kind == session.SUBSCRIBER:
                return await credentials.find_by_email(conn, door.owner, index) is not None
            return await people.find_by_email(conn, index) is not None

    async def _move(self, door: Door, email: str, write: Write) -> None:
        """Stores the change with what `write` stores; the subscriber service is told before, which may be repeated.

        Killed in between, the token still works; should the change fail, the profile gets back the address that counts.
        """
        ready = await self._prepared(door, email)
        await self._tell(door, email)
        try:
            async with self._db.tenant(door.owner, "change_email") as conn:
                await write(conn)
                if not await self._store(conn, door, ready):
                    raise errors.conflict("concurrent_change", "Another change got in the way; try again.")
        except Exception as error:
            with contextlib.suppress(errors.GatefoldError):
                counts, _ = await self._challenges.contact(door)
                await self._tell(door, counts)
            if violated(error) in _TAKEN:
                raise errors.precondition("email_taken", "Somebody else has this address.") from error
            raise

    async def _tell(self, door: Door, email: str) -> None:
        if door.kind != session.SUBSCRIBER:
            return
        who = caller.current()
        acting = caller.service_caller(
            "auth", door.account, live=door.live, request_id=who.request_id, on_behalf_of=who.actor
        )
        with caller.acting(acting):
            await self._subjects.change_email(door.principal, email)

    async def _prepared(self, door: Door, email: str) -> Move:
        index = await self._vault.blind_index(door.owner, "email", email)
        cipher = await self._vault.cipher(door.owner, door.principal)
        async with self._db.tenant(door.owner, "read_address", read_only=True) as conn:
            if door.kind == session.SUBSCRIBER:
                held = await credentials.address_of(conn, door.owner, door.principal)
                teams = []
            else:
                found = await people.find_many(conn, [door.principal])
                held = (found[0].id, found[0].email_sealed) if found else None
                teams = await people.teams_of(conn, door.principal)
        if held is None:
            raise principal_not_found()
        table = CREDENTIAL_TABLE if door.kind == session.SUBSCRIBER else PERSON_TABLE
        return Move(
            row=held[0],
            former_sealed=held[1],
            sealed=cipher.seal(table, EMAIL_FIELD, held[0], email.encode()),
            index=index,
            teams={team: await self._vault.blind_index(team, "email", email) for team in teams},
        )

    async def _store(self, conn: Connection, door: Door, ready: Move) -> bool:
        if door.kind == session.SUBSCRIBER:
            return await credentials.change_address(
                conn, door.owner, ready.row, ready.former_sealed, ready.index, ready.sealed
            )
        for team, index in ready.teams.items():
            async with as_tenant(conn, team):
                await people.move_membership(conn, team, ready.row, index)
        return await people.change_address(conn, ready.row, ready.former_sealed, ready.index, ready.sealed)


async def _nothing(_: Connection) -> None:
    """The browser that asked needs no password."""
