"""A cursor says where somebody stands in what is listed by transaction, and nothing else is one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.errors import GatefoldError
from libs.events.place import cursor_of, place_of


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**63 - 1))
def test_a_place_is_found_again(xid: int, position: int) -> None:
    assert place_of(cursor_of((xid, position))) == (xid, position)


def test_without_a_cursor_one_stands_at_the_beginning() -> None:
    assert place_of("") == (0, 0)


@pytest.mark.parametrize("cursor", ["1", "1.", ".1", "-1.1", "1.1.1", "1.1 ", "x.y", "1" * 21 + ".1", "1." + "1" * 20])
def test_anything_else_is_refused(cursor: str) -> None:
    with pytest.raises(GatefoldError, match="cursor_malformed"):
        place_of(cursor)
