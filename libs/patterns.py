"""Owns regular expressions that others write: RE2's, matched in time that is linear in the text."""

from collections.abc import Callable, Sequence
from typing import Any

import re2

LARGEST = 500
"""Instructions of one compiled pattern."""
LARGEST_TOGETHER = 5_000
_MEMORY_BYTES = 8 << 20

Found = Callable[[str], bool]


class Patterns:
    """Compiles patterns; each once."""

    def __init__(self) -> None:
        self._options: Any = re2.Options()
        self._options.log_errors = False
        self._options.never_capture = True
        self._options.max_mem = _MEMORY_BYTES

    def one(self, pattern: str) -> Found:
        """Returns what tells whether a text has a part that matches.

        Raises ValueError, with words for people, for what RE2 does not know (what goes back, or looks ahead), and for
        repetitions that would be large.
        """
        compiled = self._compiled(pattern)
        if compiled.programsize > LARGEST:
            raise ValueError("it is too large when its repetitions are written out")
        return _finder(compiled)

    def any_of(self, patterns: Sequence[str]) -> Found | None:
        """Returns what tells whether any of several good patterns matches; None where together they are too large."""
        try:
            compiled = self._compiled("|".join(f"(?:{pattern})" for pattern in patterns))
        except ValueError:
            return None
        return _finder(compiled) if compiled.programsize <= LARGEST_TOGETHER else None

    def any_part(self, parts: Sequence[str]) -> Found:
        """Returns what tells whether a text has any of several plain texts in it, in any case."""
        groups = self._groups(["(?i)" + re2.escape(part) for part in parts])
        return groups[0] if len(groups) == 1 else lambda text: any(found(text) for found in groups)

    def _groups(self, patterns: Sequence[str]) -> list[Found]:
        found = self.any_of(patterns)
        if found is not None or len(patterns) == 1:
            return [found or self.one(patterns[0])]
        half = len(patterns) // 2
        return self._groups(patterns[:half]) + self._groups(patterns[half:])

    def _compiled(self, pattern: str) -> Any:
        try:
            return re2.compile(pattern.encode("utf-8", "replace"), self._options)
        except re2.error as error:
            said = error.args[0] if error.args else b""
            raise ValueError(said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)) from None


def _finder(compiled: Any) -> Found:
    search = compiled.search
    # Bytes: of a text, the library would count characters to say where the match is.
    return lambda text: search(text.encode("utf-8", "replace")) is not None
