"""Owns the team of an account, kept in the live one for its test sibling too: inviting, listing, accepting."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gatefold.auth.v1 import team_pb2

from libs import caller, errors, idempotency, ids
from libs.clock import WallClock
from libs.ids import IdSource
from libs.postgres import PLATFORM, Database, violated
from libs.vault import Vault
from services.auth.domain import account as account_rules
from services.auth.domain import challenge as rules
from services.auth.domain import roles
from services.auth.domain.challenge import Challenge
from services.auth.domain.team import Membership
from services.auth.repository import MEMBERSHIP_TABLE, accounts, disabled_sign_ins, people
from services.auth.usecases import addresses
from services.auth.usecases.attempts import Attempts, Target
from services.auth.usecases.challenges import Challenges
from services.auth.usecases.password_policy import PasswordPolicy, words_of
from services.auth.usecases.sign_in import credentials_invalid
from services.auth.usecases.staff import People

_EMAIL_FIELD = 1
_INVITE = "InviteMember"


@dataclass(frozen=True)
class Member:
    """A member as the team sees them; holds personal data."""

    membership: Membership
    email: str
    name: str
    disabled_at: datetime | None = None
    """Since when the member may not sign in."""


@dataclass(frozen=True)
class Invitation:
    """An invitation that is ready to be stored."""

    membership: Membership
    email_index: bytes
    challenge: Challenge


class Team:
    """The people who work for a publisher."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        persons: People,
        policy: PasswordPolicy,
        challenges: Challenges,
        attempts: Attempts,
        clock: WallClock,
        make: IdSource,
    ) -> None:
        self._db = db
        self._vault = vault
        self._people = persons
        self._policy = policy
        self._challenges = challenges
        self._attempts = attempts
        self._clock = clock
        self._make = make

    async def prepare_invitation(
        self, account: UUID, email: str, role: str, known: Membership | None = None
    ) -> Invitation:
        """Returns an invitation sealed under its own key; nothing is stored but the key."""
        key = known.id if known else self._make.new()
        challenge = await self._challenges.prepare(rules.INVITE_MEMBER, account, key, email, membership=key)
        cipher = await self._vault.cipher(account, key)
        sealed = cipher.seal(MEMBERSHIP_TABLE, _EMAIL_FIELD, key, email.encode())
        membership = Membership(key, role, None, sealed, self._clock.wall(), None)
        return Invitation(membership, challenge.email_index, challenge)

    async def invite(self, request: team_pb2.InviteMemberRequest, role: str) -> Member:
        """Invites a person; an open invitation of the address is replaced, and its older mail works no longer.

        Raises `forbidden("role_above_own")` for an owner invited by anybody else than an owner,
        `precondition("member_exists")` when the address belongs to a member.
        """
        who = caller.current()
        account = who.require_account()
        address = addresses.checked(request.email)
        if not who.live:
            raise errors.precondition("team_is_live", "The team is kept in the live account: invite people there.")
        if not roles.may_invite(who.role, role):
            raise errors.forbidden("role_above_own", "Only an owner may invite an owner.")
        index = await self._vault.blind_index(account, "email", address)
        async with self._db.tenant(account, "find_member", read_only=True) as conn:
            known = await people.invited(conn, account, index)
        ready = await self.prepare_invitation(account, address, role, known)
        async with self._db.tenant(account, "invite_member") as conn:
            claim = await idempotency.claim(conn, who, _INVITE, request, clock=self._clock)
            if claim.replay is not None:
                replayed = ids.decode("mem", team_pb2.Member.FromString(claim.replay).id)
                found = await people.find_membership(conn, account, replayed)
                if found is None:
                    raise errors.not_found("member_not_found", "There is no such member.")
                return Member(found, address, "")
            stored = await people.invite(conn, account, ready.membership, ready.email_index)
            if stored is None:
                raise errors.precondition("member_exists", "This person is a member already.")
            if stored.id != ready.membership.id:
                # Somebody invited the same address a moment ago; what is sealed here is bound to another row.
                raise errors.conflict("concurrent_change", "Another change got in the way; try again.")
            await self._challenges.void(conn, account, rules.INVITE_MEMBER, ready.email_index)
            await self._challenges.store(conn, account, ready.challenge, live=who.live)
            # The address stays out of what is kept for repetitions: an erasure would not reach it there.
            response = team_pb2.Member(id=ids.encode("mem", stored.id))
            await idempotency.record(conn, who, _INVITE, response)
        return Member(stored, address, "")

    async def list_members(self, before: UUID, limit: int) -> list[Member]:
        """Lists the team, newest first."""
        account = caller.current().require_account()
        async with self._db.transaction("find_account", read_only=True) as conn:
            found = await accounts.find(conn, account)
        if found is None:
            raise errors.not_found("account_not_found", "There is no such account.")
        async with self._db.tenant(found.team, "list_members", read_only=True) as conn:
            memberships = await people.page(conn, found.team, before, limit)
        return await self.shown_all(found.team, memberships)

    async def shown(self, account: UUID, membership: Membership) -> Member:
        """Returns a member as the team sees them."""
        return (await self.shown_all(account, [membership]))[0]

    async def accept(self, token: str, name: str, password: str) -> Member:
        """Makes a member of whoever shows the token from the invitation's mail, once.

        A person who is known proves it with their password; for a new one, and one whom a provider made without any,
        the password is set: the mail shows whose address it is. Raises as `Challenges.by_token`, and
        `unauthenticated("credentials_invalid")` for a known person's wrong password, which counts as at a sign-in.
        """
        called = account_rules.checked_name(name)
        account, found = await self._challenges.by_token(token, rules.INVITE_MEMBER)
        assert found.membership is not None
        if found.spent_at is not None:
            return await self._accepted(account, found.membership)
        email, _ = await self._challenges.opened(account, found)
        index = await self._people.index(email)
        known = await self._people.find(index)
        chosen = None
        if known is None or not known.password.present:
            async with self._db.transaction("find_account", read_only=True) as conn:
                publisher = await accounts.find(conn, account)
            await self._policy.check(password, words_of(publisher, email, called))
        if known is None:
            person = await self._people.prepare(email, called, password, operator=False)
        elif not known.password.present:
            person, chosen = known, await self._people.hashed(password)
        else:
            target = Target(
                PLATFORM, index, known.id, "", "/v1/invitations/accept", password_version=known.password.version
            )
            if await self._attempts.guarded(target, lambda: self._people.proven(password, known)) is None:
                raise credentials_invalid()
            person = known
        now = self._clock.wall()
        try:
            async with self._db.tenant(account, "accept_invitation") as conn:
                await self._challenges.spend(conn, account, found, found.subject)
                if known is None:
                    await people.add(conn, person, index, now)
                if chosen is not None and not await people.set_password(conn, person.id, index, chosen):
                    raise errors.conflict("concurrent_change", "Another change got in the way; try again.")
                await people.accept(conn, account, found.membership, person.id, now)
        except Exception as error:
            # The same new person accepted another invitation, or this one, at the same moment.
            if violated(error) in {"person_email", "membership_person"}:
                raise errors.conflict("concurrent_change", "Another change got in the way; try again.") from error
            raise
        return await self._accepted(account, found.membership)

    async def _accepted(self, account: UUID, key: UUID) -> Member:
        async with self._db.tenant(account, "read_member", read_only=True) as conn:
            membership = await people.find_membership(conn, account, key)
        if membership is None:
            raise errors.not_found("member_not_found", "There is no such member.")
        return (await self.shown_all(account, [membership]))[0]

    async def shown_all(self, account: UUID, memberships: list[Membership]) -> list[Member]:
        """Returns members as the team sees them, in their order."""
        persons = [one.person for one in memberships if one.person]
        contacts = await self._people.contacts(persons)
        async with self._db.tenant(account, "read_disabled", read_only=True) as conn:
            disabled = await disabled_sign_ins.since(conn, account, persons)
        ciphers = await self._vault.ciphers(account, [one.id for one in memberships if one.email_sealed])
        members = []
        for one in memberships:
            email, name = contacts.get(one.person, ("", "")) if one.person else ("", "")
            cipher = ciphers.get(one.id)
            if one.email_sealed and cipher is not None:
                email = cipher.open(MEMBERSHIP_TABLE, _EMAIL_FIELD, one.id, one.email_sealed).decode()
            members.append(Member(one, email, name, disabled.get(one.person) if one.person else None))
        return members
