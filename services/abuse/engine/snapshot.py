"""Owns what an engine knows, as bytes: of every table the places in use."""

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.abuse.engine.groups import Group

_FORMAT = 2


def pack(groups: Mapping[str, Group], told: Mapping[str, Any]) -> bytes:
    """Returns a snapshot of tables, by their identities, and of plain data."""
    arrays: dict[str, NDArray[Any]] = {}
    for identity, group in groups.items():
        used = group.table.keys.nonzero()[0]
        arrays[f"{identity}/used"] = used
        for name, column in _columns(group).items():
            arrays[f"{identity}/{name}"] = column[used]
    text = json.dumps({"format": _FORMAT, "told": told}).encode()
    packed = io.BytesIO()
    np.savez(packed, allow_pickle=False, head=np.frombuffer(text, np.uint8), **arrays)
    return packed.getvalue()


def unpack(snapshot: bytes, groups: Mapping[str, Group]) -> Mapping[str, Any]:
    """Fills new tables from a snapshot and returns the plain data. A table that the snapshot does not know, since its
    detector was changed, stays empty. Raises ValueError for what is no snapshot.
    """
    try:
        with np.load(io.BytesIO(snapshot), allow_pickle=False) as arrays:
            head = json.loads(arrays["head"].tobytes())
            if head["format"] != _FORMAT:
                raise ValueError("a snapshot of another format")
            for identity, group in groups.items():
                if f"{identity}/used" in arrays:
                    used = arrays[f"{identity}/used"]
                    for name, column in _columns(group).items():
                        column[used] = arrays[f"{identity}/{name}"]
            told: Mapping[str, Any] = head["told"]
            return told
    except (KeyError, IndexError, TypeError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError("this is no snapshot of an engine") from error


def _columns(group: Group) -> dict[str, NDArray[Any]]:
    table = group.table
    columns: dict[str, NDArray[Any]] = {"keys": table.keys, "latest": table.latest, "owners": table.owners}
    for number, signal in enumerate(group.signals):
        for name, column in group.kernels[signal.name].state.items():
            columns[f"{number}.{name}"] = column
    return columns
