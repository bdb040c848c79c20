"""Owns readers' registration and sign-in."""

import hmac
from uuid import UUID

from gatefold.auth.v1 import event_pb2, subscriber_session_pb2

from libs import caller, errors, idempotency, ids, outbox
from libs.clock import WallClock
from libs.ids import IdSource
from libs.postgres import Connection, Database, violated
from libs.vault import Vault
from services.auth.clients.peers import Subjects
from services.auth.domain import account as account_rules
from services.auth.domain import challenge as rules
from services.auth.domain import session
from services.auth.domain.challenge import Challenge
from services.auth.domain.credential import Credential
from services.auth.domain.password import LONGEST, StoredPassword
from services.auth.domain.sign_in import PASSWORD, Door
from services.auth.repository import CREDENTIAL_TABLE, accounts, credentials, sessions
from services.auth.usecases import addresses
from services.auth.usecases.attempts import Attempts, Target
from services.auth.usecases.challenges import Challenges
from services.auth.usecases.facts import Facts
from services.auth.usecases.password_policy import PasswordPolicy, words_of
from services.auth.usecases.passwords import PasswordHasher, Verdict
from services.auth.usecases.secrets import TokenSecrets, blinded
from services.auth.usecases.sessions import Pair
from services.auth.usecases.sign_in import SignIn, Waiting, credentials_invalid

_EMAIL_FIELD = 1
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
        subjects: Subjects,
        secrets: TokenSecrets,
        clock: WallClock,
        make: IdSource,
        facts: Facts,
        attempts: Attempts,
    ) -> None:
        self._db = db
        self._vault = vault
        self._hasher = hasher
        self._policy = policy
        self._challenges = challenges
        self._sign_in = sign_in
        self._subjects = subjects
        self._request_key = secrets.request
        self._challenge_key = secrets.challenge
        self._clock = clock
        self._make = make
        self._facts = facts
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
        index = await self._vault.blind_index(account, "email", address)
        async with self._db.tenant(account, "find_credential", read_only=True) as conn:
            known = await credentials.find_by_email(conn, account, index)
            publisher = await accounts.find(conn, account)
        await self._policy.check(password, words_of(publisher, address, called))
        hashed = await self._hasher.hash(password)
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
                await self._challenges.store(conn, account, prepared, live=who.live)
                await idempotency.record(conn, who, _REGISTER, subscriber_session_pb2.RegisterResponse())
        first = claim.reference if claim.replay is not None else None
        return rules.registration_secret(first or prepared.id, self._challenge_key)

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
        subject = await self._subjects.ensure(email, name, found.subject)
        await self._vault.create_subjects(account, [subject])
        cipher = await self._vault.cipher(account, subject)
        credential = Credential(self._make.new(), subject, chosen, 1)
        sealed = cipher.seal(CREDENTIAL_TABLE, _EMAIL_FIELD, credential.id, email.encode())
        data = event_pb2.SubscriberRegistered(subject_id=ids.encode("subj", subject))
        now = self._clock.wall()
        try:
            async with self._db.tenant(account, "verify_registration") as conn:
                await self._challenges.spend(conn, account, found, subject)
                if await credentials.is_erased(conn, account, subject):
                    raise errors.not_found("subject_erased", "The person's data has been erased.")
                await credentials.put(
                    conn, account, credential, email_index=found.email_index, email_sealed=sealed, at=now
                )
                # Who signed in with an earlier credential of this reader has to sign in anew.
                await sessions.revoke_all_of(conn, account, subject, now, session.CREDENTIAL_REPLACED)
                event = self._facts.make(
                    "subscriber.registered",
                    account,
                    ("credential", credential.id),
                    data,
                    live=who.live,
                    subjects=(subject,),
                )
                await outbox.append(conn, event=event)
        except Exception as error:
            if violated(error) == "credential_email":
                raise errors.precondition("email_taken", "Somebody else registered this address.") from error
            raise
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
        kept = rules.registration_secret(found.id, self._challenge_key)
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
        index = await self._vault.blind_index(account, "email", address)
        async with self._db.tenant(account, "find_credential", read_only=True) as conn:
            known = await credentials.find_by_email(conn, account, index)

        async def check() -> tuple[Credential, Verdict] | None:
            verdict = await self._hasher.verify(password, known.password if known else None)
            return (known, verdict) if known is not None and verdict.matches and not known.disabled else None

        target = Target(account, index, known.subject if known else None, device_token, "/v1/sessions")
        found = await self._attempts.guarded(target, check)
        if found is None:
            raise credentials_invalid()
        known, verdict = found
        fresh = await self._hasher.rehash(password) if verdict.stale else None
        breached = known.must_change or await self._policy.breached(password)

        async def write(conn: Connection) -> None:
            # A reset may have come between: then it was not the reader's password any more.
            if not await credentials.hold_password(conn, account, known.subject, known.password.version):
                raise credentials_invalid()
            if fresh is not None:
                await credentials.replace_password(conn, account, known.id, fresh)
            if breached and not known.must_change:
                await credentials.demand_change(conn, account, known.id)

        door = Door(session.SUBSCRIBER, account, who.live, known.subject)
        return await self._sign_in.proven(door, (PASSWORD,), write, must_change=breached)


def refuse_endless(password: str) -> None:
    """Raises `invalid("password_too_long")` before anything is hashed."""
    if len(password) > LONGEST:
        raise errors.invalid("password_too_long", f"A password has at most {LONGEST} characters.", field="password")
