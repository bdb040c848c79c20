"""Owns appeals: by the name of a refused request alone, and with one answer for everybody."""

from dataclasses import replace
from uuid import UUID

from libs import due
from libs.clock import Clock
from libs.due import Due
from libs.postgres import PLATFORM, Database
from services.abuse.domain.case import CaseState, Origin
from services.abuse.domain.verdict import request_key
from services.abuse.repository import cases, verdicts
from services.abuse.usecases.case_book import CaseBook

DUE_KIND = "appeal"
_URN = "urn:gatefold:request:"


class Appeals:
    """Takes appeals at once and looks afterwards what they are about: an answer tells nothing, nor does its time."""

    def __init__(self, db: Database, book: CaseBook, clock: Clock) -> None:
        self._db = db
        self._book = book
        self._clock = clock

    async def appeal(self, instance: str) -> None:
        """Notes an appeal."""
        key = request_key(instance.strip().removeprefix(_URN))
        async with self._db.transaction("note_appeal") as conn:
            await due.schedule(conn, PLATFORM, DUE_KIND, key, self._clock.now(PLATFORM))

    async def work(self, item: Due) -> None:
        """Brings an appeal into the case of what it is about, if it is about anything; once for each verdict."""
        async with self._db.transaction("find_appealed", read_only=True) as conn:
            found = await verdicts.refusing(conn, item.reference, self._clock.wall())
        if found is not None:
            await self._bring(*found)
        async with self._db.transaction("finish_appeal") as conn:
            await due.finish(conn, item)

    async def _bring(self, account: UUID, verdict: UUID) -> None:
        now = self._clock.wall()
        async with self._db.tenant(account, "bring_appeal") as conn:
            about = await verdicts.find(conn, account, verdict)
            if about is None or about.appealed:
                return
            case = await cases.lock_latest(conn, account, about.scope, about.entity)
            if case is None or case.state is not CaseState.OPEN:
                case = await self._book.open(conn, account, about, Origin.APPEAL)
            if case is not None:
                await verdicts.note_appeal(conn, account, verdict, now)
                await verdicts.attach(conn, account, [verdict], case.id)
                await self._book.write(conn, account, replace(case, appealed_at=now), "appealed", verdict=verdict)
