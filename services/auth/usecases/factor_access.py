"""Owns who may change factors, with which session; and what a notice tells about how it came about."""

from libs import caller, errors
from libs.clock import WallClock
from libs.postgres import Connection, Database
from services.auth.domain import factor as rules
from services.auth.domain import session
from services.auth.domain.sign_in import Door
from services.auth.repository import credentials, factors


class FactorAccess:
    """The rules of changing one's own factors; passkeys follow them too."""

    def __init__(self, db: Database, clock: WallClock) -> None:
        self._db = db
        self._clock = clock

    async def require(self, door: Door) -> None:
        """Returns when the caller's session is proven freshly, and by two factors where there is one to prove.

        Raises `unauthenticated("authentication_insufficient")` with the challenge of RFC 9470, which asks for no more
        than the caller can do.
        """
        async with self._db.tenant(door.owner, "count_factors", read_only=True) as conn:
            has_factor = bool(await factors.left(conn, door.owner, door.principal))
        who = caller.current()
        if rules.may_change(who.acr, who.auth_time, self._clock.wall(), has_factor=has_factor):
            return
        challenge = {
            "error": "insufficient_user_authentication",
            "error_description": "A stronger or fresher authentication is required.",
            "max_age": str(int(rules.FRESH.total_seconds())),
        }
        if has_factor:
            challenge["acr_values"] = session.AAL2
        raise errors.unauthenticated(
            "authentication_insufficient",
            "Sign in again, with a further factor if one is asked for.",
            metadata=challenge,
        )

    async def refuse_erased(self, conn: Connection, door: Door) -> None:
        """Raises `not_found("subject_erased")` for a reader who was erased while the session went on."""
        if door.kind == session.SUBSCRIBER and await credentials.is_erased(conn, door.account, door.principal):
            raise errors.not_found("subject_erased", "The person's data has been erased.")

    def circumstances(self) -> dict[str, str]:
        """Returns when and from where the request came, for a mail that tells its owner."""
        told = {"time": self._clock.wall().strftime("%d %B %Y %H:%M UTC")}
        address = caller.current().address
        return told | ({"address": address} if address else {})
