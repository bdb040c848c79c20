"""Owns sets of networks: which of them an address is in, exactly, for IPv4 and IPv6 and any number of entries."""

import socket
from dataclasses import dataclass, field
from heapq import heappop, heappush

_V4, _V6 = 4, 6
_BITS = {_V4: 32, _V6: 128}
_MAPPED = 0xFFFF
"""What stands before an IPv4 address in its IPv6 form (RFC 4291, 2.5.5.2)."""

Address = tuple[int, int]
"""Version, and the number."""
Network = tuple[int, int, int]
"""Version, the first address as a number, and the bits of the prefix."""


class HostBitsError(ValueError):
    """A network is meant that is smaller, or one that begins elsewhere."""


def parse_address(text: str) -> Address:
    """Returns an address; an IPv6 one that stands for an IPv4 one is that. Raises ValueError with words for people."""
    try:
        if ":" in text:
            number = int.from_bytes(socket.inet_pton(socket.AF_INET6, text), "big")
            return (_V4, number & 0xFFFFFFFF) if number >> 32 == _MAPPED else (_V6, number)
        return _V4, int.from_bytes(socket.inet_pton(socket.AF_INET, text), "big")
    except (OSError, ValueError):
        raise ValueError(f"{text[:60]!r} is no IP address") from None


def parse_network(text: str) -> Network:
    """Returns a network, `10.0.0.0/8`, or the one of a single address; raises ValueError with words for people, which
    is HostBitsError for bits beyond the prefix.
    """
    written, slash, length = text.partition("/")
    version, number = parse_address(written)
    most = _BITS[version]
    if not slash:
        return version, number, most
    if not (length.isascii() and length.isdigit() and len(length) <= 3):
        raise ValueError(f"{text[:60]!r} is no network: the prefix is a number")
    bits = int(length)
    if version == _V4 and ":" in written:
        bits -= 96
    if not 0 <= bits <= most:
        raise ValueError(f"{text[:60]!r} is no network: the prefix is too long")
    if number & ((1 << (most - bits)) - 1):
        first = number >> (most - bits) << (most - bits)
        raise HostBitsError(f"{text[:60]!r} is no network: the one around it is {normal(version, first)}/{bits}")
    return version, number, bits


def normal(version: int, number: int) -> str:
    """Returns an address as it is written by everybody alike (RFC 5952)."""
    family = socket.AF_INET if version == _V4 else socket.AF_INET6
    return socket.inet_ntop(family, number.to_bytes(_BITS[version] // 8, "big"))


@dataclass
class NetworkMap:
    """Networks, each with marks: bits of a number. Those that end are forgotten when they do."""

    _prefixes: dict[int, dict[int, dict[int, int]]] = field(default_factory=lambda: {_V4: {}, _V6: {}})
    """Marks by version, by bits of the prefix, by the prefix as a number."""
    _ends: dict[tuple[int, int, int, int], float] = field(default_factory=dict)
    _due: list[tuple[float, int, int, int, int]] = field(default_factory=list)
    _walks: dict[int, list[tuple[int, dict[int, int]]]] = field(default_factory=lambda: {_V4: [], _V6: []})

    def add(self, network: Network, marks: int = 1, ends_at: float | None = None) -> None:
        """Adds marks to a network, until a time where one is given; the longer of two times counts."""
        version, first, bits = network
        shift = _BITS[version] - bits
        held = self._prefixes[version].get(bits)
        if held is None:
            held = self._prefixes[version][bits] = {}
            # Longest prefix first, so that the first that is found is the closest.
            self._walks[version].append((shift, held))
            self._walks[version].sort(key=lambda walk: walk[0])
        prefix = first >> shift
        before = held.get(prefix, 0)
        held[prefix] = before | marks
        key = (version, bits, prefix, marks)
        if ends_at is None:
            self._ends.pop(key, None)
        elif before & marks != marks or self._ends.get(key, ends_at + 1) < ends_at:
            self._ends[key] = ends_at
            heappush(self._due, (ends_at, *key))

    @property
    def next_end(self) -> float:
        """When the next entry ends, in seconds of the epoch; infinite where none does."""
        return self._due[0][0] if self._due else float("inf")

    def forget(self, now: float) -> None:
        """Forgets what has ended by now."""
        while self._due and self._due[0][0] <= now:
            ends_at, *rest = heappop(self._due)
            version, bits, prefix, marks = rest
            key = (version, bits, prefix, marks)
            if self._ends.get(key) != ends_at:
                continue
            del self._ends[key]
            held = self._prefixes[version][bits]
            left = held.get(prefix, 0) & ~marks
            if left:
                held[prefix] = left
            else:
                held.pop(prefix, None)

    def marks(self, address: Address) -> int:
        """Returns the marks of all networks that an address is in."""
        version, number = address
        found = 0
        for shift, held in self._walks[version]:
            found |= held.get(number >> shift, 0)
        return found

    def longest(self, address: Address) -> Network | None:
        """Returns the smallest network that an address is in."""
        version, number = address
        for shift, held in self._walks[version]:
            if number >> shift in held:
                return version, number >> shift << shift, _BITS[version] - shift
        return None

    def __len__(self) -> int:
        return sum(len(held) for lengths in self._prefixes.values() for held in lengths.values())
