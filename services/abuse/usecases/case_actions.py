"""Owns doing something about a case's entity, by one person or two, and taking it back."""

import hashlib
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from gatefold.abuse.v1 import case_pb2

from libs import errors
from libs.clock import WallClock
from libs.ids import IdSource
from libs.postgres import Connection, Database
from services.abuse.domain.case import (
    APPROVAL,
    LIFTED,
    ActionKind,
    ActionState,
    Case,
    CaseAction,
    check_action,
    needs_four_eyes,
)
from services.abuse.domain.detector import Action
from services.abuse.domain.verdict import REVIEW, State, Verdict
from services.abuse.repository import actions, suppressions, verdicts
from services.abuse.usecases import present
from services.abuse.usecases.case_book import CaseBook
from services.abuse.usecases.reviewer import Reviewer

_MADE = {ActionKind.BLOCK: Action.BLOCK, ActionKind.REVOKE: Action.REVOKE}


class CaseActions:
    """Actions on cases."""

    def __init__(self, db: Database, book: CaseBook, clock: WallClock, make: IdSource) -> None:
        self._db = db
        self._book = book
        self._clock = clock
        self._make = make

    async def act(self, who: Reviewer, case: UUID, kind: ActionKind, seconds: int) -> case_pb2.CaseAction:
        """Does something, or asks a second person for it.

        Raises `conflict("case_claimed")`, `precondition("verdict_not_active")` where there is nothing to lift or to
        extend, and what `check_action` raises.
        """
        now = self._clock.wall()
        async with self._db.tenant(who.account, "act_on_case") as conn:
            found = await self._book.locked(conn, who.account, case)
            found.check_free(who.actor, now)
            check_action(kind, found.scope, seconds)
            waiting = await actions.waiting(conn, who.account, case, kind)
            if waiting is not None and now - waiting.requested_at < APPROVAL:
                return present.action(waiting)
            if waiting is not None:
                await actions.save(conn, who.account, replace(waiting, state=ActionState.UNDONE))
            action = CaseAction(
                id=self._make.new(),
                case=case,
                kind=kind,
                state=ActionState.WAITING,
                seconds=0 if kind is ActionKind.LIFT else seconds,
                four_eyes=needs_four_eyes(kind, seconds),
                requested_by=who.actor,
                requested_at=now,
            )
            if action.four_eyes:
                await actions.add(conn, who.account, action)
                await self._book.write(conn, who.account, found, "action_requested", who.actor, kind.value)
            else:
                action = await self._do(conn, who, found, action, now)
                await actions.add(conn, who.account, action)
            return present.action(action)

    async def approve(self, who: Reviewer, case: UUID, action: UUID) -> case_pb2.CaseAction:
        """Does what another person asked for; raises `forbidden("approval_own")` for one's own, and
        `precondition("action_not_waiting")` for what is done, taken back, or was asked for more than a day ago.
        """
        now = self._clock.wall()
        async with self._db.tenant(who.account, "approve_case_action") as conn:
            found = await self._book.locked(conn, who.account, case)
            asked = await self._action(conn, who.account, case, action)
            if asked.requested_by == who.actor:
                raise errors.forbidden("approval_own", "Another person than the one who asked has to agree.")
            if asked.state is not ActionState.WAITING or now - asked.requested_at >= APPROVAL:
                raise errors.precondition("action_not_waiting", "This action waits for nobody.")
            approved = replace(asked, approved_by=who.actor, approved_at=now)
            done = await self._do(conn, who, found, approved, now)
            await actions.save(conn, who.account, done)
            return present.action(done)

    async def undo(self, who: Reviewer, case: UUID, action: UUID) -> case_pb2.CaseAction:
        """Takes an action back; of what was undone before nothing happens."""
        now = self._clock.wall()
        async with self._db.tenant(who.account, "undo_case_action") as conn:
            found = await self._book.locked(conn, who.account, case)
            found.check_free(who.actor, now)
            done = await self._action(conn, who.account, case, action)
            if done.state is ActionState.UNDONE:
                return present.action(done)
            if done.state is ActionState.DONE:
                await self._take_back(conn, who.account, found, done, now)
            undone = replace(done, state=ActionState.UNDONE)
            await actions.save(conn, who.account, undone)
            await self._book.write(conn, who.account, found, "action_undone", who.actor, done.kind.value)
            return present.action(undone)

    async def _do(self, conn: Connection, who: Reviewer, case: Case, action: CaseAction, now: datetime) -> CaseAction:
        account = who.account
        active = await verdicts.in_force(conn, account, case.scope, case.entity)
        made = _MADE.get(action.kind)
        if made is not None:
            verdict = self._verdict(case, action, made, now)
            await verdicts.add(conn, account, [verdict])
            changed, former = [verdict.id], [now]
        elif not active:
            raise errors.precondition("verdict_not_active", "Nothing is done about this entity now.")
        else:
            changed, former = [verdict.id for verdict in active], [verdict.expires_at for verdict in active]
            if action.kind is ActionKind.LIFT:
                await verdicts.change(conn, account, changed, State.REVOKED, former)
                await suppressions.add(conn, account, case.id, case.scope, case.entity, [""], now, now + LIFTED)
            else:
                until = now + timedelta(seconds=action.seconds)
                await verdicts.change(conn, account, changed, State.ACTIVE, [max(until, end) for end in former])
        await self._book.write(conn, account, case, "action_taken", who.actor, action.kind.value, changed[0])
        return replace(action, state=ActionState.DONE, verdicts=tuple(changed), former_expiries=tuple(former))

    async def _take_back(self, conn: Connection, account: UUID, case: Case, action: CaseAction, now: datetime) -> None:
        pairs = list(zip(action.verdicts, action.former_expiries, strict=True))
        if action.kind is ActionKind.LIFT:
            await suppressions.remove(conn, account, case.id, case.scope, case.entity)
            # What would be over by now stays over.
            pairs = [(verdict, end) for verdict, end in pairs if end > now]
        state = State.ACTIVE if action.kind in (ActionKind.LIFT, ActionKind.EXTEND) else State.REVOKED
        if pairs:
            changed, ends = [verdict for verdict, _ in pairs], [end for _, end in pairs]
            if state is State.REVOKED:
                held = [await verdicts.find(conn, account, verdict) for verdict in changed]
                ends = [verdict.expires_at for verdict in held if verdict is not None]
            await verdicts.change(conn, account, changed, state, ends)

    def _verdict(self, case: Case, action: CaseAction, made: Action, now: datetime) -> Verdict:
        return Verdict(
            id=self._make.new(),
            key=hashlib.sha256(action.id.bytes).digest()[:16],
            detector=REVIEW,
            scope=case.scope,
            entity=case.entity,
            action=made,
            shadow=False,
            reasons=(REVIEW, *case.reasons),
            confidence=1.0,
            evidence={},
            rule_version=f"{REVIEW}@1",
            strikes=0,
            request_id="",
            decided_at=now,
            expires_at=now + timedelta(seconds=action.seconds),
            case=case.id,
        )

    async def _action(self, conn: Connection, account: UUID, case: UUID, action: UUID) -> CaseAction:
        found = await actions.find(conn, account, case, action)
        if found is None:
            raise errors.not_found("case_action_not_found", "There is no such action.")
        return found
