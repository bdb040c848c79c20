"""Owns sessions: starting one, following refresh tokens, signing out."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from gatefold.auth.v1 import event_pb2

from libs import caller, errors, ids, outbox
from libs.clock import Clock
from libs.ids import IdSource
from libs.postgres import Connection, Database, as_tenant
from libs.telemetry import Telemetry
from libs.vault import Cipher, Vault
from services.auth.domain import challenge, device, roles, session
from services.auth.domain.account import Account, SecurityPolicy
from services.auth.domain.device import Device
from services.auth.domain.session import Answer, Session
from services.auth.domain.sign_in import Door
from services.auth.repository import SESSION_TABLE, accounts, credentials, people, sessions, sign_ins
from services.auth.usecases.access_tokens import AccessTokens, principal_id
from services.auth.usecases.challenges import Challenges
from services.auth.usecases.facts import Facts
from services.auth.usecases.secrets import TokenSecrets

_DEVICE_FIELD = 1


@dataclass(frozen=True, repr=False)
class Pair:
    """An access and a refresh token; never shown as a whole."""

    access_token: str
    refresh_token: str
    """Empty where the session's own goes on."""
    held: Session
    recovery_codes_left: int | None = None
    """Told to who has just used one."""
    device_token: str = ""
    """Of the device that was signed in on."""


class Sessions:
    """Sessions of readers, staff and operators."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        tokens: AccessTokens,
        secrets: TokenSecrets,
        clock: Clock,
        make: IdSource,
        facts: Facts,
        challenges: Challenges,
        policy_of: Callable[[UUID], Awaitable[SecurityPolicy]],
        randomness: Callable[[int], bytes],
        telemetry: Telemetry,
    ) -> None:
        self._db = db
        self._vault = vault
        self._tokens = tokens
        self._secret = secrets.refresh
        self._clock = clock
        self._make = make
        self._facts = facts
        self._challenges = challenges
        self._policy_of = policy_of
        self._randomness = randomness
        self._log = telemetry.logger("sessions")
        self._reused = telemetry.counter("refresh_tokens_reused", "Sessions ended because a spent token came back.")

    async def begin(self, door: Door, acr: str) -> Session:
        """Returns a new session of somebody who has just proven who they are, with the device of the request."""
        now = self._clock.wall()
        key = self._make.new()
        cipher = await self._vault.cipher(door.owner, door.principal)
        return Session(
            id=key,
            account=door.account,
            kind=door.kind,
            live=door.live,
            principal=door.principal,
            acr=acr,
            salt=self._randomness(session.SALT_BYTES),
            generation=1,
            rotated_at=now,
            authenticated_at=now,
            expires_at=now + session.lifetime(door.kind),
            last_used_at=now,
            device_sealed=cipher.seal(SESSION_TABLE, _DEVICE_FIELD, key, device.pack(_device())),
            identity=door.identity,
        )

    async def store(self, conn: Connection, held: Session) -> None:
        """Stores a new session with its event, in the transaction of the sign-in; the oldest of too many ends."""
        await sessions.add(conn, held)
        await sessions.end_beyond(
            conn, held.account, held.principal, held.authenticated_at, session.TOO_MANY, most=session.MOST
        )
        data = event_pb2.SessionStarted(session_id=ids.encode("ses", held.id), principal_id=principal_id(held))
        subjects = (held.principal,) if held.kind == session.SUBSCRIBER else ()
        event = self._facts.make(
            "session.started", held.account, ("session", held.id), data, live=held.live, subjects=subjects
        )
        await outbox.append(conn, event=event)

    async def pair(self, held: Session, generation: int, role: str | None) -> Pair:
        """Returns the tokens of a generation."""
        refresh = session.refresh_token(held.id, held.salt, generation, self._secret)
        return Pair(await self._tokens.issue(held, role), refresh, held)

    async def prove_anew(self, conn: Connection, account: UUID, key: UUID, acr: str) -> Session | None:
        """Gives a session the assurance that was just proven, and a fresh `auth_time`; None when it is over.

        One that may only enrol stays so until a second factor is proven.
        """
        now = self._clock.wall()
        held = await sessions.lock(conn, account, key)
        if held is None or session.over(held, now):
            return None
        enrols = held.acr == session.ENROL and acr != session.AAL2
        renewed = replace(held, acr=session.ENROL if enrols else acr, authenticated_at=now)
        await sessions.assure(conn, account, key, renewed.acr, renewed.authenticated_at)
        return renewed

    async def strengthen(self, conn: Connection, account: UUID, key: UUID) -> Session | None:
        """Gives a session to which a second factor was added its assurance; `auth_time` stays. None when it is over."""
        held = await sessions.lock(conn, account, key)
        if held is None or session.over(held, self._clock.wall()):
            return None
        await sessions.assure(conn, account, key, session.AAL2, held.authenticated_at)
        return replace(held, acr=session.AAL2)

    async def access(self, held: Session) -> Pair:
        """Returns a new access token alone: the refresh token that the session has goes on."""
        role = await self._standing(held)
        counts = await self._as_policy_asks(held)
        token = await self._tokens.issue(counts, None if counts.acr == session.ENROL else role)
        return Pair(token, "", counts)

    async def refresh(self, token: str) -> Pair:
        """Exchanges a refresh token for the next pair. Raises `malformed("invalid_grant")` (RFC 6749, 5.2).

        Two exchanges of one token within ten seconds give the same successor; later ones end the session, because
        somebody else holds a copy. The absolute lifetime and `auth_time` stay those of the sign-in.
        """
        claimed = session.read(token)
        account = await self._account_of(claimed[0]) if claimed else None
        if claimed is None or account is None:
            raise _invalid_grant()
        session_id, generation, signature = claimed
        now = self._clock.wall()
        async with self._db.tenant(account, "refresh_session") as conn:
            held = await sessions.lock(conn, account, session_id)
            if held is None or not session.signed(held, generation, signature, self._secret):
                raise _invalid_grant()
            answer = session.judge(held, generation, now)
            if answer is Answer.ROTATE:
                await sessions.rotate(conn, account, session_id, now)
            elif answer is Answer.REUSED:
                await sessions.revoke(conn, account, session_id, now, session.REUSED)
                await self._challenges.tell(conn, door_of(held), challenge.SESSION_ENDED)
        if answer is Answer.REUSED:
            self._reused.inc()
            self._log.warning("a spent refresh token came back", extra={"session": ids.encode("ses", session_id)})
        if answer in (Answer.REUSED, Answer.REFUSE):
            raise _invalid_grant()
        role = await self._standing(held)
        counts = await self._as_policy_asks(held)
        return await self.pair(counts, generation + 1, None if counts.acr == session.ENROL else role)

    async def revoke(self, token: str) -> None:
        """Ends the session of a refresh token, however old the token; says nothing about unknown ones (RFC 7009)."""
        claimed = session.read(token)
        account = await self._account_of(claimed[0]) if claimed else None
        if claimed is None or account is None:
            return
        session_id, generation, signature = claimed
        async with self._db.tenant(account, "revoke_session") as conn:
            held = await sessions.lock(conn, account, session_id)
            if held is not None and session.signed(held, generation, signature, self._secret):
                await sessions.revoke(conn, account, session_id, self._clock.wall(), session.SIGNED_OUT)

    async def open_cookie(self, token: str) -> tuple[str, datetime]:
        """Returns the cookie of a refresh token's session, and when both end; the token is not spent.

        Raises `malformed("invalid_grant")` for a token that is not its session's newest.
        """
        claimed = session.read(token)
        account = await self._account_of(claimed[0]) if claimed else None
        if claimed is not None and account is not None:
            key, generation, signature = claimed
            async with self._db.tenant(account, "open_cookie") as conn:
                held = await sessions.lock(conn, account, key)
            if (
                held is not None
                and session.signed(held, generation, signature, self._secret)
                and generation == held.generation
                and not session.over(held, self._clock.wall())
            ):
                return session.cookie(held.id, held.salt, self._secret), held.expires_at
        raise _invalid_grant()

    async def use_cookie(self, cookie: str) -> Pair:
        """Returns an access token for a cookie, which stays the same from sign-in to sign-out.

        Raises `unauthenticated` with reason `session_cookie_invalid`, or `session_ended` for one that was good once.
        """
        claimed = session.read_cookie(cookie)
        account = await self._account_of(claimed[0]) if claimed else None
        if claimed is None or account is None:
            raise _cookie_invalid()
        key, signature = claimed
        now = self._clock.wall()
        async with self._db.tenant(account, "use_cookie") as conn:
            held = await sessions.lock(conn, account, key)
            if held is None or not session.signed_cookie(held, signature, self._secret):
                raise _cookie_invalid()
            if session.over(held, now):
                raise _ended()
            if now >= held.used_at + session.TOUCH_EVERY:
                await sessions.touch(conn, account, key, now)
        try:
            return await self.access(held)
        except errors.GatefoldError as error:
            # Whoever it was is no member, reader or operator any more.
            raise (_ended() if error.reason == "invalid_grant" else error) from None

    async def _account_of(self, session_id: UUID) -> UUID | None:
        async with self._db.transaction("find_session", read_only=True) as conn:
            return await sessions.account_of(conn, session_id)

    async def _as_policy_asks(self, held: Session) -> Session:
        """Returns the session as its account's policy lets it count now: it may have begun under an older one.

        One without the second factor that is asked for may only add one; one of the account's own provider could not
        even do that, and raises `malformed("invalid_grant")`. Nothing is written: as soon as the policy or the session
        is another, that counts.
        """
        if held.kind != session.STAFF or held.acr != session.AAL1:
            return held
        if not (await self._policy_of(held.account)).require_staff_factor:
            return held
        if held.identity is not None:
            raise _invalid_grant()
        return replace(held, acr=session.ENROL)

    async def _standing(self, held: Session) -> str | None:
        """Returns what whoever signed in is now, since roles are read anew at each refresh; raises for nobody."""
        async with self._db.tenant(held.account, "read_standing", read_only=True) as conn:
            if held.kind == session.SUBSCRIBER:
                if not await credentials.exists(conn, held.account, held.principal):
                    raise _invalid_grant()
                return None
            if held.kind == session.OPERATOR:
                if not await people.is_operator(conn, held.principal):
                    raise _invalid_grant()
                return roles.OPERATOR
            account = await accounts.find(conn, held.account)
        role = await staff_role(self._db, account, held.principal) if account else None
        if role is None:
            raise _invalid_grant()
        return role


def door_of(held: Session) -> Door:
    """Returns the door through which a session began."""
    return Door(held.kind, held.account, held.live, held.principal, identity=held.identity)


def device_of(cipher: Cipher, held: Session) -> Device:
    """Returns the device that a session was started on."""
    if held.device_sealed is None:
        return Device()
    return device.unpack(cipher.open(SESSION_TABLE, _DEVICE_FIELD, held.id, held.device_sealed))


async def places_of(conn: Connection, door: Door) -> list[UUID]:
    """Reads the accounts in which whoever goes in may have sessions."""
    if door.kind == session.SUBSCRIBER:
        return [door.account]
    return await people.session_accounts_of(conn, door.principal)


async def end_all(conn: Connection, door: Door, at: datetime, reason: str, *, but: UUID | None = None) -> int:
    """Ends all sessions of whoever goes in, a person's in every account, and sign-ins that wait for more; in a
    transaction of whatever account.

    Returns how many it ended. Gateways refuse their access tokens within a second (trigger `session_revoked`).
    """
    ended = 0
    for account in await places_of(conn, door):
        async with as_tenant(conn, account):
            # What waits goes first: one just being finished is waited for, and its session ends with the others.
            await sign_ins.remove_of(conn, account, door.principal)
            ended += await sessions.revoke_all_of(conn, account, door.principal, at, reason, but=but)
    return ended


async def end_waiting(conn: Connection, door: Door) -> None:
    """Ends the sign-ins of whoever goes in that wait for more, wherever; in a transaction of whatever account."""
    for account in await places_of(conn, door):
        async with as_tenant(conn, account):
            await sign_ins.remove_of(conn, account, door.principal)


async def staff_role(db: Database, account: Account, person: UUID) -> str | None:
    """Reads a person's role in an account's team; a test account shares the team of its live sibling."""
    async with db.tenant(account.team, "read_role", read_only=True) as conn:
        return await people.role_of(conn, account.team, person)


async def role_now(conn: Connection, door: Door) -> str | None:
    """Reads the role of whoever goes in, in the transaction that has stored their session; None for no member any more.

    Whoever changes it waits for that transaction, or this one for theirs: the role that was read at the door may be
    over.
    """
    if door.kind != session.STAFF:
        return door.role
    account = await accounts.find(conn, door.account)
    if account is None:
        return None
    async with as_tenant(conn, account.team):
        return await people.role_of(conn, account.team, door.principal)


def _device() -> Device:
    who = caller.current()
    return Device(who.user_agent or "", who.address or "")


def _ended() -> errors.GatefoldError:
    return errors.unauthenticated("session_ended", "This session has ended; sign in again.")


def _cookie_invalid() -> errors.GatefoldError:
    return errors.unauthenticated("session_cookie_invalid", "The session's cookie is not valid; sign in again.")


def _invalid_grant() -> errors.GatefoldError:
    return errors.malformed("invalid_grant", "The refresh token is not valid; sign in again.")
