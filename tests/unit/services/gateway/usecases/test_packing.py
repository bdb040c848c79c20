"""Packed entries come back as they were, under the digest of what they say; anything else is refused."""

import zlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.errors import GatefoldError
from services.gateway.usecases import packing

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ENTRIES = st.dictionaries(
    st.text(min_size=1, max_size=40).filter(lambda text: "\0" not in text),
    st.none() | st.integers(1, 10**10).map(lambda seconds: EPOCH + timedelta(seconds=seconds)),
    max_size=30,
)


@given(ENTRIES)
def test_entries_come_back_as_they_were(entries: dict[str, datetime | None]) -> None:
    listed = tuple(sorted(entries.items(), key=lambda entry: entry[0].encode()))
    packed = packing.packed(listed)
    assert packing.unpacked(packed.digest, packed.packed) == listed
    assert packing.packed(listed).digest == packed.digest


@given(st.binary(max_size=200))
def test_what_was_never_packed_is_refused(data: bytes) -> None:
    with pytest.raises(GatefoldError, match="bundle_damaged"):
        packing.unpacked(b"d" * 32, data)


def test_what_unpacks_to_more_than_any_list_has_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MOST_UNPACKED_BYTES", 1024)
    bomb = zlib.compress(b"\0" * 10_000_000)
    with pytest.raises(GatefoldError, match="bundle_damaged"):
        packing.unpacked(b"d" * 32, bomb)


def test_what_follows_packed_entries_is_no_part_of_them() -> None:
    packed = packing.packed([("a", None)])
    with pytest.raises(GatefoldError, match="bundle_damaged"):
        packing.unpacked(packed.digest, packed.packed[:-2])


def test_entries_that_are_not_kept_are_let_go() -> None:
    sets = packing.EntrySets()
    one, two = packing.packed([("a", None)]), packing.packed([("b", None)])
    sets.take({one.digest: one.packed, two.digest: two.packed})
    sets.keep([two.digest])
    assert sets.lacking([one.digest, two.digest]) == [one.digest]
    with pytest.raises(GatefoldError, match="bundle_damaged"):
        sets.of(one.digest)
