"""Owns taking a second factor: which methods there are, and going on with the sign-in that waits for one."""

from collections.abc import Mapping
from typing import Protocol

from libs import errors
from services.auth.domain.sign_in import SECOND_FACTOR, Door, Pending
from services.auth.usecases.sessions import Pair
from services.auth.usecases.sign_in import SignIn, Waiting, Write, sign_in_expired


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

    def __init__(self, methods: Mapping[str, Method], sign_in: SignIn) -> None:
        self._methods = dict(methods)
        self._sign_in = sign_in

    async def complete(self, token: str, method: str, proof: str) -> Pair | Waiting:
        """Goes on with a sign-in. Raises `unauthenticated` with reason `sign_in_expired` or `second_factor_wrong`."""
        return await self.prove(await self._sign_in.waiting(token, SECOND_FACTOR), method, proof)

    async def prove(self, pending: Pending, method: str, proof: str) -> Pair | Waiting:
        """Goes on with what waits; raises as `complete`."""
        if not await self._sign_in.count_try(pending):
            raise sign_in_expired()
        chosen = self._methods.get(method) if method in pending.methods else None
        spend = await chosen.check(pending, proof) if chosen is not None else None
        if spend is None:
            raise second_factor_wrong()
        return await self._sign_in.go_on(pending, method, spend)


async def set_up(methods: Mapping[str, Method], door: Door) -> tuple[str, ...]:
    """Returns the methods that whoever goes in has set up."""
    return tuple([name for name, method in methods.items() if await method.set_up(door)])


def second_factor_wrong() -> errors.GatefoldError:
    """Returns the answer to a wrong, spent or unknown second factor."""
    return errors.unauthenticated("second_factor_wrong", "This second factor is not right.")
