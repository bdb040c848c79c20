"""What a service says about its tables of persons' rows."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from libs.privacy import SubjectTable, years_after_year_end


def test_ten_years_count_from_the_end_of_the_year() -> None:
    until = years_after_year_end(10)
    assert until(datetime(2026, 1, 1, tzinfo=UTC)) == datetime(2037, 1, 1, tzinfo=UTC)
    assert until(datetime(2026, 12, 31, 23, 59, tzinfo=UTC)) == datetime(2037, 1, 1, tzinfo=UTC)


def test_the_year_is_that_of_the_moment_in_utc() -> None:
    new_year_in_the_east = datetime(2027, 1, 1, 2, tzinfo=timezone(timedelta(hours=9)))
    assert years_after_year_end(1)(new_year_in_the_east) == datetime(2028, 1, 1, tzinfo=UTC)


def test_keeping_rows_needs_a_reason_and_an_end() -> None:
    with pytest.raises(ValueError, match="a reason and an end"):
        SubjectTable("invoice", 301, erase="retain")
    with pytest.raises(ValueError, match="a reason and an end"):
        SubjectTable("invoice", 301, erase="retain", retain_reason="tax_law")
    with pytest.raises(ValueError, match="a reason and an end"):
        SubjectTable("note", 301, retain_reason="tax_law", retain_until=years_after_year_end(10))


def test_table_numbers_start_at_one() -> None:
    with pytest.raises(ValueError, match="start at 1"):
        SubjectTable("note", 0)
