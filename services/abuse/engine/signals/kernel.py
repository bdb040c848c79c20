"""Owns what every way of counting has, and which one a signal takes."""

import math
from typing import Any, Protocol

from services.abuse.domain.detector import Signal, SignalKind
from services.abuse.engine.arrays import Flags, Floats
from services.abuse.engine.signals.age import Age
from services.abuse.engine.signals.distinct import Distinct
from services.abuse.engine.signals.surprise import Surprise
from services.abuse.engine.signals.total import State, Total
from services.abuse.engine.signals.travel import Travel
from services.abuse.engine.table import Segments


class Kernel(Protocol):
    """One signal's state for every place of a table, and its way of counting."""

    state: State

    def step(self, segments: Segments, counted: Flags, of: Any) -> Floats:
        """Counts events (`counted` says which, `of` what of them) and returns the value after each one."""
        ...


def kernel_of(signal: Signal, size: int) -> Kernel:
    """Returns what counts a signal in a table of a size."""
    window_ms = signal.window_seconds * 1000
    match signal.kind:
        case SignalKind.COUNT | SignalKind.SUM:
            return Total(size, window_ms)
        case SignalKind.DISTINCT:
            return Distinct(size, window_ms, signal.precision)
        case SignalKind.AGE:
            return Age(size)
        case SignalKind.TRAVEL:
            return Travel(size)
        case SignalKind.SURPRISE:
            return Surprise(size, window_ms, signal.least, signal.steps[0][0] if signal.steps else math.inf)
    raise AssertionError(f"{signal.kind} keeps nothing")
