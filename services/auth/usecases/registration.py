"""Owns readers' registration and sign-in."""

import hmac
from uuid import UUID

from gatefold.auth.v1 import subscriber_session_pb2

from libs import caller, errors, idempotency
from libs.clock import WallClock
from libs.ids import IdSource
from libs.postgres import Connection, Database
from libs.vault import Vault
from services.auth.domain import account as account_rules
from services.auth.domain import challenge as rules
from services.auth.domain import session
from services.auth.domain.challenge import Challenge
from services.auth.domain.credential import Credential, ImportedPassword
from services.auth.domain.password import LONGEST, StoredPassword
from services.auth.domain.sign_in import PASSWORD, Door
from services.auth.repository import accounts, credentials, imported_passwords
from services.auth.usecases import addresses
from services.auth.usecases.attempts import Attempts, Target
from services.auth.usecases.breached_passwords import BreachedPasswords
from services.auth.usecases.challenges import Challenges
from services.auth.usecases.enrolment import Enrolment, untaken
from services.auth.usecases.imported_passwords import ImportedPasswords
from services.auth.usecases.password_policy import PasswordPolicy, words_of
from services.auth.usecases.passwords import PasswordHasher, Verdict
from services.auth.usecases.secrets import TokenSecrets, blinded
from services.auth.usecases.sessions import Pair
from services.auth.usecases.sign_in import SignIn, Waiting, credentials_invalid

_LONGEST_NAME = 200
_REGISTER = "Register"


class Registration:
    """Readers: registering, proving the mailbox, signing in."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        hasher: PasswordHasher,
        policy: PasswordPolicy,
        challenges: Challenges,
        sign_in: SignIn,
        enrolment: Enrolment,
        imported: ImportedPasswords,
        breached: BreachedPasswords,
        secrets: TokenSecrets,
        clock: WallClock,
        make: IdSource,
        attempts: Attempts,
    ) -> None:
        self._db = db
        self._vault = vault
        self._hasher = hasher
        self._policy = policy
        self._challenges = challenges
        self._sign_in = sign_in
        self._enrolment = enrolment
        self._imported = imported
        self._breached = breached
        self._request_key = secrets.request
        self._challenge_key = secrets.challenge
        self._clock = clock
        self._make = make
        self._attempts = attempts

    async def register(self, email: str, password: str, name: str) -> str:
        """Has a mail sent to the address: to a new reader with a token, to a known one saying that they are known.

        Both ways take the same steps and the same hash work, so that the answer tells nothing (ASVS 6.3.8). The
        password waits in the challenge until the mailbox is proven. Returns what the browser is to keep until then.
        """
        who = caller.current()
        account = who.require_account()
        address = addresses.checked(email)
        called = account_rules.checked_name(name, longest=_LONGEST_NAME, least=0)
        with self._hasher.place():
            async with self._db.transaction("find_account", read_only=True) as conn:
                publisher = await accounts.find(conn, account)
        # Outside of the place: whoever is asked for breached passwords may be slow, and others sign in meanwhile.
        await self._policy.check(password, words_of(publisher, address, called))
        with self._hasher.place() as place:
            index = await self._vault.blind_index(account, "email", address)
            async with self._db.tenant(account, "find_credential", read_only=True) as conn:
                known = await credentials.find_by_email(conn, account, index)
            hashed = await self._hasher.hash(password, place)
        prepared = await self._challenges.prepare(
            rules.ALREADY_REGISTERED if known else rules.VERIFY_REGISTRATION,
            account,
            known.subject if known else self._make.new(),
            address,
            called if known is None else "",
            password=None if known else hashed,
        )
        # What is kept to know a repetition by must let nobody guess the password.
        request = subscriber_session_pb2.RegisterRequest(
            email=blinded(self._request_key, address),
            password=blinded(self._request_key, password),
            name=blinded(self._request_key, called),
        )
        async with self._db.tenant(account, "register") as conn:
            claim = await idempotency.claim(conn, who, _REGISTER, request, clock=self._clock, reference=prepared.id)
            if claim.replay is None:
                await self._challenges.store_asked(conn, account, prepared, live=who.live)
                await idempotency.record(conn, who, _REGISTER, subscriber_session_pb2.RegisterResponse())
        first = claim.reference if claim.replay is not None else None
        return rules.kept_secret(first or prepared.id, self._challenge_key)

    async def verify(self, token: str, browser_secret: str, password: str) -> UUID:
        """Makes the credential of a reader who has shown the token from the mail; returns the subject.

        Whoever registered need not be who reads the mail: the password that waits counts only together with what the
        registering browser keeps, and `password` takes its place. First the subscriber service is asked whom the
        address belongs to, which may be repeated, then everything is written at once: killed in between, the token
        still works. Raises as `Challenges.by_token` and `PasswordPolicy.check`, and `invalid("password_required")`,
        which leave the token as it is.
        """
        who = caller.current()
        account = who.require_account()
        owner, found = await self._challenges.by_token(token, rules.VERIFY_REGISTRATION)
        if owner != account:
            raise errors.not_found("token_invalid", "This link is not valid.")
        if found.spent_at is not None:
            return found.subject
        email, name = await self._challenges.opened(account, found)
        chosen = await self._chosen(account, found, browser_secret, password, (email, name))
        ready = await self._enrolment.prepare(
            Door(session.SUBSCRIBER, account, who.live, found.subject), (email, name), found.email_index, chosen
        )
        subject = ready.credential.subject
        with untaken():
            async with self._db.tenant(account, "verify_registration") as conn:
                await self._challenges.spend(conn, account, found, subject)
                await self._enrolment.store(conn, account, ready, live=who.live)
        return subject

    async def _chosen(
        self, account: UUID, found: Challenge, browser_secret: str, password: str, contact: tuple[str, str]
    ) -> StoredPassword:
        """Returns the password that a proven mailbox gets."""
        if password:
            async with self._db.transaction("find_account", read_only=True) as conn:
                publisher = await accounts.find(conn, account)
            await self._policy.check(password, words_of(publisher, *contact))
            return await self._hasher.hash(password)
        kept = rules.kept_secret(found.id, self._challenge_key)
        if not hmac.compare_digest(kept.encode(), browser_secret.encode()):
            raise errors.invalid("password_required", "Choose the password to sign in with.", field="password")
        if found.password is None:
            raise errors.internal("challenge_without_password", "Something failed on our side.")
        return found.password

    async def sign_in(self, email: str, password: str, device_token: str) -> Pair | Waiting:
        """Signs a reader in; `unauthenticated("credentials_invalid")` alike for wrong, unknown, unverified, disabled.

        Raises as `Attempts.guarded` before anything is hashed.
        """
        who = caller.current()
        account = who.require_account()
        address = addresses.checked(email)
        refuse_endless(password)
        with self._hasher.place() as place:
            index = await self._vault.blind_index(account, "email", address)
            async with self._db.tenant(account, "find_credential", read_only=True) as conn:
                known = await credentials.find_by_email(conn, account, index)
                imported = await imported_passwords.find(conn, account, index, self._clock.wall())
            one = known or imported

            async def check() -> tuple[Credential | ImportedPassword, Verdict] | None:
                verdict = await self._hasher.verify(password, one.password if one else None, place)
                out = isinstance(one, Credential) and one.disabled
                return (one, verdict) if one is not None and verdict.matches and not out else None

            target = Target(
                account,
                index,
                known.subject if known else None,
                device_token,
                "/v1/sessions",
                password_version=known.password.version if known else 0,
            )
            found = await self._attempts.guarded(target, check)
        if found is None:
            raise credentials_invalid()
        reader, verdict = found
        if isinstance(reader, ImportedPassword):
            return await self._imported.prove_mailbox(account, reader, password, live=who.live)
        fresh = await self._hasher.rehash(password) if verdict.stale else None
        breached = reader.must_change or await self._policy.breached(password)
        door = Door(session.SUBSCRIBER, account, who.live, reader.subject, device=self._attempts.device_of(target))

        async def write(conn: Connection) -> None:
            # A reset may have come between: then it was not the reader's password any more.
            if not await credentials.hold_password(conn, account, reader.subject, reader.password.version):
                raise credentials_invalid()
            if fresh is not None:
                await credentials.replace_password(conn, account, reader.id, fresh)
            if breached:
                await self._breached.found(conn, door)

        return await self._sign_in.proven(door, (PASSWORD,), write, must_change=breached)


def refuse_endless(password: str) -> None:
    """Raises `invalid("password_too_long")` before anything is hashed."""
    if len(password) > LONGEST:
        raise errors.invalid("password_too_long", f"A password has at most {LONGEST} characters.", field="password")
