"""Owns how the supervisor makes a child: a fork in a process group of its own, with its log."""

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import psutil

from infra.local.placement import Child

EXIT_FAILED = 70  # EX_SOFTWARE of sysexits.h
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGUSR1)


class NotForkableError(Exception):
    """The process has threads: a fork would copy their locks, held for ever, and none of the threads."""


def check_forkable() -> None:
    """Raises NotForkableError when this process has more than one thread, Python's or any library's."""
    names = [thread.name for thread in threading.enumerate()]
    running = psutil.Process().num_threads()
    if len(names) > 1 or running > 1:
        raise NotForkableError(
            f"refusing to fork a process with {max(running, len(names))} threads: {', '.join(names)}"
        )


def fork(name: str, run: Callable[[], int], *, log: Path | None, stop_signal: signal.Signals) -> int:
    """Forks a child that does `run` and exits with what it returns; returns the child's process id.

    Its output is appended to `log` (None: it keeps the parent's). It gets a process group of its own, so that Ctrl-C
    reaches only the parent, and where the system can it is sent `stop_signal` when the parent dies.
    """
    check_forkable()
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    pid = os.fork()
    if pid != 0:
        # Here too: the group may be killed before the child has come to make it.
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        return pid
    code = EXIT_FAILED
    try:
        _detach(name, parent, log, stop_signal)
        code = run()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else EXIT_FAILED
    except BaseException:  # noqa: BLE001 — nothing may return into the parent's code
        traceback.print_exc()
    finally:
        _leave(code)
    raise AssertionError("unreachable")


def become(child: Child, *, stop_signal: signal.Signals) -> NoReturn:
    """Turns this (forked) process into an external program, as the user it is to run as."""
    if child.user is not None:
        os.setgroups([])
        os.setgid(child.user.gid)
        os.setuid(child.user.uid)
        # A change of user takes the wish back.
        _die_with_parent(stop_signal)
    os.chdir(child.directory)
    os.execv(child.argv[0], child.argv)  # noqa: S606 — no shell is wanted


def _detach(name: str, parent: int, log: Path | None, stop_signal: signal.Signals) -> None:
    os.setpgid(0, 0)
    # Sockets, databases, mails: nobody else's business.
    os.umask(0o077)
    signal.set_wakeup_fd(-1)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN if number == signal.SIGPIPE else signal.SIG_DFL)
    _die_with_parent(stop_signal)
    if os.getppid() != parent:
        os._exit(EXIT_FAILED)  # it died before the wish was heard
    _prctl(_PR_SET_NAME, f"gf:{name}"[:15].encode())
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    if log is not None:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
    faulthandler.enable(file=2)


def _die_with_parent(stop_signal: signal.Signals) -> None:
    _prctl(_PR_SET_PDEATHSIG, int(stop_signal))


def _prctl(option: int, value: int | bytes) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _leave(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or EXIT_FAILED
    os._exit(code)
