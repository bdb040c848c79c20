"""Owns the points where a chaos test can end the process: each commit, publish, call and ack, before and after."""

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal

Kind = Literal["commit", "publish", "call", "ack"]
When = Literal["before", "after"]


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class KillPoints:
    """Records every point passed, and ends the process by SIGKILL at one of them, once.

    A point is named `service:when-kind:label`, for example `billing:after-commit:create_checkout`; `#3` appended to
    `kill_at` means the third time the process passes it. `<kill_log>.killed` remembers that it happened, so that the
    process which is started next passes the point. Without `kill_log` and `kill_at` a point costs one comparison.
    """

    def __init__(
        self,
        service: str,
        *,
        kill_at: str | None = None,
        kill_log: Path | None = None,
        die: Callable[[], None] = _die,
    ) -> None:
        if kill_at is not None and kill_log is None:
            raise ValueError("kill_at needs kill_log, where it is remembered that the process was killed")
        self._service = service
        self._log = kill_log
        self._die = die
        point, _, nth = (kill_at or "").partition("#")
        self._target = point
        self._target_nth = int(nth) if nth else 1
        self._passed: Counter[str] = Counter()

    def at(self, kind: Kind, when: When, label: str) -> None:
        """Passes a point; `label` is the transaction's, event's or method's name."""
        if self._log is None:
            return
        point = f"{self._service}:{when}-{kind}:{label}"
        with self._log.open("ab", buffering=0) as log:
            # One write in append mode: lines of several processes do not mix.
            log.write(f"{point}\n".encode())
        self._passed[point] += 1
        if point == self._target and self._passed[point] == self._target_nth and self._remember():
            self._die()

    def _remember(self) -> bool:
        assert self._log is not None
        marker = self._log.with_name(self._log.name + ".killed")
        try:
            descriptor = os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{self._target}#{self._target_nth}\n")
        return True
