"""Owns reviewing cases: seeing, taking, deciding them, and what follows from a decision."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from gatefold.abuse.v1 import case_pb2

from libs import errors, ids
from libs.clock import WallClock
from libs.errors import GatefoldError
from libs.postgres import Connection, Database
from services.abuse.domain.case import (
    ALL,
    CLAIM,
    SUPPRESSED,
    Case,
    CaseState,
    Judgement,
    Wanted,
    check_note,
)
from services.abuse.domain.verdict import REVIEW, State
from services.abuse.repository import NEWEST, actions, cases, detectors, suppressions, verdicts
from services.abuse.usecases import present
from services.abuse.usecases.case_book import CaseBook
from services.abuse.usecases.reviewer import Reviewer

DEFAULT_LIMIT = 20
MOST = 100
MOST_SHOWN = 50
MOST_SIMILAR = 10
DEFAULT_DAYS = 30


class Cases:
    """Cases of an account, or of the platform; `who` says whose."""

    def __init__(self, db: Database, book: CaseBook, clock: WallClock) -> None:
        self._db = db
        self._book = book
        self._clock = clock

    async def list_cases(
        self, who: Reviewer, wanted: Wanted = ALL, *, limit: int = 0, cursor: str = ""
    ) -> case_pb2.ListCasesResponse:
        """Returns a page of cases, the newest first."""
        before = ids.decode("case", cursor, field="cursor") if cursor else NEWEST
        size = min(limit, MOST) if limit > 0 else DEFAULT_LIMIT
        async with self._db.tenant(who.account, "list_cases", read_only=True) as conn:
            found = await cases.page(conn, who.account, before, size + 1, wanted)
        now = self._clock.wall()
        return case_pb2.ListCasesResponse(
            data=[present.case(case, now) for case in found[:size]],
            next_cursor=ids.encode("case", found[size - 1].id) if len(found) > size else "",
        )

    async def get_case(self, who: Reviewer, case: UUID) -> case_pb2.CaseDetail:
        """Returns a case with all that is known; raises `not_found("case_not_found")`."""
        account = who.account
        async with self._db.tenant(account, "get_case", read_only=True) as conn:
            found = await cases.find(conn, account, case)
            if found is None:
                raise errors.not_found("case_not_found", "There is no such case.")
            held = await verdicts.of_case(conn, account, case, MOST_SHOWN)
            steps = await cases.steps(conn, account, case, 2 * MOST_SHOWN)
            linked = await cases.linked(conn, account, case, MOST_SHOWN)
            similar = await cases.similar(conn, account, found, MOST_SIMILAR)
            done = await actions.of_case(conn, account, case, MOST_SHOWN)
        now = self._clock.wall()
        return case_pb2.CaseDetail(
            case=present.case(found, now),
            verdicts=[present.verdict(verdict) for verdict in held],
            timeline=present.steps(steps),
            linked=[
                case_pb2.LinkedEntity(scope=scope, entity=entity.hex(), verdicts=count, other_cases=others)
                for scope, entity, count, others in linked
            ],
            similar=[
                case_pb2.SimilarCase(case=present.case(other, now), shared_entities=entities, shared_reasons=reasons)
                for other, entities, reasons in similar
            ],
            actions=[present.action(action) for action in done],
        )

    async def claim(self, who: Reviewer, case: UUID) -> case_pb2.Case:
        """Takes a case for half an hour, or keeps it for another; raises `conflict("case_claimed")`."""
        now = self._clock.wall()
        async with self._db.tenant(who.account, "claim_case") as conn:
            found = await self._book.locked(conn, who.account, case)
            found.check_open()
            found.check_free(who.actor, now)
            taken = replace(found, claimed_by=who.actor, claimed_until=now + CLAIM)
            return present.case(await self._book.write(conn, who.account, taken, "claimed", who.actor), now)

    async def release(self, who: Reviewer, case: UUID) -> case_pb2.Case:
        """Gives a case back; raises `conflict("case_claimed")` for somebody else's."""
        now = self._clock.wall()
        async with self._db.tenant(who.account, "release_case") as conn:
            found = await self._book.locked(conn, who.account, case)
            found.check_free(who.actor, now)
            if found.holder(now) is None:
                return present.case(found, now)
            free = replace(found, claimed_by=None, claimed_until=None)
            return present.case(await self._book.write(conn, who.account, free, "released", who.actor), now)

    async def decide(
        self, who: Reviewer, case: UUID, judgement: Judgement, confidence: float, note: str
    ) -> case_pb2.Case:
        """Says what a case is. Deciding again changes what was said, and what follows from it."""
        check_note(note)
        if not 0 <= confidence <= 1:
            raise errors.invalid("confidence_out_of_range", "Confidence is from 0 to 1.", field="confidence")
        now = self._clock.wall()
        async with self._db.tenant(who.account, "decide_case") as conn:
            found = await self._book.locked(conn, who.account, case)
            found.check_free(who.actor, now)
            decided = replace(
                found,
                state=CaseState.DECIDED,
                judgement=judgement,
                judged_confidence=confidence,
                note=note,
                decided_by=who.actor,
                decided_at=now,
                claimed_by=None,
                claimed_until=None,
            )
            if (found.judgement, found.judged_confidence, found.note) == (judgement, confidence, note):
                return present.case(found, now)
            await self._learn(conn, who.account, found, judgement, now)
            written = await self._book.write(conn, who.account, decided, "decided", who.actor, judgement.value)
            return present.case(written, now)

    async def decide_many(
        self, who: Reviewer, wanted: Sequence[str], judgement: Judgement, confidence: float, note: str
    ) -> case_pb2.BulkDecideCasesResponse:
        """Says what many cases are; one that cannot be decided keeps none of the others."""
        answer = case_pb2.BulkDecideCasesResponse()
        for text in wanted[:MOST]:
            try:
                await self.decide(who, ids.decode("case", text, field="ids"), judgement, confidence, note)
            except GatefoldError as error:
                if error.kind in (errors.Kind.INTERNAL, errors.Kind.UNAVAILABLE, errors.Kind.TIMEOUT):
                    raise
                answer.data.add(id=text, decided=False, reason=error.reason)
            else:
                answer.data.add(id=text, decided=True)
        return answer

    async def statistics(self, who: Reviewer, days: int) -> case_pb2.AbuseStatistics:
        """Returns how it goes."""
        account = who.account
        since = self._clock.wall() - timedelta(days=days or DEFAULT_DAYS)
        async with self._db.tenant(account, "abuse_statistics", read_only=True) as conn:
            counted = await cases.counts(conn, account, since)
            families = await verdicts.count_by_family(conn, account, since)
            changed = {name: setting.changed_at for name, setting in (await detectors.settings(conn)).items()}
            held = await detectors.precision_here(conn, account, changed)
            demoted = await detectors.demoted(conn, account)
        return case_pb2.AbuseStatistics(
            **counted,
            families=[
                case_pb2.FamilyCount(family=family, enforced=enforced, shadow=shadow)
                for family, enforced, shadow in families
            ],
            detectors=[
                case_pb2.DetectorPrecision(
                    detector=name, precision=present.precision(held.get(name)), demoted=name in demoted
                )
                for name in sorted({*held, *demoted})
            ],
        )

    async def _learn(self, conn: Connection, account: UUID, case: Case, judgement: Judgement, now: datetime) -> None:
        """Legitimate: ends what is done, keeps the detectors away, and counts against them. Abuse: counts for them."""
        judged = [name for name in case.detectors if name != REVIEW]
        await detectors.label(conn, account, case.id, judged, _label(judgement), now)
        if judgement is Judgement.LEGIT:
            active = await verdicts.in_force(conn, account, case.scope, case.entity)
            if active:
                await verdicts.change(
                    conn,
                    account,
                    [verdict.id for verdict in active],
                    State.REVOKED,
                    [verdict.expires_at for verdict in active],
                )
            names = sorted({*judged, *(verdict.detector for verdict in active if verdict.detector != REVIEW)})
            if names:
                await suppressions.add(conn, account, case.id, case.scope, case.entity, names, now, now + SUPPRESSED)
        else:
            await suppressions.remove(conn, account, case.id, case.scope, case.entity)
        if judged:
            await self._demote(conn, account, judged, now)

    async def _demote(self, conn: Connection, account: UUID, names: list[str], now: datetime) -> None:
        """What one account's people say counts there alone: nobody demotes a detector for others."""
        changed = {name: setting.changed_at for name, setting in (await detectors.settings(conn)).items()}
        held = await detectors.precision_here(conn, account, changed)
        for name in names:
            if name in held and held[name].errs:
                await detectors.demote(conn, account, name, now)


def _label(judgement: Judgement) -> bool | None:
    return None if judgement is Judgement.UNSURE else judgement is Judgement.ABUSE
