"""Owns what gateways enforce: rules, lists and rate limits, as one version that is taken whole or not at all."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from uuid import UUID


class Mode(Enum):
    """Whether something counts."""

    OFF = "off"
    SHADOW = "shadow"
    """Evaluated and counted, never acted on."""
    ENFORCE = "enforce"


class Action(Enum):
    """What a rule does with the requests that it matches."""

    LOG = "log"
    TAG = "tag"
    """Adds its parameter to `tags`, which later rules read."""
    SKIP = "skip"
    """No later rule is looked at."""
    RATE = "rate"
    """Holds the request against the rate class that its parameter names, too."""
    CHALLENGE = "challenge"
    BLOCK = "block"


class ListKind(Enum):
    """What the entries of a list are."""

    NETWORKS = "networks"
    COUNTRIES = "countries"
    ASNS = "asns"
    USER_AGENTS = "user_agents"
    """Parts of a User-Agent header, in any case."""
    EMAIL_DOMAINS = "email_domains"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the firewall."""

    id: UUID
    name: str
    expression: str
    """CEL; docs/firewall.md lists the fields."""
    action: Action
    parameter: str = ""
    priority: int = 1000
    """Lower ones are looked at first; of equal ones the older."""
    mode: Mode = Mode.SHADOW
    expires_at: datetime | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class EntryList:
    """A list that rules name: `in_list(client.address, "office")`."""

    id: UUID
    name: str
    kind: ListKind
    allows: bool = False
    """Whoever is on it passes every rule and every verdict; rate limits count all the same."""
    entries: tuple[tuple[str, datetime | None], ...] = ()
    """Text and, where it has one, its end."""


@dataclass(frozen=True, slots=True)
class Quota:
    """How much a rate class gives to one key of it."""

    name: str
    """`read.person`; libs and docs list them."""
    amount: int
    """Units in the window, and the burst."""
    seconds: int
    mode: Mode = Mode.ENFORCE


@dataclass(frozen=True, slots=True)
class Override:
    """A quota of one account's own."""

    account: UUID
    quota: Quota
    expires_at: datetime | None = None


@dataclass(frozen=True)
class Bundle:
    """Everything of one version."""

    version: int = 0
    rules: tuple[Rule, ...] = ()
    lists: tuple[EntryList, ...] = ()
    quotas: tuple[Quota, ...] = ()
    """In place of the defaults of the same names."""
    overrides: tuple[Override, ...] = ()
    made_at: datetime | None = field(default=None, compare=False)
