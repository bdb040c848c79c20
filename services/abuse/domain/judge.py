"""Owns what is done about findings: ladder, blast radius, suppressions, strikes and hysteresis."""

import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Protocol

from services.abuse.domain.detector import Action, Detector, Rung, confidence_of
from services.abuse.domain.finding import Entity, Finding, Measure, Scope

MOST_ENTITIES = 100_000
HEARD_FOR = timedelta(hours=1)
"""So long what one detector said counts for what another says about the same entity."""
ECHO = 0.5
"""Detectors of one entity see partly the same events, so that a second one's log-odds count half."""
FORGIVEN_AFTER = timedelta(days=7)
"""One strike is forgotten for each so many days without a new one."""
MOST_STRIKES = 10
LONGEST = timedelta(days=30)
RENEW_AT = 0.8
"""A verdict is renewed once so much of it is over, and not at every event."""
SPARED = 3
"""Where so many good actors are, nobody is refused or slowed down: all are asked for a proof alike."""
MANY = 25
"""Where so many are, an office or a carrier's gateway stands: it takes what would block others to ask for a proof."""
SHARED = frozenset({Scope.ADDRESS, Scope.NETWORK, Scope.DEVICE, Scope.USER_AGENT})
"""Scopes that stand for more than one person."""


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
    """Families of the detectors that spoke, the surest first, then signals, then `good_actors` where they made it
    milder.
    """
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


@dataclass(slots=True)
class _Standing:
    """What is known of one entity."""

    action: int = -1
    """In force; -1 for nothing."""
    until: float = 0.0
    """Unix seconds."""
    renewed_from: float = 0.0
    strikes: int = 0
    struck_at: float = 0.0
    heard: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By detector: log-odds above its prior, and when."""


_KEPT = tuple(each.name for each in fields(_Standing))


class Judge:
    """Turns findings into decisions; it has no clock but the findings' own times."""

    def __init__(
        self, detectors: Iterable[Detector], suppressions: Suppressions, *, most_entities: int = MOST_ENTITIES
    ) -> None:
        self._detectors = {detector.name: detector for detector in detectors}
        self._suppressions = suppressions
        self._most_entities = most_entities
        # Shadow stands apart: what is only tried strikes nobody.
        self._standings: OrderedDict[tuple[Entity, bool], _Standing] = OrderedDict()

    def __len__(self) -> int:
        """Returns how many entities are remembered."""
        return len(self._standings)

    def decide(self, findings: Iterable[Finding], known: Mapping[Entity, int]) -> list[Decision]:
        """Returns what is new to be done. `known` says how many good actors were seen lately at an address, network,
        device or user agent, as `Engine.known` tells; what it does not name has none.
        """
        decided = []
        for finding in findings:
            detector = self._detectors.get(finding.detector)
            if detector is None or self._suppressions.suppressed(finding.entity, finding.detector, finding.at):
                continue
            decision = self._judge(finding, detector, known.get(finding.entity, 0))
            if decision is not None:
                decided.append(decision)
        return decided

    def forgive(self, entity: Entity) -> None:
        """Forgets an entity's verdicts and strikes: somebody said that it is legitimate."""
        self._standings.pop((entity, False), None)
        self._standings.pop((entity, True), None)

    def snapshot(self) -> bytes:
        """Returns all strikes and verdicts in force."""
        rows = [
            (entity.scope.value, entity.hash.hex(), entity.account, shadow, [getattr(one, name) for name in _KEPT])
            for (entity, shadow), one in self._standings.items()
        ]
        return json.dumps({"format": 1, "standings": rows}).encode()

    def restore(self, snapshot: bytes) -> None:
        """Takes up where a snapshot was made. Raises ValueError for anything else."""
        try:
            told = json.loads(snapshot)
            if told["format"] != 1:
                raise ValueError("a snapshot of another format")
            standings: OrderedDict[tuple[Entity, bool], _Standing] = OrderedDict()
            for scope, entity_hash, account, shadow, (action, *times, heard) in told["standings"]:
                until, renewed_from, strikes, struck_at = map(float, times)
                kept = {name: (float(score), float(at)) for name, (score, at) in heard.items()}
                entity = Entity(Scope(scope), bytes.fromhex(entity_hash), account)
                standings[entity, bool(shadow)] = _Standing(
                    int(action), until, renewed_from, int(strikes), struck_at, kept
                )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("this is no snapshot of a judge") from error
        self._standings = standings

    def _judge(self, finding: Finding, detector: Detector, good: int) -> Decision | None:
        standing = self._standing(finding)
        now = finding.at.timestamp()
        # Until a verdict is nearly over, what is added to it is the same strike; afterwards it went on in spite of it.
        same = now < standing.renewed_from and standing.action > Action.TAG
        strikes = max(0, _strikes_left(standing, now) - same)
        confidence = confidence_of(_together(standing, finding, detector, now))
        rung = rung_for(detector, confidence, strikes)
        if rung is None:
            return None
        action = spared(rung.action, finding.scope, good, strikes)
        if now < standing.until and (
            action < standing.action or (action == standing.action and now < standing.renewed_from)
        ):
            # What is in force stays until its end: a weaker finding makes it neither milder nor longer.
            return None
        seconds = _seconds(rung, action, detector, strikes)
        if action > Action.TAG and not same:
            standing.strikes, standing.struck_at = min(strikes + 1, MOST_STRIKES), now
        standing.action, standing.until = action, now + seconds
        standing.renewed_from = now + RENEW_AT * seconds
        evidence = {f"{detector.name}.{name}": measure for name, measure in finding.evidence.items()}
        reasons = tuple(dict.fromkeys((finding.reasons[0], *self._families(standing), *finding.reasons[1:])))
        if action < rung.action:
            evidence["good_actors"] = Measure(float(good), float(MANY if good >= MANY else SPARED), 0.0)
            reasons = (*reasons, "good_actors")
        return Decision(
            scope=finding.scope,
            entity=finding.entity_hash,
            account=finding.account,
            action=action,
            seconds=seconds,
            reasons=reasons,
            confidence=confidence,
            evidence=evidence,
            rule_version=finding.rule_version,
            shadow=finding.shadow,
            at=finding.at,
            strikes=strikes,
            request_id=finding.request_id,
        )

    def _standing(self, finding: Finding) -> _Standing:
        key = (finding.entity, finding.shadow)
        standing = self._standings.get(key)
        if standing is None:
            standing = self._standings[key] = _Standing()
            if len(self._standings) > self._most_entities:
                self._standings.popitem(last=False)
        self._standings.move_to_end(key)
        return standing

    def _families(self, standing: _Standing) -> list[str]:
        names = sorted(standing.heard, key=lambda name: (-standing.heard[name][0], name))
        return [self._detectors[name].family for name in names if name in self._detectors]


def rung_for(detector: Detector, confidence: float, strikes: int) -> Rung | None:
    """Returns the hardest rung that confidence and strikes reach; None below all."""
    reached = [rung for rung in detector.ladder if rung.confidence <= confidence and rung.strikes <= strikes]
    return reached[-1] if reached else None


def spared(action: Action, scope: Scope, good: int, strikes: int) -> Action:
    """Returns what is done where so many good actors would be hit, too: one's own keys, sessions and passwords are
    nobody else's, but an address may be an office's.
    """
    if scope not in SHARED or good < 1:
        return action
    if good >= MANY and action <= Action.CHALLENGE:
        return Action.TAG
    if good >= SPARED:
        return min(action, Action.CHALLENGE)
    return min(action, Action.THROTTLE) if strikes < 1 else action


def _strikes_left(standing: _Standing, now: float) -> int:
    quiet = max(0.0, now - standing.struck_at) // FORGIVEN_AFTER.total_seconds()
    return max(0, standing.strikes - int(quiet))


def _together(standing: _Standing, finding: Finding, detector: Detector, now: float) -> float:
    """Returns this detector's log-odds and, by half, what others said lately; it is remembered for them in turn."""
    standing.heard = {name: said for name, said in standing.heard.items() if now - said[1] <= HEARD_FOR.total_seconds()}
    others = sum(max(0.0, said[0]) for name, said in standing.heard.items() if name != detector.name)
    standing.heard[detector.name] = (finding.score - detector.prior, now)
    return finding.score + ECHO * others


def _seconds(rung: Rung, action: Action, detector: Detector, strikes: int) -> int:
    """Returns how long: twice as long with each strike; a milder action than the rung's as long as its own rung."""
    own = next((other for other in detector.ladder if other.action is action), rung)
    return min(own.seconds << strikes, int(LONGEST.total_seconds()))
