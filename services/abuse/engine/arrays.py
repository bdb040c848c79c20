"""Owns the arrays that everything here is counted in: their names, and the memory of large ones."""

import math
import mmap
from contextlib import suppress
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

Ints: TypeAlias = NDArray[np.int64]
Keys: TypeAlias = NDArray[np.uint64]
Floats: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]


def table(shape: tuple[int, ...] | int, kind: DTypeLike) -> NDArray[Any]:
    """Returns zeros that take memory only where something was written, a page of 4 KiB at a time.

    numpy asks for pages of 2 MiB: keys are scattered, so that a few hundred of them would touch everything there is,
    and wait for it to be cleared.
    """
    made = np.dtype(kind)
    octets = math.prod(shape if isinstance(shape, tuple) else (shape,)) * made.itemsize
    memory = mmap.mmap(-1, max(octets, 1), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # A kernel that has no large pages says that it does not know of them.
    with suppress(OSError):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.ndarray(shape, made, memory)
