"""Owns a verdict as it is kept: its life, its severity, and what makes two decisions the same one."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from uuid import UUID

from services.abuse.domain.detector import Action
from services.abuse.domain.finding import Measure, Scope
from services.abuse.domain.judge import Decision

REVIEW = "review"
"""What stands for a detector where people decided."""
OPENS_CASE = Action.BLOCK
"""Verdicts from this hardness on are looked at by people."""
_SHADOW_SHARE = 26
"""Of 256: so many verdicts that are only noted are looked at as well, or a detector in shadow could never be judged."""


class State(Enum):
    """Where a verdict stands."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"
    SUPERSEDED = "superseded"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is done about an entity, and why."""

    id: UUID
    key: bytes
    detector: str
    scope: Scope
    entity: bytes
    action: Action
    shadow: bool
    reasons: tuple[str, ...]
    confidence: float
    evidence: Mapping[str, Measure]
    rule_version: str
    strikes: int
    request_id: str
    decided_at: datetime
    expires_at: datetime
    state: State = State.ACTIVE
    revision: int = 1
    case: UUID | None = None
    appealed: bool = False

    @property
    def severity(self) -> int:
        """How grave it is, 0 (noted) to 4 (sessions end)."""
        return int(self.action)

    @property
    def opens_case(self) -> bool:
        """Whether people are to look at it."""
        return self.action >= OPENS_CASE and (not self.shadow or self.key[0] < _SHADOW_SHARE)


def detector_of(rule_version: str) -> str:
    """Returns the detector's name in `name@hash`."""
    return rule_version.partition("@")[0]


def decision_key(decision: Decision) -> bytes:
    """Returns what is the same whenever the same events are read again: account, entity, detector, time and action.

    Within a thousandth of a second a flood may climb several steps of a ladder: each is a decision of its own.
    """
    parts = (
        (decision.account or "").encode(),
        decision.scope.value.encode(),
        decision.entity,
        detector_of(decision.rule_version).encode(),
        decision.at.isoformat().encode(),
        decision.action.name.encode(),
    )
    return hashlib.sha256(b"\0".join(parts)).digest()[:16]


def request_key(request_id: str) -> UUID:
    """Returns by what a request is found again; ids of clients have any form."""
    return UUID(bytes=hashlib.sha256(request_id.encode("utf-8", "replace")).digest()[:16])
