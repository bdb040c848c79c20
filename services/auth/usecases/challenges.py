"""Owns challenges: making them with their event, finding one by its token, and what its mail says."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gatefold.auth.v1 import event_pb2

from libs import caller, errors, ids, outbox
from libs.clock import WallClock
from libs.ids import IdSource
from libs.postgres import Connection, Database
from libs.vault import Vault
from services.auth.domain import challenge as rules
from services.auth.domain.challenge import Challenge
from services.auth.domain.password import StoredPassword
from services.auth.repository import CHALLENGE_TABLE, accounts, challenges
from services.auth.usecases.facts import Facts
from services.auth.usecases.secrets import TokenSecrets

_EMAIL_FIELD = 1
_NAME_FIELD = 2


@dataclass(frozen=True, repr=False)
class Letter:
    """What a challenge's mail says; holds personal data and the token."""

    purpose: str
    email: str
    name: str
    publication: str
    link: str
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
        public_url: str,
    ) -> None:
        self._db = db
        self._vault = vault
        self._secret = secrets.challenge
        self._clock = clock
        self._make = make
        self._facts = facts
        self._accept_url = public_url.rstrip("/") + "/accept"

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
    ) -> Challenge:
        """Returns a new challenge, sealed under the subject's key (made when it has none); nothing is stored yet."""
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
            token_hash=None if purpose == rules.ALREADY_REGISTERED else rules.hash_of(token),
        )

    async def store(self, conn: Connection, account: UUID, prepared: Challenge, *, live: bool) -> None:
        """Stores a challenge with the event that has its mail sent."""
        await challenges.add(conn, account, prepared)
        data = event_pb2.ChallengeRequested(challenge_id=ids.encode("chal", prepared.id), purpose=prepared.purpose)
        reader = () if prepared.membership else (prepared.subject,)
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
            raise _token_invalid()
        account, key = route
        async with self._db.tenant(account, "read_challenge", read_only=True) as conn:
            found = await challenges.find(conn, account, key)
        if found is None or found.purpose != purpose:
            raise _token_invalid()
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

    async def describe(self, key: UUID) -> Letter:
        """Returns what the mail says; `not_found("challenge_over")` once it is spent, expired or gone."""
        async with self._db.transaction("route_challenge", read_only=True) as conn:
            account = await challenges.account_of(conn, key)
            publisher = await accounts.find(conn, account) if account else None
        if account is None or publisher is None:
            raise _over()
        async with self._db.tenant(account, "describe_challenge", read_only=True) as conn:
            found = await challenges.find(conn, account, key)
        if found is None or not found.open_at(self._clock.wall()):
            raise _over()
        email, name = await self.opened(account, found)
        link = ""
        if found.purpose != rules.ALREADY_REGISTERED:
            page = self._accept_url if found.purpose == rules.INVITE_MEMBER else publisher.reader_url
            link = rules.link(page, rules.token_of(key, self._secret))
        return Letter(found.purpose, email, name, publisher.name, link, found.expires_at)


def repeats(spent_by: str | None) -> bool:
    """Tells whether this is a repeat of the request that spent a token, whose answer the edge did not get."""
    request_id = caller.current().request_id
    return bool(request_id) and spent_by == request_id


def token_spent() -> errors.GatefoldError:
    """Returns the error of a token that was used before."""
    return errors.not_found("token_spent", "This link has been used already.")


def _token_invalid() -> errors.GatefoldError:
    return errors.not_found("token_invalid", "This link is not valid.")


def _over() -> errors.GatefoldError:
    return errors.not_found("challenge_over", "This challenge is over.")
