"""Owns cursors of what is listed by transaction, so that nothing appears later before what was listed already."""

import re

from libs import errors

Place = tuple[int, int]
"""A transaction of PostgreSQL (xid8), and a position within what its table holds."""

_CURSOR = re.compile(r"(\d{1,20})\.(\d{1,19})")


def place_of(cursor: str) -> Place:
    """Returns where a cursor stands, an empty one at the beginning; raises `invalid("cursor_malformed")`."""
    if not cursor:
        return 0, 0
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise errors.invalid("cursor_malformed", "The cursor is not one of this service's.", field="cursor")
    return int(match[1]), int(match[2])


def cursor_of(place: Place) -> str:
    """Returns the cursor that stands there."""
    return f"{place[0]}.{place[1]}"
