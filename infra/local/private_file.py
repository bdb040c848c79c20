"""Owns writing files that only their owner reads."""

import os
from pathlib import Path


def write_private(path: Path, text: str, *, lasting: bool = False) -> None:
    """Writes a file whole or not at all; `lasting` also over a crash of the machine."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        if lasting:
            file.flush()
            os.fsync(descriptor)
    fresh.replace(path)
