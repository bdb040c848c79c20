"""Owns proving a session anew: the password or a second factor again, for what asks for it (RFC 9470)."""

from libs import caller
from libs.postgres import Connection
from services.auth.domain.password import StoredPassword
from services.auth.domain.sign_in import PASSWORD
from services.auth.usecases import doors
from services.auth.usecases.factor_attempts import FactorAttempts
from services.auth.usecases.own_password import OwnPassword
from services.auth.usecases.second_factors import SecondFactors
from services.auth.usecases.sessions import Pair
from services.auth.usecases.sign_in import SignIn, Waiting, credentials_invalid, sign_in_expired


class StepUp:
    """Fresh assurance for the session that asks."""

    def __init__(
        self, passwords: OwnPassword, attempts: FactorAttempts, second_factors: SecondFactors, sign_in: SignIn
    ) -> None:
        self._passwords = passwords
        self._attempts = attempts
        self._second_factors = second_factors
        self._sign_in = sign_in

    async def prove(self, password: str, method: str, proof: str) -> Pair | Waiting:
        """Proves the caller's session anew, or says which second factors would.

        A second factor that is set up is always asked for: whoever stole a session or knows a password has not got it.
        Raises `unauthenticated` with reason `credentials_invalid` or `second_factor_wrong`,
        `invalid("password_required")` and `too_many("second_factor_locked")`.
        """
        door, held = doors.own(), caller.current().session
        if held is None:
            raise sign_in_expired()
        stored: StoredPassword | None = None
        if password:
            await self._attempts.claim(door)
            stored = await self._passwords.proven(door, password)
            if stored is None:
                raise credentials_invalid()

        async def still(conn: Connection) -> None:
            if stored is not None:
                await self._passwords.hold(conn, door, stored)

        async def succeeded(conn: Connection) -> None:
            await still(conn)
            await self._attempts.succeeded(conn, door)

        proven = (PASSWORD,) if stored else ()
        answer = await self._sign_in.prove_anew(door, held, proven, wait=still, write=succeeded)
        if isinstance(answer, Waiting) and method:
            return await self._second_factors.prove(answer.pending, method, proof)
        return answer
