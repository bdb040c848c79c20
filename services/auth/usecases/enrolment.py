"""Owns how a reader's sign-in comes to be: by proof of the mailbox, and no other way."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from gatefold.auth.v1 import event_pb2

from libs import caller, errors, ids, outbox
from libs.clock import WallClock
from libs.ids import IdSource
from libs.postgres import Connection, violated
from libs.vault import Vault
from services.auth.clients.peers import Subjects
from services.auth.domain import challenge, session
from services.auth.domain.credential import Credential
from services.auth.domain.password import StoredPassword
from services.auth.domain.sign_in import Door
from services.auth.repository import CREDENTIAL_TABLE, challenges, credentials, imported_passwords, sessions, sign_ins
from services.auth.usecases.facts import Facts

_EMAIL_FIELD = 1


@dataclass(frozen=True, repr=False)
class Enrolled:
    """A credential that is ready to be stored."""

    credential: Credential
    email_index: bytes
    email_sealed: bytes


class Enrolment:
    """Readers' credentials, made for a mailbox that was proven."""

    def __init__(self, vault: Vault, subjects: Subjects, clock: WallClock, make: IdSource, facts: Facts) -> None:
        self._vault = vault
        self._subjects = subjects
        self._clock = clock
        self._make = make
        self._facts = facts

    async def prepare(
        self, door: Door, contact: tuple[str, str], email_index: bytes, password: StoredPassword
    ) -> Enrolled:
        """Asks the subscriber service whom the address belongs to (repeatable), and seals; nothing is stored yet.

        The door is that of the reader whom a new address would be.
        """
        email, name = contact
        account, who = door.account, caller.current()
        # Who proves a mailbox by a reset has no account's credential.
        acting = caller.service_caller(
            "auth", account, live=door.live, request_id=who.request_id, on_behalf_of=who.on_behalf_of or who.actor
        )
        with caller.acting(acting):
            subject = await self._subjects.ensure(email, name, door.principal)
        await self._vault.create_subjects(account, [subject])
        cipher = await self._vault.cipher(account, subject)
        credential = Credential(self._make.new(), subject, password, 1)
        sealed = cipher.seal(CREDENTIAL_TABLE, _EMAIL_FIELD, credential.id, email.encode())
        return Enrolled(credential, email_index, sealed)

    async def store(self, conn: Connection, account: UUID, ready: Enrolled, *, live: bool) -> None:
        """Stores the credential with its event; other registrations of the address, and what was imported, end.

        Raises `not_found("subject_erased")`; runs within `untaken`.
        """
        credential, now = ready.credential, self._clock.wall()
        if await credentials.is_erased(conn, account, credential.subject):
            raise errors.not_found("subject_erased", "The person's data has been erased.")
        await credentials.put(
            conn, account, credential, email_index=ready.email_index, email_sealed=ready.email_sealed, at=now
        )
        await imported_passwords.remove(conn, account, credential.subject, ready.email_index)
        await challenges.void_open(conn, account, challenge.VERIFY_REGISTRATION, ready.email_index)
        # Who signed in with an earlier credential of this reader, or has begun to, has to sign in anew.
        await sign_ins.remove_of(conn, account, credential.subject)
        await sessions.revoke_all_of(conn, account, credential.subject, now, session.CREDENTIAL_REPLACED)
        event = self._facts.make(
            "subscriber.registered",
            account,
            ("credential", credential.id),
            event_pb2.SubscriberRegistered(subject_id=ids.encode("subj", credential.subject)),
            live=live,
            subjects=(credential.subject,),
        )
        await outbox.append(conn, event=event)


@contextmanager
def untaken() -> Iterator[None]:
    """Raises `precondition("email_taken")` where the address became another reader's in the meantime."""
    try:
        yield
    except Exception as error:
        if violated(error) == "credential_email":
            raise errors.precondition("email_taken", "Somebody else registered this address.") from error
        raise
