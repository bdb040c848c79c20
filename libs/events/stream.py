"""Owns the stream's form: one key a producer, entries of many envelopes packed together."""

from collections.abc import Sequence

from gatefold.events.v1 import envelope_pb2

FIELD = b"batch"
_TAG = bytes([envelope_pb2.EnvelopeBatch.ENVELOPES_FIELD_NUMBER << 3 | 2])


def stream_key(producer: str) -> str:
    """Returns the key of a producer's stream."""
    return f"gatefold:events:{producer}"


def pack(envelopes: Sequence[bytes]) -> bytes:
    """Returns the EnvelopeBatch of serialised envelopes, without parsing them."""
    # A repeated message field is tag, length, bytes; joined they are the serialised batch.
    return b"".join(_TAG + _varint(len(envelope)) + envelope for envelope in envelopes)


def unpack(entry: bytes) -> list[envelope_pb2.Envelope]:
    """Returns the envelopes of an entry; raises google.protobuf.message.DecodeError."""
    return list(envelope_pb2.EnvelopeBatch.FromString(entry).envelopes)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
