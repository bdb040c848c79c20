"""Owns what some events are looked at for: detectors that look at the same ones share what they count."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache

import numpy as np

from services.abuse.domain.detector import Detector, Mode, Signal, SignalKind
from services.abuse.domain.finding import Measure
from services.abuse.engine.arrays import Flags, Floats
from services.abuse.engine.groups import Group
from services.abuse.engine.view import View, where

MOST_ACCOUNTS = 4096
"""Accounts whose own custom is kept, each some kilobytes."""


class Sight:
    """Detectors of the same events, and the tables that they count in."""

    def __init__(self, detectors: Iterable[Detector]) -> None:
        self.detectors = tuple(detectors)
        first = self.detectors[0]
        self.platform_wide = platform_wide(first)
        self._events, self._where = first.events, first.where
        # What is given others' values waits for them, in a table of its own.
        kept: dict[tuple[bool, tuple[str, ...]], dict[str, Signal]] = {}
        slots: dict[tuple[str, ...], tuple[bool, int]] = {}
        for detector in self.detectors:
            for signal in detector.signals:
                if signal.kind is not SignalKind.RATIO:
                    together = kept.setdefault((bool(signal.given), signal.key), {})
                    together[identity_of(signal)] = replace(signal, name=identity_of(signal))
                    # Whoever judges by a key says how many are worth remembering, before those who only read it.
                    wanted = (detector.scope.value in signal.key, detector.slots)
                    slots[signal.key] = max(slots.get(signal.key, wanted), wanted)
        self.groups = tuple(
            Group(key, tuple(signals.values()), MOST_ACCOUNTS if key == ("account",) else slots[key][1])
            for (_, key), signals in sorted(kept.items(), key=lambda item: item[0][0])
        )
        self._waiting = tuple((group, tuple(one for one in group.signals if one.given)) for group in self.groups)
        self._identities = tuple(tuple(map(identity_of, detector.signals)) for detector in self.detectors)

    @property
    def identity(self) -> str:
        """What it looks at, as text; alike in every process."""
        return f"{self._events} {self._where}{' of the platform' if self.platform_wide else ''}"

    def look(self, views: Mapping[str, View], merge: Callable[[tuple[str, ...]], View]) -> list["Suspicions"]:
        """Counts the events of a batch and returns where detectors speak."""
        view = where(views[self._events[0]] if len(self._events) == 1 else merge(self._events), self._where)
        if not view.rows.size:
            return []
        values: dict[str, Floats] = {}
        for group, waiting in self._waiting:
            values |= group.observe(view, {one.name: _given(one, values) for one in waiting})
        held = np.stack(list(values.values()))
        least, most = held.min(axis=1).tolist(), held.max(axis=1).tolist()
        reach = dict(zip(values, zip(least, most, strict=True), strict=True))
        return [
            Suspicions(detector, view, names, values, reach)
            for detector, names in zip(self.detectors, self._identities, strict=True)
        ]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the events that it looks at."""
        return self._events


class Suspicions:
    """A detector's score of each event that it looks at."""

    def __init__(
        self,
        detector: Detector,
        view: View,
        identities: Iterable[str],
        kept: Mapping[str, Floats],
        reach: Mapping[str, tuple[float, float]],
    ) -> None:
        """`identities` are those of the detector's signals; `kept` and `reach` have of each its values, and the least
        and the most of them.
        """
        self.detector = detector
        self.rows: list[int] = []
        self._values: dict[str, Floats] = {}
        # Nearly always nothing is near enough to be looked at one by one, whatever ratios there are.
        most = detector.prior
        for signal, identity in zip(detector.signals, identities, strict=True):
            if signal.steps:
                least_most = reach.get(identity, (-np.inf, np.inf))
                most += _loudest(signal, *least_most)
        if most < detector.threshold:
            return
        most = detector.prior
        for signal, identity in zip(detector.signals, identities, strict=True):
            if signal.kind is SignalKind.RATIO:
                below = self._values[signal.over]
                enough = below >= max(signal.least, 1e-9)
                value = np.where(enough, self._values[signal.of] / np.where(enough, below, 1.0), 0.0)
            else:
                value = kept[identity]
            self._values[signal.name] = value
            if signal.steps:
                least_most = reach.get(identity) or (float(value.min()), float(value.max()))
                most += _loudest(signal, *least_most)
        if most >= detector.threshold:
            self._weigh(view)

    def _weigh(self, view: View) -> None:
        score = np.full(view.rows.size, self.detector.prior)
        for signal in self.detector.signals:
            if signal.steps:
                thresholds, weights = np.array(signal.steps).T
                value = self._values[signal.name]
                score += np.append(0.0, weights)[np.searchsorted(thresholds, value, side="right")]
        self._score = score
        self._at = (score >= self.detector.threshold).nonzero()[0]
        if self._at.size:
            self._at = self._at[view.field(self.detector.scope.value)[self._at] != 0]
            self.rows = view.rows[self._at].tolist()

    def score(self, number: int) -> float:
        """Returns the log-odds of the so many-th row."""
        return float(self._score[self._at[number]])

    def evidence(self, number: int) -> dict[str, Measure]:
        """Returns what spoke for and against it there."""
        measures = {}
        for signal in self.detector.signals:
            value = float(self._values[signal.name][self._at[number]])
            passed = [step for step in signal.steps if value >= step[0]]
            if passed:
                measures[signal.name] = Measure(round(value, 3), *passed[-1])
        return measures


def _loudest(signal: Signal, least: float, most: float) -> float:
    """Returns the highest weight of all values between two."""
    weights = [weight for threshold, weight in signal.steps if threshold <= most]
    return max(weights) if weights and least >= signal.steps[0][0] else max([0.0, *weights])


def _given(signal: Signal, values: Mapping[str, Floats]) -> Flags:
    """Tells of each event whether the signals that another hangs on are as they must be."""
    held = []
    for given in signal.given:
        value = values[identity_of(given.signal)]
        held += [value >= given.least] if given.least is not None else []
        held += [value <= given.most] if given.most is not None else []
    flags: Flags = np.logical_and.reduce(held)
    return flags


@cache
def identity_of(signal: Signal) -> str:
    """Returns what a signal counts, whatever it is called and weighs."""
    surprising = signal.steps[:1] if signal.kind is SignalKind.SURPRISE else ()
    given = " ".join(f"{identity_of(one.signal)} {one.least} {one.most}" for one in signal.given)
    return f"{replace(signal, name='', steps=surprising, given=())}{given}"


def platform_wide(detector: Detector) -> bool:
    """Tells whether a detector counts over all accounts: of what happened inside, which the shard of a network is told
    of whole (libs/activity.py). Of requests each shard has those of its own accounts.
    """
    return not detector.per_account and all(detector.events)


def sights_of(detectors: Iterable[Detector]) -> tuple[Sight, ...]:
    """Returns all detectors that are not off, by what they look at."""
    together: dict[str, list[Detector]] = {}
    for detector in detectors:
        if detector.mode is not Mode.OFF:
            key = f"{platform_wide(detector)} {detector.events} {detector.where}"
            together.setdefault(key, []).append(detector)
    return tuple(Sight(some) for some in together.values())
