"""Owns what the register of rules knows beyond what is enforced: who answers, when, and in which version."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from libs import errors
from services.gateway.domain.bundle import Action, EntryList, Override, Quota, Rule

MOST_RULES = 500
MOST_LISTS = 200
MOST_ENTRIES_TOGETHER = 500_000
"""Of all lists: every gateway holds them in memory."""
MOST_OVERRIDES = 10_000
KEPT_VERSIONS = 300
"""So many newest versions can be brought back."""
USUAL_PRIORITY = 1000


@dataclass(frozen=True)
class HeldRule:
    """A rule."""

    rule: Rule
    owner: str
    created_at: datetime
    changed_in: int


@dataclass(frozen=True)
class HeldList:
    """A list; its entries lie apart, under their digest."""

    list: EntryList
    description: str
    size: int
    digest: bytes
    created_at: datetime
    changed_in: int


@dataclass(frozen=True)
class HeldQuota:
    """A quota in place of its default."""

    quota: Quota
    changed_in: int


@dataclass(frozen=True)
class HeldOverride:
    """An account's own quota."""

    override: Override
    changed_in: int


@dataclass(frozen=True)
class Contents:
    """All that one version holds, but for the entries of its lists."""

    rules: tuple[HeldRule, ...] = ()
    lists: tuple[HeldList, ...] = ()
    quotas: tuple[HeldQuota, ...] = ()
    overrides: tuple[HeldOverride, ...] = ()


@dataclass(frozen=True)
class Version:
    """What is remembered of a version."""

    number: int
    made_at: datetime
    made_by: str
    change: str
    about: str
    restored_from: int | None
    digest: bytes
    kept: bool


@dataclass(frozen=True)
class Identity:
    """Which version somebody holds: its number alone says too little after a database was restored."""

    lineage: UUID | None = None
    version: int = 0
    digest: bytes = b""


@dataclass(frozen=True)
class Hits:
    """How often a rule matched."""

    enforced: int = 0
    shadow: int = 0
    failed: int = 0
    """Times that its expression could not be evaluated, which counts as no match."""

    def __add__(self, other: "Hits") -> "Hits":
        return Hits(self.enforced + other.enforced, self.shadow + other.shadow, self.failed + other.failed)


HitCounts = Mapping[UUID, Hits]


def check_parameter(action: Action, parameter: str) -> None:
    """Raises `invalid("rule_parameter")` where an action lacks its parameter, or has one that it has no use for."""
    needed = action in (Action.TAG, Action.RATE)
    if needed and not parameter:
        raise errors.invalid("rule_parameter", f"The action {action.value} needs a parameter.", field="parameter")
    if parameter and not needed:
        raise errors.invalid("rule_parameter", f"The action {action.value} takes no parameter.", field="parameter")
