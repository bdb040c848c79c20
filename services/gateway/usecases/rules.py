"""Owns changing and reading the rules of the firewall."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from gatefold.gateway.v1 import firewall_pb2
from google.protobuf.message import Message

from libs import errors
from libs.clock import WallClock
from libs.errors import GatefoldError, Kind
from libs.postgres import Connection, Database
from libs.telemetry import Telemetry
from services.gateway.domain.bundle import Mode, Rule
from services.gateway.domain.register import MOST_RULES, USUAL_PRIORITY, HeldRule, check_parameter
from services.gateway.repository import rules, versions
from services.gateway.usecases.changes import Changes, Draft, Made


class Rules:
    """The rules."""

    def __init__(self, db: Database, changes: Changes, clock: WallClock, telemetry: Telemetry) -> None:
        self._log = telemetry.logger("rules")
        self._db = db
        self._changes = changes
        self._clock = clock

    async def create(self, wanted: Rule, owner: str, request: Message, expected: int) -> HeldRule:
        """Adds a rule; its id is given here.

        Raises `invalid("rule_parameter")`, `invalid("end_past")`, `precondition("rules_full")` and as Changes.make.
        """
        now = self._clock.wall()
        _check(wanted, now)

        async def write(draft: Draft) -> str:
            if len(await rules.all_rules(draft.conn)) >= MOST_RULES:
                raise errors.precondition("rules_full", f"There are {MOST_RULES} rules; remove one first.")
            rule = replace(wanted, id=draft.key, priority=wanted.priority or USUAL_PRIORITY)
            await rules.put(draft.conn, HeldRule(rule, owner, now, draft.number))
            return rule.name

        made = await self._changes.make("rule.created", request, expected, write)
        return await self.get(made.key)

    async def update(self, wanted: Rule, owner: str, request: Message, expected: int) -> HeldRule:
        """Replaces what a rule says; raises `not_found("rule_not_found")` and as `create`."""
        _check(wanted, self._clock.wall())

        async def write(draft: Draft) -> str:
            held = await _find(draft.conn, wanted.id)
            rule = replace(wanted, priority=wanted.priority or USUAL_PRIORITY)
            await rules.put(draft.conn, replace(held, rule=rule, owner=owner, changed_in=draft.number))
            return rule.name

        await self._changes.make("rule.updated", request, expected, write)
        return await self.get(wanted.id)

    async def set_mode(self, key: UUID, mode: Mode, request: Message, expected: int) -> HeldRule:
        """Puts a rule into force, into shadow, or switches it off; raises `not_found("rule_not_found")`."""

        async def write(draft: Draft) -> str:
            held = await _find(draft.conn, key)
            await rules.put(draft.conn, replace(held, rule=replace(held.rule, mode=mode), changed_in=draft.number))
            return held.rule.name

        await self._changes.make(f"rule.{mode.value}", request, expected, write)
        return await self.get(key)

    async def delete(self, key: UUID, request: Message, expected: int) -> Made:
        """Removes a rule with its hits; raises `not_found("rule_not_found")`."""

        async def write(draft: Draft) -> str:
            name = await rules.remove(draft.conn, key)
            if name is None:
                raise _not_found()
            return name

        return await self._changes.make("rule.deleted", request, expected, write)

    async def introduce(self, defaults: Sequence[Rule]) -> int:
        """Adds rules that come with the software and never were here, in the mode that they state; returns how many.

        One that an operator deleted does not come back, and one whose name is taken is left out.
        """
        async with self._db.transaction("look_for_new_rules", read_only=True) as conn:
            fresh = await rules.not_introduced(conn, [rule.id for rule in defaults])
        if not fresh:
            return 0
        added: list[Rule] = []

        async def write(draft: Draft) -> str:
            fresh = await rules.not_introduced(draft.conn, [rule.id for rule in defaults])
            if not fresh:
                # Another gateway, which started at the same time, has added them.
                raise errors.conflict("firewall_changed", "This was changed in the meantime; read it again.")
            names = {held.rule.name for held in await rules.all_rules(draft.conn)}
            added[:] = [rule for rule in defaults if rule.id in fresh and rule.name not in names]
            for rule in added:
                await rules.put(draft.conn, HeldRule(rule, "", self._clock.wall(), draft.number))
            await rules.note_introduced(draft.conn, list(fresh))
            return f"{len(added)} rules"

        try:
            await self._changes.make("rules.introduced", firewall_pb2.Change(), 0, write)
        except GatefoldError as error:
            if error.kind not in (Kind.CONFLICT, Kind.INVALID):
                raise
            # Rules that are there already may be such that the whole is refused: they count more than new ones.
            self._log.warning("new rules of the software were not added", extra={"reason": error.reason})
            return 0
        return len(added)

    async def get(self, key: UUID) -> HeldRule:
        """Returns a rule; raises `not_found("rule_not_found")`."""
        async with self._db.transaction("get_rule", read_only=True) as conn:
            return await _find(conn, key)

    async def list_all(self) -> tuple[tuple[HeldRule, ...], int]:
        """Returns all rules in the order in which they are looked at, and the newest version."""
        async with self._db.transaction("list_rules", read_only=True) as conn:
            return await rules.all_rules(conn), await versions.newest(conn)


async def _find(conn: Connection, key: UUID) -> HeldRule:
    held = await rules.find(conn, key)
    if held is None:
        raise _not_found()
    return held


def _check(wanted: Rule, now: datetime) -> None:
    check_parameter(wanted.action, wanted.parameter)
    if wanted.expires_at is not None and wanted.expires_at <= now:
        raise errors.invalid("end_past", "This end is over already.", field="expires_at")


def _not_found() -> errors.GatefoldError:
    return errors.not_found("rule_not_found", "There is no such rule.")
