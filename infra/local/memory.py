"""Owns the figure of how much memory the stack takes."""

import os
from pathlib import Path

import psutil


def of_tree(pid: int, *, without: int | None = None) -> tuple[int, str]:
    """Returns the bytes that a process and all below it take, and how they were counted.

    Proportional set size (shared pages are divided among those who share them) where the system tells; else the sum of
    resident sizes, which counts shared pages again and again.
    """
    root = psutil.Process(pid)
    found = [process for process in (root, *root.children(recursive=True)) if process.pid != without]
    sizes = [_proportional(process.pid) for process in found]
    if all(size is not None for size in sizes):
        return sum(size for size in sizes if size is not None), "proportional set size"
    return sum(_resident(process) for process in found), "resident set size"


def own_pid() -> int:
    """Returns this process's id."""
    return os.getpid()


def of_process(pid: int) -> int:
    """Returns the bytes of one process, and of all below it."""
    return of_tree(pid)[0]


def _proportional(pid: int) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except ProcessLookupError:
        return 0
    except OSError:
        return None if psutil.pid_exists(pid) else 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
