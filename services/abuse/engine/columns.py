"""Owns turning a batch of activities into columns of numbers, each made when first asked for."""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from operator import attrgetter
from typing import Any, TypeAlias

import numpy as np
from gatefold.activity.v1 import activity_pb2
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]
Keys: TypeAlias = NDArray[np.uint64]
Floats: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]

LATEST_BACK_MS = 3_600_000
"""How much earlier than its arrival an event may say it was."""
LONGEST_TEXT = 256
"""Longer ones are taken as absent: no account, route or reason is so long."""
MOST_EVENTS = 4096
"""So many events are looked at together."""
_MOST_TEXTS = 65_536
_EARLIEST_MS, _LATEST_MS = 1_500_000_000_000, 4_100_000_000_000
"""2017 and 2099: other times are no times."""
_HASH_BYTES = 16
_NO_HASH = b"\0" * _HASH_BYTES
_FARTHEST = 1 << 40


class _Texts(dict[str, int]):
    """Numbers of texts that were seen lately, up to a bound, and the hash of each: alike in every process."""

    def __init__(self) -> None:
        super().__init__()
        self.hashes: Keys = np.zeros(_MOST_TEXTS, np.uint64)

    def __missing__(self, text: str) -> int:
        if len(text) > LONGEST_TEXT:
            text = ""
        number = self.get(text)
        if number is None:
            number = self[text] = len(self)
            self.hashes[number] = text_key(text)
        return number


def text_key(text: str) -> int:
    """Returns the 64 bits that stand for a text; 0 for an empty one."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") if text else 0


def entity_key(entity_hash: bytes) -> int:
    """Returns the 64 bits that stand for a keyed hash; 0 for none, or one that is not whole."""
    return int.from_bytes(entity_hash[:8], "little") if len(entity_hash) == _HASH_BYTES else 0


Activity: TypeAlias = activity_pb2.Activity
SITE = "SITE"
"""What a publisher's own site says, and nobody here has seen: it counts for that account alone."""
EVERYBODYS = frozenset({"PUBLISHABLE_KEY", "ANONYMOUS"})
"""Callers whose actor is nobody: all pages of a site share one key."""
_TEXTS: dict[str, Callable[[Activity], str]] = {
    "account": attrgetter("account_id"),
    "method": attrgetter("http_request_method"),
    "route": attrgetter("http_route"),
    "caller": attrgetter("caller_kind"),
    "reason": attrgetter("problem_reason"),
    "event": attrgetter("event_name"),
    "country": attrgetter("geo_country_iso_code"),
}
_HASHES: dict[str, Callable[[Activity], bytes]] = {
    "address": attrgetter("client_address_hash"),
    "network": attrgetter("client_network_hash"),
    "user_agent": attrgetter("user_agent_hash"),
    "actor": attrgetter("actor_hash"),
    "target": attrgetter("target_hash"),
    "device": attrgetter("device_hash"),
    "session": attrgetter("session_hash"),
}
_NUMBERS: dict[str, Callable[[Activity], int]] = {
    "status": attrgetter("http_response_status_code"),
    "duration_micros": attrgetter("duration_micros"),
    "asn": attrgetter("client_asn"),
    "latitude": attrgetter("geo_location_lat"),
    "longitude": attrgetter("geo_location_lon"),
    "request_bytes": attrgetter("http_request_body_size"),
    "response_bytes": attrgetter("http_response_body_size"),
    "amount_minor": attrgetter("amount_minor"),
    "placed": lambda a: a.HasField("geo_location_lat") and a.HasField("geo_location_lon"),
    "crawler": attrgetter("verified_crawler"),
    "refused": attrgetter("refused_by_edge"),
    "reach": attrgetter("reach"),
}
TEXTS, HASHES, NUMBERS = frozenset(_TEXTS), frozenset(_HASHES), frozenset(_NUMBERS)
KEYS = TEXTS | HASHES | {"asn"}
"""Fields by which something can be counted."""
FIELDS = KEYS | NUMBERS


_NOBODYS = np.array([text_key(caller) for caller in EVERYBODYS], np.uint64)


class Columns:
    """The columns of one batch. Texts and hashes are 64 bits, 0 where there is none; numbers are whole."""

    def __init__(self, activities: Sequence[Activity], texts: _Texts) -> None:
        self.activities = activities
        self._texts = texts
        self._columns: dict[str, Any] = {}
        self._read_rows: dict[str, Flags] = {}
        """Of fields that were read of some rows, of which."""

    def __len__(self) -> int:
        return len(self.activities)

    def take(self, field: str, rows: Ints) -> Any:
        """Returns a field of some rows; it is read once of each row, and hardly of rows that nobody looks at."""
        column = self._columns.get(field)
        read = self._read_rows.get(field)
        if column is None:
            kind = np.int64 if field in NUMBERS or field == "asn" else np.uint64
            column = self._columns[field] = np.zeros(len(self), kind)
            read = self._read_rows[field] = np.zeros(len(self), np.bool_)
        if read is not None:
            missing = rows[~read[rows]]
            if missing.size * 4 > len(self):
                # Nearly all will be asked for: one reading of everything costs less than several of parts.
                missing = np.arange(len(self))
                column[:] = self._read(field, self.activities)
                del self._read_rows[field]
            elif missing.size:
                column[missing] = self._read(field, [self.activities[row] for row in missing.tolist()])
                read[missing] = True
            if field == "actor" and missing.size:
                column[missing[np.isin(self.take("caller", missing), _NOBODYS)]] = 0
        return column.take(rows)

    def _read(self, field: str, activities: Sequence[Activity]) -> Any:
        if field in _HASHES:
            hashes = list(map(_HASHES[field], activities))
            if not any(hashes):
                return np.zeros(len(hashes), np.uint64)
            if set(map(len, hashes)) != {_HASH_BYTES}:
                hashes = [one if len(one) == _HASH_BYTES else _NO_HASH for one in hashes]
            return np.frombuffer(b"".join(hashes), np.dtype("<u8"))[::2]
        if field in _TEXTS:
            # Small numbers are made faster than those of 64 bits.
            numbers = map(self._texts.__getitem__, map(_TEXTS[field], activities))
            return self._texts.hashes[np.fromiter(numbers, np.int64, len(activities))]
        values = np.fromiter(map(_NUMBERS[field], activities), np.int64, len(activities))
        # Sums of what is forged must not run over.
        return np.clip(values, -_FARTHEST, _FARTHEST, out=values)


class Reader:
    """Makes columns, and knows how late it is by what events say."""

    def __init__(self) -> None:
        self._texts = _Texts()
        self.latest_ms = _EARLIEST_MS
        """Latest time of all events; snapshots keep it."""

    def read(self, activities: Sequence[Activity]) -> Columns:
        """Returns a batch's columns."""
        # A batch's texts are kept until its end, as their numbers are.
        if len(self._texts) > _MOST_TEXTS - len(TEXTS) * MOST_EVENTS:
            self._texts = _Texts()
        return Columns(activities, self._texts)

    def times(self, activities: Sequence[Activity], received_at: Sequence[int] | None) -> Ints:
        """Returns when each event was, in Unix milliseconds. What cannot be is taken to be from its arrival, or from
        the latest event before.
        """
        times = list(map(attrgetter("time"), activities))
        seconds = np.fromiter(map(attrgetter("seconds"), times), np.int64, len(times))
        nanos = np.fromiter(map(attrgetter("nanos"), times), np.int64, len(times))
        # Beyond these bounds no multiplication fits.
        said = np.where((seconds > 0) & (seconds < _FARTHEST), seconds, 0) * 1000 + nanos // 1_000_000
        if received_at is not None:
            arrived = np.clip(np.asarray(received_at, np.int64), _EARLIEST_MS, _LATEST_MS)
            said = np.where(said > 0, said, arrived)
            said = np.clip(said, arrived - LATEST_BACK_MS, arrived)
        possible = (said >= _EARLIEST_MS) & (said < _LATEST_MS)
        until = np.maximum.accumulate(np.where(possible, said, self.latest_ms))
        until = np.maximum(until, self.latest_ms)
        if until.size:
            self.latest_ms = int(until[-1])
        return np.where(possible, said, until)
