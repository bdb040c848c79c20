"""Owns signing in with a passkey alone: readers, staff and operators."""

from uuid import UUID

from libs import caller, errors
from libs.ids import IdSource
from libs.postgres import PLATFORM, Connection, Database
from libs.vault import Vault
from services.auth.domain import passkey as rules
from services.auth.domain import session
from services.auth.domain.passkey import Passkey
from services.auth.domain.sign_in import PASSKEY, Door
from services.auth.repository import challenges, credentials, passkeys
from services.auth.usecases import addresses
from services.auth.usecases.attempts import Attempts
from services.auth.usecases.passkey_proofs import PasskeyProofs
from services.auth.usecases.secrets import TokenSecrets
from services.auth.usecases.sessions import Pair
from services.auth.usecases.sign_in import SignIn, Waiting
from services.auth.usecases.staff import Staff


class PasskeySignIn:
    """Passkeys verify their user, so one is two factors. Waits after wrong passwords do not hold it up."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        proofs: PasskeyProofs,
        sign_in: SignIn,
        staff: Staff,
        attempts: Attempts,
        secrets: TokenSecrets,
        make: IdSource,
    ) -> None:
        self._db = db
        self._vault = vault
        self._proofs = proofs
        self._sign_in = sign_in
        self._staff = staff
        self._attempts = attempts
        self._secret = secrets.passkey
        self._make = make

    async def begin(self, owner: UUID, email: str) -> str:
        """Returns the browser's options: for any passkey of a reader of the account or, where the owner is the
        platform, of a person; or for those of whoever has an address.

        The steps and the look of the answer are the same where nobody has it, or has no passkey (ASVS 5.0 6.3.8).
        """
        if not email:
            async with self._db.tenant(owner, "begin_passkey_sign_in") as conn:
                return await self._proofs.ask(conn, owner, rules.SIGN_IN, PASSKEY, [], principal=None)
        index = await self._vault.blind_index(owner, "email", addresses.checked(email))
        decoys = rules.decoys(self._secret, owner, index)
        async with self._db.tenant(owner, "begin_passkey_sign_in") as conn:
            principal = await challenges.principal_of(conn, owner, index) or self._make.new()
            held = await passkeys.of_principal(conn, owner, principal)
            own = [one.described for one in held if one.kind == PASSKEY]
            return await self._proofs.ask(conn, owner, rules.SIGN_IN, PASSKEY, own or decoys, principal=principal)

    async def reader(self, answer: str) -> Pair | Waiting:
        """Signs a reader of the caller's account in; `unauthenticated("passkey_refused")` for whatever is not right."""
        who = caller.current()
        account = who.require_account()
        held = await self._proven(account, answer, "/v1/sessions/passkey")
        use = self._proofs.using(account, held, _refused)

        async def write(conn: Connection) -> None:
            if not await credentials.exists(conn, account, held.principal):
                raise _refused()
            await use(conn)

        door = Door(session.SUBSCRIBER, account, who.live, held.principal)
        return await self._sign_in.proven(door, (PASSKEY,), write)

    async def person(self, answer: str, account: UUID | None) -> Pair | Waiting:
        """Signs an operator in, or staff in an account; raises as `reader`, and as `Staff.door`."""
        held = await self._proven(PLATFORM, answer, "/v1/staff/sessions/passkey")
        door = await self._staff.door(held.principal, account)
        return await self._sign_in.proven(door, (PASSKEY,), self._proofs.using(PLATFORM, held, _refused))

    async def _proven(self, owner: UUID, answer: str, route: str) -> Passkey:
        held = await self._proofs.proven(owner, owner, rules.SIGN_IN, answer)
        if held is None:
            await self._attempts.tell_of(owner, None, route, "passkey_refused")
            raise _refused()
        await self._attempts.tell_of(owner, held.principal, route)
        return held


def _refused() -> errors.GatefoldError:
    return errors.unauthenticated("passkey_refused", "This passkey is not right here, or came too late; try again.")
