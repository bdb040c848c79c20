"""Tests of services/abuse/engine/arrays: the memory of tables."""

from pathlib import Path

import numpy as np

from services.abuse.engine.arrays import table

_PAGE = 4096
_MOST_PAGES = 2_000
"""Of 16,384: what else a process needs in between is far less."""


def resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])


def test_a_table_is_zeros_of_the_kind_that_is_asked_for() -> None:
    for shape, kind in ((5, np.int64), ((3, 4), np.uint8), ((2, 3, 4), np.float32)):
        made = table(shape, kind)
        made[-1] += 1
        expected = np.zeros(shape, kind)
        expected[-1] += 1
        assert made.dtype == expected.dtype
        assert np.array_equal(made, expected)


def test_scattered_keys_take_memory_for_themselves_alone() -> None:
    before = resident_pages()
    made = table(16_384 * _PAGE, np.uint8)
    made[:: made.size // 64] = 1

    assert resident_pages() - before < _MOST_PAGES
    assert made.sum() == 64
