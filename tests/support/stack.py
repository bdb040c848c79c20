"""Owns a whole stack for tests: every service as its own process, reached over HTTP, killed and started at will."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from infra.local import readiness
from infra.local.journey import Scene
from infra.local.logs import names, tail
from infra.local.secrets import SERVICES
from infra.local.settings import ROOT, Place

START_SECONDS = 90.0
STOP_SECONDS = 90.0
EXPECTED = ROOT / "tests" / "data" / "ghost_members.expected.json"
MEMBERS = ROOT / "tests" / "data" / "ghost_members.csv"


class StackProcess:
    """`python -m infra.local serve` over a state directory, on free ports.

    `settings` are the stack's own, without prefix (`{"bcrypt_cost": "4"}`); `extra` are services' settings by service.
    """

    def __init__(
        self,
        state: Path,
        *,
        settings: Mapping[str, str] | None = None,
        extra: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.place = Place(state)
        self._settings = {"http_port": "0", "stripe_port": "0", "mail_port": "0", "smtp_port": "0", "bcrypt_cost": "4"}
        self._settings |= settings or {}
        self.extra = {name: dict(values) for name, values in (extra or {}).items()}
        self._process: subprocess.Popen[bytes] | None = None
        self.endpoints: dict[str, Any] = {}

    @property
    def output(self) -> str:
        """What the supervisor said."""
        return self._output.read_text() if self._output.exists() else ""

    @property
    def _output(self) -> Path:
        return self.place.state.with_name(self.place.state.name + ".out")

    def begin(self, command: str = "serve") -> "subprocess.Popen[bytes]":
        """Starts it, and does not wait."""
        self.place.endpoints.unlink(missing_ok=True)
        own = {f"GATEFOLD_{name.upper()}": value for name, value in self._settings.items()}
        sets = [
            f"--set={service}:{name}={value}"
            for service, values in self.extra.items()
            for name, value in values.items()
        ]
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "infra.local", "--state", str(self.place.state), command, *sets],
                cwd=ROOT,
                env={**os.environ, **own},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        return self._process

    def start(self) -> "StackProcess":
        """Starts it and returns once everything is ready."""
        self._until(self.begin(), self.place.endpoints.exists)
        self.endpoints = json.loads(self.place.endpoints.read_text())
        return self

    def up(self) -> str:
        """Starts it with a publication, as people do; returns what it said once it is ready."""
        before = len(self.output)
        self._until(self.begin("up"), lambda: "\nready\n" in self.output[before:])
        return self.output[before:]

    def _until(self, process: "subprocess.Popen[bytes]", begun: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not begun():
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the stack did not start:\n{self.output}\n{self.logs()}")
            time.sleep(0.05)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Drains it and returns its exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(number)
        return self._process.wait(STOP_SECONDS)

    def programs(self) -> dict[str, dict[str, Any]]:
        """What the supervisor knows of each program: state, pid, restarts, last_exit."""
        found: dict[str, dict[str, Any]] = json.loads(self.place.status.read_text())["programs"]
        return found

    def kill(self, program: str) -> int:
        """Kills a program with SIGKILL; returns the process id it had."""
        pid = int(self.programs()[program]["pid"])
        os.kill(pid, signal.SIGKILL)
        return pid

    def until_back(self, program: str, killed: int) -> None:
        """Returns once a killed program runs again; it may not be ready yet."""
        deadline = time.monotonic() + START_SECONDS
        while self.programs()[program]["pid"] in (None, killed):
            if time.monotonic() > deadline:
                raise AssertionError(f"{program} did not come back:\n{self.output}")
            time.sleep(0.02)

    async def until_ready(self) -> None:
        """Returns once every service answers that it is ready."""
        at = self.endpoints
        urls = [f"{at['gateway']}/healthz", f"{at['stripe']}/_sim/health", f"{at['mail']}/mails"]
        await readiness.wait_ready(self.place, SERVICES, urls, START_SECONDS)

    def scene(self) -> Scene:
        """Where a journey over this stack plays."""
        at = self.endpoints
        return Scene(
            gateway=at["gateway"],
            stripe=at["stripe"],
            stripe_secret_key=at["stripe_secret_key"],
            stripe_publishable_key=at["stripe_publishable_key"],
            bootstrap_token=at["bootstrap_token"],
            members=MEMBERS,
            expected=EXPECTED,
        )

    def logs(self, lines: int = 15) -> str:
        """The last lines of every program."""
        return "\n".join(f"{name}:\n{tail(self.place.logs / f'{name}.log', lines)}" for name in names(self.place.logs))
