"""Owns finding fields in many packed messages at once, instead of in one after the other."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from numpy.typing import NDArray

from services.abuse.engine.arrays import Flags, Ints, Keys

_PADDING = bytes(32)
"""Numbers are read eight bytes at a time, and fields sought where the last message ends."""
_LENGTH_FOLLOWS = {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_MESSAGE}
_MOST = {
    FieldDescriptor.TYPE_BOOL: 1,
    FieldDescriptor.TYPE_UINT32: (1 << 32) - 1,
    FieldDescriptor.TYPE_SINT32: (1 << 32) - 1,
    FieldDescriptor.TYPE_INT64: (1 << 56) - 1,
}
"""Largest that is read here; others are negative, or cut. Of the kinds that are not here it is 2^31 - 1."""
_ENDS = np.uint64(0x8080808080808080)
_ONE = np.uint64(1)
_NEIGHBOURS = (
    (np.uint64(0x007F007F007F007F), np.uint64(0x7F007F007F007F00), np.uint64(1)),
    (np.uint64(0x00003FFF00003FFF), np.uint64(0x3FFF00003FFF0000), np.uint64(2)),
    (np.uint64(0x000000000FFFFFFF), np.uint64(0x0FFFFFFF00000000), np.uint64(4)),
)
"""By which 7 bits of each byte, then 14 of two and 28 of four, are put together."""


class Octets:
    """Packed messages, one after the other, to be read at many places at once."""

    def __init__(self, packed: Iterable[bytes]) -> None:
        self.packed = b"".join((*packed, _PADDING))
        self.octets: NDArray[np.uint8] = np.frombuffer(self.packed, np.uint8)
        self.words: Keys = np.ndarray((len(self.packed) - 7,), np.dtype("<u8"), self.packed, strides=(1,))
        """The eight bytes that begin at each place."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field as the wire has it (protobuf.dev/programming-guides/encoding)."""

    name: str
    tag: bytes
    is_number: bool
    most: int
    zigzag: bool


def fields_of(message: Descriptor) -> tuple[Field, ...]:
    """Returns a message's fields in the order in which they are written. There are numbers and what has a length."""
    fields = []
    for field in sorted(message.fields, key=lambda one: one.number):
        is_number = field.type not in _LENGTH_FOLLOWS
        tag = field.number << 3 | (0 if is_number else 2)
        octets = bytes([tag]) if tag < 128 else bytes([tag & 127 | 128, tag >> 7])
        most, zigzag = _MOST.get(field.type, (1 << 31) - 1), field.type == FieldDescriptor.TYPE_SINT32
        fields.append(Field(field.name, octets, is_number, most, zigzag))
    return tuple(fields)


@dataclass(frozen=True, slots=True)
class Found:
    """Where the fields of some messages are."""

    edges: list[Ints]
    """Where each field begins, tag and all, or would begin; and last where all of them end."""
    numbers: dict[str, tuple[Ints, Flags]]
    """Values of the fields that are numbers, and which messages have them; those that none has are not here."""
    odd: Flags
    """Messages that somebody wrote in another way, or that are none; nothing that was found in them counts."""

    def part(self, chosen: slice) -> "Found":
        """Returns it of some of the messages."""
        numbers = {name: (values[chosen], there[chosen]) for name, (values, there) in self.numbers.items()}
        return Found([edge[chosen] for edge in self.edges], numbers, self.odd[chosen])


def find(octets: Octets, starts: Ints, ends: Ints, fields: tuple[Field, ...]) -> Found:
    """Finds all fields of the messages that begin and end there.

    Writers write fields in the order of their numbers, each once, and numbers no longer than need be. That is not
    promised: whatever else there is makes a message odd, and the library has to read it.
    """
    at, edges, numbers = starts, [starts], {}
    odd: Flags = np.zeros(starts.size, np.bool_)
    for field in fields:
        skip = len(field.tag)
        there = (octets.octets.take(at, mode="clip") == field.tag[0]) & (at < ends)
        if skip == 2:
            there &= octets.octets.take(at + 1, mode="clip") == field.tag[1]
        if there.any():
            if field.is_number:
                rows = there.nonzero()[0]
                value, size = _numbers(octets.words[at.take(rows) + skip])
                odd[rows[(size > 8) | (value > field.most)]] = True
                values, step = np.zeros((2, starts.size), np.int64)
                values[rows], step[rows] = (value >> 1) ^ -(value & 1) if field.zigzag else value, size + skip
                numbers[field.name] = values, there
            else:
                step = octets.octets.take(at + skip, mode="clip") + np.int64(skip + 1)
                long = there & (step > skip + 128)
                if long.any():
                    more = octets.octets.take(at + (skip + 1), mode="clip").astype(np.int64)
                    step += np.where(long, (more << 7) - 127, 0)
                    odd |= long & (more == 0)
                step *= there
            at = at + step
        edges.append(at)
    odd |= at != ends
    return Found(edges, numbers, odd)


def _numbers(words: Keys) -> tuple[Ints, Ints]:
    """Returns the varints with which words begin, and how many bytes each has: 9 where it is longer than a word."""
    ends = ~words & _ENDS
    end = ends & (~ends + _ONE)
    size = (np.bitwise_count(end - _ONE) >> 3) + np.int64(1)
    value = words & ((end << _ONE) - _ONE) & ~_ENDS
    for low, high, gap in _NEIGHBOURS:
        value = (value & low) | ((value & high) >> gap)
    return value.astype(np.int64), size
