"""Owns log files: of bounded size, with one older part, readable from the end."""

import json
import os
import shutil
from collections import deque
from collections.abc import Iterable
from pathlib import Path

MOST_BYTES = 4 << 20


class LogFile:
    """A file that a child appends to while the supervisor keeps it from growing beyond `most_bytes`."""

    def __init__(self, path: Path, *, most_bytes: int = MOST_BYTES) -> None:
        self.path = path
        self._most_bytes = most_bytes
        path.touch(mode=0o600, exist_ok=True)

    def bound(self) -> None:
        """Moves what is there to `<name>.1` when the file has grown too large; the child's descriptor stays good."""
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            return
        if size <= self._most_bytes:
            return
        # The child writes in append mode: after the cut its next line is the first one.
        older = self.path.with_suffix(".log.1")
        shutil.copyfile(self.path, older)
        older.chmod(0o600)
        os.truncate(self.path, 0)

    def tail(self, count: int) -> str:
        """Returns the last lines, indented, JSON lines made readable."""
        return tail(self.path, count)


def tail(path: Path, count: int) -> str:
    """Returns the last lines of a log, indented, JSON lines made readable; a traceback counts by its lines."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            records = deque(file, maxlen=count)
    except FileNotFoundError:
        records = deque()
    lines = [line for record in records for line in readable(record).splitlines()]
    return "\n".join(f"    {line}" for line in lines[-count:]) or "    (nothing logged)"


def readable(line: str) -> str:
    """Returns a log line as people read it: a JSON line as time, level, message and what else it says."""
    text = line.rstrip("\n")
    try:
        record = json.loads(text)
    except ValueError:
        return text
    if not isinstance(record, dict) or "message" not in record:
        return text
    head = [str(record.pop(name, "")) for name in ("time", "level", "logger", "message")]
    record.pop("service", None)
    rest = [f"{name}={_short(value)}" for name, value in record.items() if value not in (None, "")]
    return " ".join(part for part in [*head, *rest] if part)


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if "\n" not in text else "\n  " + "\n  ".join(text.splitlines())


def names(directory: Path) -> Iterable[str]:
    """Returns whose logs there are."""
    return sorted(path.stem for path in directory.glob("*.log"))
