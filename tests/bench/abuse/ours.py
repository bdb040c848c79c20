"""Owns putting the abuse service's engine between the simulated world and its services, as edge and services would."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from gatefold.activity.v1 import activity_pb2

from services.abuse.domain.detector import Action, Detector
from services.abuse.domain.finding import Entity
from services.abuse.domain.judge import Decision, Judge
from services.abuse.engine.catalogue import Catalogue
from services.abuse.engine.engine import Engine
from tests.support.traffic.simulation import BEGINS
from tests.support.traffic.world import Answer

_FIELDS = (
    ("address", "client_address_hash"),
    ("network", "client_network_hash"),
    ("actor", "actor_hash"),
    ("device", "device_hash"),
    ("session", "session_hash"),
    ("user_agent", "user_agent_hash"),
    ("target", "target_hash"),
)
_ANSWERS = {
    Action.TAG: Answer.TAGGED,
    Action.CHALLENGE: Answer.CHALLENGED,
    Action.THROTTLE: Answer.THROTTLED,
    Action.BLOCK: Answer.BLOCKED,
    Action.REVOKE: Answer.BLOCKED,
}
THROTTLED_SECONDS = 10.0
"""Whoever is throttled is served once in so long."""


class Nobody:
    """Nothing was said by people."""

    def suppressed(self, entity: Entity, detector: str, at: datetime) -> bool:
        """Tells that nothing was."""
        return False


@dataclass(slots=True)
class Held:
    """A decision in force."""

    action: Action
    until: float
    served_at: float = -THROTTLED_SECONDS


class Ours:
    """The engine, the judge, and what is in force."""

    def __init__(self, detectors: Sequence[Detector]) -> None:
        self._engine = Engine(Catalogue(tuple(detectors)))
        self._judge = Judge(detectors, Nobody())
        self._held: dict[tuple[str, bytes, str], Held] = {}
        self.decisions: list[Decision] = []

    def judge(self, activity: activity_pb2.Activity, inside: Sequence[activity_pb2.Activity], at: float) -> Answer:
        """Looks up everything that a request is known by; the hardest counts."""
        worst = Answer.SERVED
        for told in (activity, *inside):
            for scope, field in _FIELDS:
                entity = getattr(told, field)
                if not entity:
                    continue
                for account in (told.account_id, ""):
                    held = self._held.get((scope, entity, account))
                    if held is None:
                        continue
                    if held.until <= at:
                        del self._held[scope, entity, account]
                        continue
                    answer = self._answer(held, at)
                    if list(Answer).index(answer) > list(Answer).index(worst):
                        worst = answer
        return worst

    def observe(self, activities: Sequence[activity_pb2.Activity], at: float) -> None:
        """Feeds the engine, and keeps what the judge decides."""
        findings = self._engine.feed(activities)
        if not findings:
            return
        for decision in self._judge.decide(findings, self._engine.known(findings)):
            self.decisions.append(decision)
            if decision.shadow:
                continue
            key = (decision.scope.value, decision.entity, decision.account or "")
            since = (decision.at - BEGINS).total_seconds()
            self._held[key] = Held(decision.action, since + decision.seconds)

    @staticmethod
    def _answer(held: Held, at: float) -> Answer:
        if held.action is Action.THROTTLE:
            if at - held.served_at >= THROTTLED_SECONDS:
                held.served_at = at
                return Answer.SERVED
            return Answer.THROTTLED
        return _ANSWERS[held.action]
