"""Owns who reviews: of which account, and by which name."""

from dataclasses import dataclass
from uuid import UUID

from libs import caller
from libs.postgres import PLATFORM


@dataclass(frozen=True)
class Reviewer:
    """Somebody who works on cases of an account; of the platform's for operators."""

    account: UUID
    actor: str


def current() -> Reviewer:
    """Returns whoever makes the request being served."""
    who = caller.current()
    return Reviewer(who.account or PLATFORM, who.actor)
