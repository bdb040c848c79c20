"""Owns the sign-in of staff and operators, and how the first operator comes to be."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from libs import caller, errors, ids
from libs.clock import WallClock
from libs.ids import IdSource
from libs.postgres import PLATFORM, Connection, Database, violated
from libs.vault import Vault
from services.auth.domain import account as account_rules
from services.auth.domain import roles, session
from services.auth.domain.account import Account
from services.auth.domain.challenge import hash_of
from services.auth.domain.password import NO_PASSWORD, StoredPassword
from services.auth.domain.sign_in import PASSWORD, Door
from services.auth.domain.team import Person
from services.auth.repository import PERSON_TABLE, accounts, bootstrap, people
from services.auth.usecases import addresses
from services.auth.usecases.attempts import Attempts, Target
from services.auth.usecases.breached_passwords import BreachedPasswords
from services.auth.usecases.challenges import repeats, token_spent
from services.auth.usecases.password_policy import PasswordPolicy, words_of
from services.auth.usecases.passwords import PasswordHasher, Place, Verdict
from services.auth.usecases.registration import refuse_endless
from services.auth.usecases.sessions import Pair, staff_role
from services.auth.usecases.sign_in import SignIn, Waiting, credentials_invalid

EMAIL_FIELD = 1
NAME_FIELD = 2
BOOTSTRAP_LIFETIME = timedelta(hours=24)
_TOKEN_BYTES = 32


class People:
    """Persons of the platform: proving who one is, and making new ones."""

    def __init__(self, db: Database, vault: Vault, hasher: PasswordHasher, clock: WallClock, make: IdSource) -> None:
        self._db = db
        self._vault = vault
        self._hasher = hasher
        self._clock = clock
        self._make = make

    async def index(self, email: str) -> bytes:
        """Returns the look-up value of an address among the platform's persons."""
        return await self._vault.blind_index(PLATFORM, "email", email)

    async def find(self, email_index: bytes) -> Person | None:
        """Reads the person with an address."""
        async with self._db.transaction("find_person", read_only=True) as conn:
            return await people.find_by_email(conn, email_index)

    def place(self) -> AbstractContextManager[Place]:
        """Keeps a place for a password; as `PasswordHasher.place`."""
        return self._hasher.place()

    async def proven(
        self, password: str, known: Person | None, place: Place | None = None
    ) -> tuple[Person, Verdict] | None:
        """Returns the person whose password it is; None for a wrong one, or for nobody, at equal work."""
        verdict = await self._hasher.verify(password, known.password if known else None, place)
        return (known, verdict) if known is not None and verdict.matches else None

    async def hashed(self, password: str) -> StoredPassword:
        """Returns a new password's hash."""
        return await self._hasher.hash(password)

    async def renewed(self, password: str, verdict: Verdict) -> StoredPassword | None:
        """Returns the password hashed anew where that is due; None where it is not, or when too many wait."""
        return await self._hasher.rehash(password) if verdict.stale else None

    async def prepare(self, email: str, name: str, password: str | None, *, operator: bool) -> Person:
        """Returns a new person, sealed; nothing is stored but the key. None is for whoever comes in another way."""
        hashed = NO_PASSWORD if password is None else await self.hashed(password)
        key = self._make.new()
        await self._vault.create_subjects(PLATFORM, [key])
        cipher = await self._vault.cipher(PLATFORM, key)
        return Person(
            id=key,
            email_sealed=cipher.seal(PERSON_TABLE, EMAIL_FIELD, key, email.encode()),
            name_sealed=cipher.seal(PERSON_TABLE, NAME_FIELD, key, name.encode()),
            password=hashed,
            operator=operator,
        )

    async def contacts(self, persons: list[UUID]) -> dict[UUID, tuple[str, str]]:
        """Returns address and name of persons; those who were erased are left out."""
        async with self._db.transaction("read_persons", read_only=True) as conn:
            found = await people.find_many(conn, persons)
        ciphers = await self._vault.ciphers(PLATFORM, [person.id for person in found])
        contacts = {}
        for person in found:
            cipher = ciphers.get(person.id)
            if cipher is not None:
                email = cipher.open(PERSON_TABLE, EMAIL_FIELD, person.id, person.email_sealed)
                name = cipher.open(PERSON_TABLE, NAME_FIELD, person.id, person.name_sealed)
                contacts[person.id] = (email.decode(), name.decode())
        return contacts


class Staff:
    """Staff and operators."""

    def __init__(
        self,
        db: Database,
        persons: People,
        policy: PasswordPolicy,
        breached: BreachedPasswords,
        sign_in: SignIn,
        attempts: Attempts,
        clock: WallClock,
    ) -> None:
        self._db = db
        self._people = persons
        self._policy = policy
        self._breached = breached
        self._sign_in = sign_in
        self._attempts = attempts
        self._clock = clock

    async def bootstrap(self, token: str, email: str, name: str, password: str) -> UUID:
        """Makes an operator with the one-time token of a bootstrap command; returns the person.

        Exactly one call succeeds with a token; a repeat of that very request is answered as it was. Raises not_found
        with reason `token_invalid`, `token_expired` or `token_spent`.
        """
        address = addresses.checked(email)
        called = account_rules.checked_name(name)
        await self._policy.check(password, words_of(None, address, called))
        request_id = caller.current().request_id
        async with self._db.transaction("read_bootstrap_token", read_only=True) as conn:
            row = await bootstrap.find(conn, hash_of(token))
        if row is None:
            raise errors.not_found("token_invalid", "This token is not valid.")
        if row["spent_at"] is not None:
            if not repeats(row["spent_by"]):
                raise token_spent()
            return UUID(int=row["person_id"].int)
        now = self._clock.wall()
        if now >= row["expires_at"]:
            raise errors.not_found("token_expired", "This token has expired; make a new one.")
        index = await self._people.index(address)
        known = await self._people.find(index)
        if known is not None:
            target = Target(
                PLATFORM, index, known.id, "", "/v1/operators/bootstrap", password_version=known.password.version
            )
            if await self._attempts.guarded(target, lambda: self._people.proven(password, known)) is None:
                raise credentials_invalid()
        person = known or await self._people.prepare(address, called, password, operator=True)
        try:
            async with self._db.transaction("bootstrap_operator") as conn:
                if known is None:
                    await people.add(conn, person, index, now)
                else:
                    await people.make_operator(conn, person.id)
                if not await bootstrap.spend(conn, row["id"], person=person.id, at=now, by=request_id):
                    raise token_spent()
        except Exception as error:
            if violated(error) == "person_email":
                raise token_spent() from error
            raise
        return person.id

    async def sign_in(self, email: str, password: str, account: UUID | None, device_token: str) -> Pair | Waiting:
        """Signs an operator in, or staff in an account.

        Raises `unauthenticated("credentials_invalid")` alike for wrong and unknown; only to whom the password proves,
        `not_found("account_not_found")`, and `invalid("account_required")` where there are several to choose from.
        Raises as `Attempts.guarded` before anything is hashed.
        """
        address = addresses.checked(email)
        refuse_endless(password)
        with self._people.place() as place:
            index = await self._people.index(address)
            known = await self._people.find(index)
            target = Target(
                PLATFORM,
                index,
                known.id if known else None,
                device_token,
                "/v1/staff/sessions",
                password_version=known.password.version if known else 0,
            )
            proof = await self._attempts.guarded(target, lambda: self._people.proven(password, known, place))
        if proof is None:
            raise credentials_invalid()
        person, verdict = proof
        fresh = await self._people.renewed(password, verdict)
        breached = person.must_change or await self._policy.breached(password)
        door = replace(await self.door(person.id, account), device=self._attempts.device_of(target))

        async def write(conn: Connection) -> None:
            # A reset may have come between: then it was not the person's password any more.
            if not await people.hold_password(conn, person.id, person.password.version):
                raise credentials_invalid()
            if fresh is not None:
                await people.replace_password(conn, person.id, fresh)
            if breached:
                await self._breached.found(conn, door)

        return await self._sign_in.proven(door, (PASSWORD,), write, must_change=breached)

    async def door(self, person: UUID, account: UUID | None) -> Door:
        """Returns where somebody who has proven who they are goes in: where they ask to, or the only place there is.

        Raises `not_found("account_not_found")`, and `invalid("account_required")` where there are several.
        """
        async with self._db.transaction("find_operator", read_only=True) as conn:
            operator = account is None and await people.is_operator(conn, person)
        if operator:
            return Door(session.OPERATOR, PLATFORM, live=True, principal=person, role=roles.OPERATOR)
        chosen = await self._choose(person, account)
        role = await staff_role(self._db, chosen, person)
        if role is None:
            raise _account_not_found()
        return Door(session.STAFF, chosen.id, chosen.live, person, role)

    async def _choose(self, person: UUID, account: UUID | None) -> Account:
        async with self._db.transaction("choose_account", read_only=True) as conn:
            own = await people.accounts_of(conn, person)
            if account is not None:
                asked = await accounts.find(conn, account)
            elif len(own) == 1:
                asked = await accounts.find(conn, own[0])
            elif own:
                raise errors.invalid(
                    "account_required",
                    "You work for several publishers: say for which.",
                    field="account_id",
                    metadata={"accounts": ",".join(ids.encode("acct", one) for one in own)},
                )
            else:
                asked = None
        if asked is None or asked.team not in own:
            raise _account_not_found()
        return asked


async def issue_bootstrap_token(
    db: Database, clock: WallClock, make: IdSource, randomness: Callable[[int], bytes]
) -> str:
    """Returns a new one-time token (256 bits) that makes an operator; unspent earlier ones work no longer.

    The database keeps its hash alone, so it can be shown this once. It works for 24 hours.
    """
    token = f"gfbt_{randomness(_TOKEN_BYTES).hex()}"
    now = clock.wall()
    async with db.transaction("issue_bootstrap_token") as conn:
        await bootstrap.add(conn, make.new(), hash_of(token), now, now + BOOTSTRAP_LIFETIME)
    return token


def _account_not_found() -> errors.GatefoldError:
    return errors.not_found("account_not_found", "There is no such account, or you do not work for it.")
