"""Owns the small conversions between rows and domain values that every repository needs."""

from uuid import UUID

from libs import errors, ids
from libs.money import Money
from libs.postgres import Record


def money(row: Record, column: str = "amount_minor") -> Money:
    """Returns the amount in a column of a row that names its currency."""
    return Money(row[column], row["currency"])


def before(prefix: str, cursor: str) -> UUID | None:
    """Returns the id that a page of older rows starts after; None for the first page.

    Raises `invalid("cursor_malformed")`.
    """
    if not cursor:
        return None
    try:
        return ids.decode(prefix, cursor, field="cursor")
    except errors.GatefoldError:
        raise errors.invalid("cursor_malformed", "Give the `next_cursor` of a page.", field="cursor") from None


def page_size(limit: int) -> int:
    """Returns how many rows a page holds; raises `invalid("limit_invalid")` outside of 0 to 100."""
    if not 0 <= limit <= 100:
        raise errors.invalid("limit_invalid", "A page has 1 to 100 rows.", field="limit")
    return limit or 20
