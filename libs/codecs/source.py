"""Owns the text of generated functions while it is written."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import CodeType
from typing import Any


class Source:
    """Lines of Python at a current depth, and the constants they name."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self.namespace: dict[str, Any] = dict(names)
        self._lines: list[str] = []
        self._depth = 0

    def line(self, text: str) -> None:
        """Adds a line."""
        self._lines.append("    " * self._depth + text)

    @contextmanager
    def block(self, opening: str) -> Iterator[None]:
        """Adds a line that opens a block, and writes within it."""
        self.line(opening)
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def constant(self, value: object) -> str:
        """Returns a name for a value that has no literal."""
        name = f"c{len(self.namespace)}"
        self.namespace[name] = value
        return name

    def run(self, title: str) -> None:
        """Defines the functions written so far in the namespace."""
        code: CodeType = compile("\n".join(self._lines), f"<gateway codec {title}>", "exec")
        self._lines = []
        # The text is made from our own descriptors at start; no request ever reaches it.
        exec(code, self.namespace)  # noqa: S102
