"""Owns an import's states and the counts that must add up."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

STATES = ("receiving", "queued", "running", "done", "failed")

MOST_PROBLEMS = 10_000
"""Problems kept for listing; the counts go on."""

DEFAULT_COMPLIMENTARY_FEATURE = "premium"


@dataclass(frozen=True)
class Counts:
    """What became of the records looked at so far."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    duplicates: int = 0
    refused: int = 0
    refused_by_reason: Mapping[str, int] = field(default_factory=dict)

    @property
    def looked_at(self) -> int:
        """Records looked at."""
        return self.created + self.updated + self.unchanged + self.duplicates + self.refused

    def plus(self, other: "Counts") -> "Counts":
        """Returns the sum."""
        reasons = dict(self.refused_by_reason)
        for reason, count in other.refused_by_reason.items():
            reasons[reason] = reasons.get(reason, 0) + count
        return Counts(
            self.created + other.created,
            self.updated + other.updated,
            self.unchanged + other.unchanged,
            self.duplicates + other.duplicates,
            self.refused + other.refused,
            reasons,
        )


@dataclass(frozen=True)
class ImportJob:
    """One import as its row tells it."""

    id: UUID
    state: str
    total: int
    counts: Counts
    ignored_columns: tuple[str, ...]
    complimentary_feature: str
    failure: str
    created_at: datetime
    finished_at: datetime | None

    def advanced(self, more: Counts, at: datetime) -> "ImportJob":
        """Returns the job after further records; it is done once all were looked at."""
        counts = self.counts.plus(more)
        if counts.looked_at < self.total:
            return replace(self, counts=counts)
        return replace(self, counts=counts, state="done", finished_at=at)
