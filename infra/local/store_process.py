"""Owns an embedded store's process: started until it answers, found again, stopped by ever harder signals."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from infra.local.placement import Child, StoreError, last_lines

_POLL_SECONDS = 0.02


@dataclass
class StoreProcess:
    """At most one process on a store's files: started here, or left there by another process.

    `left` finds the latter. `stop_signals` are tried in turn, each for its seconds; SIGKILL comes after the last. A
    start that ends with `passing` in its log is tried again, as long as `start_seconds` allow.
    """

    name: str
    data: Path
    log: Path
    child: Callable[[], Child]
    ping: Callable[[], bool]
    left: Callable[[], int | None]
    stop_signals: tuple[tuple[signal.Signals, float], ...]
    start_seconds: float = 30.0
    passing: str | None = None
    _own: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    def pid(self) -> int | None:
        """Returns the running process's id; None when none runs on the files."""
        if self._own is not None and self._own.poll() is None:
            return self._own.pid
        return self.left()

    def start(self) -> None:
        """Starts it as a child of this process and returns once it answers."""
        pid = self.pid()
        if pid is not None:
            raise StoreError(f"{self.name} is already running on {self.data} as process {pid}")
        deadline = time.monotonic() + self.start_seconds
        self._own = self.child().popen(self.log)
        while not self.ping():
            if self._own.poll() is not None:
                logged = last_lines(self.log)
                if self.passing is None or self.passing not in logged or time.monotonic() > deadline:
                    raise StoreError(f"{self.name} did not start:\n{logged}")
                time.sleep(0.2)
                self._own = self.child().popen(self.log)
                continue
            if time.monotonic() > deadline:
                self.stop()
                raise StoreError(
                    f"{self.name} did not answer within {self.start_seconds:.0f} s:\n{last_lines(self.log)}"
                )
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """Ends it, all of it written; also one that another process left."""
        pid = self.pid()
        for number, seconds in (*self.stop_signals, (signal.SIGKILL, 5.0)):
            if pid is None or self._gone(pid, number, seconds):
                break
        if self._own is not None:
            self._own.wait()
            self._own = None

    def _gone(self, pid: int, number: signal.Signals, seconds: float) -> bool:
        """Sends a signal; answers whether the process has ended in time."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + seconds
        while self.pid() == pid:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True
