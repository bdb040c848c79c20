"""Tests of libs/hop/metadata."""

import pytest
from gatefold.mux.v1.mux_pb2 import Entry
from hypothesis import given
from hypothesis import strategies as st

from libs.hop.metadata import entries_of, pairs_of

keys = st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True).filter(lambda key: not key.endswith("-bin"))
pairs = st.lists(
    st.tuples(keys, st.text()) | st.tuples(keys.map(lambda key: f"{key}-bin"), st.binary()), max_size=5
).map(tuple)


@given(pairs)
def test_metadata_arrives_as_it_was_sent(sent: tuple[tuple[str, str | bytes], ...]) -> None:
    assert pairs_of(entries_of(sent)) == sent


def test_bytes_under_the_name_of_a_text_are_refused() -> None:
    with pytest.raises(UnicodeDecodeError):
        pairs_of([Entry(key="x", value=b"\xff")])
