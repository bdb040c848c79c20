"""Owns codes by mail as a second factor: mailing one for a sign-in that waits, and taking it for that one alone."""

import hmac
from uuid import UUID

from libs import caller, errors
from libs.clock import WallClock
from libs.postgres import Connection, Database, as_tenant
from services.auth.domain import challenge
from services.auth.domain import factor as rules
from services.auth.domain.sign_in import EMAIL_CODE, SECOND_FACTOR, Door, Pending
from services.auth.repository import challenges, factors, sign_ins
from services.auth.usecases.challenges import Challenges
from services.auth.usecases.second_factors import second_factor_wrong
from services.auth.usecases.secrets import TokenSecrets
from services.auth.usecases.sign_in import SignIn, Write


class EmailCodes:
    """A code in the mailbox as a second factor of readers."""

    def __init__(
        self, db: Database, challenges: Challenges, sign_in: SignIn, secrets: TokenSecrets, clock: WallClock
    ) -> None:
        self._db = db
        self._sign_in = sign_in
        self._challenges = challenges
        self._secret = secrets.challenge
        self._clock = clock

    async def set_up(self, door: Door) -> bool:
        """Tells whether whoever goes in has it switched on."""
        async with self._db.tenant(door.owner, "read_factors", read_only=True) as conn:
            found = await factors.of_principal(conn, door.owner, door.principal)
        return any(one.kind == rules.EMAIL_CODE for one in found)

    async def check(self, pending: Pending, proof: str) -> Write | None:
        """Returns what spends the newest code that was mailed for this sign-in; None for any other."""
        door = pending.door
        async with self._db.tenant(door.account, "read_code", read_only=True) as conn:
            key = await sign_ins.code_of(conn, door.account, pending.id)
        if key is None:
            return None
        async with self._db.tenant(door.owner, "read_challenge", read_only=True) as conn:
            found = await challenges.find(conn, door.owner, key)
        if found is None or not found.open_at(self._clock.wall()):
            return None
        if not hmac.compare_digest(challenge.code_of(key, self._secret).encode(), proof.strip().encode()):
            return None
        return self._spending(door, key)

    async def send(self, token: str) -> None:
        """Mails a code for a sign-in that waits.

        Raises `unauthenticated("sign_in_expired")`, `precondition("factor_missing")` where codes by mail are no way to
        go on, and `too_many("codes_sent")`.
        """
        pending = await self._sign_in.waiting(token, SECOND_FACTOR)
        door = pending.door
        if EMAIL_CODE not in pending.methods:
            raise errors.precondition("factor_missing", "This sign-in takes no code by mail.")
        prepared = await self._challenges.prepare_for(door, challenge.EMAIL_CODE)
        async with self._db.tenant(door.account, "send_code") as conn:
            if not await sign_ins.count_code(conn, door.account, pending.id, prepared.id, rules.MOST_CODES_SENT):
                raise errors.too_many("codes_sent", "Enough codes were sent for this sign-in; start again.", 60)
            await self._challenges.store_for(conn, door, prepared)

    def _spending(self, door: Door, key: UUID) -> Write:
        async def spend(conn: Connection) -> None:
            async with as_tenant(conn, door.owner):
                by = caller.current().request_id
                if not await challenges.spend(
                    conn, door.owner, key, subject=door.principal, at=self._clock.wall(), by=by
                ):
                    raise second_factor_wrong()

        return spend
