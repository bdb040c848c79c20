"""Owns how lists are paged: newest first, by the identifier of the last item."""

from collections.abc import Sequence
from typing import TypeVar
from uuid import UUID

from libs import ids
from services.auth.repository import NEWEST

T = TypeVar("T")

DEFAULT_LIMIT = 20
MOST = 100


def size(limit: int) -> int:
    """Returns how many items a page has."""
    return min(limit, MOST) if limit > 0 else DEFAULT_LIMIT


def before(prefix: str, cursor: str) -> UUID:
    """Returns the identifier that a page starts below; raises `invalid("id_malformed")` for a foreign cursor."""
    return ids.decode(prefix, cursor, field="cursor") if cursor else NEWEST


def cut(found: Sequence[T], limit: int) -> tuple[Sequence[T], T | None]:
    """Returns a page of what was read (one more than asked for), and its last item when there is another page."""
    page = found[:limit]
    return page, page[-1] if len(found) > limit else None
