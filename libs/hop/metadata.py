"""Owns metadata of calls in frames: pairs as gRPC has them, and entries as the frames have them."""

from collections.abc import Iterable

from gatefold.mux.v1.mux_pb2 import Entry

Pairs = tuple[tuple[str, str | bytes], ...]

_BINARY = "-bin"


def entries_of(pairs: Iterable[tuple[str, str | bytes]]) -> list[Entry]:
    """Returns the entries of pairs of key and value."""
    return [Entry(key=key, value=value if isinstance(value, bytes) else value.encode()) for key, value in pairs]


def pairs_of(entries: Iterable[Entry]) -> Pairs:
    """Returns the pairs of entries; raises UnicodeDecodeError for a text that is none."""
    return tuple((entry.key, entry.value if entry.key.endswith(_BINARY) else entry.value.decode()) for entry in entries)
