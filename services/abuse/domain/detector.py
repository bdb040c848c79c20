"""Owns what a detector is as data: what it looks at, what it counts, and what follows."""

import math
from dataclasses import dataclass
from enum import Enum, IntEnum

from services.abuse.domain.finding import Scope


class Action(IntEnum):
    """What is done about an entity, from the mildest."""

    TAG = 0
    """Noted for people and for rules; nothing is enforced and no verdict travels."""
    CHALLENGE = 1
    """A proof is asked for: at the edge a computation, at sign-in a second factor."""
    THROTTLE = 2
    BLOCK = 3
    REVOKE = 4
    """The key or the sessions end."""


class Mode(Enum):
    """Whether a detector counts."""

    OFF = "off"
    SHADOW = "shadow"
    ENFORCE = "enforce"


class SignalKind(Enum):
    """How a signal makes a number of events."""

    COUNT = "count"
    """Events of the key in the sliding window."""
    SUM = "sum"
    """Sum of a number of the events, in the window."""
    DISTINCT = "distinct"
    """Different values of `of` in the window, by HyperLogLog."""
    RATIO = "ratio"
    """One signal over another."""
    AGE = "age"
    """Seconds since the key was first seen."""
    TRAVEL = "travel"
    """Speed in km/h between the places of two events of the key that follow each other."""
    SURPRISE = "surprise"
    """Standard deviations above what this hour of the week is used to, of the key."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What a field must be: one of some values, none of them, within a range, or there at all."""

    field: str
    values: tuple[str | int, ...] = ()
    negated: bool = False
    least: int | None = None
    most: int | None = None
    present: bool | None = None


@dataclass(frozen=True, slots=True)
class Given:
    """What another signal's value must be at an event."""

    signal: "Signal"
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True, slots=True)
class Signal:
    """One number that is kept for every key."""

    name: str
    kind: SignalKind
    key: tuple[str, ...] = ()
    """Fields that together are counted; an event that lacks one is not counted. Empty for ratios."""
    where: tuple[Condition, ...] = ()
    """Which of the detector's events are counted; all of them can read it."""
    given: tuple[Given, ...] = ()
    """What other signals must say of an event for it to be counted: pages that few read, readers of long standing."""
    window_seconds: int = 0
    of: str = ""
    """Field that is counted or summed; for ratios the signal above the line."""
    over: str = ""
    """The signal below the line."""
    least: float = 0.0
    """Value below the line under which a ratio is 0, and counts in a window under which nothing is a surprise."""
    precision: int = 7
    """Two to this are the registers of HyperLogLog; the error is about 1.04 / √registers."""
    steps: tuple[tuple[float, float], ...] = ()
    """(threshold, log-odds): the last threshold that the value reaches counts."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One step of the ladder: taken from this confidence and so many strikes on."""

    action: Action
    confidence: float
    strikes: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Detector:
    """One detector, as its file says."""

    name: str
    family: str
    """Reason that verdicts give, for example `credential_stuffing`."""
    title: str
    sees: str
    """What it sees, in words."""
    scope: Scope
    per_account: bool
    """Whether an entity is another one in each account."""
    mode: Mode
    events: tuple[str, ...]
    """Names of events; the empty one is a request."""
    where: tuple[Condition, ...]
    signals: tuple[Signal, ...]
    prior: float
    """Log-odds before any signal spoke."""
    ladder: tuple[Rung, ...]
    slots: int
    """Keys that each of its tables holds before the coldest make room."""
    version: str

    @property
    def most(self) -> Action:
        """The hardest that it may ever do."""
        return max(rung.action for rung in self.ladder)

    @property
    def threshold(self) -> float:
        """Score from which on it speaks."""
        least = min(rung.confidence for rung in self.ladder)
        return math.log(least / (1 - least))


def confidence_of(score: float) -> float:
    """Returns the probability that log-odds stand for."""
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, score))))
