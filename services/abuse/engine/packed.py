"""Owns activities as the stream has them, packed: their fields are read in columns, and a message is made of few."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
from gatefold.activity.v1 import activity_pb2
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from services.abuse.engine.arrays import Flags, Ints, Keys
from services.abuse.engine.wire import Found, Octets, fields_of, find

Activity = activity_pb2.Activity
_FIELDS, _MOMENT = fields_of(Activity.DESCRIPTOR), fields_of(Timestamp.DESCRIPTOR)
_PLACES = {field.name: place for place, field in enumerate(_FIELDS)}
_HASH_BYTES = 16
_NONE = np.zeros(0, np.int64)
MOST_ACTIVITY_BYTES = 2_048
"""An activity has hashes and short names; one that is larger was made to do harm."""


def entity_key(entity_hash: bytes) -> int:
    """Returns the 64 bits that stand for a keyed hash; 0 for none, or one that is not whole."""
    return int.from_bytes(entity_hash[:8], "little") if len(entity_hash) == _HASH_BYTES else 0


@dataclass(frozen=True)
class Batch:
    """A packed ActivityBatch, as far as it counts."""

    items: Sequence[bytes]
    """Its activities, packed."""
    lost: int
    dropped: int
    """Activities that are larger than any honest one."""


def split(packed: bytes) -> Batch:
    """Finds the activities of a packed batch. Raises DecodeError for what is none."""
    batch = activity_pb2.PackedActivityBatch.FromString(packed)
    items: list[bytes] = list(batch.activities)
    small = [item for item in items if len(item) <= MOST_ACTIVITY_BYTES]
    return Batch(small, batch.lost, len(items) - len(small))


class Activities:
    """Packed activities in their order."""

    def __init__(
        self,
        octets: Octets,
        found: Found,
        moments: Found,
        odd: Mapping[int, Activity],
        unreadable: Sequence[int] = (),
    ) -> None:
        self._octets = octets
        self._found = found
        self._moments = moments
        """Of what is in `time`."""
        self._odd = odd
        self.unreadable = unreadable
        """Positions, among all that there were, of what was left out since it is no activity."""

    @classmethod
    def joined(cls, batches: Iterable[Batch]) -> "Activities":
        """Returns the activities of some batches."""
        return cls._of([item for batch in batches for item in batch.items])

    @classmethod
    def of(cls, activities: Iterable[Activity]) -> "Activities":
        """Packs activities."""
        return cls._of([activity.SerializeToString() for activity in activities])

    @classmethod
    def _of(cls, packed: Sequence[bytes]) -> "Activities":
        sizes = np.fromiter(map(len, packed), np.int64, len(packed))
        ends = sizes.cumsum()
        return cls._at(Octets(packed), ends - sizes, ends)

    @classmethod
    def _at(cls, octets: Octets, starts: Ints, ends: Ints) -> "Activities":
        found = find(octets, starts, ends, _FIELDS)
        begins, until = found.edges[_PLACES["time"]], found.edges[_PLACES["time"] + 1]
        moments = find(octets, begins + 2 * (until > begins), until, _MOMENT)
        odd = {
            row: _read(octets.packed[starts[row] : ends[row]])
            for row in (found.odd | moments.odd).nonzero()[0].tolist()
        }
        unreadable = [row for row, activity in odd.items() if activity is None]
        if unreadable:
            readable = cls._at(octets, np.delete(starts, unreadable), np.delete(ends, unreadable))
            readable.unreadable = unreadable
            return readable
        return cls(octets, found, moments, {row: activity for row, activity in odd.items() if activity is not None})

    def part(self, start: int, end: int) -> "Activities":
        """Returns some neighbours."""
        odd = {row - start: activity for row, activity in self._odd.items() if start <= row < end}
        chosen = slice(start, end)
        return Activities(self._octets, self._found.part(chosen), self._moments.part(chosen), odd)

    def __len__(self) -> int:
        return self._found.odd.size

    def __getitem__(self, row: int) -> Activity:
        odd = self._odd.get(row)
        if odd is None:
            edges = self._found.edges
            # A text that nobody looked at before may be none; whoever wrote it is nobody.
            odd = _read(self._octets.packed[edges[0][row] : edges[-1][row]]) or Activity()
        return odd

    def has(self, name: str) -> Flags:
        """Tells which have a field."""
        place = _PLACES[name]
        if _FIELDS[place].is_number:
            held = self._found.numbers.get(name)
            flags = np.zeros(len(self), np.bool_) if held is None else held[1].copy()
        else:
            flags = self._sizes(name) > len(_FIELDS[place].tag) + 1
        for row, activity in self._odd.items():
            flags[row] = any(field.name == name for field, _ in activity.ListFields())
        return flags

    def numbers(self, name: str) -> Ints:
        """Returns a number of each; 0 where there is none."""
        return self._values(self._found, name, attrgetter(name))

    def hashes(self, name: str) -> Keys:
        """Returns the 64 bits that stand for a keyed hash of each; 0 where there is none."""
        keys = np.zeros(len(self), np.uint64)
        whole = self._sizes(name) == len(_FIELDS[_PLACES[name]].tag) + 1 + _HASH_BYTES
        if whole.all():
            keys = self._octets.words[self._found.edges[_PLACES[name] + 1] - _HASH_BYTES]
        elif whole.any():
            rows = whole.nonzero()[0]
            keys[rows] = self._octets.words[self._found.edges[_PLACES[name] + 1].take(rows) - _HASH_BYTES]
        for row, activity in self._odd.items():
            keys[row] = entity_key(getattr(activity, name))
        return keys

    def texts(self, names: tuple[str, ...], rows: Ints | None = None) -> tuple[Ints, list[bytes]]:
        """Returns which of some rows have one of some fields that are neighbours, and of each of these the fields
        alone, packed.
        """
        starts, ends = self._found.edges[_PLACES[names[0]]], self._found.edges[_PLACES[names[-1]] + 1]
        there = ends > starts
        there[list(self._odd)] = True
        rows = there.nonzero()[0] if rows is None else rows[there[rows]]
        slices = map(slice, starts.take(rows).tolist(), ends.take(rows).tolist())
        packed = list(map(self._octets.packed.__getitem__, slices))
        if self._odd:
            for place, row in enumerate(rows.tolist()):
                if row in self._odd:
                    alone = {name: getattr(self._odd[row], name) for name in names}
                    packed[place] = Activity(**alone).SerializeToString()
        return rows, packed

    def moments(self) -> tuple[Ints, Ints]:
        """Returns seconds since 1970 and nanoseconds of each."""
        seconds = self._values(self._moments, "seconds", attrgetter("time.seconds"))
        return seconds, self._values(self._moments, "nanos", attrgetter("time.nanos"))

    def _values(self, found: Found, name: str, of_odd: Callable[[Activity], int]) -> Ints:
        held = found.numbers.get(name)
        values = np.zeros(len(self), np.int64) if held is None else held[0].copy()
        for row, activity in self._odd.items():
            values[row] = of_odd(activity)
        return values

    def _sizes(self, name: str) -> Ints:
        """Returns of each how many bytes a field takes, tag and all."""
        edges, place = self._found.edges, _PLACES[name]
        return edges[place + 1] - edges[place]


def _read(packed: bytes) -> Activity | None:
    try:
        return Activity.FromString(packed)
    except DecodeError:
        return None
