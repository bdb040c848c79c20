"""The packing of envelopes into stream entries."""

import pytest
from gatefold.events.v1 import envelope_pb2
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from libs.events.stream import pack, stream_key, unpack

ENVELOPES = st.builds(
    envelope_pb2.Envelope, id=st.text(max_size=300), type=st.text(max_size=20), sequence=st.integers(0, 2**63 - 1)
)


@given(st.lists(ENVELOPES, max_size=20))
def test_packing_equals_serialising_the_batch(envelopes: list[envelope_pb2.Envelope]) -> None:
    packed = pack([envelope.SerializeToString() for envelope in envelopes])
    assert packed == envelope_pb2.EnvelopeBatch(envelopes=envelopes).SerializeToString()
    assert unpack(packed) == envelopes


def test_an_entry_that_is_no_batch_is_refused() -> None:
    with pytest.raises(DecodeError):
        unpack(b"\xff\xff")


def test_each_producer_has_its_own_stream() -> None:
    assert stream_key("billing") == "gatefold:events:billing"
    assert stream_key("billing") != stream_key("auth")
