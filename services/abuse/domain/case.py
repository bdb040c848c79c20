"""Owns cases: what people look at, who holds one, what may be done about it, and by how many."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from uuid import UUID

from libs import errors
from services.abuse.domain.finding import Scope

CLAIM = timedelta(minutes=30)
SUPPRESSED = timedelta(days=30)
"""How long a detector keeps from what people said is legitimate."""
LIFTED = timedelta(hours=24)
"""How long nothing is done about what was lifted without saying why."""
APPROVAL = timedelta(hours=24)
"""How long an action waits for a second person."""
KNOWN_ABUSE = timedelta(days=7)
"""New verdicts about what was judged abuse so lately open no new case."""
LONG_BLOCK_SECONDS = 7 * 86_400
LONGEST_NOTE = 500
_PERSONAL = re.compile(
    r"[^\s@]+@[^\s@]+\.[^\s@]+"  # an e-mail address
    r"|\b\d{1,3}(?:\.\d{1,3}){3}\b|\b(?:[0-9a-f]{1,4}:){3,}[0-9a-f:]*"  # an IP address
    r"|\+?\d(?:[ ()/.-]?\d){8,}",  # a telephone or card number
    re.IGNORECASE,
)


class CaseState(Enum):
    """Where a case stands."""

    OPEN = "open"
    DECIDED = "decided"


class Origin(Enum):
    """Why a case was opened."""

    VERDICT = "verdict"
    APPEAL = "appeal"
    AUDIT = "audit"


class Judgement(Enum):
    """What people say a case is."""

    ABUSE = "abuse"
    LEGIT = "legit"
    UNSURE = "unsure"


class ActionKind(Enum):
    """What can be done about a case's entity."""

    LIFT = "lift"
    EXTEND = "extend"
    BLOCK = "block"
    REVOKE = "revoke"


class ActionState(Enum):
    """Where an action stands."""

    WAITING = "waiting"
    DONE = "done"
    UNDONE = "undone"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which cases are asked for: all that fit everything which is said."""

    state: CaseState | None = None
    severity: int = 0
    """At least."""
    scope: str = ""
    reason: str = ""
    detector: str = ""
    origin: Origin | None = None


ALL = Wanted()


@dataclass(frozen=True, kw_only=True)
class Case:
    """A case."""

    id: UUID
    origin: Origin
    severity: int
    scope: Scope
    entity: bytes
    reasons: tuple[str, ...]
    detectors: tuple[str, ...]
    confidence: float
    opened_at: datetime
    updated_at: datetime
    state: CaseState = CaseState.OPEN
    audit_turn: int | None = None
    appealed_at: datetime | None = None
    claimed_by: str | None = None
    claimed_until: datetime | None = None
    judgement: Judgement | None = None
    judged_confidence: float | None = None
    note: str = ""
    decided_by: str | None = None
    decided_at: datetime | None = None
    sequence: int = 0

    def holder(self, now: datetime) -> str | None:
        """Returns who holds it now."""
        return self.claimed_by if self.claimed_until is not None and self.claimed_until > now else None

    def check_free(self, actor: str, now: datetime) -> None:
        """Raises `conflict("case_claimed")` while somebody else holds it."""
        if self.holder(now) not in (None, actor):
            raise errors.conflict("case_claimed", "Somebody else is working on this case.")

    def check_open(self) -> None:
        """Raises `precondition("case_decided")` for one that is decided."""
        if self.state is not CaseState.OPEN:
            raise errors.precondition("case_decided", "This case is decided.")


@dataclass(frozen=True, kw_only=True)
class CaseAction:
    """Something that was done about a case, or is to be."""

    id: UUID
    case: UUID
    kind: ActionKind
    state: ActionState
    seconds: int
    four_eyes: bool
    requested_by: str
    requested_at: datetime
    approved_by: str | None = None
    approved_at: datetime | None = None
    verdicts: tuple[UUID, ...] = ()
    former_expiries: tuple[datetime, ...] = ()


@dataclass(frozen=True)
class Step:
    """Something that happened to a case."""

    kind: str
    actor: str
    detail: str
    at: datetime


def check_note(note: str) -> None:
    """Raises `invalid("note_too_long")`, and `invalid("note_personal")` for one with an address or a number of a person
    in it.
    """
    if len(note) > LONGEST_NOTE:
        raise errors.invalid("note_too_long", f"A note has at most {LONGEST_NOTE} characters.", field="note")
    if _PERSONAL.search(note):
        raise errors.invalid("note_personal", "Leave addresses and numbers of people out of the note.", field="note")


def check_action(kind: ActionKind, scope: Scope, seconds: int) -> None:
    """Raises `invalid("action_seconds")` without a duration where one is needed, and `invalid("action_scope")` where
    there is nothing to end.
    """
    if kind is not ActionKind.LIFT and seconds < 1:
        raise errors.invalid("action_seconds", "Say for how long.", field="seconds")
    if kind is ActionKind.REVOKE and scope not in (Scope.ACTOR, Scope.SESSION, Scope.TARGET):
        raise errors.invalid("action_scope", "Only sessions and keys of somebody can be ended.", field="kind")


def needs_four_eyes(kind: ActionKind, seconds: int) -> bool:
    """Whether a second person has to agree."""
    return kind is ActionKind.REVOKE or (kind in (ActionKind.BLOCK, ActionKind.EXTEND) and seconds > LONG_BLOCK_SECONDS)
