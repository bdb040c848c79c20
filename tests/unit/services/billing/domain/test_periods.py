"""Shows that periods are computed from the anchor alone and cover time without gap or overlap."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.errors import GatefoldError
from services.billing.domain.periods import Interval, LeapPolicy, Schedule, days_later

ZONES = ("UTC", "Europe/Paris", "America/Juneau", "Australia/Lord_Howe", "America/Havana", "Asia/Kolkata")

zones = st.sampled_from(ZONES)
anchors = st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
schedules = st.builds(
    Schedule,
    anchor=anchors,
    zone=zones,
    interval=st.sampled_from(Interval),
    count=st.integers(1, 13),
    leap=st.sampled_from(LeapPolicy),
)


def local_days(schedule: Schedule, numbers: range) -> list[date]:
    """The local days on which the periods with these numbers end."""
    return [schedule.period(number).end.astimezone(ZoneInfo(schedule.zone)).date() for number in numbers]


@pytest.mark.case("billing-1")
def test_month_end_anchor_returns_to_the_31st_after_short_months() -> None:
    schedule = Schedule(datetime(2023, 1, 31, 12, tzinfo=UTC), "UTC", Interval.MONTH)
    ends = local_days(schedule, range(1, 49))
    assert ends[:4] == [date(2023, 2, 28), date(2023, 3, 31), date(2023, 4, 30), date(2023, 5, 31)]
    assert date(2024, 2, 29) in ends
    assert ends[47] == date(2027, 1, 31)
    assert len({(day.year, day.month) for day in ends}) == 48


@pytest.mark.case("billing-1")
@given(day=st.integers(29, 31), month=st.sampled_from((1, 3, 5, 7, 8, 10, 12)), zone=zones)
def test_a_month_end_anchor_never_drifts(day: int, month: int, zone: str) -> None:
    anchor = datetime(2024, month, day, 12, tzinfo=ZoneInfo(zone))
    schedule = Schedule(anchor, zone, Interval.MONTH)
    for end in local_days(schedule, range(1, 49)):
        following = end + timedelta(days=1)
        assert end.day == day or following.month != end.month


@pytest.mark.case("billing-2")
@pytest.mark.parametrize(
    ("leap", "expected"),
    [
        (LeapPolicy.RETURN, [(2025, 2, 28), (2026, 2, 28), (2027, 2, 28), (2028, 2, 29)]),
        (LeapPolicy.STAY, [(2025, 2, 28), (2026, 2, 28), (2027, 2, 28), (2028, 2, 28)]),
    ],
)
def test_leap_day_anchor_follows_the_policy(leap: LeapPolicy, expected: list[tuple[int, int, int]]) -> None:
    schedule = Schedule(datetime(2024, 2, 29, 9, tzinfo=UTC), "UTC", Interval.YEAR, leap=leap)
    assert local_days(schedule, range(1, 5)) == [date(*each) for each in expected]


@pytest.mark.case("billing-2")
@given(year=st.sampled_from((2020, 2024, 2028)), hour=st.integers(0, 23), zone=zones)
def test_a_yearly_leap_anchor_is_always_in_february(year: int, hour: int, zone: str) -> None:
    schedule = Schedule(datetime(year, 2, 29, hour, tzinfo=ZoneInfo(zone)), zone, Interval.YEAR)
    assert {day.month for day in local_days(schedule, range(1, 13))} == {2}


@pytest.mark.case("billing-3")
def test_monthly_periods_follow_one_another() -> None:
    schedule = Schedule(datetime(2026, 1, 31, tzinfo=UTC), "UTC", Interval.MONTH)
    assert schedule.period(1).end == schedule.period(2).start == datetime(2026, 2, 28, tzinfo=UTC)


@pytest.mark.case("billing-3")
@settings(max_examples=200)
@given(schedule=schedules, number=st.integers(1, 60))
def test_periods_tile_time_and_the_nth_needs_no_other(schedule: Schedule, number: int) -> None:
    one, following = schedule.period(number), schedule.period(number + 1)
    assert one.start < one.end == following.start < following.end
    # Stepping there through a schedule whose first periods were computed before gives the same.
    assert [schedule.period(each) for each in range(1, number + 1)][-1] == one
    assert schedule.period(1).start == schedule.anchor


@pytest.mark.case("billing-4")
@pytest.mark.parametrize("zone", ["America/Juneau", "Europe/Paris", "Australia/Lord_Howe", "America/Havana"])
def test_local_midnight_renews_once_every_local_day_through_both_shifts(zone: str) -> None:
    schedule = Schedule(datetime(2026, 1, 1, tzinfo=ZoneInfo(zone)), zone, Interval.DAY)
    days = local_days(schedule, range(1, 366))
    assert days == [date(2026, 1, 1) + timedelta(days=each) for each in range(1, 366)]


@pytest.mark.case("billing-4")
@given(
    zone=zones, hour=st.integers(0, 23), minute=st.integers(0, 59), start=st.dates(date(2024, 1, 1), date(2030, 1, 1))
)
def test_daily_renewals_fall_on_each_local_day_exactly_once(zone: str, hour: int, minute: int, start: date) -> None:
    anchor = datetime(start.year, start.month, start.day, hour, minute, tzinfo=ZoneInfo(zone)).astimezone(UTC)
    schedule = Schedule(anchor, zone, Interval.DAY)
    first = anchor.astimezone(ZoneInfo(zone)).date()
    days = local_days(schedule, range(1, 200))
    assert days == [first + timedelta(days=each) for each in range(1, 200)]


def test_a_skipped_local_time_is_read_with_the_offset_before_the_gap() -> None:
    schedule = Schedule(datetime(2026, 3, 28, 2, 30, tzinfo=ZoneInfo("Europe/Paris")), "Europe/Paris", Interval.DAY)
    assert schedule.period(1).end == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)


def test_a_repeated_local_time_is_its_first_occurrence() -> None:
    schedule = Schedule(datetime(2026, 10, 24, 2, 30, tzinfo=ZoneInfo("Europe/Paris")), "Europe/Paris", Interval.DAY)
    assert schedule.period(1).end == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


def test_a_trial_is_the_first_period_and_ends_at_the_anchor() -> None:
    start = datetime(2026, 1, 17, 8, tzinfo=UTC)
    schedule = Schedule(days_later(start, 14, "UTC"), "UTC", Interval.MONTH, trial_start=start)
    assert (schedule.period(1).start, schedule.period(1).end) == (start, datetime(2026, 1, 31, 8, tzinfo=UTC))
    assert schedule.period(2).end == datetime(2026, 2, 28, 8, tzinfo=UTC)
    assert schedule.period(3).end == datetime(2026, 3, 31, 8, tzinfo=UTC)


def test_trial_days_are_local_days() -> None:
    start = datetime(2026, 3, 28, 12, tzinfo=ZoneInfo("Europe/Paris"))
    assert days_later(start, 1, "Europe/Paris") - start.astimezone(UTC) == timedelta(hours=23)


def test_an_unknown_time_zone_is_refused() -> None:
    with pytest.raises(GatefoldError, match="time_zone_unknown"):
        Schedule(datetime(2026, 1, 1, tzinfo=UTC), "Mars/Olympus", Interval.DAY)


@pytest.mark.parametrize("number", [0, -1])
def test_there_is_no_period_before_the_first(number: int) -> None:
    with pytest.raises(ValueError, match="numbered from 1"):
        Schedule(datetime(2026, 1, 1, tzinfo=UTC), "UTC", Interval.DAY).period(number)
