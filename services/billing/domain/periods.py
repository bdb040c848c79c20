"""Owns billing periods: every boundary is computed from the stored anchor, never from the period before it."""

from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import Enum
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from libs import errors


class Interval(Enum):
    """Unit in which a plan's periods are counted."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    YEAR = "year"


class LeapPolicy(Enum):
    """Where a yearly anniversary of 29 February falls once it has been on the 28th."""

    RETURN = "return"
    """28 February in common years, 29 February again in leap years."""
    STAY = "stay"
    """28 February in every year after the first."""


@dataclass(frozen=True)
class Period:
    """A half-open stretch of time, [start, end)."""

    start: datetime
    end: datetime


@dataclass(frozen=True)
class Schedule:
    """When a subscription's periods begin and end.

    The local calendar of `zone` counts: a period ends at the anchor's local time of day, on the anchor's day of the
    month or, in a shorter month, on its last day. A local time that a shift of the clocks skips is read with the
    offset before the shift (so it lands as far behind the gap as it lay in it); one that occurs twice is its first
    occurrence. `trial_days` puts one period of that many local days, number 1, before the anchor.
    """

    anchor: datetime
    """Beginning of the first paid period; with a time zone."""
    zone: str
    interval: Interval
    count: int = 1
    trial_start: datetime | None = None
    leap: LeapPolicy = LeapPolicy.RETURN

    def __post_init__(self) -> None:
        if self.anchor.tzinfo is None or (self.trial_start is not None and self.trial_start.tzinfo is None):
            raise ValueError("a schedule needs times with a time zone")
        if self.count < 1:
            raise errors.invalid(
                "interval_count_invalid", "A period has at least one interval.", field="interval_count"
            )
        zone_of(self.zone)

    def period(self, number: int) -> Period:
        """Returns the period with this number, from 1; computed directly from the anchor."""
        if number < 1:
            raise ValueError("periods are numbered from 1")
        if self.trial_start is not None:
            if number == 1:
                return Period(self.trial_start.astimezone(UTC), self.anchor.astimezone(UTC))
            number -= 1
        return Period(self._boundary(number - 1), self._boundary(number))

    def _boundary(self, steps: int) -> datetime:
        if steps == 0:
            return self.anchor.astimezone(UTC)
        zone = zone_of(self.zone)
        local = self.anchor.astimezone(zone)
        day = _add(local.date(), self.interval, self.count * steps, self.leap)
        return _instant(day, local.time().replace(fold=0), zone)


def zone_of(name: str) -> ZoneInfo:
    """Returns the IANA time zone; raises `invalid("time_zone_unknown")`."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise errors.invalid("time_zone_unknown", "This must be an IANA time zone.", field="time_zone") from None


def days_later(start: datetime, days: int, zone: str) -> datetime:
    """Returns the same local time of day that many local days later, in UTC."""
    local = start.astimezone(zone_of(zone))
    return _instant(local.date() + timedelta(days=days), local.time().replace(fold=0), zone_of(zone))


def _instant(day: date, at: time, zone: ZoneInfo) -> datetime:
    # fold=0 is the rule of both cases (PEP 495): the offset before a gap, and the first of two occurrences.
    return datetime.combine(day, at, zone).astimezone(UTC)


def _add(day: date, interval: Interval, count: int, leap: LeapPolicy) -> date:
    match interval:
        case Interval.DAY:
            return day + timedelta(days=count)
        case Interval.WEEK:
            return day + timedelta(weeks=count)
        case Interval.MONTH:
            return _add_months(day, count)
        case Interval.YEAR:
            if leap is LeapPolicy.STAY and (day.month, day.day) == (2, 29):
                return date(day.year + count, 2, 28)
            return _add_months(day, 12 * count)


def _add_months(day: date, months: int) -> date:
    years, month0 = divmod(day.month - 1 + months, 12)
    year = day.year + years
    return date(year, month0 + 1, min(day.day, monthrange(year, month0 + 1)[1]))
