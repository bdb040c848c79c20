"""Owns what tests of the supervisor have it run, in a process of its own: SCENARIO DIRECTORY."""

import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

from infra.local.child_process import NotForkableError
from infra.local.supervisor import Backoff, Program, Supervisor

FAST = Backoff(first_seconds=0.02, longest_seconds=0.2, looping_after=4)


def _note(directory: Path, text: str) -> None:
    with (directory / "notes").open("a") as file:
        file.write(text + "\n")


def _sleeper(directory: Path, name: str, *, deaf: bool = False, stops_in: float = 0.0) -> Program:
    """A program that runs until it is told to stop, and notes both."""

    def run() -> int:
        def stop(number: int, frame: object) -> None:
            if deaf:
                return
            time.sleep(stops_in)
            _note(directory, f"{name} stopped")
            os._exit(0)

        signal.signal(signal.SIGTERM, stop)
        _note(directory, f"{name} started {os.getpid()}")
        while True:
            signal.pause()

    return Program(name, run, stop_seconds=0.3 if deaf else 25)


def _staged(program: Program, stage: int) -> Program:
    return Program(program.name, program.run, stage, program.stop_signal, program.stop_seconds)


def serve(supervisor: Supervisor, directory: Path) -> int:
    """Three programs in three stages, until a signal."""
    supervisor.add(_staged(_sleeper(directory, "store"), 2))
    supervisor.add(_staged(_sleeper(directory, "service", stops_in=0.2), 1))
    supervisor.add(_staged(_sleeper(directory, "edge", stops_in=0.2), 0))
    supervisor.serve()
    supervisor.drain()
    return 0


def deaf(supervisor: Supervisor, directory: Path) -> int:
    """A program that does not listen is killed."""
    supervisor.add(_sleeper(directory, "deaf", deaf=True))
    supervisor.serve()
    supervisor.drain()
    return 0


def stubborn(supervisor: Supervisor, directory: Path) -> int:
    """A program that does not listen, and would be waited for long."""
    program = _sleeper(directory, "stubborn", deaf=True)
    supervisor.add(Program(program.name, program.run, stop_seconds=600))
    supervisor.serve()
    _note(directory, "draining")
    supervisor.drain()
    return 0


def crash(supervisor: Supervisor, directory: Path) -> int:
    """A program that fails three times, then stays."""

    def run() -> int:
        _note(directory, "tried")
        if (directory / "notes").read_text().count("tried") <= 3:
            raise RuntimeError("not yet")
        return _sleeper(directory, "finally").run()

    supervisor.add(Program("late", run))
    supervisor.serve()
    supervisor.drain()
    return 0


def recover(supervisor: Supervisor, directory: Path) -> int:
    """A program that falls into a crash loop and then stays."""
    supervisor.backoff = replace(FAST, steady_seconds=2.0)

    def run() -> int:
        _note(directory, "tried")
        return 3 if (directory / "notes").read_text().count("tried") <= 5 else _sleeper(directory, "finally").run()

    supervisor.add(Program("late", run))
    supervisor.serve()
    supervisor.drain()
    return 0


def loop(supervisor: Supervisor, directory: Path) -> int:
    """A program that never comes up, one that refuses its configuration, one that is well."""

    def fail() -> int:
        print("what is wrong", flush=True)
        return 3

    supervisor.add(Program("broken", fail))
    supervisor.add(Program("refusing", lambda: 78))
    supervisor.add(_sleeper(directory, "well"))
    supervisor.serve()
    supervisor.drain()
    return 0


def task(supervisor: Supervisor, directory: Path) -> int:
    """One-off children beside a program."""
    supervisor.add(_sleeper(directory, "beside"))
    codes = [supervisor.task("good", lambda: 0), supervisor.task("bad", lambda: 5), supervisor.task("raises", _raise)]
    _note(directory, f"codes {codes}")
    supervisor.drain()
    return 0


def _raise() -> int:
    raise ValueError("in a child")


def thread(supervisor: Supervisor, directory: Path) -> int:
    """A parent with a thread."""
    ended = threading.Event()
    threading.Thread(target=ended.wait, name="worker").start()
    supervisor.add(_sleeper(directory, "never"))
    try:
        supervisor.begin()
    except NotForkableError as error:
        _note(directory, str(error))
        return 0
    finally:
        ended.set()
    return 1


def chatty(supervisor: Supervisor, directory: Path) -> int:
    """A program that logs without end."""

    def run() -> int:
        for number in range(300_000):
            print(f"line {number} {'x' * 20}", flush=number % 1000 == 0)
        return _sleeper(directory, "done").run()

    supervisor.add(Program("chatty", run))
    supervisor.serve()
    supervisor.drain()
    return 0


def main(scenario: str, directory: Path) -> int:
    """Runs one scenario; returns its exit code."""

    def say(text: str) -> None:
        _note(directory, f"said {text}")

    supervisor = Supervisor(directory, say, os.urandom, FAST)
    try:
        return int(globals()[scenario](supervisor, directory))
    finally:
        supervisor.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
