"""Owns the figures of a run: what was found of what was there, how soon, at what cost, each with its uncertainty."""

import math
import random
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.support.traffic.simulation import Outcome, Record
from tests.support.traffic.world import DAY, Level

Z = 1.96
GOALS = {"precision": 0.97, "recall": 0.90, "recall, naive and distributed": 0.99, "honest requests refused": 1e-4}


@dataclass(frozen=True)
class Share:
    """A share with its 95 % interval (Wilson's)."""

    part: int
    whole: int

    @property
    def value(self) -> float:
        """The share; 1 of nothing."""
        return self.part / self.whole if self.whole else 1.0

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper bound."""
        if not self.whole:
            return 0.0, 1.0
        n, p = self.whole, self.part / self.whole
        middle = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
        around = Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)
        return max(0.0, middle - around), min(1.0, middle + around)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.3f} ({low:.3f} to {high:.3f}; {self.part} of {self.whole})"


@dataclass(frozen=True)
class Score:
    """All figures of some runs of one defence."""

    precision: Share
    recall: Share
    by_cell: dict[tuple[str, int], Share]
    """Recall by family and level."""
    wrongly: dict[str, Share]
    """Honest actors that something was asked of, by kind."""
    per_thousand_days: float
    """Of them, for 1,000 days of honest actors."""
    refused_honest: Share
    """Requests of honest actors that were refused."""
    seconds: tuple[float, float]
    """From an attack's first request to the first that was acted on: median and 95th of a hundred."""
    damage_before: float
    """Share of an attack's gain that it had before, over all."""
    damage_kept: float
    """Share of what it would have gained from the same requests that it gained."""
    flaps: float
    """Changes between let through and refused, for each attack found."""
    events: int

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        p, r = self.precision.value, self.recall.value
        return 2 * p * r / (p + r) if p + r else 0.0


def score(outcomes: Sequence[Outcome]) -> Score:
    """Returns the figures of runs."""
    records = [record for outcome in outcomes for record in outcome.records if record.requests]
    attackers = [record for record in records if record.actor.attacker]
    honest = [record for record in records if not record.actor.attacker]
    found = [record for record in attackers if record.flagged]
    wrong = [record for record in honest if record.flagged]
    days = sum(len([r for r in o.records if not r.actor.attacker]) * o.world.seconds / DAY for o in outcomes)
    waits = sorted(record.first_acted_at - record.began_at for record in found)
    undefended = sum(record.damage_undefended for record in attackers)
    bystanders = sum(outcome.bystanders_refused for outcome in outcomes)
    return Score(
        precision=Share(len(found), len(found) + len(wrong)),
        recall=Share(len(found), len(attackers)),
        by_cell=_cells(attackers),
        wrongly=_kinds(honest),
        per_thousand_days=1000 * len(wrong) / days if days else 0.0,
        refused_honest=Share(sum(r.refused for r in honest) + bystanders, sum(r.requests for r in honest)),
        seconds=(_quantile(waits, 0.5), _quantile(waits, 0.95)),
        damage_before=sum(record.damage_before for record in found) / undefended if undefended else 0.0,
        damage_kept=sum(record.damage for record in attackers) / undefended if undefended else 0.0,
        flaps=statistics.fmean(record.changes for record in found) if found else 0.0,
        events=sum(outcome.events for outcome in outcomes),
    )


def easy_recall(score: Score) -> Share:
    """Returns the recall of the naive and the distributed levels."""
    cells = [share for (_, level), share in score.by_cell.items() if level <= Level.DISTRIBUTED]
    return Share(sum(share.part for share in cells), sum(share.whole for share in cells))


def shuffled_precision(outcomes: Sequence[Outcome], seed: int = 0) -> tuple[float, float]:
    """Returns the precision after the labels were dealt out anew, and how common attackers are: alike, or the figures
    are no figures.
    """
    records = [record for outcome in outcomes for record in outcome.records if record.requests]
    labels = [record.actor.attacker for record in records]
    prevalence = sum(labels) / len(labels)
    chance = random.Random(seed)
    flagged = [record.flagged for record in records]
    if not any(flagged):
        return prevalence, prevalence
    rounds = []
    for _ in range(200):
        chance.shuffle(labels)
        rounds.append(sum(label for label, flag in zip(labels, flagged, strict=True) if flag) / sum(flagged))
    return statistics.fmean(rounds), prevalence


def calibration(pairs: Iterable[tuple[float, bool]], bins: int = 5) -> list[tuple[float, float, int]]:
    """Returns, for decisions in bins by their confidence, the mean confidence, the share that was right, the number."""
    kept: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for confidence, right in pairs:
        kept[min(bins - 1, int((confidence - 0.5) * 2 * bins))].append((confidence, right))
    return [
        (statistics.fmean(c for c, _ in found), statistics.fmean(r for _, r in found), len(found))
        for _, found in sorted(kept.items())
    ]


def _cells(attackers: Sequence[Record]) -> dict[tuple[str, int], Share]:
    kept: dict[tuple[str, int], list[bool]] = defaultdict(list)
    for record in attackers:
        kept[record.actor.kind, int(record.actor.level or 0)].append(record.flagged)
    return {cell: Share(sum(flags), len(flags)) for cell, flags in kept.items()}


def _kinds(honest: Sequence[Record]) -> dict[str, Share]:
    kept: dict[str, list[bool]] = defaultdict(list)
    for record in honest:
        kept[record.actor.kind].append(record.flagged)
    return {kind: Share(sum(flags), len(flags)) for kind, flags in kept.items()}


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
