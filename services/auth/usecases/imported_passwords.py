"""Owns passwords that another system hashed: taking them, and what a right one begins."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, timedelta
from uuid import UUID

from gatefold.auth.v1 import credential_pb2

from libs import caller, errors
from libs.caller import CallerKind
from libs.clock import WallClock
from libs.errors import GatefoldError, Kind
from libs.ids import IdSource
from libs.postgres import Database
from libs.vault import Vault
from services.auth.clients.peers import Subjects
from services.auth.domain import challenge, session
from services.auth.domain.credential import ImportedPassword
from services.auth.domain.password import PasswordCount, StoredPassword
from services.auth.domain.sign_in import PASSWORD, PROVE_MAILBOX, Door, Pending
from services.auth.repository import IMPORTED_PASSWORD_TABLE, credentials, imported_passwords, password_counts
from services.auth.usecases import addresses
from services.auth.usecases.challenges import Challenges
from services.auth.usecases.passwords import PasswordHasher
from services.auth.usecases.secrets import TokenSecrets
from services.auth.usecases.sign_in import Waiting, credentials_invalid

FRESH = timedelta(minutes=15)
"""How old the sign-in of staff may be; keys have none, so the contract cannot say so."""
USABLE = timedelta(days=180)
LONGEST_USABLE = timedelta(days=731)
_AT_ONCE = 8
_EMAIL_FIELD = 1


@dataclass(frozen=True, repr=False)
class _Line:
    position: int
    email: str
    index: bytes
    password: StoredPassword


class ImportedPasswords:
    """Passwords that readers bring along; none of them is a sign-in before the mailbox is proven."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        hasher: PasswordHasher,
        challenges: Challenges,
        subjects: Subjects,
        secrets: TokenSecrets,
        clock: WallClock,
        make: IdSource,
    ) -> None:
        self._db = db
        self._vault = vault
        self._hasher = hasher
        self._challenges = challenges
        self._subjects = subjects
        self._secret = secrets.challenge
        self._clock = clock
        self._make = make

    async def take(self, request: credential_pb2.ImportPasswordsRequest) -> tuple[int, list[tuple[int, str]]]:
        """Stores what can be taken; returns how many, and place and reason of the others.

        The subscriber service is asked for each reader before anything is stored, and repeating it all is harmless.
        Raises `unauthenticated("authentication_insufficient")` and `invalid("deadline_invalid")`.
        """
        who = caller.current()
        account, now = who.require_account(), self._clock.wall()
        if who.kind is CallerKind.STAFF and (who.auth_time is None or now - who.auth_time > FRESH):
            raise errors.unauthenticated("authentication_insufficient", "Sign in again to import passwords.")
        until = request.usable_until.ToDatetime(UTC) if request.HasField("usable_until") else now + USABLE
        if not now < until <= now + LONGEST_USABLE:
            raise errors.invalid("deadline_invalid", "The deadline is within two years.", field="usable_until")
        lines, refused = await self._read(account, request)
        room = asyncio.Semaphore(_AT_ONCE)

        async def subject_of(line: _Line) -> UUID:
            async with room:
                return await self._subjects.ensure(line.email, "", self._make.new())

        subjects = await asyncio.gather(*(subject_of(line) for line in lines))
        await self._vault.create_subjects(account, list(dict.fromkeys(subjects)))
        ciphers = await self._vault.ciphers(account, list(dict.fromkeys(subjects)))
        async with self._db.tenant(account, "import_passwords") as conn:
            for line, subject in zip(lines, subjects, strict=True):
                cipher = ciphers.get(subject)
                if cipher is None or await credentials.is_erased(conn, account, subject):
                    refused.append((line.position, "subject_erased"))
                    continue
                key = self._make.new()
                sealed = cipher.seal(IMPORTED_PASSWORD_TABLE, _EMAIL_FIELD, key, line.email.encode())
                imported = ImportedPassword(key, subject, sealed, line.password)
                if not await imported_passwords.put(
                    conn, account, imported, email_index=line.index, until=until, at=now
                ):
                    refused.append((line.position, "credential_exists"))
        return len(request.passwords) - len(refused), sorted(refused)

    async def prove_mailbox(self, account: UUID, found: ImportedPassword, password: str, *, live: bool) -> Waiting:
        """Has a mail sent for a right password, which proves the mailbox; the password is hashed anew for it.

        What is answered for the browser to keep lets the password count there, as after a registration. Raises
        `unauthenticated("credentials_invalid")` when a reset came between.
        """
        cipher = await self._vault.cipher(account, found.subject)
        email = cipher.open(IMPORTED_PASSWORD_TABLE, _EMAIL_FIELD, found.id, found.email_sealed).decode()
        fresh = await self._hasher.hash(password)
        prepared = await self._challenges.prepare(
            challenge.VERIFY_REGISTRATION, account, found.subject, email, password=fresh
        )
        async with self._db.tenant(account, "prove_imported") as conn:
            if not await imported_passwords.hold(conn, account, found.id):
                raise credentials_invalid()
            await self._challenges.store_asked(conn, account, prepared, live=live)
        pending = Pending(
            id=prepared.id,
            door=Door(session.SUBSCRIBER, account, live, found.subject),
            proven=(PASSWORD,),
            next=PROVE_MAILBOX,
            methods=(),
            expires_at=prepared.expires_at,
        )
        return Waiting(challenge.kept_secret(prepared.id, self._secret), pending)

    async def count(self) -> list[PasswordCount]:
        """Counts the passwords of the account's readers by how they are hashed."""
        account = caller.current().require_account()
        async with self._db.tenant(account, "count_passwords", read_only=True) as conn:
            return await password_counts.of_readers(conn, account)

    async def count_peoples(self) -> list[PasswordCount]:
        """Counts the passwords of staff and operators by how they are hashed."""
        async with self._db.transaction("count_passwords", read_only=True) as conn:
            return await password_counts.of_persons(conn)

    def is_stale(self, counted: PasswordCount) -> bool:
        """Tells whether such passwords are hashed anew at the next sign-in."""
        return self._hasher.is_stale(counted.scheme, counted.params, counted.pepper_id)

    async def _read(
        self, account: UUID, request: credential_pb2.ImportPasswordsRequest
    ) -> tuple[list[_Line], list[tuple[int, str]]]:
        """Returns the lines that can be taken, as far as they themselves say, and the others with the reason."""
        lines: dict[bytes, _Line] = {}
        refused = []
        for position, given in enumerate(request.passwords):
            try:
                email = addresses.checked(given.email)
                password = self._hasher.keep(given.hash)
            except GatefoldError as error:
                if error.kind is not Kind.INVALID:
                    raise
                refused.append((position, error.reason))
                continue
            index = await self._vault.blind_index(account, "email", email)
            if index in lines:
                refused.append((position, "duplicate"))
            else:
                lines[index] = _Line(position, email, index, password)
        async with self._db.tenant(account, "find_credentials", read_only=True) as conn:
            known = await credentials.among(conn, account, list(lines))
        refused += [(lines[index].position, "credential_exists") for index in known]
        return [line for index, line in lines.items() if index not in known], refused
