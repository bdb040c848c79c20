"""Owns what a start shows: one line a step, with the seconds since it began."""

import sys
import time
from collections.abc import Callable


class Progress:
    """Lines on the terminal."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._began = monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return self._monotonic() - self._began

    def say(self, text: str) -> None:
        """Shows a line with the time."""
        self.show(f"[{self.seconds:5.1f} s] {text}")

    @staticmethod
    def show(text: str) -> None:
        """Shows a line as it is."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
