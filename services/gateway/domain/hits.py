"""Owns how often rules matched in this process since it was told of last."""

from collections import defaultdict
from uuid import UUID

from services.gateway.domain.register import HitCounts, Hits

MOST_RULES = 2_000
"""More rules than there can be; beyond it nothing new is counted."""


class HitCounter:
    """Counts, and hands its counts over."""

    def __init__(self) -> None:
        self._enforced: dict[UUID, int] = defaultdict(int)
        self._shadow: dict[UUID, int] = defaultdict(int)

    def count(self, rule: UUID, *, enforced: bool, number: int = 1) -> None:
        """Counts matches of a rule, which was in force or in shadow."""
        counts = self._enforced if enforced else self._shadow
        if rule in counts or len(counts) < MOST_RULES:
            counts[rule] += number

    def take(self) -> HitCounts:
        """Returns what was counted, and begins anew."""
        enforced, self._enforced = self._enforced, defaultdict(int)
        shadow, self._shadow = self._shadow, defaultdict(int)
        return {rule: Hits(enforced.get(rule, 0), shadow.get(rule, 0)) for rule in enforced.keys() | shadow.keys()}

    def give_back(self, counts: HitCounts) -> None:
        """Takes back what could not be told of."""
        for rule, hits in counts.items():
            if hits.enforced:
                self.count(rule, enforced=True, number=hits.enforced)
            if hits.shadow:
                self.count(rule, enforced=False, number=hits.shadow)
