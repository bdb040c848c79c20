"""Owns identifiers: UUIDv7 inside (RFC 9562), prefixed TypeID text at the edge."""

import re
import threading
from collections.abc import Callable
from typing import Protocol
from uuid import UUID

from libs import errors
from libs.clock import WallClock

Randomness = Callable[[int], bytes]
"""Returns that many random bytes; `os.urandom` outside tests."""

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_DIGITS = bytes.maketrans(_ALPHABET.encode(), b"0123456789abcdefghijklmnopqrstuv")
"""To what int() reads in base 32."""
_PAIRS = tuple(high + low for high in _ALPHABET for low in _ALPHABET)
_SUFFIX = re.compile(r"[0-7][0-9a-hjkmnp-tv-z]{25}")
_PREFIX = re.compile(r"[a-z]([a-z_]{0,61}[a-z])?")
_COUNTER_BITS = 74


class IdSource(Protocol):
    """Whatever makes new identifiers."""

    def new(self) -> UUID: ...


class IdMaker:
    """Makes UUIDv7 values that only rise within a process, also when the clock stands still or steps back.

    The 74 random bits are a counter within a millisecond, raised by a random step (RFC 9562, 6.2, method 2).
    """

    def __init__(self, clock: WallClock, randomness: Randomness) -> None:
        self._clock = clock
        self._randomness = randomness
        self._lock = threading.Lock()
        self._millisecond = -1
        self._counter = 0

    def new(self) -> UUID:
        """Returns the next identifier."""
        with self._lock:
            millisecond = int(self._clock.wall().timestamp() * 1000)
            if millisecond > self._millisecond:
                self._millisecond = millisecond
                # The top bit starts clear, so that a busy millisecond has room to count.
                self._counter = int.from_bytes(self._randomness(10), "big") >> (80 - _COUNTER_BITS + 1)
            else:
                self._counter += 1 + int.from_bytes(self._randomness(4), "big")
                if self._counter >> _COUNTER_BITS:
                    self._millisecond += 1
                    self._counter = int.from_bytes(self._randomness(10), "big") >> (80 - _COUNTER_BITS + 1)
            rand_a = self._counter >> 62
            rand_b = self._counter & ((1 << 62) - 1)
            return UUID(int=self._millisecond << 80 | 0x7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b)


def encode(prefix: str, value: UUID) -> str:
    """Returns the TypeID text, `sub_01h455vb4pex5vsknk084sn02q` (TypeID specification 0.3.0)."""
    if _PREFIX.fullmatch(prefix) is None:
        raise ValueError(f"not an id prefix: {prefix!r}")
    number = value.int
    pairs = []
    for _ in range(13):
        pairs.append(_PAIRS[number & 1023])
        number >>= 10
    pairs.reverse()
    return f"{prefix}_{''.join(pairs)}"


def decode(prefix: str, text: str, *, field: str = "id") -> UUID:
    """Returns the UUID of a TypeID text with this prefix.

    Raises `invalid("id_malformed")` naming `field` for any other text, upper case and overlong numbers included.
    """
    start = len(prefix) + 1
    if not (text.startswith(prefix) and text[start - 1 : start] == "_" and _SUFFIX.fullmatch(text, start)):
        raise errors.invalid("id_malformed", f"This must be an identifier that starts with {prefix}_.", field=field)
    return UUID(int=int(text[start:].encode().translate(_DIGITS), 32))


def prefix_of(text: str) -> str:
    """Returns the prefix of an identifier whose kind is not known beforehand; empty when there is none."""
    return text.rpartition("_")[0]
