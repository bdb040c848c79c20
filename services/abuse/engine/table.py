"""Owns tables of keys with a bound: where a key's state is, and whose makes room when a new one comes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.abuse.engine.arrays import Flags, Floats, Ints, Keys, table
from services.abuse.engine.columns import MOST_EVENTS

WAYS = 8
_WAY_BITS = 3
_POSITION_BITS = np.uint64((MOST_EVENTS - 1).bit_length())
_POSITIONS = np.uint64(MOST_EVENTS - 1)
_KEY_BITS_NUMBER = 52
_KEY_BITS = np.uint64((1 << _KEY_BITS_NUMBER) - 1)
NEVER = -(1 << 60)
"""Before any event: a key is new."""


def mixed(parts: list[Keys]) -> Keys:
    """Returns one key of 52 bits for some fields together; 0 where one of them is missing."""
    stirred, present = scattered(parts[0]), parts[0] != 0
    for part in parts[1:]:
        stirred, present = scattered(stirred ^ part), present & (part != 0)
    return finished(stirred, present)


def finished(stirred: Keys, present: Flags) -> Keys:
    """Returns keys of 52 bits, 0 where something is missing."""
    return np.where(present, np.maximum(stirred & _KEY_BITS, np.uint64(1)), np.uint64(0))


def scattered(key: Keys) -> Keys:
    """The finalizer of SplitMix64 (Steele, Lea, Flood 2014)."""
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))


@dataclass(slots=True)
class Runs:
    """Neighbouring events of one key in one window, and how each run goes on from what was before. Not to be changed;
    not frozen either, since many are made.
    """

    number: Ints
    """Of each event, its run."""
    starts: Ints
    ends: Ints
    slots: Ints
    """Of each run, its key's place."""
    segment: Ints
    """Of each run, its key's segment."""
    index: Ints
    """Of each run, its window: windows since 1970."""
    first: Flags
    """Whether a run is its key's first."""
    goes_on: Flags
    """Whether the table's current window is the run's."""
    follows: Flags
    """Whether the table's current window is the one before the run's."""
    apart: Ints
    """Runs that do not go on, few as a rule."""
    following: Ints
    """Runs that follow."""
    chained: Ints
    """Runs before which stands one of the same key, one window earlier."""
    last: Ints
    """Of each segment, its last run."""
    share: Floats
    """Of each event, how much of the window before still counts."""
    steady: bool
    """Whether all go on: no window of the table changes."""


class Segments:
    """Events of one table, key by key and within a key in their order, beside their places in the table."""

    def __init__(self, rows: Ints, starts: Ints, slots: Ints, times: Ints, before: Ints) -> None:
        self.rows = rows
        """Of each event, its position among those that were asked about."""
        self.starts = starts
        self.slots = slots
        """Of each segment, its place in the table."""
        self.before = before
        """Of each segment, its key's latest time; long ago for a new one."""
        self.ends = ends_of(starts, rows.size)
        begins = np.zeros(rows.size, np.int64)
        begins[starts] = 1
        self.segment: Ints = begins.cumsum() - 1
        # Time never runs backwards for a key: what comes late counts as now.
        times[starts] = np.maximum(times[starts], before)
        lift = self.segment << 42
        self.times: Ints = np.maximum.accumulate(times + lift) - lift
        self._earliest, self._latest = int(self.times.min(initial=1 << 42)), int(self.times.max(initial=0))
        self._runs: dict[int, Runs] = {}

    def runs(self, window_ms: int) -> Runs:
        """Returns the events by windows."""
        held = self._runs.get(window_ms)
        if held is None:
            held = self._runs[window_ms] = self._cut(window_ms)
        return held

    def _cut(self, window_ms: int) -> Runs:
        before = self.before // window_ms
        window = self._latest // window_ms
        if self._earliest // window_ms == window:
            # All in one window, as nearly always: then runs are segments.
            goes_on, follows = before == window, before == window - 1
            apart = (~goes_on).nonzero()[0]
            everything = np.arange(self.starts.size)
            return Runs(
                number=self.segment,
                starts=self.starts,
                ends=self.ends,
                slots=self.slots,
                segment=everything,
                index=np.full(self.starts.size, window),
                first=np.ones(self.starts.size, np.bool_),
                goes_on=goes_on,
                follows=follows,
                apart=apart,
                following=follows.nonzero()[0] if apart.size else _NONE,
                chained=_NONE,
                last=everything,
                share=1.0 - (self.times - window * window_ms) / window_ms,
                steady=not apart.size,
            )
        index, within = np.divmod(self.times, window_ms)
        begins = np.ones(self.rows.size, np.bool_)
        begins[1:] = (self.segment[1:] != self.segment[:-1]) | (index[1:] != index[:-1])
        starts = begins.nonzero()[0]
        segment, run_index = self.segment[starts], index[starts]
        first = np.ones(starts.size, np.bool_)
        first[1:] = segment[1:] != segment[:-1]
        ahead = run_index - before[segment]
        goes_on, follows = first & (ahead == 0), first & (ahead == 1)
        return Runs(
            number=begins.cumsum() - 1,
            starts=starts,
            ends=ends_of(starts, self.rows.size),
            slots=self.slots[segment],
            segment=segment,
            index=run_index,
            first=first,
            goes_on=goes_on,
            follows=follows,
            apart=(~goes_on).nonzero()[0],
            following=follows.nonzero()[0],
            chained=(~first[1:] & (run_index[1:] == run_index[:-1] + 1)).nonzero()[0] + 1,
            last=ends_of(first.nonzero()[0], starts.size),
            share=1.0 - within / window_ms,
            steady=False,
        )


_NONE: Ints = np.zeros(0, np.int64)


def ends_of(starts: Ints, size: int) -> Ints:
    """Returns where stretches end that begin at `starts` and fill `size` places."""
    ends = np.empty_like(starts)
    if starts.size:
        ends[:-1] = starts[1:] - 1
        ends[-1] = size - 1
    return ends


def among(some: Ints, others: Ints) -> tuple[Ints, Flags]:
    """Returns where each of some would stand among others, which are in order and not none, and whether it does."""
    at = np.minimum(np.searchsorted(others, some), others.size - 1)
    return at, others[at] == some


class Table:
    """Places of keys, in sets of eight: a new key takes the place of the set's coldest. An account that holds half of a
    set, or more, takes its own: no flood of one account drives out the others' keys.
    """

    def __init__(self, slots: int) -> None:
        self.size = max(WAYS, 1 << (slots - 1).bit_length())
        # By the highest bits: keys in order are places in order, and memory is walked through in one direction.
        self._shift = np.uint64(_KEY_BITS_NUMBER - (self.size // WAYS - 1).bit_length())
        self.keys: Keys = table(self.size, np.uint64)
        self._ways = self.keys.reshape(-1, WAYS)
        self.latest: Ints = table(self.size, np.int64)
        """Unix milliseconds of each key's latest event."""
        self.owners: NDArray[np.uint16] = table(self.size, np.uint16)

    def place(self, keys: Keys, times: Ints, owners: Keys) -> tuple[Segments, Ints]:
        """Returns events beside their places, and the positions of those that have to be asked about again, in their
        order, after the state of the others was written: where two new keys want places of a full set, or a new one the
        place of one that is used in these very events, the order among them decides.
        """
        packed = (keys << _POSITION_BITS) | np.arange(keys.size, dtype=np.uint64)
        packed.sort()
        rows = (packed & _POSITIONS).astype(np.int64)
        ordered = packed >> _POSITION_BITS
        begins = np.ones(rows.size, np.bool_)
        begins[1:] = ordered[1:] != ordered[:-1]
        starts = begins.nonzero()[0]
        unique = ordered[starts]
        sets = (unique >> self._shift).astype(np.int64)
        same = (self._ways.take(sets, axis=0) == unique[:, None]).ravel().nonzero()[0]
        # A key stands in one way at most, so that each hit tells its row and way.
        hit = same >> _WAY_BITS
        slots = np.full(unique.size, -1)
        slots[hit] = (sets[hit] << _WAY_BITS) + (same & (WAYS - 1))
        late = _NONE
        if hit.size < unique.size:
            new = (slots < 0).nonzero()[0]
            first = rows[starts[new]]
            # In the order in which they come.
            turns = np.lexsort((first, sets[new]))
            new, first = new[turns], first[turns]
            places, contested = self._make_room(sets[new], slots[hit], times[first], owners[first])
            slots[new] = places
            if contested.size:
                wait = among(sets, contested)[1]
                kept = ~wait
                lengths = ends_of(starts, rows.size) - starts + 1
                of_event = np.repeat(kept, lengths)
                late = np.sort(rows[~of_event])
                rows = rows[of_event]
                slots, unique, sets = slots[kept], unique[kept], sets[kept]
                starts = lengths[kept].cumsum() - lengths[kept]
                is_new = np.zeros(kept.size, np.bool_)
                is_new[new] = True
                new = is_new[kept].nonzero()[0]
            before = self.latest[slots]
            before[new] = NEVER
            fresh = slots[new]
            self.keys[fresh] = unique[new]
            self.owners[fresh] = owners[rows[starts[new]]].astype(np.uint16)
        else:
            before = self.latest[slots]
        return Segments(rows, starts, slots, times[rows], before), late

    def touch(self, segments: Segments) -> None:
        """Writes down when each key was last seen; the last thing that is done with segments."""
        self.latest[segments.slots] = segments.times[segments.ends]

    def find(self, keys: Keys) -> Ints:
        """Returns the places of keys; -1 for those that are not held."""
        sets = (keys >> self._shift).astype(np.int64)
        same = self._ways[sets] == keys[:, None]
        return np.where(same.any(axis=1) & (keys != 0), (sets << _WAY_BITS) + same.argmax(axis=1), -1)

    def _make_room(self, sets: Ints, hit: Ints, times: Ints, owners: Keys) -> tuple[Ints, Ints]:
        """Returns the places that new keys take, one after the other within their (sorted) sets, and the sets in which
        that cannot be said without looking at events one by one: the coldest place is used in these very events.
        """
        begins = np.ones(sets.size, np.bool_)
        begins[1:] = sets[1:] != sets[:-1]
        starts, number = begins.nonzero()[0], begins.cumsum() - 1
        own = sets[starts]
        turn = np.arange(sets.size) - starts[number]
        empty, age, owner = self._ways[own] == 0, self.latest.reshape(-1, WAYS)[own], self.owners.reshape(-1, WAYS)[own]
        in_use = np.zeros((own.size, WAYS), np.bool_)
        where, held = among(hit >> _WAY_BITS, own)
        in_use[where[held], hit[held] & (WAYS - 1)] = True
        contested = np.zeros(own.size, np.bool_)
        ways = np.zeros(sets.size, np.int64)
        # The ninth finds no place that is not in use by then.
        for which in range(min(int(turn.max()), WAYS) + 1):
            keys = (turn == which).nonzero()[0]
            at = number[keys]
            who = owners[keys].astype(np.uint16)
            mine = (owner[at] == who[:, None]) & ~empty[at]
            crowded = mine.sum(axis=1) * 2 >= WAYS
            ages = np.where(crowded[:, None] & ~mine, np.int64(1 << 60), age[at])
            # An account that is crowded goes on taking free places.
            way = np.where(empty[at], NEVER, ages).argmin(axis=1)
            contested[at] |= in_use[at, way]
            ways[keys] = way
            empty[at, way], age[at, way], owner[at, way], in_use[at, way] = False, times[keys], who, True
        return (sets << _WAY_BITS) + ways, own[contested]
