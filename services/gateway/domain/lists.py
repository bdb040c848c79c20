"""Owns the entries of lists: how each kind is written, and whether a value is on a list."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heapify, heappop

from services.gateway.domain.bundle import ListKind
from services.gateway.domain.expression.patterns import Engine, Found
from services.gateway.domain.networks import normal, parse_network

_COUNTRY = re.compile(r"[A-Z]{2}")
_ASN = re.compile(r"(?:AS)?([0-9]{1,10})")
_DOMAIN = re.compile(r"(?!-)[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63})+")
_LONGEST_ASN = 2**32 - 1
_AGENT_CHARACTERS = (3, 200)
_LINES_FOR_ONE = 10


def parse_entry(kind: ListKind, text: str) -> str:
    """Returns an entry as it is kept, the same for all ways of writing it; raises ValueError with words for people."""
    text = text.strip()
    match kind:
        case ListKind.NETWORKS:
            version, first, bits = parse_network(text)
            return f"{normal(version, first)}/{bits}"
        case ListKind.COUNTRIES:
            found, what = _COUNTRY.fullmatch(text.upper()), "a country is two letters (ISO 3166)"
            written = text.upper()
        case ListKind.ASNS:
            found, what = _ASN.fullmatch(text.upper()), "a network's number is written as 64500 or AS64500"
            written = str(int(found[1])) if found else ""
            if found and int(found[1]) > _LONGEST_ASN:
                found = None
        case ListKind.USER_AGENTS:
            least, most = _AGENT_CHARACTERS
            found = re.fullmatch(r"[\x20-\x7e]*", text) if least <= len(text) <= most else None
            what, written = f"a part of a User-Agent has {least} to {most} ASCII characters", text.lower()
        case ListKind.EMAIL_DOMAINS:
            written = text.lower().removeprefix("@").rstrip(".")
            found, what = _DOMAIN.fullmatch(written), "a domain is written as mail.example"
    if found is None:
        raise ValueError(f"{text[:60]!r}: {what}")
    return written


def parse_entries(kind: ListKind, lines: Iterable[str], *, most: int) -> list[str]:
    """Returns the entries of a text's lines; empty ones and what follows a `#` are left out, doubles count once.

    Raises ValueError, which names the line, for one that cannot be read, and as soon as there are more than `most`, or
    ten times as many lines: how much longer the text is makes no difference. Hand over what yields lines one by one
    (`io.StringIO(text)`), and call it in a thread: a hundred thousand networks take a tenth of a second.
    """
    found: dict[str, None] = {}
    for number, line in enumerate(lines, 1):
        if len(found) > most or number > most * _LINES_FOR_ONE:
            raise ValueError(f"line {number}: a list has {most:,} entries at most")
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            found[parse_entry(kind, text)] = None
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    if len(found) > most:
        raise ValueError(f"a list has {most:,} entries at most")
    return list(found)


@dataclass
class Members:
    """A list of anything but networks, while its entries hold."""

    kind: ListKind
    engine: Engine
    entries: dict[str, float | None]
    """Ends in seconds of the epoch."""
    _values: set[object] = field(default_factory=set)
    _due: list[tuple[float, str]] = field(default_factory=list)
    _any: Found | None = None

    def __post_init__(self) -> None:
        self._due = [(end, text) for text, end in self.entries.items() if end is not None]
        heapify(self._due)
        self._make()

    def _make(self) -> None:
        self._values = {int(text) if self.kind is ListKind.ASNS else text for text in self.entries}
        if self.kind is ListKind.USER_AGENTS:
            self._any = self.engine.any_part(list(self.entries)) if self.entries else None

    @property
    def next_end(self) -> float:
        """When the next entry ends; infinite where none does."""
        return self._due[0][0] if self._due else float("inf")

    def forget(self, now: float) -> None:
        """Forgets what has ended by now."""
        changed = False
        while self._due and self._due[0][0] <= now:
            _, text = heappop(self._due)
            if self.entries.pop(text, None) is not None:
                changed = True
                self._values.discard(int(text) if self.kind is ListKind.ASNS else text)
        if changed and self.kind is ListKind.USER_AGENTS:
            self._make()

    @property
    def test(self) -> Callable[[object], bool]:
        """What tells whether a value is on the list."""
        tests: dict[ListKind, Callable[[object], bool]] = {
            ListKind.USER_AGENTS: self._has_part,
            ListKind.EMAIL_DOMAINS: self._has_domain,
        }
        return tests.get(self.kind, self._has)

    def _has(self, value: object) -> bool:
        return value in self._values

    def _has_part(self, value: object) -> bool:
        return self._any is not None and self._any(str(value))

    def _has_domain(self, value: object) -> bool:
        """An address or a domain is on the list where it, or a domain above it, is."""
        domain = str(value).rpartition("@")[2].lower().rstrip(".")
        while domain:
            if domain in self._values:
                return True
            domain = domain.partition(".")[2]
        return False
