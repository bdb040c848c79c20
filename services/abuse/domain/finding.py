"""Owns findings: what a detector saw about one entity, with the figures that made it say so."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum


class Scope(Enum):
    """What an entity is; as in `Verdict.scope`."""

    ADDRESS = "address"
    NETWORK = "network"
    ACTOR = "actor"
    TARGET = "target"
    DEVICE = "device"
    SESSION = "session"
    USER_AGENT = "user_agent"


@dataclass(frozen=True, slots=True)
class Entity:
    """One entity, of one account or, with `account` None, of the platform."""

    scope: Scope
    hash: bytes
    """Keyed hash as in Activity."""
    account: str | None = None
    """`acct_…`."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A signal's value beside the threshold that it passed."""

    value: float
    threshold: float
    weight: float
    """Log-odds that it added."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one detector says about one entity at one event."""

    detector: str
    account: str | None
    """`acct_…`; None where the detector looks at the whole platform."""
    scope: Scope
    entity_hash: bytes
    score: float
    """Log-odds that this is abuse: the detector's prior and what each signal added."""
    confidence: float
    """The same from 0 to 1."""
    reasons: tuple[str, ...]
    """Stable: the detector's reason, then the signals that spoke for it, the loudest first."""
    evidence: Mapping[str, Measure]
    at: datetime
    """Time of the event (UTC), never the clock's."""
    request_id: str
    """The event's, to begin a look at it."""
    rule_version: str
    """Detector and hash of what it says, overrides included."""
    shadow: bool
    """Whether the detector is only being tried."""

    @property
    def entity(self) -> Entity:
        """What it is about."""
        return Entity(self.scope, self.entity_hash, self.account)
