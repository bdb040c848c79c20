"""Owns keeping readers out and letting them in again."""

from datetime import datetime
from uuid import UUID

from gatefold.auth.v1 import event_pb2

from libs import caller, errors, ids, outbox
from libs.clock import WallClock
from libs.ids import IdSource
from libs.postgres import Connection, Database
from services.auth.domain import challenge, session
from services.auth.domain.sign_in import Door
from services.auth.repository import challenges, credentials, disabled_sign_ins, sessions, sign_ins
from services.auth.usecases.facts import Facts
from services.auth.usecases.unlocks import Lift


class SubscriberSignIns:
    """Readers' sign-ins, as staff see and stop them."""

    def __init__(self, db: Database, clock: WallClock, make: IdSource, facts: Facts, release: Lift) -> None:
        self._db = db
        self._clock = clock
        self._make = make
        self._facts = facts
        self._release = release

    async def disabled_at(self, subject: UUID) -> datetime | None:
        """Returns since when a reader is kept out; raises `not_found("sign_in_not_found")` for one who has none."""
        account = caller.current().require_account()
        async with self._db.tenant(account, "read_subscriber_sign_in", read_only=True) as conn:
            await _require(conn, account, subject)
            return (await disabled_sign_ins.since(conn, account, [subject])).get(subject)

    async def disable(self, subject: UUID) -> datetime:
        """Keeps a reader out: sessions, waiting sign-ins and open mails end with it. Raises as `disabled_at`."""
        account = caller.current().require_account()
        now = self._clock.wall()
        async with self._db.tenant(account, "disable_subscriber_sign_in") as conn:
            await _require(conn, account, subject)
            await sign_ins.remove_of(conn, account, subject)
            if not await disabled_sign_ins.disable(conn, account, self._make.new(), now, subject=subject):
                return (await disabled_sign_ins.since(conn, account, [subject]))[subject]
            await sessions.revoke_all_of(conn, account, subject, now, session.DISABLED)
            await challenges.void_of(conn, account, subject, challenge.BY_ADDRESS)
            await self._tell(conn, account, subject, "subscriber.sign_in_disabled")
        return now

    async def enable(self, subject: UUID) -> None:
        """Lets a reader in again, with the password they had. Raises as `disabled_at`."""
        account = caller.current().require_account()
        async with self._db.tenant(account, "enable_subscriber_sign_in") as conn:
            await _require(conn, account, subject)
            if await disabled_sign_ins.enable(conn, account, subject):
                await self._tell(conn, account, subject, "subscriber.sign_in_enabled")

    async def unlock(self, subject: UUID) -> datetime | None:
        """Ends what a reader must wait after wrong passwords; returns as `disabled_at`, and raises as that and as
        `Attempts.release`.
        """
        found = await self.disabled_at(subject)
        who = caller.current()
        await self._release(Door(session.SUBSCRIBER, who.require_account(), who.live, subject))
        return found

    async def _tell(self, conn: Connection, account: UUID, subject: UUID, kind: str) -> None:
        key, sequence = await credentials.count_change(conn, account, subject)
        data = event_pb2.SubscriberSignInChanged(subject_id=ids.encode("subj", subject))
        live = caller.current().live
        event = self._facts.make(
            kind, account, ("credential", key), data, live=live, sequence=sequence, subjects=(subject,)
        )
        await outbox.append(conn, event=event)


async def _require(conn: Connection, account: UUID, subject: UUID) -> None:
    if not await credentials.exists(conn, account, subject):
        raise errors.not_found("sign_in_not_found", "This reader has no sign-in.")
