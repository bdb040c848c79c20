"""Owns what is made of files, and made anew when they change: certificates that are renewed while a process runs."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from prometheus_client import Counter

from libs.telemetry import Telemetry

Made = TypeVar("Made")
AGAIN_SECONDS = 1.0
"""How long files that cannot be used are not tried again, unless they change."""

_Stamp = tuple[tuple[int, int, int] | None, ...]


class Reloaded(Generic[Made]):
    """What `make` returns for the present files; `changes` counts by `result`, taken or unusable.

    Files that cannot be used (`make` raises OSError or ValueError, which all errors of ssl are) leave what was made
    before: of several files that belong together, some are new before others. May be called by several threads.
    """

    def __init__(
        self,
        files: Sequence[Path],
        make: Callable[[], Made],
        changes: Counter,
        telemetry: Telemetry,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises what `make` raises."""
        self._files = files
        self._make = make
        self._changes = changes
        self._log = telemetry.logger("files")
        self._seen = self._stamp()
        self._unusable: _Stamp | None = None
        self._monotonic = monotonic
        self._again = 0.0
        self._made = make()

    def value(self) -> Made:
        """Returns what was made of the newest files that could be used; to look costs some microseconds."""
        stamp = self._stamp()
        if stamp == self._seen or (stamp == self._unusable and self._monotonic() < self._again):
            return self._made
        try:
            made = self._make()
        except (OSError, ValueError) as error:
            # Not all that hinders shows in the files' stamps: it is tried again, and a change is told of once.
            self._again = self._monotonic() + AGAIN_SECONDS
            if stamp != self._unusable:
                self._unusable = stamp
                self._changes.labels("unusable").inc()
                self._log.warning("changed files cannot be used", extra={"why": type(error).__name__})
            return self._made
        if self._stamp() != stamp:
            return self._made  # they are being changed; the next look finds all of them
        self._made, self._seen = made, stamp
        self._changes.labels("taken").inc()
        self._log.info("changed files are used", extra={"files": [path.name for path in self._files]})
        return made

    def _stamp(self) -> _Stamp:
        return tuple(_stat(path) for path in self._files)


def _stat(path: Path) -> tuple[int, int, int] | None:
    # Mounted secrets change by a link that is swapped, which stat follows.
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
