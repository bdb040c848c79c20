"""Owns how long things took: counted plainly where they happen, and put together when metrics are read."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.registry import Collector


class Durations:
    """What took so long with one set of labels."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """By the first bound that is not less; beyond all of them last."""
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Takes one duration; from one thread alone, since nothing is locked."""
        self.counts[bisect_left(self._bounds, seconds)] += 1
        self.total += seconds


class Histogram(Collector):
    """Durations by labels, as prometheus_client's own Histogram has them, at a third of its cost for each."""

    def __init__(self, name: str, text: str, labels: Iterable[str], bounds: Sequence[float]) -> None:
        self._name = name
        self._text = text
        self._labels = tuple(labels)
        self._bounds = bounds
        self._made: dict[tuple[str, ...], Durations] = {}
        if not self._labels:
            self.labels()

    def labels(self, *values: object) -> Durations:
        """Returns those with such values of the labels, in their order; raises ValueError for too few or many."""
        if len(values) != len(self._labels):
            raise ValueError(f"{self._name} has the labels {', '.join(self._labels)}")
        key = tuple(map(str, values))
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = Durations(self._bounds)
        return found

    def observe(self, seconds: float) -> None:
        """Takes one duration, where there are no labels."""
        self.labels().observe(seconds)

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """Returns all that was counted."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        names = [*map(repr, self._bounds), "+Inf"]
        for values, held in list(self._made.items()):
            within, buckets = 0, []
            for name, count in zip(names, tuple(held.counts), strict=True):
                within += count
                buckets.append((name, float(within)))
            family.add_metric(values, buckets, held.total)
        return [family]
