"""Owns lifting a lock on signing in by mail: a link that only who has the mailbox can use."""

from collections.abc import Awaitable, Callable, Sequence

from libs.postgres import Database
from services.auth.domain.challenge import UNLOCK
from services.auth.domain.sign_in import Door
from services.auth.usecases.challenges import Challenges

Lift = Callable[[Door], Awaitable[None]]
"""Lifts one kind of lock of somebody, known by `Door.owner` and `Door.principal`; repeating it is harmless."""


class Unlocks:
    """Mails that lift a lock."""

    def __init__(self, db: Database, challenges: Challenges, lifts: Sequence[Lift]) -> None:
        self._db = db
        self._challenges = challenges
        self._lifts = lifts

    async def unlock(self, token: str) -> None:
        """Lifts the locks of whoever got the mail, once. Raises as `Challenges.by_token`.

        The locks first, which may be repeated: killed in between, the token still works.
        """
        account, found = await self._challenges.by_token(token, UNLOCK)
        await self.lift(await self._challenges.door_of(account, found.subject))
        if found.spent_at is None:
            async with self._db.tenant(account, "unlock") as conn:
                await self._challenges.spend(conn, account, found, found.subject)

    async def lift(self, door: Door) -> None:
        """Lifts every lock of somebody who has proven the mailbox."""
        for lift in self._lifts:
            await lift(door)
