"""Owns one table with all signals of one key, over the events that they look at."""

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from services.abuse.domain.detector import Signal, SignalKind
from services.abuse.engine.arrays import Flags, Floats
from services.abuse.engine.signals.kernel import Kernel, kernel_of
from services.abuse.engine.table import Table
from services.abuse.engine.view import View

_Picked: TypeAlias = tuple[Any, ...]
NOTHING_GIVEN: Mapping[str, Flags] = MappingProxyType({})


class Group:
    """Signals that share a key, and so a table."""

    def __init__(self, key: tuple[str, ...], signals: Sequence[Signal], slots: int) -> None:
        self.key = key
        self.signals = tuple(signals)
        self.table = Table(slots)
        self.kernels: dict[str, Kernel] = {signal.name: kernel_of(signal, self.table.size) for signal in self.signals}
        pairs = [(_counted(signal), _of(signal)) for signal in self.signals]
        self._picked = list(dict.fromkeys(one for pair in pairs for one in pair))
        self._inputs = [(self._picked.index(counted), self._picked.index(of)) for counted, of in pairs]

    def identity(self, sight: str) -> str:
        """Returns what is counted here of the events of a sight, short and alike in every process."""
        text = f"{sight} {self.key} {self.table.size} {[signal.name for signal in self.signals]}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def observe(self, view: View, given: Mapping[str, Flags] = NOTHING_GIVEN) -> dict[str, Floats]:
        """Counts events and returns each signal's value after each of them; 0 for events without the key. `given` says,
        for signals that hang on others, which events are counted.
        """
        names = (signal.name for signal in self.signals)
        values = dict(zip(names, np.zeros((len(self.signals), view.rows.size)), strict=True))
        keys = view.key(self.key)
        present = keys.nonzero()[0]
        if not present.size:
            return values
        # Signals that count the same events, or the same of them, share what is picked of it.
        picked: list[Any] = [_picked(which, view) for which in self._picked]
        counts = []
        for signal, (counted, of) in zip(self.signals, self._inputs, strict=True):
            if signal.name in given:
                picked.append(picked[counted] & given[signal.name])
                counted = len(picked) - 1
            counts.append((values[signal.name], self.kernels[signal.name], counted, of))
        owners = view.field("account")
        waiting = [present]
        while waiting:
            asked = waiting.pop()
            segments, late = self.table.place(keys.take(asked), view.times.take(asked), owners.take(asked))
            at = asked.take(segments.rows)
            if at.size:
                there: list[Any] = [None if one is None else one.take(at, axis=0) for one in picked]
                for out, kernel, counted, of in counts:
                    out[at] = kernel.step(segments, there[counted], there[of])
                self.table.touch(segments)
            if late.size:
                half = (late.size + 1) // 2
                waiting += [asked[part] for part in (late[half:], late[:half]) if part.size]
        return values


def _counted(signal: Signal) -> _Picked:
    """Returns which events a signal counts: the conditions, and the field that has to be there."""
    needed = {SignalKind.DISTINCT: signal.of, SignalKind.TRAVEL: "placed"}.get(signal.kind, "")
    return signal.where, needed


def _of(signal: Signal) -> _Picked:
    """Returns what of its events a signal counts: the kind, the field and the precision."""
    match signal.kind:
        case SignalKind.DISTINCT:
            return signal.kind, signal.of, signal.precision
        case SignalKind.SUM:
            return signal.kind, signal.of
        case SignalKind.TRAVEL:
            return (signal.kind,)
    return ()


def _picked(which: _Picked, view: View) -> Any:
    match which:
        case ():
            return None
        case (SignalKind.DISTINCT, field, precision):
            return view.ranked(field, precision)
        case (SignalKind.SUM, field):
            return view.field(field)
        case (SignalKind.TRAVEL,):
            return np.stack((view.field("latitude"), view.field("longitude")), axis=1)
        case (conditions, needed):
            counted = view.holds(conditions)
            return counted & (view.field(needed) != 0) if needed else counted
    raise AssertionError(f"{which} picks nothing")
