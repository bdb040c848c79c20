"""Owns how often people agree with a detector, and when it is no longer acted on."""

import math
from dataclasses import dataclass

LEAST_LABELS = 20
LEAST_PRECISION = 0.8
"""A detector whose precision is below this with 97.5 % certainty errs too often to be acted on."""
_Z = 1.959964


@dataclass(frozen=True)
class Precision:
    """Labels of a detector's verdicts."""

    abuse: int
    legit: int

    @property
    def labels(self) -> int:
        """How many there are."""
        return self.abuse + self.legit

    @property
    def value(self) -> float:
        """Share of abuse; 0 without labels."""
        return self.abuse / self.labels if self.labels else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The Wilson score interval at 95 % (Wilson 1927); all of 0 to 1 without labels."""
        n = self.labels
        if not n:
            return 0.0, 1.0
        share, square = self.value, _Z * _Z
        middle = share + square / (2 * n)
        spread = _Z * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
        scale = 1 + square / n
        return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)

    @property
    def errs(self) -> bool:
        """Whether it is to be demoted to shadow."""
        return self.labels >= LEAST_LABELS and self.interval[1] < LEAST_PRECISION
