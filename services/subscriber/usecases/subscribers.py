"""Owns readers: adding, showing, listing, changing, and the one subject that an address stands for."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from gatefold.subscriber.v1 import subscriber_pb2
from google.protobuf.message import Message

from libs import caller, errors, idempotency, ids, outbox
from libs.clock import Clock
from libs.postgres import Connection, Database, violated
from libs.vault import Cipher, Vault
from services.subscriber.domain import cursor, profile
from services.subscriber.domain.address import cleaned
from services.subscriber.domain.entitlement import active_features
from services.subscriber.domain.profile import Change, Profile
from services.subscriber.repository import entitlements, sealing, subscribers
from services.subscriber.repository.sealing import SealedProfile
from services.subscriber.usecases import addresses
from services.subscriber.usecases.facts import Facts

Shown = tuple[Profile, tuple[str, ...]]
"""A reader and the features they may use now."""


class Subscribers:
    """The account's readers."""

    def __init__(self, db: Database, vault: Vault, clock: Clock, id_source: ids.IdSource, facts: Facts) -> None:
        self._db = db
        self._vault = vault
        self._clock = clock
        self._ids = id_source
        self._facts = facts

    async def create_subscriber(self, new: profile.NewReader, request: Message) -> Shown:
        """Adds a reader; raises `invalid(…)`, `conflict("subscriber_exists")`, `conflict("external_id_taken")`."""
        who = caller.current()
        account = who.require_account()
        address = addresses.checked(new.email)
        fresh = new.profile(self._ids.new(), address, "api", self._clock.now(account))
        index = await self._vault.blind_index(account, sealing.EMAIL_INDEX, address)
        cipher = await self._new_cipher(account, fresh.subject_id)
        async with self._db.tenant(account, "create_subscriber") as conn:
            claim = await idempotency.claim(conn, who, "CreateSubscriber", request, clock=self._clock)
            if claim.replay is None:
                if not await self._insert(conn, account, fresh, cipher, index):
                    raise errors.conflict("subscriber_exists", "The account already has a reader with this address.")
                # Only the identifier is kept for a replay: personal data lies in one place, where erasure finds it.
                kept = subscriber_pb2.Subscriber(id=ids.encode("subj", fresh.subject_id))
                await idempotency.record(conn, who, "CreateSubscriber", kept)
        if claim.replay is not None:
            kept = subscriber_pb2.Subscriber.FromString(claim.replay)
            return await self.get_subscriber(ids.decode("subj", kept.id))
        return fresh, ()

    async def get_subscriber(self, subject: UUID) -> Shown:
        """Returns a reader; raises `not_found("subscriber_not_found")`."""
        account = caller.current().require_account()
        async with self._db.tenant(account, "get_subscriber", read_only=True) as conn:
            row = await subscribers.find(conn, account, subject)
            if row is None:
                raise _not_found()
            rights = (await entitlements.of_readers(conn, account, [subject])).get(subject, [])
        found = sealing.opened(row, await self._vault.cipher(account, subject))
        return found, active_features(rights, self._clock.now(account))

    async def get_me(self) -> Shown:
        """Returns the signed-in reader's own profile, without what the publisher keeps beside it for itself."""
        found, features = await self.get_subscriber(caller.current().require_subject())
        return replace(found, note="", labels=(), metadata={}), features

    async def list_subscribers(self, limit: int, after: str, email: str) -> tuple[list[Shown], str]:
        """Returns a page of readers, newest first, and the cursor of the next; of `email` alone when it is given.

        Two queries, and one more for the subject keys of the whole page.
        """
        account = caller.current().require_account()
        size = cursor.page_limit(limit)
        begin = cursor.read_reader(after)
        # Looked for in the spelling in which it is kept; what is no address is nobody's.
        address = addresses.spelled(cleaned(email)) or email
        index = await self._vault.blind_index(account, sealing.EMAIL_INDEX, address) if email else None
        async with self._db.tenant(account, "list_subscribers", read_only=True) as conn:
            if index is None:
                rows = await subscribers.page(conn, account, begin, size + 1)
            else:
                row = await subscribers.find_by_email(conn, account, index)
                rows = [] if row is None else [row]
            shown = rows[:size]
            rights = await entitlements.of_readers(conn, account, [row.subject_id for row in shown])
        profiles = await self._opened(account, shown)
        now = self._clock.now(account)
        last = shown[-1] if len(rows) > size else None
        return (
            [(found, active_features(rights.get(found.subject_id, ()), now)) for found in profiles],
            "" if last is None else cursor.after_reader(last.created_at, last.subject_id),
        )

    async def update_subscriber(self, subject: UUID, change: Change, request: Message) -> Shown:
        """Changes a reader; raises `not_found("subscriber_not_found")` and `invalid("too_long")`."""
        who = caller.current()
        account = who.require_account()
        profile.check_change(change)
        async with self._db.tenant(account, "get_subscriber", read_only=True) as conn:
            if await subscribers.find(conn, account, subject) is None:
                raise _not_found()
        cipher = await self._vault.cipher(account, subject)
        async with self._db.tenant(account, "update_subscriber") as conn:
            claim = await idempotency.claim(conn, who, "UpdateSubscriber", request, clock=self._clock)
            if claim.replay is None:
                row = await subscribers.lock(conn, account, subject)
                if row is None:
                    raise _not_found()
                before = sealing.opened(row, cipher)
                await self._change(conn, account, before, profile.applied(before, change), cipher)
                kept = subscriber_pb2.Subscriber(id=ids.encode("subj", subject))
                await idempotency.record(conn, who, "UpdateSubscriber", kept)
        return await self.get_subscriber(subject)

    async def ensure_subject(self, email: str, name: str, offered: UUID | None) -> tuple[UUID, bool]:
        """Returns the subject that an address stands for, and whether it was added just now.

        Of concurrent calls one adds the reader and all answer the same subject: the address is unique in the database.
        A reader who is known, imported ones too, keeps their subject; `name` fills in where none is known. Raises
        `invalid("email_invalid")`, and `conflict("subject_taken")` when the offered subject has another address.
        """
        account = caller.current().require_account()
        address = addresses.checked(email)
        index = await self._vault.blind_index(account, sealing.EMAIL_INDEX, address)
        known = await self._by_index(account, index)
        if known is None:
            new = profile.NewReader(email=address, name=name[: profile.MOST_NAME])
            fresh = new.profile(offered or self._ids.new(), address, "registration", self._clock.now(account))
            cipher = await self._new_cipher(account, fresh.subject_id)
            async with self._db.tenant(account, "ensure_subject") as conn:
                if await self._insert(conn, account, fresh, cipher, index):
                    return fresh.subject_id, True
            known = await self._by_index(account, index)
            if known is None:
                # Added by another call and erased before this one could read it.
                raise errors.conflict("concurrent_change", "Another change got in the way; try again.")
        if name and known.name_sealed is None:
            await self._fill_name(account, known.subject_id, name[: profile.MOST_NAME])
        return known.subject_id, False

    async def change_email(self, subject: UUID, email: str) -> None:
        """Gives a reader another address; saying it again is harmless.

        Raises `precondition("email_taken")` when it is another reader's, `not_found("subscriber_not_found")`.
        """
        account = caller.current().require_account()
        address = addresses.checked(email)
        index = await self._vault.blind_index(account, sealing.EMAIL_INDEX, address)
        cipher = await self._vault.cipher(account, subject)
        try:
            async with self._db.tenant(account, "change_email") as conn:
                row = await subscribers.lock(conn, account, subject)
                if row is None:
                    raise _not_found()
                before = sealing.opened(row, cipher)
                await subscribers.move(conn, account, subject, index)
                after = before if before.email == address else replace(before, email=address)
                await self._change(conn, account, before, after, cipher)
        except Exception as error:
            if violated(error) == "subscriber_email_unique":
                raise errors.precondition("email_taken", "Somebody else has this address.") from error
            raise

    async def get_contact(self, subject: UUID) -> tuple[str, str]:
        """Returns a reader's address and name; raises `not_found("subscriber_not_found")`."""
        account = caller.current().require_account()
        async with self._db.tenant(account, "get_contact", read_only=True) as conn:
            row = await subscribers.find(conn, account, subject)
        if row is None:
            raise _not_found()
        found = sealing.opened(row, await self._vault.cipher(account, subject))
        return found.email, found.name

    async def _by_index(self, account: UUID, index: bytes) -> SealedProfile | None:
        async with self._db.tenant(account, "find_subject", read_only=True) as conn:
            return await subscribers.find_by_email(conn, account, index)

    async def _fill_name(self, account: UUID, subject: UUID, name: str) -> None:
        cipher = await self._vault.cipher(account, subject)
        async with self._db.tenant(account, "fill_name") as conn:
            row = await subscribers.lock(conn, account, subject)
            if row is not None and row.name_sealed is None:
                before = sealing.opened(row, cipher)
                await self._change(conn, account, before, profile.applied(before, Change(name=name)), cipher)

    async def _insert(self, conn: Connection, account: UUID, fresh: Profile, cipher: Cipher, index: bytes) -> bool:
        row = sealing.sealed(fresh, cipher)
        if not await subscribers.insert(conn, account, [(row, index)], self._clock.now(account)):
            return False
        await outbox.append(conn, event=self._facts.reader_created(account, fresh))
        return True

    async def _change(self, conn: Connection, account: UUID, before: Profile, after: Profile, cipher: Cipher) -> None:
        if after is before:
            return
        numbered = replace(after, sequence=before.sequence + 1)
        await subscribers.update(conn, account, [sealing.sealed(numbered, cipher)], self._clock.now(account))
        changed = profile.changed_fields(before, after)
        await outbox.append(conn, event=self._facts.reader_updated(account, numbered, changed))

    async def _new_cipher(self, account: UUID, subject: UUID) -> Cipher:
        """Makes the subject's keys before the transaction; should that fail, a key without data is left."""
        await self._vault.create_subjects(account, [subject])
        return await self._vault.cipher(account, subject)

    async def _opened(self, account: UUID, rows: Sequence[SealedProfile]) -> list[Profile]:
        ciphers = await self._vault.ciphers(account, [row.subject_id for row in rows])
        # A reader whose key is gone is being erased, and is shown no more.
        return [sealing.opened(row, ciphers[row.subject_id]) for row in rows if row.subject_id in ciphers]


def _not_found() -> errors.GatefoldError:
    return errors.not_found("subscriber_not_found", "There is no such reader.")
