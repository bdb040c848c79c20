"""Owns the processes of the stack: started, started again with growing pauses, drained in order."""

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import FrameType

from infra.local import child_process
from infra.local.logs import LogFile
from infra.local.private_file import write_private

EXIT_CONFIG = 78  # EX_CONFIG: started again, it would end the same way
_POLL_SECONDS = 1.0


class State(Enum):
    """How a program stands."""

    WAITING = "waiting"
    RUNNING = "running"
    LOOPING = "crash loop"
    REFUSED = "refused"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Program:
    """A process to keep running.

    `run` is called in a fork of the supervisor and returns an exit code, or replaces the process. Programs of a lower
    `stage` are stopped before those of a higher one. After `stop_seconds` a stopping program is killed.
    """

    name: str
    run: Callable[[], int]
    stage: int = 0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 25.0


@dataclass(frozen=True)
class Backoff:
    """How long to wait before a program is started again: doubling, jittered between half and all of it."""

    first_seconds: float = 0.2
    longest_seconds: float = 15.0
    steady_seconds: float = 30.0
    """A run that lasted so long makes earlier failures forgotten."""
    looping_after: int = 5
    """So many short runs in a row are a crash loop."""

    def pause(self, failures: int, chance: int) -> float:
        """Returns seconds; `failures` counts from 1, `chance` is a random byte."""
        longest = min(self.longest_seconds, self.first_seconds * 2.0 ** min(failures - 1, 16))
        return longest * (0.5 + chance / 510)


@dataclass
class Run:
    """What the supervisor knows of a program."""

    program: Program
    log: LogFile
    state: State = State.WAITING
    pid: int | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    failures: int = 0
    restarts: int = 0
    last_exit: str = ""
    kill_at: float | None = None


@dataclass
class _Task:
    """A one-off child."""

    pid: int
    code: int | None = None


class Stopped(Exception):  # noqa: N818 — not an error: somebody asked for the end
    """A signal asked the stack to stop while a task ran."""


@dataclass
class Supervisor:
    """Keeps programs running; single-threaded, without sockets or event loop, so that it can fork at any time.

    `directory` takes status.json and logs/. `say` is told what people should know. `randomness` is os.urandom.
    """

    directory: Path
    say: Callable[[str], None]
    randomness: Callable[[int], bytes]
    backoff: Backoff = field(default_factory=Backoff)
    monotonic: Callable[[], float] = time.monotonic
    close_in_children: tuple[int, ...] = ()
    """Descriptors that are the supervisor's alone, such as its lock."""

    def __post_init__(self) -> None:
        self._runs: dict[str, Run] = {}
        self._task: _Task | None = None
        self._stop_signals = 0
        self._draining = False
        self._logs = self.directory / "logs"
        self._logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._wake_read, self._wake_write = os.pipe()
        for descriptor in (self._wake_read, self._wake_write):
            os.set_blocking(descriptor, False)
            os.set_inheritable(descriptor, False)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _noted)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_stop)

    # --- what is asked of it ------------------------------------------------------------------------------------------

    def add(self, program: Program) -> None:
        """Adds a program; it is started by the next turn of the loop."""
        if program.name in self._runs:
            raise ValueError(f"there is a program {program.name} already")
        self._runs[program.name] = Run(program, LogFile(self._logs / f"{program.name}.log"))
        self._note()

    def task(self, name: str, run: Callable[[], int], *, log: bool = False) -> int:
        """Forks a one-off child, supervises until it ends, and returns its exit code (negative: the signal it died of).

        Raises Stopped when a signal asked for the end meanwhile; the child is ended first.
        """
        path = LogFile(self._logs / f"{name}.log").path if log else None
        task = self._task = _Task(self._fork(name, run, path, signal.SIGTERM))
        try:
            while task.code is None:
                if self._stop_signals:
                    os.kill(task.pid, signal.SIGTERM)
                self._turn()
        finally:
            self._task = None
        if self._stop_signals:
            raise Stopped
        return task.code

    def begin(self) -> None:
        """Starts what was added, and returns at once."""
        self._reap()
        self._start_due()

    def serve(self) -> None:
        """Supervises until SIGINT, SIGTERM or SIGHUP."""
        while not self._stop_signals:
            self._turn()

    def drain(self) -> None:
        """Stops all programs, stage after stage; another signal kills what is left."""
        self._stop_signals = 0
        self._draining = True
        stages = sorted({run.program.stage for run in self._runs.values()})
        for stage in stages:
            runs = [run for run in self._runs.values() if run.program.stage == stage]
            for run in runs:
                self._stop(run)
            while any(run.pid is not None for run in runs):
                for run in runs:
                    self._kill_late(run)
                self._turn()
        self._note()

    def close(self) -> None:
        """Gives signals back; kills what is left."""
        for run in self._runs.values():
            if run.pid is not None:
                os.killpg(run.pid, signal.SIGKILL)
                os.waitpid(run.pid, 0)
                run.pid = None
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.close(self._wake_read)
        os.close(self._wake_write)

    def status(self) -> dict[str, dict[str, object]]:
        """Returns how each program stands."""
        return {
            name: {
                "state": run.state.value,
                "pid": run.pid,
                "restarts": run.restarts,
                "last_exit": run.last_exit,
                "log": str(run.log.path),
            }
            for name, run in self._runs.items()
        }

    # --- one turn of the loop -----------------------------------------------------------------------------------------

    def _turn(self) -> None:
        self._reap()
        if not self._draining and not self._stop_signals:
            self._start_due()
        for run in self._runs.values():
            run.log.bound()
            self._trust_again(run)
        if self._task is not None and self._task.code is not None:
            return
        select.select([self._wake_read], [], [], self._until_next())
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        # So that whoever asked for this turn sees what woke it, and does not wait for another.
        self._reap()

    def _until_next(self) -> float:
        now = self.monotonic()
        waiting = [] if self._draining else [run for run in self._runs.values() if run.pid is None]
        times = [run.start_at for run in waiting if run.state in (State.WAITING, State.LOOPING)]
        times += [run.kill_at for run in self._runs.values() if run.kill_at is not None]
        return max(0.0, min([_POLL_SECONDS, *(at - now for at in times)]))

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            if self._task is not None and pid == self._task.pid:
                self._task.code = code
            for run in self._runs.values():
                if run.pid == pid:
                    self._ended(run, code)

    def _ended(self, run: Run, code: int) -> None:
        run.pid, run.kill_at, run.last_exit = None, None, _exit_text(code)
        if run.state is State.STOPPING:
            run.state = State.STOPPED
        elif code == EXIT_CONFIG:
            run.state = State.REFUSED
            self.say(f"{run.program.name} refuses its configuration and is not started again:\n{run.log.tail(5)}")
        else:
            self._plan_restart(run)
        self._note()

    def _plan_restart(self, run: Run) -> None:
        now = self.monotonic()
        run.failures = 1 if now - run.started_at > self.backoff.steady_seconds else run.failures + 1
        run.restarts += 1
        pause = self.backoff.pause(run.failures, self.randomness(1)[0])
        run.start_at = now + pause
        looping = run.failures >= self.backoff.looping_after
        if looping and run.state is not State.LOOPING and run.failures == self.backoff.looping_after:
            self.say(
                f"{run.program.name} keeps ending ({run.last_exit}, {run.failures} times in a row); its last lines:\n"
                f"{run.log.tail(10)}"
            )
        elif not looping:
            self.say(f"{run.program.name} ended ({run.last_exit}); starting it again in {pause:.1f} s")
        run.state = State.LOOPING if looping else State.WAITING

    def _trust_again(self, run: Run) -> None:
        """Ends a crash loop whose last start has lasted."""
        lasted = run.pid is not None and self.monotonic() - run.started_at > self.backoff.steady_seconds
        if run.state is State.LOOPING and lasted:
            run.state, run.failures = State.RUNNING, 0
            self.say(f"{run.program.name} stays up again")
            self._note()

    def _start_due(self) -> None:
        for run in self._runs.values():
            if run.state in (State.WAITING, State.LOOPING) and run.pid is None and run.start_at <= self.monotonic():
                program = run.program
                run.pid = self._fork(program.name, program.run, run.log.path, program.stop_signal)
                run.started_at = self.monotonic()
                if run.failures < self.backoff.looping_after:
                    run.state = State.RUNNING
                self._note()

    def _fork(self, name: str, run: Callable[[], int], log: Path | None, stop_signal: signal.Signals) -> int:
        def in_child() -> int:
            for descriptor in (self._wake_read, self._wake_write, *self.close_in_children):
                os.close(descriptor)
            return run()

        return child_process.fork(name, in_child, log=log, stop_signal=stop_signal)

    def _stop(self, run: Run) -> None:
        if run.pid is None:
            run.state = State.STOPPED
            return
        run.state = State.STOPPING
        run.kill_at = self.monotonic() + run.program.stop_seconds
        os.kill(run.pid, run.program.stop_signal)
        self._note()

    def _kill_late(self, run: Run) -> None:
        late = run.kill_at is not None and run.kill_at <= self.monotonic()
        if run.pid is None or not (late or self._stop_signals):
            return
        if late:
            self.say(f"{run.program.name} did not stop within {run.program.stop_seconds:.0f} s and is killed")
        run.kill_at = None
        os.killpg(run.pid, signal.SIGKILL)

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self._stop_signals += 1

    def _note(self) -> None:
        write_private(self.directory / "status.json", json.dumps({"programs": self.status()}))


def _noted(number: int, frame: FrameType | None) -> None:
    """SIGCHLD only has to wake the loop up, which the wake-up descriptor does."""


def _exit_text(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
