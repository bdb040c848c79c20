"""Owns the version of the code: the text people see and the number that migrations are held against."""

from pathlib import Path

CODE_VERSION = 1
"""Raised with each release; a schema's `min_compatible_code` beyond it refuses to be served by this code."""


def version() -> str:
    """Returns what the VERSION file at the project's root says, for example `0.1.0`."""
    return (Path(__file__).resolve().parent.parent / "VERSION").read_text(encoding="utf-8").strip()
