"""Owns taking a second factor: which methods there are, and going on with the sign-in that waits for one."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Protocol

from libs import errors
from libs.postgres import Connection
from services.auth.domain import challenge
from services.auth.domain.sign_in import EMAIL_CODE, MOST_TRIES, RECOVERY_CODE, SECOND_FACTOR, TOTP, Door, Pending
from services.auth.usecases.challenges import Challenges
from services.auth.usecases.factor_access import FactorAccess
from services.auth.usecases.factor_attempts import FactorAttempts
from services.auth.usecases.sessions import Pair
from services.auth.usecases.sign_in import SignIn, Waiting, Write, sign_in_expired

_GUESSABLE = frozenset({TOTP, EMAIL_CODE})
"""Counted over all sign-ins. Nobody guesses the others, so they still open the door while these wait."""


class Method(Protocol):
    """One kind of second factor."""

    async def set_up(self, door: Door) -> bool:
        """Tells whether whoever goes in has it."""

    async def check(self, pending: Pending, proof: str) -> Write | None:
        """Returns what spends the proof, in the transaction that goes on; None for a wrong one.

        That transaction is the session's account's: rows of a person are reached by `as_tenant`. The write raises
        `second_factor_wrong()` when the proof was spent in the meantime.
        """


class SecondFactors:
    """The second factors, by method, the best first."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        sign_in: SignIn,
        attempts: FactorAttempts,
        challenges: Challenges,
        access: FactorAccess,
        codes_left: Callable[[Door], Awaitable[int]],
    ) -> None:
        self._methods = methods
        self._sign_in = sign_in
        self._attempts = attempts
        self._challenges = challenges
        self._access = access
        self._codes_left = codes_left

    async def complete(self, token: str, method: str, proof: str) -> Pair | Waiting:
        """Goes on with a sign-in.

        Raises `unauthenticated` with reason `sign_in_expired` or `second_factor_wrong`, and
        `too_many("second_factor_locked")`. The fifth wrong one ends the sign-in, and a mail tells its owner.
        """
        return await self.prove(await self._sign_in.waiting(token, SECOND_FACTOR), method, proof)

    async def prove(self, pending: Pending, method: str, proof: str) -> Pair | Waiting:
        """Goes on with what waits; raises as `complete`."""
        door = pending.door
        if method in _GUESSABLE:
            await self._attempts.claim(door)
        tries = await self._sign_in.count_try(pending)
        chosen = self._methods.get(method) if tries and method in pending.methods else None
        spend = await chosen.check(pending, proof) if chosen is not None else None
        if spend is None:
            if not 0 < tries < MOST_TRIES:
                await self._end(pending)
            raise second_factor_wrong() if tries else sign_in_expired()

        async def write(conn: Connection) -> None:
            await spend(conn)
            await self._attempts.succeeded(conn, door)

        done = await self._sign_in.go_on(pending, method, write)
        if method == RECOVERY_CODE and isinstance(done, Pair):
            return replace(done, recovery_codes_left=await self._codes_left(door))
        return done

    async def _end(self, pending: Pending) -> None:
        details = self._access.circumstances()
        notice = await self._challenges.prepare_for(pending.door, challenge.SIGN_IN_LOCKED, details=details)

        async def tell(conn: Connection) -> None:
            await self._challenges.store_for(conn, pending.door, notice)

        await self._sign_in.end(pending, tell)


async def set_up(methods: Mapping[str, Method], door: Door) -> tuple[str, ...]:
    """Returns the methods that whoever goes in has set up."""
    return tuple([name for name, method in methods.items() if await method.set_up(door)])


def second_factor_wrong() -> errors.GatefoldError:
    """Returns the answer to a wrong, spent or unknown second factor."""
    return errors.unauthenticated("second_factor_wrong", "This second factor is not right.")
