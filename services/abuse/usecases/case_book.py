"""Owns writing in cases: a step and its event go with every change, in one transaction."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from libs import errors, outbox
from libs.clock import WallClock
from libs.ids import IdSource
from libs.postgres import Connection
from services.abuse.domain.case import KNOWN_ABUSE, Case, CaseState, Judgement, Origin, Step
from services.abuse.domain.finding import Scope
from services.abuse.domain.verdict import Verdict
from services.abuse.repository import cases, verdicts
from services.abuse.usecases.facts import OWN, Facts

MOST_OPENED = 30
"""Cases that verdicts open in an account within an hour: of an attack by ten thousand addresses nobody looks at all."""
_MOST_REASONS = 20


class CaseBook:
    """Opens cases and writes their steps."""

    def __init__(self, clock: WallClock, make: IdSource, facts: Facts) -> None:
        self._clock = clock
        self._make = make
        self._facts = facts

    async def locked(self, conn: Connection, account: UUID, case: UUID) -> Case:
        """Returns a case that nobody changes meanwhile; raises `not_found("case_not_found")`."""
        found = await cases.lock(conn, account, case)
        if found is None:
            raise errors.not_found("case_not_found", "There is no such case.")
        return found

    async def write(
        self,
        conn: Connection,
        account: UUID,
        case: Case,
        kind: str,
        actor: str = OWN,
        detail: str = "",
        verdict: UUID | None = None,
    ) -> Case:
        """Saves a changed case with the step that changed it."""
        now = self._clock.wall()
        stepped = replace(case, sequence=case.sequence + 1, updated_at=now)
        await cases.save(conn, account, stepped)
        await cases.add_step(conn, account, case.id, stepped.sequence, Step(kind, actor, detail, now))
        event = self._facts.stepped(account, case.id, stepped.sequence, kind, actor, detail, verdict)
        await outbox.append(conn, event=event)
        return stepped

    async def enter(self, conn: Connection, account: UUID, made: list[Verdict]) -> None:
        """Puts grave verdicts into their entities' cases, opening those that are missing, up to a bound."""
        grave = [verdict for verdict in made if verdict.opens_case]
        if not grave:
            return
        now = self._clock.wall()
        left = MOST_OPENED - await cases.opened_since(conn, account, now - timedelta(hours=1))
        # One at a time, by entity: two transactions that write in the same cases must not wait for each other.
        for verdict in sorted(grave, key=lambda item: (item.scope.value, item.entity, item.decided_at)):
            case = await cases.lock_latest(conn, account, verdict.scope, verdict.entity)
            if case is None or not _goes_on(case, verdict):
                if left <= 0:
                    continue
                left -= 1
                case = await self.open(conn, account, verdict, Origin.VERDICT)
                if case is None:
                    continue
            await self._add(conn, account, case, verdict)

    async def open(self, conn: Connection, account: UUID, verdict: Verdict, origin: Origin) -> Case | None:
        """Opens a case about a verdict's entity; None when somebody else has done so at this moment."""
        case = self.blank(verdict.scope, verdict.entity, origin)
        case = replace(
            case,
            severity=verdict.severity,
            reasons=verdict.reasons[:_MOST_REASONS],
            detectors=(verdict.detector,),
            confidence=verdict.confidence,
            appealed_at=self._clock.wall() if origin is Origin.APPEAL else None,
        )
        if not await cases.add(conn, account, case):
            return None
        return await self.write(conn, account, case, "opened", detail=origin.value, verdict=verdict.id)

    def blank(self, scope: Scope, entity: bytes, origin: Origin) -> Case:
        """Returns a new case about an entity of which nothing is known."""
        now = self._clock.wall()
        return Case(
            id=self._make.new(),
            origin=origin,
            severity=0,
            scope=scope,
            entity=entity,
            reasons=(),
            detectors=(),
            confidence=0.0,
            opened_at=now,
            updated_at=now,
        )

    async def _add(self, conn: Connection, account: UUID, case: Case, verdict: Verdict) -> None:
        await verdicts.attach(conn, account, [verdict.id], case.id)
        grown = replace(
            case,
            severity=max(case.severity, verdict.severity),
            reasons=_together(verdict.reasons, case.reasons),
            detectors=_together(case.detectors, (verdict.detector,)),
            confidence=max(case.confidence, verdict.confidence),
        )
        family = verdict.reasons[0] if verdict.reasons else verdict.detector
        await self.write(conn, account, grown, "verdict", detail=family, verdict=verdict.id)


def _goes_on(case: Case, verdict: Verdict) -> bool:
    if case.state is CaseState.OPEN:
        return True
    return (
        case.judgement is Judgement.ABUSE
        and case.decided_at is not None
        and verdict.decided_at - case.decided_at < KNOWN_ABUSE
    )


def _together(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))[:_MOST_REASONS]
