"""Owns how often rules matched in this process since it was told of last."""

from collections.abc import Collection, Mapping
from uuid import UUID

from services.gateway.domain.register import HitCounts, Hits

MOST_RULES = 2_000
"""More rules than there can be; beyond it nothing new is counted."""

Totals = Mapping[UUID, tuple[int, int]]
"""How often each rule matched and failed, since a time that may be any."""


class HitCounter:
    """Takes totals that only rise, and hands over what was added to them."""

    def __init__(self) -> None:
        self._seen: dict[UUID, tuple[int, int]] = {}
        self._held: dict[UUID, Hits] = {}

    def advance(self, totals: Totals, enforced: Collection[UUID]) -> None:
        """Takes the totals as they are now; what was added belongs to the mode that rules have until now.

        Called before rules are replaced, too. A rule whose total fell is counted anew from nothing.
        """
        for rule, (hits, failures) in totals.items():
            before = self._seen.get(rule, (0, 0))
            if hits < before[0] or failures < before[1]:
                before = (0, 0)
            added = hits - before[0]
            self._add(rule, Hits(*((added, 0) if rule in enforced else (0, added)), failures - before[1]))
        self._seen = dict(totals)

    def begin(self) -> None:
        """Says that the totals of the next `advance` begin at nothing."""
        self._seen = {}

    def take(self) -> HitCounts:
        """Returns what was counted, and begins anew."""
        held, self._held = self._held, {}
        return held

    def give_back(self, counts: HitCounts) -> None:
        """Takes back what could not be told of."""
        for rule, hits in counts.items():
            self._add(rule, hits)

    def _add(self, rule: UUID, added: Hits) -> None:
        if added == Hits() or (rule not in self._held and len(self._held) >= MOST_RULES):
            return
        self._held[rule] = self._held.get(rule, Hits()) + added
