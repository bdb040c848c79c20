"""Owns the events that some detectors look at: what is asked of them more than once is worked out once."""

from typing import Any

import numpy as np

from services.abuse.domain.detector import Condition
from services.abuse.engine.arrays import Flags, Ints, Keys
from services.abuse.engine.columns import SITE, TEXTS, Columns, text_key
from services.abuse.engine.signals.distinct import ranked
from services.abuse.engine.table import finished, mixed, scattered

_PLATFORM = np.uint64(text_key("platform"))
_TOLD_BY_SITES = Condition("caller", values=(SITE,))


class View:
    """Some rows of a batch, in their order."""

    def __init__(self, columns: Columns, rows: Ints, times: Ints) -> None:
        self._columns = columns
        self.rows = rows
        self.times = times
        """Unix milliseconds of each row."""
        self._fields: dict[str, Any] = {}
        self._held: dict[Condition, Flags] = {}
        self._conditions: dict[tuple[Condition, ...], Flags] = {}
        self._ranked: dict[tuple[str, int], Ints] = {}
        self._keys: dict[tuple[str, ...], Keys] = {}
        self._stirred: dict[tuple[str, ...], tuple[Keys, Flags]] = {}

    def field(self, name: str) -> Any:
        """Returns a field of all rows."""
        values = self._fields.get(name)
        if values is None:
            values = self._fields[name] = self._columns.take(name, self.rows)
        return values

    def holds(self, conditions: tuple[Condition, ...]) -> Flags:
        """Tells of each row whether all conditions hold; not to be changed."""
        flags = self._conditions.get(conditions)
        if flags is None:
            flags = np.ones(self.rows.size, np.bool_)
            for condition in conditions:
                held = self._held.get(condition)
                few = flags.nonzero()[0] if held is None else None
                if few is not None and few.size * 8 < self.rows.size:
                    # Only of those that the conditions before left; most fields are then hardly read.
                    flags = np.zeros(self.rows.size, np.bool_)
                    flags[few] = holds(condition, self._columns.take(condition.field, self.rows[few]))
                    continue
                if held is None:
                    held = self._held[condition] = holds(condition, self.field(condition.field))
                flags = flags & held
            self._conditions[conditions] = flags
        return flags

    def key(self, fields: tuple[str, ...]) -> Keys:
        """Returns the key of each row; 0 where a field is missing. Events of no account belong to the platform, what an
        account's own site says to that account, whatever it is about.
        """
        key = self._keys.get(fields)
        if key is None:
            key = finished(*self._stir(fields))
            told = self._told_by_sites() if "account" not in fields else None
            if told is not None:
                # What a publisher says of an address is kept beside what the platform knows of it.
                key = np.where(told, mixed([key, self._part("account")]), key)
            self._keys[fields] = key
        return key

    def _stir(self, fields: tuple[str, ...]) -> tuple[Keys, Flags]:
        """Returns what `mixed` makes of fields, unfinished, and which rows have them all; most keys begin alike."""
        held = self._stirred.get(fields)
        if held is None:
            part = self._part(fields[-1])
            if len(fields) == 1:
                held = scattered(part), part != 0
            else:
                stirred, present = self._stir(fields[:-1])
                held = scattered(stirred ^ part), present & (part != 0)
            self._stirred[fields] = held
        return held

    def _told_by_sites(self) -> Flags | None:
        """Tells which rows publishers' own sites sent; None where none was."""
        told = self.holds((_TOLD_BY_SITES,))
        return told if told.any() else None

    def ranked(self, field: str, precision: int) -> Ints:
        """Returns each row's value of a field as HyperLogLog counts it."""
        held = self._ranked.get((field, precision))
        if held is None:
            # Hashes are random already, as it has to be; numbers are not.
            hashes = self.key((field,)) if field == "asn" else self.field(field)
            held = self._ranked[field, precision] = ranked(hashes, precision)
        return held

    def _part(self, field: str) -> Keys:
        part: Keys = self.field(field)
        if field == "asn":
            part = part.astype(np.uint64)
        return np.where(part == 0, _PLATFORM, part) if field == "account" else part

    def only(self, chosen: Any) -> "View":
        """Returns some of the rows."""
        return View(self._columns, self.rows[chosen], self.times[chosen])


def where(view: View, conditions: tuple[Condition, ...]) -> View:
    """Returns the rows for which all conditions hold; the later ones are asked only of what the earlier leave."""
    for condition in conditions:
        if not view.rows.size:
            break
        flags = view.holds((condition,))
        if not flags.all():
            view = view.only(flags)
    return view


def holds(condition: Condition, values: Any) -> Flags:
    """Tells of each value of a condition's field whether it holds."""
    flags: Flags = np.ones(values.size, np.bool_)
    if condition.present is not None:
        flags &= (values != 0) == condition.present
    if condition.least is not None:
        flags &= values >= condition.least
    if condition.most is not None:
        flags &= values <= condition.most
    if condition.values:
        among = np.zeros(values.size, np.bool_)
        for value in condition.values:
            if condition.field in TEXTS and isinstance(value, str):
                among |= values == np.uint64(text_key(value))
            else:
                among |= values == value
        flags &= among != condition.negated
    return flags
