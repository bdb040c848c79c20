"""Owns the deadline of the request being served, so that what it calls cannot outlive it."""

import time
from contextvars import ContextVar

_ends: ContextVar[float] = ContextVar("gatefold_deadline")


def enter(seconds: float) -> None:
    """Sets the deadline for the rest of this task; an earlier one stays."""
    _ends.set(min(time.monotonic() + seconds, _ends.get(float("inf"))))


def remaining() -> float | None:
    """Returns the seconds left, none below 0; None without a deadline."""
    ends = _ends.get(None)
    return None if ends is None else max(0.0, ends - time.monotonic())
