"""Owns Unix sockets: a private directory, no stale file, nobody else's hands on it."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LONGEST_PATH = 103  # what macOS allows; Linux allows four more


def path_of(address: str) -> Path | None:
    """Returns the path of a `unix:/…` address; None for any other address."""
    return Path(address.removeprefix("unix:")) if address.startswith("unix:") else None


def split(address: str) -> tuple[str, int]:
    """Returns host and port of `host:port` or `[v6]:port`; raises ValueError for anything else."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError(f"not an address: {address}")
    return host.removeprefix("[").removesuffix("]"), int(port)


@contextmanager
def binding(path: Path) -> Iterator[None]:
    """Lets a socket be bound at `path` within the block: for its owner alone (0600), in place of a stale one.

    Raises ValueError for a path that is too long, or whose directory others may write to.
    """
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise ValueError(f"the socket path is longer than {_LONGEST_PATH} bytes: {path}")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.parent.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ValueError(f"others may write to the socket's directory: {path.parent}")
    if path.exists() and path.is_socket():
        path.unlink()
    mask = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(mask)
