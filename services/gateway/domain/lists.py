"""Owns whether a value is on a list of anything but networks, while its entries hold."""

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heapify, heappop

from services.gateway.domain.bundle import ListKind
from services.gateway.domain.expression.patterns import Engine, Found


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
