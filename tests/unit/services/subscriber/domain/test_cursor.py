"""Cursors: what is written is read back, anything else is refused."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.errors import GatefoldError
from services.subscriber.domain import cursor


@given(st.datetimes(timezones=st.just(UTC)), st.uuids())
def test_a_readers_cursor_stands_where_it_was_put(at: datetime, subject: UUID) -> None:
    assert cursor.read_reader(cursor.after_reader(at, subject)) == (at, subject)


@given(st.integers(0, 2**63 - 1))
def test_a_lines_cursor_stands_where_it_was_put(line: int) -> None:
    assert cursor.read_line(cursor.after_line(line)) == line


def test_no_cursor_is_the_beginning() -> None:
    assert cursor.read_reader("") is None
    assert cursor.read_line("") == 0


@given(st.text(min_size=1, max_size=40))
def test_made_up_cursors_are_refused_or_understood_and_nothing_else(text: str) -> None:
    for read in (cursor.read_reader, cursor.read_line):
        try:
            read(text)
        except GatefoldError as error:
            if error.reason != "cursor_malformed":
                raise


@pytest.mark.parametrize(("limit", "size"), [(0, 20), (1, 1), (100, 100)])
def test_a_page_has_between_one_and_a_hundred(limit: int, size: int) -> None:
    assert cursor.page_limit(limit) == size
    for beyond in (-1, 101):
        with pytest.raises(GatefoldError):
            cursor.page_limit(beyond)
