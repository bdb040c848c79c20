"""Owns asking a key to sign, and taking what it signed: each challenge once, each count above the one before."""

from collections.abc import Callable, Sequence
from uuid import UUID

from libs import errors
from libs.clock import WallClock
from libs.postgres import Connection, Database, as_tenant
from libs.telemetry import Telemetry
from services.auth.domain import challenge
from services.auth.domain import passkey as rules
from services.auth.domain.passkey import Asked, Described, Passkey
from services.auth.domain.sign_in import SECOND_FACTOR, Door, Pending
from services.auth.repository import passkeys
from services.auth.usecases.authenticators import Authenticators
from services.auth.usecases.challenges import Challenges
from services.auth.usecases.factor_access import FactorAccess
from services.auth.usecases.second_factors import second_factor_wrong
from services.auth.usecases.sign_in import SignIn, Write


class PasskeyProofs:
    """What keys prove. Challenges and keys lie in two accounts where staff prove themselves in one of theirs."""

    def __init__(
        self,
        db: Database,
        authenticators: Authenticators,
        challenges: Challenges,
        access: FactorAccess,
        clock: WallClock,
        randomness: Callable[[int], bytes],
        telemetry: Telemetry,
    ) -> None:
        self._db = db
        self._authenticators = authenticators
        self._challenges = challenges
        self._access = access
        self._clock = clock
        self._randomness = randomness
        self._copied = telemetry.counter("passkeys_copied", "Right answers of keys that were not counted upwards.")

    async def ask(
        self,
        conn: Connection,
        account: UUID,
        ceremony: str,
        kind: str,
        allowed: Sequence[Described],
        *,
        principal: UUID | None,
        sign_in: UUID | None = None,
    ) -> str:
        """Returns the options for the browser; nobody but `principal` is believed then, where there is one."""
        fresh = self._randomness(rules.CHALLENGE_BYTES)
        asked = Asked(ceremony, kind, self._clock.wall() + rules.LIFETIME, principal, sign_in)
        await passkeys.ask(conn, account, rules.hash_of(fresh), asked)
        return self._authenticators.ask_to_sign(kind, fresh, allowed)

    async def proven(
        self, account: UUID, owner: UUID, ceremony: str, answer: str, *, sign_in: UUID | None = None
    ) -> Passkey | None:
        """Returns the key that a right answer is from; None for any other. The challenge is spent either way.

        A right one that is not counted above the one before is refused, and a mail tells its owner, the first time
        (WebAuthn level 3, 6.1.1).
        """
        claim = self._authenticators.claim(answer)
        if claim is None:
            return None
        async with self._db.tenant(account, "take_passkey_challenge") as conn:
            spent = rules.hash_of(claim.challenge)
            asked = await passkeys.take(conn, account, spent, ceremony, self._clock.wall(), by=sign_in)
        if asked is None:
            return None
        async with self._db.tenant(owner, "find_passkey", read_only=True) as conn:
            held = await passkeys.find(conn, owner, claim.credential_id)
        if held is None or held.kind != asked.kind or asked.principal not in (None, held.principal):
            return None
        signed = self._authenticators.signed(answer, claim.challenge, held)
        if signed is None:
            return None
        async with self._db.tenant(owner, "count_passkey") as conn:
            counted = await passkeys.count(conn, owner, held.id, signed.sign_count, backed_up=signed.backed_up)
        if not counted:
            await self._suspect(owner, held)
            return None
        return held

    def using(self, owner: UUID, held: Passkey, refused: Callable[[], errors.GatefoldError]) -> Write:
        """Returns what notes the use of a key, in the transaction that goes on; one that was removed is refused."""

        async def use(conn: Connection) -> None:
            async with as_tenant(conn, owner):
                if not await passkeys.use(conn, owner, held.id, self._clock.wall()):
                    raise refused()

        return use

    async def _suspect(self, owner: UUID, held: Passkey) -> None:
        self._copied.inc()
        door = await self._challenges.door_of(owner, held.principal)
        details = self._access.circumstances()
        notice = await self._challenges.prepare_for(door, challenge.PASSKEY_COPIED, details=details)
        async with self._db.tenant(owner, "suspect_passkey") as conn:
            if await passkeys.suspect(conn, owner, held.id, self._clock.wall()):
                await self._challenges.store_for(conn, door, notice)


class PasskeyMethod:
    """Keys of one kind as a second factor: passkeys, or security keys that do not verify their user."""

    def __init__(self, db: Database, proofs: PasskeyProofs, sign_in: SignIn, kind: str) -> None:
        self._db = db
        self._proofs = proofs
        self._sign_in = sign_in
        self._kind = kind

    async def set_up(self, door: Door) -> bool:
        """Tells whether whoever goes in has such a key."""
        async with self._db.tenant(door.owner, "read_passkeys", read_only=True) as conn:
            return bool(await self._of(conn, door))

    async def ask(self, token: str) -> str:
        """Returns the browser's options for a sign-in that waits; the newest ones count.

        Raises `unauthenticated("sign_in_expired")`, and `precondition("factor_missing")` where such a key is no way to
        go on.
        """
        pending = await self._sign_in.waiting(token, SECOND_FACTOR)
        door = pending.door
        if self._kind not in pending.methods:
            raise errors.precondition("factor_missing", "This sign-in takes no such key.")
        async with self._db.tenant(door.account, "ask_for_passkey") as conn:
            async with as_tenant(conn, door.owner):
                allowed = [one.described for one in await self._of(conn, door)]
            return await self._proofs.ask(
                conn,
                door.account,
                rules.SECOND_FACTOR,
                self._kind,
                allowed,
                principal=door.principal,
                sign_in=pending.id,
            )

    async def check(self, pending: Pending, proof: str) -> Write | None:
        """Returns what notes the use of a key that signed for this sign-in; None for any other answer."""
        door = pending.door
        held = await self._proofs.proven(door.account, door.owner, rules.SECOND_FACTOR, proof, sign_in=pending.id)
        if held is None or held.kind != self._kind:
            return None
        return self._proofs.using(door.owner, held, second_factor_wrong)

    async def _of(self, conn: Connection, door: Door) -> list[Passkey]:
        return [one for one in await passkeys.of_principal(conn, door.owner, door.principal) if one.kind == self._kind]
