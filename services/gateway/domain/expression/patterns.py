"""Owns what the language asks of an engine for regular expressions; the domain itself has none."""

from collections.abc import Callable, Sequence
from typing import Protocol

Found = Callable[[str], bool]
"""Whether a text has a part that matches."""


class Engine(Protocol):
    """Compiles RE2 patterns, and matches them in time that is linear in the text."""

    def one(self, pattern: str) -> Found:
        """Returns what finds a pattern; raises ValueError, with words for people, for one that is refused."""

    def any_of(self, patterns: Sequence[str]) -> Found | None:
        """Returns what finds any of several good patterns; None where they are too many for one."""

    def any_part(self, parts: Sequence[str]) -> Found:
        """Returns what finds any of several plain texts, in any case."""
