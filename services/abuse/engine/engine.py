"""Owns the way of events through all detectors."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from services.abuse.domain.detector import Condition, Mode, confidence_of
from services.abuse.domain.finding import Entity, Finding, Scope
from services.abuse.engine.acquaintance import Acquaintance
from services.abuse.engine.arrays import Ints
from services.abuse.engine.catalogue import Catalogue
from services.abuse.engine.columns import HASH_FIELDS, LONGEST_TEXT, MOST_EVENTS, SITE, Reader, text_key
from services.abuse.engine.groups import Group
from services.abuse.engine.packed import Activities, Activity
from services.abuse.engine.sights import Suspicions, sights_of
from services.abuse.engine.snapshot import pack, unpack
from services.abuse.engine.view import View, where

REPEAT_MS = 60_000
"""A detector that goes on speaking about an entity is heard again after so long, or once it is surer."""
MOST_TOLD = 100_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SAID_BY_OTHERS = (Condition("refused", present=False), Condition("status", values=(429,), negated=True))


LONGEST_REQUEST_ID = 128


class Engine:
    """Keeps all signals. It reads no clock: the same events give the same findings, however they are cut in batches."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._reader = Reader()
        self._sights = sights_of(catalogue.detectors)
        self._acquaintance = Acquaintance()
        self._names = {name for sight in self._sights for name in sight.names}
        self._names |= {path.event for path in self._acquaintance.paths}
        self._told: OrderedDict[tuple[str, str, bytes], tuple[int, int]] = OrderedDict()

    def feed(
        self, activities: Activities | Sequence[Activity], received_at: Sequence[int] | None = None
    ) -> list[Finding]:
        """Takes events in the order of their stream and returns what detectors say, in that order.

        `received_at` has the Unix milliseconds of each one's stream entry (its id begins with them): an event that says
        it is later, or more than an hour earlier, is taken to be from then. Without it events are believed.
        """
        found: list[Finding] = []
        packed = activities if isinstance(activities, Activities) else Activities.of(activities)
        for start in range(0, len(activities), MOST_EVENTS):
            arrived = None if received_at is None else received_at[start : start + MOST_EVENTS]
            found += self._look(packed.part(start, start + MOST_EVENTS), arrived)
        return found

    def known(self, findings: Iterable[Finding]) -> dict[Entity, int]:
        """Returns how many good actors were lately seen where the findings point: people who signed in, or used a
        session, there and in whose network it was for at least a day.
        """
        entities = {finding.entity for finding in findings}
        return self._acquaintance.count(entities, self._reader.latest_ms)

    def snapshot(self) -> bytes:
        """Returns all state."""
        told = [(name, account, entity.hex(), *rest) for (name, account, entity), rest in self._told.items()]
        return pack(self._groups(), {"latest_ms": self._reader.latest_ms, "told": told})

    def restore(self, snapshot: bytes) -> None:
        """Takes up, in a new engine, where a snapshot was made; what was counted for detectors that have changed since
        begins anew. Raises ValueError for what is no snapshot.
        """
        kept = unpack(snapshot, self._groups())
        self._reader.latest_ms = int(kept["latest_ms"])
        for name, account, entity, level, at_ms in kept["told"]:
            self._told[name, account, bytes.fromhex(entity)] = (level, at_ms)

    def _groups(self) -> dict[str, Group]:
        held = [(sight.identity, group) for sight in self._sights for group in sight.groups]
        held += [
            (f"acquaintance {path.event}", group)
            for path in self._acquaintance.paths
            for group in (path.people, *path.places.values())
        ]
        return {group.identity(sight): group for sight, group in held}

    def _look(self, activities: Activities, received_at: Sequence[int] | None) -> list[Finding]:
        columns = self._reader.read(activities)
        everything = View(columns, np.arange(len(activities)), self._reader.times(activities, received_at))
        # What the platform itself refused says nothing about whoever asked.
        seen = where(everything, _SAID_BY_OTHERS)
        every = _ByEvent(seen, self._names)
        self._acquaintance.observe(every.views)
        of_account = of_platform = every
        reach = seen.field("reach")
        if reach.any():
            of_account = _ByEvent(seen.only(reach != Activity.REACH_PLATFORM), self._names)
            of_platform = _ByEvent(seen.only(reach != Activity.REACH_ACCOUNT), self._names)
        heard: list[tuple[int, int, int, Suspicions]] = []
        for sight in self._sights:
            reached = of_platform if sight.platform_wide else of_account
            for suspicions in sight.look(reached.views, reached.merged):
                heard += [(row, len(heard), number, suspicions) for number, row in enumerate(suspicions.rows)]
        return self._tell(activities, everything.times, sorted(heard, key=lambda item: item[:2]))

    def _tell(
        self,
        activities: Activities,
        times: Ints,
        heard: Iterable[tuple[int, int, int, Suspicions]],
    ) -> list[Finding]:
        found = []
        for row, _, number, suspicions in heard:
            finding = self._heard(activities[row], int(times[row]), number, suspicions)
            if finding is not None:
                found.append(finding)
        return found

    def _heard(
        self,
        activity: Activity,
        at_ms: int,
        number: int,
        suspicions: Suspicions,
    ) -> Finding | None:
        detector = suspicions.detector
        own = detector.per_account or activity.caller_kind == SITE
        account = activity.account_id if own and len(activity.account_id) <= LONGEST_TEXT else ""
        entity_hash = hash_of(activity, detector.scope)
        score = suspicions.score(number)
        confidence = confidence_of(score)
        level = sum(rung.confidence <= confidence for rung in detector.ladder)
        key = (detector.name, account, entity_hash)
        told = self._told.get(key)
        if told is not None and level <= told[0] and at_ms - told[1] < REPEAT_MS:
            return None
        self._told[key] = (level, at_ms)
        self._told.move_to_end(key)
        if len(self._told) > MOST_TOLD:
            self._told.popitem(last=False)
        evidence = suspicions.evidence(number)
        loudest = sorted(evidence, key=lambda name: -evidence[name].weight)
        return Finding(
            detector=detector.name,
            account=account or None,
            scope=detector.scope,
            entity_hash=entity_hash,
            score=score,
            confidence=confidence,
            reasons=(detector.family, *(name for name in loudest if evidence[name].weight > 0)),
            evidence=evidence,
            at=_EPOCH + timedelta(milliseconds=at_ms),
            request_id=activity.request_id[:LONGEST_REQUEST_ID],
            rule_version=detector.version,
            shadow=detector.mode is Mode.SHADOW,
        )


class _ByEvent:
    """Events by their names."""

    def __init__(self, view: View, names: Iterable[str]) -> None:
        self._view = view
        happened = view.field("event")
        self._flags = {name: happened == np.uint64(text_key(name)) for name in names}
        self.views = {name: view.only(chosen) for name, chosen in self._flags.items()}

    def merged(self, wanted: tuple[str, ...]) -> View:
        """Returns events of several names, in their order."""
        return self._view.only(np.logical_or.reduce([self._flags[name] for name in wanted]))


def hash_of(activity: Activity, scope: Scope) -> bytes:
    """Returns the keyed hash of an activity's entity in a scope."""
    held: bytes = getattr(activity, HASH_FIELDS[scope.value])
    return held
