"""Owns what a staff directory may make of a team: which roles it gives, and to whom; what it asks and is told."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.auth.domain import roles

GIVEN = roles.READ_ONLY
"""The role of whoever gets none named, and of whoever loses theirs."""

MOST_MEMBERS = 5_000
"""A team that a directory can keep; each list reads all of it."""


@dataclass(frozen=True)
class Standing:
    """A member, as a directory sees them; holds personal data."""

    id: str
    email: str
    role: str
    active: bool
    created_at: datetime
    updated_at: datetime
    said: dict[str, Any]
    """Attributes that the directory gave."""


@dataclass(frozen=True)
class Document:
    """An answer."""

    body: bytes
    etag: str = ""
    location: str = ""


@dataclass(frozen=True)
class Query:
    """Which resources to list."""

    filter: str
    sort_by: str
    sort_order: str
    start_index: int
    count: int | None
    attributes: str
    excluded_attributes: str


def may_give(before: str | None, after: str) -> bool:
    """Tells whether a directory may give a role: owners are made and unmade by owners alone.

    So a directory, or a stolen key of one, never takes an account over.
    """
    return after in roles.ROLES and (before == after or roles.OWNER not in (before, after))
