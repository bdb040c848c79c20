"""Owns turning a batch of activities into columns of numbers, each made when first asked for."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from services.abuse.engine.arrays import Ints, Keys
from services.abuse.engine.packed import Activities, Activity

LATEST_BACK_MS = 3_600_000
"""How much earlier than its arrival an event may say it was."""
LONGEST_TEXT = 256
"""Longer ones are taken as absent: no account, route or reason is so long."""
MOST_EVENTS = 4096
"""So many events are looked at together."""
_MOST_TEXTS = 16_384
_EARLIEST_MS, _LATEST_MS = 1_500_000_000_000, 4_100_000_000_000
"""2017 and 2099: other times are no times."""
_FARTHEST = 1 << 40

SITE = "SITE"
"""What a publisher's own site says, and nobody here has seen: it counts for that account alone."""
EVERYBODYS = frozenset({"PUBLISHABLE_KEY", "ANONYMOUS"})
"""Callers whose actor is nobody: all pages of a site share one key."""
_TEXTS = {
    "account": "account_id",
    "method": "http_request_method",
    "route": "http_route",
    "caller": "caller_kind",
    "reason": "problem_reason",
    "event": "event_name",
    "country": "geo_country_iso_code",
}
_NEIGHBOURS: tuple[tuple[str, ...], ...] = (
    ("account", "method", "route"),
    ("caller",),
    ("reason",),
    ("event",),
    ("country",),
)
"""Texts that stand beside each other are looked up together: few combinations make nearly all traffic."""
_TOGETHER = {field: fields for fields in _NEIGHBOURS for field in fields}
HASH_FIELDS = {
    "address": "client_address_hash",
    "network": "client_network_hash",
    "user_agent": "user_agent_hash",
    "actor": "actor_hash",
    "target": "target_hash",
    "device": "device_hash",
    "session": "session_hash",
}
_NUMBERS = {
    "status": "http_response_status_code",
    "duration_micros": "duration_micros",
    "asn": "client_asn",
    "latitude": "geo_location_lat",
    "longitude": "geo_location_lon",
    "request_bytes": "http_request_body_size",
    "response_bytes": "http_response_body_size",
    "amount_minor": "amount_minor",
    "crawler": "verified_crawler",
    "refused": "refused_by_edge",
    "reach": "reach",
}
TEXTS, HASHES, NUMBERS = frozenset(_TEXTS), frozenset(HASH_FIELDS), frozenset(_NUMBERS) | {"placed"}
KEYS = TEXTS | HASHES | {"asn"}
"""Fields by which something can be counted."""
FIELDS = KEYS | NUMBERS


def text_key(text: str) -> int:
    """Returns the 64 bits that stand for a text; 0 for an empty one."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") if text else 0


_NOBODYS = np.array([text_key(caller) for caller in EVERYBODYS], np.uint64)


class _Texts(dict[bytes, int]):
    """Numbers of texts that were seen lately, packed, and what stands for each: alike in every process."""

    def __init__(self, fields: tuple[str, ...]) -> None:
        super().__init__()
        self._names = [_TEXTS[field] for field in fields]
        self.hashes: Keys = np.zeros((_MOST_TEXTS, len(fields)), np.uint64)

    def __missing__(self, packed: bytes) -> int:
        try:
            activity = Activity.FromString(packed)
        except DecodeError:
            return self[b""]
        texts = [getattr(activity, name) for name in self._names]
        kept = {name: text for name, text in zip(self._names, texts, strict=True) if len(text) <= LONGEST_TEXT}
        if len(kept) < len(texts):
            return self[Activity(**kept).SerializeToString()]
        number = self[packed] = len(self)
        self.hashes[number] = [text_key(text) for text in texts]
        return number


class Columns:
    """The columns of one batch. Texts and hashes are 64 bits, 0 where there is none; numbers are whole."""

    def __init__(self, activities: Activities, texts: dict[tuple[str, ...], _Texts]) -> None:
        self._activities = activities
        self._texts = texts
        self._columns: dict[str, Any] = {}

    def take(self, field: str, rows: Ints) -> Any:
        """Returns a field of some rows."""
        if field not in self._columns:
            if field in _TEXTS and rows.size * 4 < len(self._activities):
                # Of few rows texts are read again and again, and hardly of rows that nobody looks at.
                fields = _TOGETHER[field]
                return self._texts_of(fields, rows)[fields.index(field)].take(rows)
            self._read(field)
        return self._columns[field].take(rows)

    def _read(self, field: str) -> None:
        columns, activities = self._columns, self._activities
        if field in _TEXTS:
            columns.update(zip(_TOGETHER[field], self._texts_of(_TOGETHER[field]), strict=True))
        elif field in HASH_FIELDS:
            columns[field] = activities.hashes(HASH_FIELDS[field])
            if field == "actor":
                columns[field][np.isin(self.take("caller", np.arange(len(activities))), _NOBODYS)] = 0
        elif field == "placed":
            placed = activities.has("geo_location_lat") & activities.has("geo_location_lon")
            columns[field] = placed.astype(np.int64)
        else:
            # Sums of what is forged must not run over.
            columns[field] = activities.numbers(_NUMBERS[field]).clip(-_FARTHEST, _FARTHEST)

    def _texts_of(self, fields: tuple[str, ...], rows: Ints | None = None) -> Keys:
        rows, packed = self._activities.texts(tuple(_TEXTS[field] for field in fields), rows)
        texts = self._texts[fields]
        keys = np.zeros((len(fields), len(self._activities)), np.uint64)
        keys[:, rows] = texts.hashes[np.fromiter(map(texts.__getitem__, packed), np.int64, rows.size)].T
        return keys


class Reader:
    """Makes columns, and knows how late it is by what events say."""

    def __init__(self) -> None:
        self._texts = {fields: _Texts(fields) for fields in _NEIGHBOURS}
        self.latest_ms = _EARLIEST_MS
        """Latest time of all events; snapshots keep it."""

    def read(self, activities: Activities) -> Columns:
        """Returns the columns of at most MOST_EVENTS."""
        for fields, texts in self._texts.items():
            # A batch's texts are kept until its end, as their numbers are.
            if len(texts) > _MOST_TEXTS - MOST_EVENTS:
                self._texts[fields] = _Texts(fields)
        return Columns(activities, self._texts)

    def times(self, activities: Activities, received_at: Sequence[int] | None) -> Ints:
        """Returns when each event was, in Unix milliseconds. What cannot be is taken to be from its arrival, or from
        the latest event before.
        """
        seconds, nanos = activities.moments()
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
