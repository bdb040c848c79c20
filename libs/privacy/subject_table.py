"""Owns what a service says about its tables that hold a person's rows: how they are found, and how they end."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

RetainUntil = Callable[[datetime], datetime]


@dataclass(frozen=True)
class Via:
    """Leads from a table without a subject column to the one that has it: `column` names a row of `table.key`."""

    column: str
    table: str
    key: str = "id"


@dataclass(frozen=True)
class SubjectTable:
    """A table with rows of subjects. Tables are erased in the order they are given: children first.

    `number` is stable and never used twice: what is sealed in the table is bound to it. `row_column` is the uuid that
    sealed values are bound to. `anonymise` empties the columns marked as personal, except key columns and the subject
    column. `retain` keeps rows for `retain_reason` until `retain_until` of the newest row's `retain_from`.
    """

    name: str
    number: int
    subject_column: str = "subject_id"
    erase: Literal["delete", "anonymise", "retain"] = "delete"
    retain_reason: str = ""
    retain_until: RetainUntil | None = None
    retain_from: str = "created_at"
    row_column: str = "id"
    via: Via | None = None

    def __post_init__(self) -> None:
        if self.number < 1:
            raise ValueError(f"{self.name}: table numbers start at 1")
        if (self.erase == "retain") != bool(self.retain_reason and self.retain_until):
            raise ValueError(f"{self.name}: a retained table, and no other, has a reason and an end")


def years_after_year_end(years: int) -> RetainUntil:
    """Returns the rule of most tax laws: so many years from the end of the calendar year."""

    def until(newest: datetime) -> datetime:
        return datetime(newest.astimezone(UTC).year + years + 1, 1, 1, tzinfo=UTC)

    return until
