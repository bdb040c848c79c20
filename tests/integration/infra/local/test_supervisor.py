"""The supervisor with real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[4]
WAIT_SECONDS = 30.0


class Scene:
    """A supervisor in a process of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, scenario: str) -> None:
        command = [sys.executable, "-m", "tests.support.supervised", scenario, str(self.directory)]
        self._process = subprocess.Popen(command, cwd=ROOT)

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None
        return self._process

    @property
    def notes(self) -> list[str]:
        file = self.directory / "notes"
        return file.read_text().splitlines() if file.exists() else []

    def until(self, holds: Callable[[], object]) -> None:
        """Returns once it holds."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not holds():
            assert time.monotonic() < deadline, f"waited in vain; notes: {self.notes}"
            time.sleep(0.01)

    def noted(self, text: str, times: int = 1) -> bool:
        return sum(text in line for line in self.notes) >= times

    def pid_of(self, name: str) -> int:
        return int([line for line in self.notes if line.startswith(f"{name} started")][-1].split()[-1])

    def status(self, name: str) -> dict[str, object]:
        found: dict[str, object] = json.loads((self.directory / "status.json").read_text())["programs"][name]
        return found

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(WAIT_SECONDS)

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            for child in psutil.Process(self._process.pid).children(recursive=True):
                child.kill()
            self._process.kill()
            self._process.wait()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_programs_drain_stage_after_stage(scene: Scene, number: signal.Signals) -> None:
    scene.start("serve")
    scene.until(lambda: scene.noted("started", 3))
    assert scene.stop(number) == 0
    assert [line for line in scene.notes if "stopped" in line] == ["edge stopped", "service stopped", "store stopped"]
    assert scene.status("edge")["state"] == "stopped"


def test_killed_program_comes_back_and_the_others_stay(scene: Scene) -> None:
    scene.start("serve")
    scene.until(lambda: scene.noted("started", 3))
    service, store = scene.pid_of("service"), scene.pid_of("store")
    os.kill(service, signal.SIGKILL)
    scene.until(lambda: scene.noted("service started", 2))
    assert scene.pid_of("service") != service
    assert scene.pid_of("store") == store
    assert scene.noted("said service ended (killed by SIGKILL); starting it again")
    scene.until(lambda: scene.status("service")["state"] == "running")
    assert scene.status("service")["restarts"] == 1
    assert scene.stop() == 0


def test_failing_program_is_tried_again_until_it_stays(scene: Scene) -> None:
    scene.start("crash")
    scene.until(lambda: scene.noted("finally started"))
    said = [line for line in scene.notes if line.startswith("said late ended (exit code 70)")]
    assert len(said) == 3
    assert "not yet" in (scene.directory / "logs" / "late.log").read_text()
    assert scene.stop() == 0


def test_crash_loop_is_told_once_with_the_last_lines(scene: Scene) -> None:
    scene.start("loop")
    scene.until(lambda: scene.noted("keeps ending"))
    scene.until(lambda: int(str(scene.status("broken")["restarts"])) > 5)
    assert sum("broken keeps ending (exit code 3, 4 times in a row)" in line for line in scene.notes) == 1
    assert scene.noted("what is wrong")
    assert scene.status("broken")["state"] == "crash loop"
    assert scene.status("well")["state"] == "running"
    assert scene.stop() == 0


def test_crash_loop_is_over_once_a_start_has_lasted(scene: Scene) -> None:
    scene.start("recover")
    scene.until(lambda: scene.noted("finally started"))
    assert scene.status("late")["state"] == "crash loop"
    scene.until(lambda: scene.status("late")["state"] == "running")
    assert scene.noted("late stays up again")
    assert scene.stop() == 0


def test_refused_configuration_is_not_tried_again(scene: Scene) -> None:
    scene.start("loop")
    scene.until(lambda: scene.noted("refusing refuses its configuration"))
    scene.until(lambda: scene.noted("keeps ending"))
    assert scene.status("refusing") | {"log": ""} == {
        "state": "refused",
        "pid": None,
        "restarts": 0,
        "last_exit": "exit code 78",
        "log": "",
    }
    assert scene.stop() == 0


def test_program_that_does_not_stop_is_killed(scene: Scene) -> None:
    scene.start("deaf")
    scene.until(lambda: scene.noted("deaf started"))
    pid = scene.pid_of("deaf")
    assert scene.stop() == 0
    assert scene.noted("said deaf did not stop")
    assert not psutil.pid_exists(pid)


def test_second_signal_kills_what_still_drains(scene: Scene) -> None:
    scene.start("stubborn")
    scene.until(lambda: scene.noted("stubborn started"))
    scene.process.send_signal(signal.SIGINT)
    scene.until(lambda: scene.status("stubborn")["state"] == "stopping")
    assert scene.stop(signal.SIGINT) == 0
    assert scene.status("stubborn")["last_exit"] == "killed by SIGKILL"


def test_one_off_children_tell_their_exit_codes(scene: Scene) -> None:
    scene.start("task")
    assert scene.process.wait(WAIT_SECONDS) == 0
    assert scene.noted("codes [0, 5, 70]")


def test_parent_with_a_thread_refuses_to_fork(scene: Scene) -> None:
    scene.start("thread")
    assert scene.process.wait(WAIT_SECONDS) == 0
    assert scene.noted("refusing to fork a process with 2 threads: MainThread, worker")
    assert not scene.noted("never started")


def test_log_stays_bounded_and_keeps_its_end(scene: Scene) -> None:
    scene.start("chatty")
    scene.until(lambda: scene.noted("done started"))
    log = scene.directory / "logs" / "chatty.log"
    scene.until(lambda: log.with_suffix(".log.1").exists() and log.stat().st_size < 5 << 20)
    assert scene.stop() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children that their parent died")
def test_programs_do_not_outlive_a_killed_supervisor(scene: Scene) -> None:
    scene.start("serve")
    scene.until(lambda: scene.noted("started", 3))
    scene.process.kill()
    scene.process.wait()
    scene.until(lambda: scene.noted("stopped", 3))


def test_programs_have_process_groups_of_their_own(scene: Scene) -> None:
    scene.start("serve")
    scene.until(lambda: scene.noted("started", 3))
    groups = {os.getpgid(scene.pid_of(name)) for name in ("store", "service", "edge")}
    assert len(groups) == 3
    assert os.getpgid(scene.process.pid) not in groups
    assert scene.stop() == 0
