"""Owns what is done about findings: ladder, blast radius, suppressions, strikes and hysteresis."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.abuse.domain.detector import Action, Detector
from services.abuse.domain.finding import Entity, Finding, Measure, Scope


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done about an entity."""

    scope: Scope
    entity: bytes
    account: str | None
    action: Action
    seconds: int
    """How long, from `at` on."""
    reasons: tuple[str, ...]
    confidence: float
    evidence: Mapping[str, Measure]
    """By `detector.signal`; `good_actors` where the blast radius made it milder."""
    rule_version: str
    shadow: bool
    at: datetime
    """Time of the event that led to it."""
    strikes: int
    """How often before, less what has been forgiven."""
    request_id: str


class Suppressions(Protocol):
    """What people said about entities."""

    def suppressed(self, entity: Entity, detector: str, at: datetime) -> bool:
        """Tells whether somebody said that this is legitimate, and it still holds."""
        ...


class Judge:
    """Turns findings into decisions; it has no clock but the findings' own times."""

    def __init__(self, detectors: Iterable[Detector], suppressions: Suppressions) -> None:
        self._detectors = {detector.name: detector for detector in detectors}
        self._suppressions = suppressions

    def decide(self, findings: Iterable[Finding], known: Mapping[Entity, int]) -> list[Decision]:
        """Returns what is new to be done. `known` says how many good actors were seen lately at an address, network,
        device or user agent, as `Engine.known` tells; what it does not name has none.
        """
        raise NotImplementedError

    def forgive(self, entity: Entity) -> None:
        """Forgets an entity's verdicts and strikes: somebody said that it is legitimate."""
        raise NotImplementedError

    def snapshot(self) -> bytes:
        """Returns all strikes and verdicts in force."""
        raise NotImplementedError

    def restore(self, snapshot: bytes) -> None:
        """Takes up where a snapshot was made. Raises ValueError for anything else."""
        raise NotImplementedError
