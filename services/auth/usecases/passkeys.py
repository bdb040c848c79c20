"""Owns adding passkeys and security keys; listing, renaming and removing them is as with all factors."""

from collections.abc import Callable
from uuid import UUID

from libs import errors
from libs.clock import WallClock
from libs.ids import IdSource
from libs.postgres import Database, as_tenant, violated
from services.auth.domain import account as account_rules
from services.auth.domain import challenge
from services.auth.domain import passkey as rules
from services.auth.domain.factor import Factor
from services.auth.domain.passkey import Asked, Passkey
from services.auth.repository import factors, passkeys
from services.auth.usecases import doors
from services.auth.usecases.authenticators import Authenticators
from services.auth.usecases.challenges import Challenges
from services.auth.usecases.factor_access import FactorAccess
from services.auth.usecases.factors import LONGEST_NAME, Factors
from services.auth.usecases.sessions import Pair, Sessions
from services.auth.usecases.sign_in import sign_in_expired


class Passkeys:
    """Keys of readers, staff and operators."""

    def __init__(
        self,
        db: Database,
        authenticators: Authenticators,
        access: FactorAccess,
        own: Factors,
        challenges: Challenges,
        sessions: Sessions,
        clock: WallClock,
        make: IdSource,
        randomness: Callable[[int], bytes],
    ) -> None:
        self._db = db
        self._authenticators = authenticators
        self._access = access
        self._factors = own
        self._challenges = challenges
        self._sessions = sessions
        self._clock = clock
        self._make = make
        self._randomness = randomness

    async def begin(self, kind: str) -> str:
        """Returns the browser's options for a new key; the newest ones count.

        Raises `precondition("factors_too_many")`, and as `FactorAccess.require`.
        """
        door = doors.own()
        await self._access.require(door)
        email, _ = await self._challenges.contact(door)
        name = f"{email} ({await self._factors.publication(door)})"
        fresh = self._randomness(rules.CHALLENGE_BYTES)
        async with self._db.tenant(door.owner, "begin_passkey") as conn:
            held = await passkeys.of_principal(conn, door.owner, door.principal)
            _refuse_too_many(held)
            handle = held[0].user_handle if held else self._randomness(rules.HANDLE_BYTES)
            expires_at = self._clock.wall() + rules.LIFETIME
            asked = Asked(rules.REGISTRATION, kind, expires_at, door.principal, user_handle=handle)
            await passkeys.ask(conn, door.owner, rules.hash_of(fresh), asked)
        return self._authenticators.ask_to_make(kind, fresh, handle, name, held)

    async def add(self, name: str, answer: str) -> tuple[Factor, Pair]:
        """Adds the key that an authenticator has made; the session becomes `aal2` and gets its role back at once.

        Raises `invalid("passkey_invalid")`, `precondition` with reason `passkey_known` or `factors_too_many`, and as
        `FactorAccess.require`.
        """
        door, session = doors.own(), doors.session()
        called = account_rules.checked_name(name, longest=LONGEST_NAME)
        await self._access.require(door)
        passkey = await self._made(door.owner, door.principal, answer)
        factor = Factor(passkey.id, passkey.kind, called, self._clock.wall(), backed_up=passkey.backed_up)
        notice = await self._factors.notice(door, challenge.FACTOR_ADDED, called)
        try:
            async with self._db.tenant(door.account, "add_passkey") as conn:
                async with as_tenant(conn, door.owner):
                    await factors.lock(conn, door.principal)
                    await self._access.refuse_erased(conn, door)
                    held = await passkeys.of_principal(conn, door.owner, door.principal)
                    _refuse_too_many(held)
                    if held and held[0].user_handle != passkey.user_handle:
                        # Two first ones were begun at once, or the last one was removed in between.
                        raise _invalid()
                    await factors.add(conn, door.owner, door.principal, factor)
                    await passkeys.add(conn, door.owner, passkey)
                await self._factors.changed(conn, door, notice)
                strong = await self._sessions.strengthen(conn, door.account, session)
                if strong is None:
                    raise sign_in_expired()
        except Exception as error:
            if violated(error) == "passkey_credential":
                raise errors.precondition("passkey_known", "This key has been added already.") from error
            raise
        return factor, await self._sessions.access(strong)

    async def _made(self, owner: UUID, principal: UUID, answer: str) -> Passkey:
        claim = self._authenticators.claim(answer)
        if claim is None:
            raise _invalid()
        async with self._db.tenant(owner, "take_passkey_challenge") as conn:
            spent, now = rules.hash_of(claim.challenge), self._clock.wall()
            asked = await passkeys.take(conn, owner, spent, rules.REGISTRATION, now, by=principal)
        made = self._authenticators.made(answer, claim.challenge, asked.kind) if asked else None
        if asked is None or made is None:
            raise _invalid()
        return Passkey(
            id=self._make.new(),
            kind=asked.kind,
            principal=principal,
            credential_id=made.credential_id,
            public_key=made.public_key,
            user_handle=asked.user_handle or b"",
            sign_count=made.sign_count,
            backup_eligible=made.backup_eligible,
            backed_up=made.backed_up,
            transports=made.transports,
        )


def _refuse_too_many(held: list[Passkey]) -> None:
    if len(held) >= rules.MOST:
        raise errors.precondition("factors_too_many", f"There may be {rules.MOST} keys; remove one first.")


def _invalid() -> errors.GatefoldError:
    return errors.invalid(
        "passkey_invalid", "The authenticator's answer is not right, or came too late; begin anew.", field="credential"
    )
