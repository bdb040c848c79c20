"""Owns recovery codes: ten that stand in for a lost factor, each once."""

import hmac
from collections.abc import Callable

from libs import errors
from libs.clock import WallClock
from libs.postgres import Connection, Database, as_tenant
from services.auth.domain import challenge
from services.auth.domain import factor as rules
from services.auth.domain.sign_in import Door, Pending
from services.auth.repository import factors
from services.auth.usecases import doors
from services.auth.usecases.challenges import Challenges
from services.auth.usecases.factor_access import FactorAccess
from services.auth.usecases.second_factors import second_factor_wrong
from services.auth.usecases.sign_in import Write


class RecoveryCodes:
    """Recovery codes as a second factor (NIST SP 800-63B-4, 4.2.1.1)."""

    def __init__(
        self,
        db: Database,
        challenges: Challenges,
        access: FactorAccess,
        clock: WallClock,
        randomness: Callable[[int], bytes],
    ) -> None:
        self._db = db
        self._challenges = challenges
        self._access = access
        self._clock = clock
        self._randomness = randomness

    async def set_up(self, door: Door) -> bool:
        """Tells whether whoever goes in has a code left."""
        return bool(await self.left(door))

    async def left(self, door: Door) -> int:
        """Returns how many codes are left."""
        return len(await self._hashes(door))

    async def check(self, pending: Pending, proof: str) -> Write | None:
        """Returns what spends a code and has a mail say so; None for a wrong one."""
        door = pending.door
        given = rules.recovery_hash(proof, door.owner, door.principal)
        held = await self._hashes(door)
        if not any(hmac.compare_digest(given, one) for one in held):
            return None
        details = {"left": str(len(held) - 1), **self._access.circumstances()}
        notice = await self._challenges.prepare_for(door, challenge.RECOVERY_CODE_USED, details=details)

        async def spend(conn: Connection) -> None:
            async with as_tenant(conn, door.owner):
                at = self._clock.wall()
                if not await factors.spend_recovery_code(conn, door.owner, door.principal, given, at):
                    raise second_factor_wrong()
                await self._challenges.store_for(conn, door, notice)

        return spend

    async def regenerate(self) -> list[str]:
        """Returns ten new codes of the caller; those before them end.

        Raises `precondition("factor_missing")` for who has no factor that they would stand in for, and as
        `FactorAccess.require`.
        """
        door = doors.own()
        await self._access.require(door)
        codes = [rules.new_recovery_code(self._randomness) for _ in range(rules.RECOVERY_CODES)]
        hashes = [rules.recovery_hash(code, door.owner, door.principal) for code in codes]
        async with self._db.tenant(door.owner, "regenerate_recovery_codes") as conn:
            await factors.lock(conn, door.principal)
            await self._access.refuse_erased(conn, door)
            if not await factors.left(conn, door.owner, door.principal):
                raise errors.precondition("factor_missing", "Recovery codes stand in for a factor; add one first.")
            await factors.replace_recovery_codes(conn, door.owner, door.principal, hashes, self._clock.wall())
        return codes

    async def _hashes(self, door: Door) -> list[bytes]:
        async with self._db.tenant(door.owner, "read_recovery_codes", read_only=True) as conn:
            return await factors.recovery_hashes(conn, door.owner, door.principal)
