"""Owns challenges: making them with their event, finding one by its token, and what its mail says."""

import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from uuid import UUID

from gatefold.auth.v1 import event_pb2

from libs import caller, errors, ids, outbox
from libs.clock import WallClock
from libs.ids import IdSource
from libs.postgres import PLATFORM, Connection, Database, as_tenant
from libs.vault import Vault
from services.auth.domain import challenge as rules
from services.auth.domain import session
from services.auth.domain.attempts import key_of
from services.auth.domain.challenge import Challenge
from services.auth.domain.mailbox import has_room, with_one_more
from services.auth.domain.password import StoredPassword
from services.auth.domain.sign_in import Door
from services.auth.repository import (
    CHALLENGE_TABLE,
    CREDENTIAL_TABLE,
    IMPORTED_PASSWORD_TABLE,
    accounts,
    challenges,
    credentials,
    imported_passwords,
    mailboxes,
    people,
)
from services.auth.usecases import addresses
from services.auth.usecases.facts import Facts
from services.auth.usecases.secrets import TokenSecrets

_EMAIL_FIELD = 1
_NAME_FIELD = 2
_DETAILS_FIELD = 3
_NOTHING: Mapping[str, str] = MappingProxyType({})
_PLATFORM_NAME = "Gatefold"

Contacts = Callable[[list[UUID]], Awaitable[dict[UUID, tuple[str, str]]]]
"""Gives address and name of persons."""


@dataclass(frozen=True, repr=False)
class Letter:
    """What a challenge's mail says; holds personal data and the token."""

    purpose: str
    email: str
    name: str
    publication: str
    link: str
    code: str
    details: dict[str, str]
    expires_at: datetime


class Challenges:
    """Makes and answers challenges."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        secrets: TokenSecrets,
        clock: WallClock,
        make: IdSource,
        facts: Facts,
        contacts: Contacts,
        public_url: str,
    ) -> None:
        self._db = db
        self._vault = vault
        self._secret = secrets.challenge
        self._mailbox_secret = secrets.attempt
        self._clock = clock
        self._make = make
        self._facts = facts
        self._contacts = contacts
        self._accept_url = public_url.rstrip("/") + "/accept"
        self._recover_url = public_url.rstrip("/") + "/recover"

    async def prepare(
        self,
        purpose: str,
        account: UUID,
        subject: UUID,
        email: str,
        name: str = "",
        *,
        password: StoredPassword | None = None,
        membership: UUID | None = None,
        details: Mapping[str, str] = _NOTHING,
        browser_hash: bytes | None = None,
        inert: bool = False,
    ) -> Challenge:
        """Returns a new challenge, sealed under the subject's key (made when it has none); nothing is stored yet.

        An `inert` one is made by the same steps, and has neither a token nor a mail.
        """
        await self._vault.create_subjects(account, [subject])
        cipher = await self._vault.cipher(account, subject)
        now = self._clock.wall()
        key = self._make.new()
        token = rules.token_of(key, self._secret)
        return Challenge(
            id=key,
            purpose=purpose,
            subject=subject,
            email_index=await self._vault.blind_index(account, "email", email),
            email_sealed=cipher.seal(CHALLENGE_TABLE, _EMAIL_FIELD, key, email.encode()),
            name_sealed=cipher.seal(CHALLENGE_TABLE, _NAME_FIELD, key, name.encode()),
            expires_at=now + rules.LIFETIMES[purpose],
            created_at=now,
            password=password,
            membership=membership,
            token_hash=rules.hash_of(token) if purpose in rules.WITH_TOKEN and not inert else None,
            details_sealed=cipher.seal(CHALLENGE_TABLE, _DETAILS_FIELD, key, json.dumps(dict(details)).encode()),
            browser_hash=browser_hash,
        )

    async def prepare_for(self, door: Door, purpose: str, *, details: Mapping[str, str] = _NOTHING) -> Challenge:
        """Returns a mail to whoever goes in, at the address that is theirs now; for `store_for`.

        `details` are told in the mail: `device`, `address`, `place`, `time`, `factor`, `left`. Raises
        `not_found("principal_not_found")` when whoever it is was erased.
        """
        email, name = await self.contact(door)
        return await self.prepare(purpose, door.owner, door.principal, email, name, details=details)

    async def contact(self, door: Door) -> tuple[str, str]:
        """Returns address and name of whoever goes in; a reader's name is not known here, and empty."""
        if door.kind != session.SUBSCRIBER:
            contacts = await self._contacts([door.principal])
            if door.principal not in contacts:
                raise principal_not_found()
            return contacts[door.principal]
        async with self._db.tenant(door.account, "read_address", read_only=True) as conn:
            table, held = CREDENTIAL_TABLE, await credentials.address_of(conn, door.account, door.principal)
            if held is None:
                table = IMPORTED_PASSWORD_TABLE
                held = await imported_passwords.address_of(conn, door.account, door.principal)
        if held is None:
            raise principal_not_found()
        cipher = await self._vault.cipher(door.account, door.principal)
        email = cipher.open(table, _EMAIL_FIELD, held[0], held[1]).decode()
        return email, ""

    async def door_of(self, account: UUID, principal: UUID) -> Door:
        """Returns the door of whom a challenge under `account` was sent to; raises `not_found("account_not_found")`."""
        if account == PLATFORM:
            return Door(session.OPERATOR, PLATFORM, live=True, principal=principal)
        async with self._db.transaction("find_account", read_only=True) as conn:
            publisher = await accounts.find(conn, account)
        if publisher is None:
            raise errors.not_found("account_not_found", "There is no such account.")
        return Door(session.SUBSCRIBER, account, publisher.live, principal)

    async def ask(
        self, purpose: str, account: UUID, email: str, *, live: bool, browser_hash: bytes | None = None
    ) -> None:
        """Has a mail sent to whoever has the address: a reader, or a person under the platform. Earlier ones are void.

        The steps and the answer are the same when nobody has it (ASVS 5.0 6.3.8): whom the mail goes to, and whether
        to anybody, is looked up when it is made. It goes to the address that was proven, since another one that is
        found alike may be another mailbox. Where the mailbox has had too many, earlier ones go on working instead.
        """
        index = await self._vault.blind_index(account, "email", addresses.checked(email))
        async with self._db.tenant(account, "ask") as conn:
            if not await self._has_room(conn, account, purpose, index):
                return
            await self.void(conn, account, purpose, index)
            await self._ask(conn, purpose, account, index, live=live, browser_hash=browser_hash)

    async def offer_unlock(self, account: UUID, email_index: bytes) -> None:
        """Has a link mailed that lifts a lock, as `ask` does; not while the last one still works, since strangers have
        these sent.
        """
        async with self._db.tenant(account, "offer_unlock") as conn:
            if await challenges.is_open(conn, account, email_index, rules.UNLOCK, self._clock.wall()):
                return
            await self._has_room(conn, account, rules.UNLOCK, email_index)
            await self.void(conn, account, rules.UNLOCK, email_index)
            live = account == PLATFORM or caller.current().live
            await self._ask(conn, rules.UNLOCK, account, email_index, live=live)

    async def _has_room(self, conn: Connection, account: UUID, purpose: str, email_index: bytes) -> bool:
        """Counts a mail that anybody can ask for, and tells whether it is to be sent, in the transaction of that.

        What gets its owner in again is sent while no earlier one works, however many mails others have used up.
        """
        now = self._clock.wall()
        mailbox = key_of(self._mailbox_secret, b"mailbox", account.bytes, email_index)
        mailed_at = await mailboxes.lock(conn, account, mailbox, now)
        needed = purpose in rules.WAY_BACK and not await challenges.is_open(conn, account, email_index, purpose, now)
        sent = needed or has_room(mailed_at, now)
        await mailboxes.store(conn, account, mailbox, with_one_more(mailed_at, now) if sent else mailed_at)
        return sent

    async def _ask(
        self,
        conn: Connection,
        purpose: str,
        account: UUID,
        index: bytes,
        *,
        live: bool,
        browser_hash: bytes | None = None,
    ) -> None:
        now, key = self._clock.wall(), self._make.new()
        asked = Challenge(
            id=key,
            purpose=purpose,
            subject=await self._principal_of(conn, account, index, purpose) or self._make.new(),
            email_index=index,
            email_sealed=b"",
            name_sealed=b"",
            expires_at=now + rules.LIFETIMES[purpose],
            created_at=now,
            token_hash=rules.hash_of(rules.token_of(key, self._secret)),
            browser_hash=browser_hash,
        )
        await self.store(conn, account, asked, live=live)

    async def _principal_of(self, conn: Connection, account: UUID, index: bytes, purpose: str) -> UUID | None:
        # Of readers without a sign-in, those whose password was imported get one by a reset.
        return await challenges.principal_of(conn, account, index, imported=purpose == rules.RESET_PASSWORD)

    async def send_again(self, account: UUID, email: str, *, live: bool) -> None:
        """Has the mail of a registration sent once more, with the same token; the steps are the same when none waits.

        Where several wait, each with another password, it is the newest one's: whoever opens it in another browser
        than registered there chooses the password.
        """
        index = await self._vault.blind_index(account, "email", addresses.checked(email))
        async with self._db.tenant(account, "send_again") as conn:
            if not await self._has_room(conn, account, rules.VERIFY_REGISTRATION, index):
                return
            key, mails = await challenges.count_mail(
                conn, account, index, rules.VERIFY_REGISTRATION, self._clock.wall()
            ) or (self._make.new(), 1)
            data = event_pb2.ChallengeRequested(challenge_id=ids.encode("chal", key), purpose=rules.VERIFY_REGISTRATION)
            event = self._facts.make(
                "challenge.requested", account, ("challenge", key), data, live=live, sequence=mails
            )
            await outbox.append(conn, event=event)

    async def store_for(self, conn: Connection, door: Door, prepared: Challenge) -> None:
        """Stores what `prepare_for` made and has it sent, in a transaction of whatever account.

        A person's lies under the platform, whichever account they work in.
        """
        async with as_tenant(conn, door.owner):
            await self.store(conn, door.owner, prepared, live=door.live or door.owner == PLATFORM)

    async def tell(self, conn: Connection, door: Door, purpose: str) -> None:
        """Has a notice without details sent, in a transaction of whatever account; to nobody who has no address.

        Nothing is sealed, so that what it tells of happens at once, also while no key can be had: the address is looked
        up when the mail is made.
        """
        async with as_tenant(conn, door.owner):
            if door.kind == session.SUBSCRIBER:
                index = await credentials.index_of(conn, door.account, door.principal)
            else:
                index = await people.index_of(conn, door.principal)
        if index is not None:
            now = self._clock.wall()
            notice = Challenge(
                id=self._make.new(),
                purpose=purpose,
                subject=door.principal,
                email_index=index,
                email_sealed=b"",
                name_sealed=b"",
                expires_at=now + rules.LIFETIMES[purpose],
                created_at=now,
            )
            await self.store_for(conn, door, notice)

    async def store_asked(self, conn: Connection, account: UUID, prepared: Challenge, *, live: bool) -> None:
        """As `store`, of what anybody can ask for: without a mail where the mailbox has had too many."""
        if await self._has_room(conn, account, prepared.purpose, prepared.email_index):
            await self.store(conn, account, prepared, live=live)
        else:
            await challenges.add(conn, account, prepared, mails=0)

    async def store(self, conn: Connection, account: UUID, prepared: Challenge, *, live: bool) -> None:
        """Stores a challenge with the event that has its mail sent."""
        await challenges.add(conn, account, prepared)
        data = event_pb2.ChallengeRequested(challenge_id=ids.encode("chal", prepared.id), purpose=prepared.purpose)
        reader = () if prepared.membership or account == PLATFORM else (prepared.subject,)
        event = self._facts.make(
            "challenge.requested", account, ("challenge", prepared.id), data, live=live, subjects=reader
        )
        await outbox.append(conn, event=event)

    async def by_token(self, token: str, purpose: str) -> tuple[UUID, Challenge]:
        """Returns account and challenge of a token; a spent one only to a repeat of the request that spent it.

        Raises not_found with reason `token_invalid`, `token_expired` or `token_spent`.
        """
        async with self._db.transaction("find_challenge", read_only=True) as conn:
            route = await challenges.route(conn, rules.hash_of(token))
        if route is None:
            raise token_invalid()
        account, key = route
        async with self._db.tenant(account, "read_challenge", read_only=True) as conn:
            found = await challenges.find(conn, account, key)
        if found is None or found.purpose != purpose:
            raise token_invalid()
        if found.spent_at is not None:
            if not repeats(found.spent_by):
                raise token_spent()
        elif self._clock.wall() >= found.expires_at:
            raise errors.not_found("token_expired", "This link has expired; ask for a new one.")
        return account, found

    async def opened(self, account: UUID, found: Challenge) -> tuple[str, str]:
        """Returns address and name of a challenge that is not spent."""
        cipher = await self._vault.cipher(account, found.subject)
        email = cipher.open(CHALLENGE_TABLE, _EMAIL_FIELD, found.id, found.email_sealed)
        name = cipher.open(CHALLENGE_TABLE, _NAME_FIELD, found.id, found.name_sealed)
        return email.decode(), name.decode()

    async def spend(self, conn: Connection, account: UUID, found: Challenge, subject: UUID) -> None:
        """Spends the token in the transaction of what it proves; raises `not_found("token_spent")` to all but one."""
        by = caller.current().request_id
        if not await challenges.spend(conn, account, found.id, subject=subject, at=self._clock.wall(), by=by):
            raise token_spent()
        await self.void(conn, account, found.purpose, found.email_index)

    async def void(self, conn: Connection, account: UUID, purpose: str, email_index: bytes) -> None:
        """Ends the open challenges of an address."""
        await challenges.void_open(conn, account, purpose, email_index)

    async def void_of(self, conn: Connection, account: UUID, subject: UUID, purposes: Collection[str]) -> None:
        """Ends somebody's open challenges, in the transaction of what makes them stale."""
        await challenges.void_of(conn, account, subject, purposes)

    async def describe(self, key: UUID) -> Letter:
        """Returns what the mail says.

        Raises `not_found("challenge_over")` once it is spent, void or gone, and where nobody has the address: there is
        no mail then, and nothing tells which it was. `not_found("challenge_expired")` for one that came too late.
        """
        async with self._db.transaction("route_challenge", read_only=True) as conn:
            account = await challenges.account_of(conn, key)
            publisher = await accounts.find(conn, account) if account else None
            inert = await challenges.inert(conn, key)
        if account is None or (publisher is None and account != PLATFORM):
            raise _over()
        async with self._db.tenant(account, "describe_challenge", read_only=True) as conn:
            found = await challenges.find(conn, account, key)
        if found is None or found.spent_at is not None or (inert and found.purpose in rules.WITH_TOKEN):
            raise _over()
        email, name = await self._addressee(account, found)
        if not found.open_at(self._clock.wall()):
            raise errors.not_found("challenge_expired", "This challenge has expired.")
        return Letter(
            purpose=found.purpose,
            email=email,
            name="" if found.purpose in rules.UNPROVEN else name,
            publication=publisher.name if publisher else _PLATFORM_NAME,
            link=self._link(found, publisher.reader_url if publisher else self._recover_url),
            code=rules.code_of(key, self._secret) if found.purpose == rules.EMAIL_CODE else "",
            details=await self._details(account, found),
            expires_at=found.expires_at,
        )

    async def _addressee(self, account: UUID, found: Challenge) -> tuple[str, str]:
        """Returns address and name that a mail goes to; for one that was asked for by address, whoever has that now."""
        if found.email_sealed:
            return await self.opened(account, found)
        try:
            email, name = await self.contact(await self.door_of(account, found.subject))
        except errors.GatefoldError as error:
            if error.reason != "principal_not_found":
                raise
            raise _over() from error
        if await self._vault.blind_index(account, "email", email) != found.email_index:
            raise _over()
        return email, name

    def _link(self, found: Challenge, page: str) -> str:
        token = rules.token_of(found.id, self._secret)
        if found.purpose in rules.IN_FRAGMENT:
            return rules.fragment_link(page, found.purpose, token)
        if found.purpose in rules.IN_QUERY:
            return rules.link(self._accept_url if found.purpose == rules.INVITE_MEMBER else page, token)
        return ""

    async def _details(self, account: UUID, found: Challenge) -> dict[str, str]:
        if not found.details_sealed:
            return {}
        cipher = await self._vault.cipher(account, found.subject)
        held: dict[str, str] = json.loads(cipher.open(CHALLENGE_TABLE, _DETAILS_FIELD, found.id, found.details_sealed))
        return held


def repeats(spent_by: str | None) -> bool:
    """Tells whether this is a repeat of the request that spent a token, whose answer the edge did not get."""
    request_id = caller.current().request_id
    return bool(request_id) and spent_by == request_id


def token_spent() -> errors.GatefoldError:
    """Returns the error of a token that was used before."""
    return errors.not_found("token_spent", "This link has been used already.")


def token_invalid() -> errors.GatefoldError:
    """Returns the error of a token that nobody was sent, or not for this."""
    return errors.not_found("token_invalid", "This link is not valid.")


def _over() -> errors.GatefoldError:
    return errors.not_found("challenge_over", "This challenge is over.")


def principal_not_found() -> errors.GatefoldError:
    """Returns the error of somebody who has no sign-in any more."""
    return errors.not_found("principal_not_found", "Whoever this was is not known any more.")
