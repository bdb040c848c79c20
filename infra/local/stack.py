"""Owns the whole product on one machine: what runs, in which order it starts and ends, and one lock on its files."""

import asyncio
import fcntl
import gc
import importlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from infra.local import child_process, preparation, readiness
from infra.local.environment import Environments
from infra.local.placement import Child, StoreError
from infra.local.postgres import PostgresServer
from infra.local.preparation import PreparationError
from infra.local.progress import Progress
from infra.local.secrets import SERVICES, Secrets
from infra.local.settings import Place, Ports, StackConfig, choose_ports
from infra.local.supervisor import Backoff, Program, Stopped, Supervisor
from infra.local.valkey import ValkeyServer
from libs.vault import create_key_file

READY_SECONDS = 40.0
EXIT_INTERRUPTED = 130
_STAGE_EDGE, _STAGE_SERVICES, _STAGE_OUTSIDE, _STAGE_STORES = range(4)

# Imported before the first service is forked, so that all share these pages.
_PRELOADED = (
    "aiohttp.web",
    "aiosmtpd.smtp",
    "asyncpg",
    "grpc.aio",
    "redis.asyncio",
    "stripe",
    "infra.local.director",
    "infra.local.mail",
    "infra.local.stripe.__main__",
    *(f"services.{name}.__main__" for name in SERVICES),
)

Extra = Mapping[str, Mapping[str, str]]
"""Settings on top, by service: `{"billing": {"GATEFOLD_KILL_AT": "…"}}`."""


class StackError(Exception):
    """Says why the stack cannot run."""


class AlreadyRunningError(StackError):
    """Another process holds the state directory."""


class Stack:
    """One stack over one state directory."""

    def __init__(self, settings: StackConfig, *, extra: Extra | None = None, say: Progress | None = None) -> None:
        self.place = Place(settings.state_dir.absolute())
        self._settings = settings
        self._extra = extra or {}
        self._progress = say or Progress()
        self._lock = -1

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the state directory within the block; raises AlreadyRunningError when another stack does."""
        self.place.make()
        descriptor = os.open(self.place.lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyRunningError(f"a stack is running already on {self.place.state}") from None
            os.truncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
            self._lock = descriptor
            yield
        finally:
            os.close(descriptor)

    def run(self, direct: Callable[["Running"], int], *, stay: bool) -> int:
        """Starts everything, does `direct` in a child beside it, stays when asked to, drains; returns an exit code.

        `direct` returns 0 when all is well. The caller holds the lock.
        """
        say = self._progress.say
        end_leftovers(self.place)
        self.place.endpoints.unlink(missing_ok=True)
        secrets = Secrets(self.place.secrets)
        ports = choose_ports(self._settings, self.place, say)
        create_key_file(self.place.key_file)
        postgres, valkey = stores(self.place, secrets)
        running = Running(self, ports, secrets, postgres, valkey)
        try:
            say("stores: PostgreSQL and Valkey")
            for store in (postgres, valkey):
                store.stop()  # what a killed supervisor may have left
                store.init()
        except StoreError as error:
            raise StackError(f"the stores cannot start: {error}") from error
        supervisor = Supervisor(self.place.state, say, os.urandom, Backoff(), close_in_children=(self._lock,))
        try:
            return self._supervise(supervisor, running, direct, stay=stay)
        finally:
            supervisor.close()

    def _supervise(
        self, supervisor: Supervisor, running: "Running", direct: Callable[["Running"], int], *, stay: bool
    ) -> int:
        say = self._progress.say
        for program in running.store_programs():
            supervisor.add(program)
        supervisor.begin()
        # numpy's linear algebra, which nothing here uses, would start threads at its import: then no fork is safe.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        for name in _PRELOADED:
            try:
                importlib.import_module(name)
            except Exception as error:  # noqa: BLE001 — the child that needs it fails by itself, and says where
                say(f"{name} cannot be imported: {error}")
        # What is there now is never freed; leaving it out of collections keeps its pages shared.
        gc.collect()
        gc.freeze()
        try:
            code = self._start(supervisor, running, direct)
            if code == 0 and stay:
                self._progress.show("ready")
                supervisor.serve()
        except Stopped:
            code = 0 if stay else EXIT_INTERRUPTED
        say("draining")
        supervisor.drain()
        say("stopped")
        return code

    @staticmethod
    def _start(supervisor: Supervisor, running: "Running", direct: Callable[["Running"], int]) -> int:
        code = supervisor.task("prepare", running.prepare)
        if code != 0:
            return code
        running.progress.say(f"services: {', '.join(SERVICES)}")
        for program in running.programs():
            supervisor.add(program)
        return supervisor.task("direct", lambda: direct(running))

    def settings_of(self, service: str) -> Mapping[str, str]:
        """Returns the settings on top for one service."""
        return self._extra.get(service, {})

    @property
    def progress(self) -> Progress:
        """Where lines are shown."""
        return self._progress

    @property
    def gateways(self) -> tuple[str, ...]:
        """What the processes of the gateway are called."""
        return self._settings.gateway_names()

    @property
    def bcrypt_cost(self) -> int:
        """What hashing a password costs."""
        return self._settings.bcrypt_cost


class Running:
    """A stack that is being started: its ports, secrets and stores, as its children see them."""

    def __init__(
        self, stack: Stack, ports: Ports, secrets: Secrets, postgres: PostgresServer, valkey: ValkeyServer
    ) -> None:
        self.place = stack.place
        self.progress = stack.progress
        self.ports = ports
        self.secrets = secrets
        self.supervisor_pid = os.getpid()
        self._stack = stack
        self._postgres = postgres
        self._valkey = valkey
        self.environments = Environments(stack.place, ports, secrets, postgres, valkey, stack.bcrypt_cost)

    def store_programs(self) -> list[Program]:
        """Returns the stores; they stop last."""
        return [
            _external("postgres", self._postgres.child, signal.SIGINT),
            _external("valkey", self._valkey.child, signal.SIGTERM),
        ]

    def programs(self) -> list[Program]:
        """Returns the services and what stands at their outer edge."""
        return [
            Program("stripe", self._stripe, _STAGE_OUTSIDE, stop_seconds=10),
            Program("mail", self._mail, _STAGE_OUTSIDE, stop_seconds=10),
            *(self._service(name) for name in SERVICES if name != "gateway"),
            *(self._gateway(name) for name in self._stack.gateways),
        ]

    def prepare(self) -> int:
        """Brings the databases to what this code needs; in a child. Returns an exit code."""
        try:
            preparation.wait_for_stores(self._postgres, self._valkey)
            applied = asyncio.run(preparation.prepare(self._postgres, self.secrets, self.environments))
            if not self.place.publication.exists():
                preparation.issue_bootstrap_token(self.place, self.environments)
        except PreparationError as error:
            self.progress.say(str(error))
            return 1
        self.progress.say(f"databases: {len(applied)} migrations applied" if applied else "databases: up to date")
        return 0

    async def wait_ready(self) -> None:
        """Returns when everything answers; raises NotReadyError."""
        urls = (
            f"{self.ports.stripe_url}/_sim/health",
            f"{self.ports.mail_url}/mails",
            f"{self.ports.gateway_url}/healthz",
        )
        names = dict.fromkeys([*SERVICES, *self._stack.gateways])
        await readiness.wait_ready(self.place, list(names), urls, READY_SECONDS)

    def _service(self, name: str) -> Program:
        return Program(name, _main(name, self.environments.of(name, self._stack.settings_of(name))), _STAGE_SERVICES)

    def _gateway(self, name: str) -> Program:
        shared = self.environments.gateway(name) if len(self._stack.gateways) > 1 else {}
        environ = self.environments.of("gateway", {**shared, **self._stack.settings_of("gateway")})
        return Program(name, _main("gateway", environ), _STAGE_EDGE)

    def _stripe(self) -> int:
        from infra.local.stripe.__main__ import main

        return main(["--port", str(self.ports.stripe), "--state", str(self.place.stripe)])

    def _mail(self) -> int:
        from infra.local.mail import main

        return main(self.place.mails, self.ports.smtp, self.ports.mail)


def _main(service: str, environ: Mapping[str, str]) -> Callable[[], int]:
    def run() -> int:
        main: Callable[[Mapping[str, str]], int] = importlib.import_module(f"services.{service}.__main__").main
        return main(environ)

    return run


def _external(name: str, child: Callable[[], Child], stop_signal: signal.Signals) -> Program:
    def run() -> int:
        child_process.become(child(), stop_signal=stop_signal)

    return Program(name, run, _STAGE_STORES, stop_signal)


def stores(place: Place, secrets: Secrets) -> tuple[PostgresServer, ValkeyServer]:
    """Returns the two stores of a state directory."""
    return (
        PostgresServer(place.state / "postgres", secrets.secret("postgres/admin")),
        ValkeyServer(place.state / "valkey", secrets.secret("valkey")),
    )


def end_leftovers(place: Place) -> None:
    """Ends what a killed supervisor left running; for whoever holds the lock."""
    left = []
    for run in readiness.programs(place).values():
        process = _left_over(run.get("pid"), place.status)
        if process is not None:
            process.terminate()
            left.append(process)
    _, alive = psutil.wait_procs(left, timeout=10)
    for process in alive:
        process.kill()


def _left_over(pid: object, status: Path) -> psutil.Process | None:
    """Returns the process if it is the one that the status file was written about, and no later one of that number."""
    if not isinstance(pid, int):
        return None
    try:
        process = psutil.Process(pid)
        ours = "infra.local" in " ".join(process.cmdline()) and process.create_time() <= status.stat().st_mtime
    except psutil.Error:
        return None
    return process if ours else None


def stop(place: Place, seconds: float = 90.0) -> bool:
    """Asks the stack that runs on a state directory to drain, and waits; returns whether there was one."""
    until = time.monotonic() + seconds
    asked = False
    while (pid := holder(place)) is not None:
        if pid and not asked:
            os.kill(pid, signal.SIGTERM)
            asked = True
        if time.monotonic() > until:
            raise StackError(f"the stack of process {pid} does not stop")
        time.sleep(0.1)
    return asked


def holder(place: Place) -> int | None:
    """Returns the process id of the supervisor that runs on a state directory; None when none does."""
    if not place.lock.exists():
        return None
    with place.lock.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Whoever holds it writes its number right after it has it: 0 until then.
            text = file.read()
            return int(text) if text.isdigit() else 0
    return None


def forget(place: Place, *, but_lock: bool = False) -> None:
    """Removes everything of a stack that does not run, the stores' files outside the state directory included.

    `but_lock` leaves the lock's file, for whoever holds it.
    """
    end_leftovers(place)
    if place.secrets.exists():
        for store in stores(place, Secrets(place.secrets)):
            store.stop()
            shutil.rmtree(store.home, ignore_errors=True)
            shutil.rmtree(store.sockets, ignore_errors=True)
    shutil.rmtree(place.run, ignore_errors=True)
    for path in place.state.iterdir() if place.state.exists() else ():
        if path == place.lock and but_lock:
            continue
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    if not but_lock:
        shutil.rmtree(place.state, ignore_errors=True)
