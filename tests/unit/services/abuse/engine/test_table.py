"""Tables: a bound, the coldest make room, and no account drives out the others' keys."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from services.abuse.engine.arrays import Ints, Keys
from services.abuse.engine.table import WAYS, Table, mixed


def keys_of(numbers: list[int]) -> Keys:
    return mixed([np.array(numbers, np.uint64) + np.uint64(1)])


def seen(table: Table, numbers: list[int], times: list[int], owner: int = 1) -> None:
    """Lets a table see keys, however often it has to be asked."""
    keys, at = keys_of(numbers), np.array(times, np.int64)
    owners = np.full(keys.size, owner, np.uint64)
    waiting: list[Ints] = [np.arange(keys.size)]
    while waiting:
        asked = waiting.pop()
        segments, late = table.place(keys[asked], at[asked], owners[asked])
        table.touch(segments)
        if late.size:
            half = (late.size + 1) // 2
            waiting += [asked[part] for part in (late[half:], late[:half]) if part.size]


def held(table: Table, numbers: list[int]) -> list[bool]:
    return [bool(place >= 0) for place in table.find(keys_of(numbers))]


class Reference:
    """The same, one key at a time, with dictionaries."""

    def __init__(self, sets: int) -> None:
        self.sets: list[dict[int, int]] = [{} for _ in range(sets)]

    def see(self, key: int, at: int) -> None:
        ways = self.sets[key * len(self.sets) >> 52]
        if key not in ways and len(ways) == WAYS:
            del ways[min(ways, key=lambda each: ways[each])]
        ways[key] = max(at, ways.get(key, 0))


@given(
    numbers=st.lists(st.integers(0, 60), min_size=1, max_size=200),
    cut=st.integers(0, 200),
    sets=st.sampled_from((1, 4)),
)
@settings(max_examples=100, deadline=None)
def test_the_coldest_of_a_set_makes_room(numbers: list[int], cut: int, sets: int) -> None:
    table, reference = Table(sets * WAYS), Reference(sets)
    # No two at the same moment, so that it is said who is coldest.
    times = list(range(1, len(numbers) + 1))
    seen(table, numbers[:cut], times[:cut])
    seen(table, numbers[cut:], times[cut:])
    for key, at in zip(keys_of(numbers).tolist(), times, strict=True):
        reference.see(key, at)
    expected = {key: at for ways in reference.sets for key, at in ways.items()}
    used = table.keys.nonzero()[0]
    # One owner has all, so that its own make room, as without owners.
    assert dict(zip(table.keys[used].tolist(), table.latest[used].tolist(), strict=True)) == expected


def test_a_table_never_grows() -> None:
    table = Table(64)
    for start in range(0, 4000, 1000):
        seen(table, list(range(start, start + 1000)), list(range(start + 1, start + 1001)))
    assert table.keys.size == table.latest.size == 64
    assert sum(held(table, list(range(4000)))) == 64


def test_a_flood_of_one_account_leaves_the_others_their_keys() -> None:
    table = Table(1024)
    others = list(range(200))
    for number in others:
        seen(table, [number], [1], owner=number + 2)
    for start in range(10_000, 22_000, 2000):
        seen(table, list(range(start, start + 2000)), list(range(start, start + 2000)), owner=1)
    assert sum(held(table, others)) >= 0.95 * len(others)


def test_time_of_a_key_never_runs_backwards() -> None:
    table = Table(8)
    keys = keys_of([1, 1, 1])
    segments, _ = table.place(keys, np.array([50, 20, 60], np.int64), np.ones(3, np.uint64))
    assert segments.times.tolist() == [50, 50, 60]
    table.touch(segments)
    segments, _ = table.place(keys[:1], np.array([10], np.int64), np.ones(1, np.uint64))
    assert segments.times.tolist() == [60]


def test_a_key_of_several_fields_needs_all_of_them_and_knows_their_order() -> None:
    one, two, none = (np.array([number], np.uint64) for number in (7, 9, 0))
    assert mixed([one, two])[0] != mixed([two, one])[0] != 0
    assert mixed([one, none])[0] == mixed([none])[0] == 0
