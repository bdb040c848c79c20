"""Owns what a staff directory may make of a team: which roles it gives, and to whom."""

from services.auth.domain import roles

GIVEN = roles.READ_ONLY
"""The role of whoever gets none named, and of whoever loses theirs."""

MOST_MEMBERS = 5_000
"""A team that a directory can keep; each list reads all of it."""


def may_give(before: str | None, after: str) -> bool:
    """Tells whether a directory may give a role: owners are made and unmade by owners alone.

    So a directory, or a stolen key of one, never takes an account over.
    """
    return after in roles.ROLES and (before == after or roles.OWNER not in (before, after))
