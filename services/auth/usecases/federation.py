"""Owns the one end of every sign-in with another provider: whose identity it is, or whose it may become."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from gatefold.auth.v1 import event_pb2

from libs import caller, errors, ids, outbox
from libs.clock import WallClock
from libs.ids import IdSource
from libs.postgres import Connection, Database, as_tenant, violated
from libs.vault import Vault
from services.auth.clients.peers import Subjects
from services.auth.domain import challenge, federation, roles, session
from services.auth.domain.account import Account
from services.auth.domain.credential import Credential
from services.auth.domain.federation import Identity, Source, Statement
from services.auth.domain.password import NO_PASSWORD
from services.auth.domain.sign_in import FEDERATED, FEDERATED_STRONG, Door
from services.auth.domain.team import Membership, Person
from services.auth.repository import (
    CREDENTIAL_TABLE,
    IDENTITY_TABLE,
    accounts,
    credentials,
    directory_entries,
    identities,
    imported_passwords,
    people,
)
from services.auth.usecases import addresses
from services.auth.usecases.challenges import Challenges
from services.auth.usecases.factor_access import FactorAccess
from services.auth.usecases.facts import Facts
from services.auth.usecases.sessions import Pair, staff_role
from services.auth.usecases.sign_in import SignIn, Waiting, Write
from services.auth.usecases.staff import EMAIL_FIELD, People

T = TypeVar("T")

_FOREIGN_FIELD = 1
_TAKEN = frozenset({"identity_foreign", "person_email", "membership_person"})
_KNOWN = frozenset({"credential_email", "credential_subject"})


@dataclass(frozen=True)
class _Admitted:
    """Who comes in, and what is to be written with it."""

    identity: Identity
    write: Write
    role: str | None = None


class Federation:
    """Identities of readers and staff at others. Known by account, issuer and subject, never by an address."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        sign_in: SignIn,
        challenges: Challenges,
        access: FactorAccess,
        subjects: Subjects,
        persons: People,
        clock: WallClock,
        make: IdSource,
        facts: Facts,
    ) -> None:
        self._db = db
        self._vault = vault
        self._sign_in = sign_in
        self._challenges = challenges
        self._access = access
        self._subjects = subjects
        self._people = persons
        self._clock = clock
        self._make = make
        self._facts = facts

    async def enter(
        self, source: Source, statement: Statement, account: UUID, still: Write, *, live: bool
    ) -> Pair | Waiting:
        """Signs in whoever the provider speaks of, into `account` (the source's own, or its test sibling for staff).

        `still` runs in the transaction that begins the session, in the tenant of `source.account`: it raises when the
        provider may be used no longer, and keeps it from being switched off meanwhile (SELECT … FOR SHARE).

        An identity that is known is all it takes. One that is not becomes a new reader's or member's, or is added to
        whoever has the address, by the rules of the account; else it raises `precondition` with reason
        `identity_email_unverified` or `identity_link_needed`, or `forbidden` with `email_domain_not_allowed` or
        `membership_required`. Raises as `SignIn.proven`.
        """
        _refuse_other_domains(source, statement)
        known = await self._find(source, statement)
        if known is not None:
            role = await self._role(account, known.principal) if source.audience == federation.STAFF else None
            admitted = _Admitted(known, self._using(source, known), role)
        elif source.audience == federation.STAFF:
            admitted = await self._new_member(source, statement)
        else:
            admitted = await self._new_reader(source, statement, live=live)
        kind = session.STAFF if source.audience == federation.STAFF else session.SUBSCRIBER
        door = Door(kind, account, live, admitted.identity.principal, admitted.role, admitted.identity.id)

        async def write(conn: Connection) -> None:
            async with as_tenant(conn, source.account):
                await still(conn)
                await admitted.write(conn)

        return await _untaken(
            lambda: self._sign_in.proven(door, (FEDERATED_STRONG if source.strong else FEDERATED,), write)
        )

    async def link(self, door: Door, source: Source, statement: Statement, still: Write) -> Identity:
        """Adds the identity to whoever is signed in through `door`, and has a mail tell them.

        Raises `precondition("identity_taken")` for somebody else's; one's own is answered as it is. Raises
        `forbidden("email_domain_not_allowed")`.
        """
        _refuse_other_domains(source, statement)
        known = await self._find(source, statement)
        if known is not None:
            if known.principal != door.principal:
                raise _taken()
            return known
        identity, write = await self._adding(source, statement, door)

        async def store() -> None:
            async with self._db.tenant(source.account, "link_identity") as conn:
                await still(conn)
                await write(conn)

        await _untaken(store)
        return identity

    async def end_all(self, conn: Connection, account: UUID, provider: UUID, reason: str) -> None:
        """Ends the sessions that a provider began, and sign-ins that wait; in the transaction that switches it off.

        The transaction is that of `account`, which keeps the provider, after the provider's row was changed.
        """
        found = await identities.of_provider(conn, account, provider)
        for place in await _places(conn, account):
            async with as_tenant(conn, place):
                await identities.end_sessions(conn, place, found, self._clock.wall(), reason)

    async def _find(self, source: Source, statement: Statement) -> Identity | None:
        foreign = await self._foreign_hash(source, statement)
        async with self._db.tenant(source.account, "find_identity", read_only=True) as conn:
            return await identities.find(conn, source.account, source.audience, source.issuer, foreign)

    async def _foreign_hash(self, source: Source, statement: Statement) -> bytes:
        # Not a blind index: that folds letters, and identifiers that differ in them are different people's.
        sign = await self._vault.signer(source.account, "identity")
        return sign(f"{len(source.issuer)}:{source.issuer}{statement.subject}".encode())

    async def _role(self, account: UUID, person: UUID) -> str:
        """Returns what a person is in the account now; raises `forbidden("membership_required")` for no member."""
        async with self._db.transaction("find_account", read_only=True) as conn:
            place = await accounts.find(conn, account)
        role = await staff_role(self._db, place, person) if place else None
        if role is None:
            raise _no_member()
        return role

    def _using(self, source: Source, known: Identity) -> Write:
        async def use(conn: Connection) -> None:
            # Held until the session is stored, so that an identity which is removed meanwhile takes it along.
            if not await identities.use(conn, source.account, known.id, self._clock.wall()):
                raise errors.conflict("concurrent_change", "Another change got in the way; try again.")

        return use

    async def _adding(
        self, source: Source, statement: Statement, door: Door, *, tell: bool = True
    ) -> tuple[Identity, Write]:
        """Returns a new identity of whoever goes in through `door`, and what stores it; a mail tells them."""
        foreign = await self._foreign_hash(source, statement)
        now = self._clock.wall()
        identity = Identity(
            self._make.new(), source.audience, source.id, source.name, source.issuer, door.principal, now, now
        )
        cipher = await self._vault.cipher(door.owner, door.principal)
        sealed = cipher.seal(IDENTITY_TABLE, _FOREIGN_FIELD, identity.id, statement.subject.encode())
        details = {"factor": source.name, **self._access.circumstances()}
        notice = await self._challenges.prepare_for(door, challenge.IDENTITY_ADDED, details=details) if tell else None

        async def write(conn: Connection) -> None:
            await self._access.refuse_erased(conn, door)
            await identities.add(conn, source.account, identity, foreign_hash=foreign, foreign_sealed=sealed)
            if notice is not None:
                await self._challenges.store_for(conn, door, notice)

        return identity, write

    async def _new_reader(self, source: Source, statement: Statement, *, live: bool) -> _Admitted:
        account, address = source.account, _address(statement)
        index = await self._vault.blind_index(account, "email", address)
        async with self._db.tenant(account, "find_credential", read_only=True) as conn:
            known = await credentials.find_by_email(conn, account, index)
        if known is not None:
            if not federation.trusted_mailbox(source, statement):
                raise _link_needed()
            door = Door(session.SUBSCRIBER, account, live, known.subject)
            identity, add = await self._adding(source, statement, door)

            async def link(conn: Connection) -> None:
                # The address may have become somebody else's since it was looked up.
                if not await credentials.has_address(conn, account, known.subject, index):
                    raise _link_needed()
                await add(conn)

            return _Admitted(identity, link)
        subject = await self._ensure(account, address, statement.name, live=live)
        await self._vault.create_subjects(account, [subject])
        door = Door(session.SUBSCRIBER, account, live, subject)
        identity, add = await self._adding(source, statement, door, tell=False)
        credential = Credential(self._make.new(), subject, NO_PASSWORD, 1)
        cipher = await self._vault.cipher(account, subject)
        sealed = cipher.seal(CREDENTIAL_TABLE, EMAIL_FIELD, credential.id, address.encode())

        async def register(conn: Connection) -> None:
            await credentials.add(
                conn, account, credential, email_index=index, email_sealed=sealed, at=self._clock.wall()
            )
            # Whoever registered with this address before proved nothing: their link must not set their password.
            await self._challenges.void(conn, account, challenge.VERIFY_REGISTRATION, index)
            await imported_passwords.remove(conn, account, subject, index)
            await add(conn)
            event = self._facts.make(
                "subscriber.registered",
                account,
                ("credential", credential.id),
                event_pb2.SubscriberRegistered(subject_id=ids.encode("subj", subject)),
                live=live,
                subjects=(subject,),
            )
            await outbox.append(conn, event=event)

        return _Admitted(identity, register)

    async def _ensure(self, account: UUID, address: str, name: str, *, live: bool) -> UUID:
        who = caller.current()
        acting = caller.service_caller(
            "auth", account, live=live, request_id=who.request_id, on_behalf_of=who.on_behalf_of or who.actor
        )
        with caller.acting(acting):
            return await self._subjects.ensure(address, name, self._make.new())

    async def _new_member(self, source: Source, statement: Statement) -> _Admitted:
        """Adds the identity to a member, or makes a member of somebody whom nobody knows.

        Nobody's other sign-in is touched: a person who is known elsewhere comes in by an invitation and their own
        password, and owners add identities themselves, for whoever may set up providers must not become one.
        """
        account, address = source.account, _address(statement)
        index = await self._vault.blind_index(account, "email", address)
        platform_index = await self._people.index(address)
        async with self._db.tenant(account, "find_member", read_only=True) as conn:
            member = await people.invited(conn, account, index)
        known = await self._people.find(platform_index)
        if member is None and source.default_role is None:
            raise _no_member()
        role = member.role if member else str(source.default_role)
        own = known is None or (member is not None and member.person == known.id)
        if not own or role == roles.OWNER or not federation.trusted_mailbox(source, statement):
            raise _link_needed()
        if known is not None:
            role = await self._role(account, known.id)
            door = Door(session.STAFF, account, live=True, principal=known.id)
            identity, add = await self._adding(source, statement, door)

            async def link(conn: Connection) -> None:
                held = await people.lock_membership(conn, account, person=known.id)
                if held is None or held.role != role:
                    raise _no_member()
                await add(conn)

            return _Admitted(identity, link, role)
        name = statement.name or address.partition("@")[0]
        person = await self._people.prepare(address, name, None, operator=False)
        door = Door(session.STAFF, account, live=True, principal=person.id)
        identity, add = await self._adding(source, statement, door, tell=False)
        place = member or Membership(self._make.new(), role, None, None, self._clock.wall(), None)

        async def join(conn: Connection) -> None:
            await self._join(conn, account, person, place, index=index, platform_index=platform_index)
            await add(conn)

        return _Admitted(identity, join, role)

    async def _join(
        self,
        conn: Connection,
        account: UUID,
        person: Person,
        place: Membership,
        *,
        index: bytes,
        platform_index: bytes,
    ) -> None:
        """Makes a member of a person who was just made; an invitation that they have is used up."""
        now = self._clock.wall()
        await people.add(conn, person, platform_index, now)
        stored = await people.invite(conn, account, place, index)
        if stored is None or stored.id != place.id:
            raise errors.conflict("concurrent_change", "Another change got in the way; try again.")
        entry = (await directory_entries.of(conn, account, [stored.id])).get(stored.id)
        if entry is not None and not entry.wanted:
            # The staff directory has withdrawn the invitation, or never sent it.
            raise _no_member()
        await people.accept(conn, account, stored.id, person.id, now)
        await self._challenges.void(conn, account, challenge.INVITE_MEMBER, index)


async def _places(conn: Connection, account: UUID) -> list[UUID]:
    """Returns the accounts in which identities of one may have begun sessions: of staff its test sibling too."""
    found: Account | None = await accounts.find(conn, account)
    return [account, found.sibling] if found else [account]


async def _untaken(job: Callable[[], Awaitable[T]]) -> T:
    """Returns what `job` does; of two who claim one identity or place at once the second is to try again.

    A reader who has a sign-in, be it with another address, is never given one by a provider's word.
    """
    try:
        return await job()
    except Exception as error:
        if violated(error) in _KNOWN:
            raise _link_needed() from error
        if violated(error) in _TAKEN:
            raise errors.conflict("concurrent_change", "Another change got in the way; try again.") from error
        raise


def _address(statement: Statement) -> str:
    """Returns the address that a provider vouches for; raises for one that opens nothing."""
    try:
        address = addresses.checked(statement.email) if statement.email_verified else ""
    except errors.GatefoldError:
        address = ""
    if not address:
        raise errors.precondition(
            "identity_email_unverified",
            "The provider does not say that your address is verified. Sign in with the address first, then add the"
            " provider to your sign-in.",
        )
    return address


def _refuse_other_domains(source: Source, statement: Statement) -> None:
    if not federation.in_domains(source, statement.email):
        raise errors.forbidden("email_domain_not_allowed", "This provider signs in people of other domains.")


def _link_needed() -> errors.GatefoldError:
    return errors.precondition(
        "identity_link_needed",
        "Somebody has this address here. Sign in as you did until now, then add the provider to your sign-in.",
    )


def _no_member() -> errors.GatefoldError:
    return errors.forbidden("membership_required", "You are no member of this team; ask for an invitation.")


def _taken() -> errors.GatefoldError:
    return errors.precondition("identity_taken", "Somebody else signs in with this identity.")
