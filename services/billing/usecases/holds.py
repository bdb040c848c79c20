"""Owns holding payments of whom the abuse service suspects: none begins, and what was begun is withdrawn."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from gatefold.activity.v1 import activity_pb2

from libs import due, errors, ids
from libs.activity import Pseudonyms
from libs.clock import Clock
from libs.due import Due
from libs.errors import GatefoldError
from libs.postgres import PLATFORM, Connection, Database
from libs.verdicts.held import entity_of, in_force_until
from services.billing.domain import dunning
from services.billing.repository.connections import ConnectionRepository
from services.billing.repository.subscriptions import SubscriptionRepository
from services.billing.usecases.settlement import EXPIRE, HOLD

SCOPES = ("actor", "target")
"""Readers, and cards. Where a request comes from is the edge's to judge."""
ACTIONS = (activity_pb2.Verdict.ACTION_BLOCK, activity_pb2.Verdict.ACTION_REVOKE)
REASON = "payment_held"
LOOK_EVERY = timedelta(hours=1)
"""How long a renewal waits at most before it is looked at again: people may have said that all is well."""


class Holds:
    """What verdicts keep from being charged."""

    def __init__(
        self,
        app: Database,
        connections: ConnectionRepository,
        subscriptions: SubscriptionRepository,
        pseudonyms: Pseudonyms,
        clock: Clock,
        grace: timedelta,
    ) -> None:
        self._app = app
        self._connections = connections
        self._subscriptions = subscriptions
        self._hash = pseudonyms.of
        self._clock = clock
        self._grace = grace

    async def holding(self, conn: Connection, account: UUID, subject: UUID) -> bool:
        """Tells whether a reader's payments are held."""
        return await self._until(conn, account, subject, None) is not None

    async def require_none(self, conn: Connection, account: UUID, subject: UUID) -> None:
        """Raises `precondition("payment_held")` while a reader's payments are held."""
        if await self.holding(conn, account, subject):
            raise held()

    async def put_off(
        self, conn: Connection, account: UUID, subject: UUID, card: bytes | None, charge_at: datetime
    ) -> datetime | None:
        """Returns when a renewal that is due is to be looked at again; None when it is to be charged now.

        A suspicion takes nobody's access: what was due is charged before it would end.
        """
        until = await self._until(conn, account, subject, card)
        if until is None:
            return None
        now = self._clock.now(account)
        latest = dunning.held_until(charge_at, self._grace)
        return min(now + min(until - self._clock.wall(), LOOK_EVERY), latest) if now < latest else None

    def card(self, fingerprint: str) -> bytes | None:
        """Returns what verdicts name a card by; None for one without a fingerprint."""
        return self._hash("target", fingerprint) or None

    async def begun(self, conn: Connection, account: UUID, verdicts: Sequence[UUID]) -> None:
        """Has payments withdrawn that were begun before; once the verdicts are there for everybody."""
        await due.schedule_many(conn, account, HOLD, list(verdicts), self._clock.now(account))

    async def withdraw(self, item: Due) -> None:
        """Due work: ends open checkouts of whom a verdict is about, with the provider first."""
        if item.account == PLATFORM:
            await self._everywhere(item)
            return
        now, wall = self._clock.now(item.account), self._clock.wall()
        async with self._app.tenant(item.account, "withdraw_payments") as conn:
            about = await entity_of(conn, item.account, item.reference, wall)
            if about is not None and about[0] == "actor":
                async for checkout, subject in self._subscriptions.open_checkouts(conn, item.account):
                    if self._actor(subject) == about[1]:
                        await due.schedule(conn, item.account, EXPIRE, checkout, now)
            await due.finish(conn, item)

    async def _everywhere(self, item: Due) -> None:
        async with self._app.transaction("withdraw_everywhere") as conn:
            for account in await self._connections.accounts(conn):
                await due.schedule(conn, account, HOLD, item.reference, self._clock.now(account))
            await due.finish(conn, item)

    async def _until(self, conn: Connection, account: UUID, subject: UUID, card: bytes | None) -> datetime | None:
        entities = [("actor", self._actor(subject)), *([("target", card)] if card else [])]
        return await in_force_until(conn, account, entities, self._clock.wall())

    def _actor(self, subject: UUID) -> bytes:
        return self._hash("actor", ids.encode("subj", subject))


def held() -> GatefoldError:
    """Returns what is raised while payments are held."""
    return errors.precondition("payment_held", "Payments of this reader are held for now.")
