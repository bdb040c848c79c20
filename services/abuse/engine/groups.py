"""Owns one table with all signals of one key, over the events that they look at."""

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from services.abuse.domain.detector import Signal, SignalKind
from services.abuse.engine.columns import Flags, Floats
from services.abuse.engine.signals.kernel import Kernel, kernel_of
from services.abuse.engine.table import Table
from services.abuse.engine.view import View

NOTHING_GIVEN: Mapping[str, Flags] = MappingProxyType({})


class Group:
    """Signals that share a key, and so a table."""

    def __init__(self, key: tuple[str, ...], signals: Sequence[Signal], slots: int) -> None:
        self.key = key
        self.signals = tuple(signals)
        self.table = Table(slots)
        self.kernels: dict[str, Kernel] = {signal.name: kernel_of(signal, self.table.size) for signal in self.signals}

    def identity(self, sight: str) -> str:
        """Returns what is counted here of the events of a sight, short and alike in every process."""
        text = f"{sight} {self.key} {self.table.size} {[signal.name for signal in self.signals]}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def observe(self, view: View, given: Mapping[str, Flags] = NOTHING_GIVEN) -> dict[str, Floats]:
        """Counts events and returns each signal's value after each of them; 0 for events without the key. `given` says,
        for signals that hang on others, which events are counted.
        """
        values = {signal.name: np.zeros(view.rows.size) for signal in self.signals}
        keys = view.key(self.key)
        present = keys.nonzero()[0]
        if not present.size:
            return values
        inputs = []
        for signal in self.signals:
            counted, of = _inputs(signal, view)
            if signal.name in given:
                counted = counted & given[signal.name]
            inputs.append((values[signal.name], self.kernels[signal.name], counted, of))
        owners = view.field("account")
        waiting = [present]
        while waiting:
            asked = waiting.pop()
            segments, late = self.table.place(keys[asked], view.times[asked], owners[asked])
            at = asked[segments.rows]
            if at.size:
                for out, kernel, counted, of in inputs:
                    out[at] = kernel.step(segments, counted[at], None if of is None else of[at])
                self.table.touch(segments)
            if late.size:
                half = (late.size + 1) // 2
                waiting += [asked[part] for part in (late[half:], late[:half]) if part.size]
        return values


def _inputs(signal: Signal, view: View) -> tuple[Flags, Any]:
    """Returns which events a signal counts, and what of them."""
    counted = view.holds(signal.where)
    match signal.kind:
        case SignalKind.DISTINCT:
            return counted & (view.field(signal.of) != 0), view.ranked(signal.of, signal.precision)
        case SignalKind.SUM:
            return counted, view.field(signal.of)
        case SignalKind.TRAVEL:
            place = np.stack((view.field("latitude"), view.field("longitude")), axis=1)
            return counted & (view.field("placed") != 0), place
    return counted, None
