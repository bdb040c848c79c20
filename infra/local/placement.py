"""Owns as whom and from where the embedded stores run, so that they work from any checkout, as root too."""

import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

# Linux allows 107 bytes in a socket's path, macOS 103; a lock file's suffix comes on top.
MOST_SOCKET_BYTES = 97
SHARED_STATE = Path("/var/tmp")  # noqa: S108 — kept over restarts; entries are checked to be ours before use


class StoreError(Exception):
    """A store cannot be set up, started or reached; says which, why, and the last lines it logged."""


@dataclass(frozen=True)
class User:
    """The unprivileged user that root starts stores as."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True)
class Child:
    """How a supervisor starts a store as its own child; `user` is None where it runs as whoever starts it."""

    argv: tuple[str, ...]
    user: User | None
    directory: Path

    def popen(self, log: Path) -> "subprocess.Popen[bytes]":
        """Starts it in a process group of its own (Ctrl-C reaches only the supervisor), output appended to `log`."""
        with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
            return subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                process_group=0,
                user=self.user.uid if self.user else None,
                group=self.user.gid if self.user else None,
                extra_groups=[] if self.user else None,
            )


@dataclass(frozen=True)
class StorePlace:
    """Where a store's files are, and as whom it runs on them."""

    home: Path
    user: User | None
    sockets: Path

    @property
    def data(self) -> Path:
        """The store's own directory."""
        return self.home / "data"


def settle(state: Path, longest_socket: str) -> StorePlace:
    """Returns the place of the store that belongs at `state`; see store_user, home_for and socket_directory."""
    home = home_for(state, store_user(state / "data"))
    # Only now is it known where the data are, and with them whose they are.
    return StorePlace(home, store_user(home / "data"), socket_directory(home / "socket", longest_socket))


def store_user(owned: Path) -> User | None:
    """Returns whom to run a store as: None for the present user, and for root whoever owns what is there already."""
    if os.geteuid() != 0:
        return None
    if owned.exists() and owned.stat().st_uid != 0:
        entry = pwd.getpwuid(owned.stat().st_uid)
        return User(entry.pw_name, entry.pw_uid, entry.pw_gid)
    for name in ("postgres", "_postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return User(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise StoreError("started as root, and there is no user 'postgres' or 'nobody' to run the stores as")


def home_for(wanted: Path, user: User | None) -> Path:
    """Returns a directory for a store's files: `wanted`, or one under /var/tmp when the user cannot get to that.

    It is made when it is not there. Nothing but directories made here has its mode changed.
    """
    wanted = wanted.absolute()
    if reachable(wanted, user, os.X_OK):
        return private_directory(wanted)
    return private_directory(SHARED_STATE / f"gatefold-{short_hash(wanted)}")


def socket_directory(wanted: Path, longest_name: str) -> Path:
    """Returns `wanted`, or a short private directory in its place when a socket's path in it would be too long."""
    if len(os.fsencode(wanted / longest_name)) <= MOST_SOCKET_BYTES:
        return wanted
    return Path(tempfile.gettempdir()).resolve() / f"gatefold-{os.geteuid()}-{short_hash(wanted)}"


def private_directory(path: Path) -> Path:
    """Makes a directory of ours that others may pass through but not list; refuses one that is somebody else's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise StoreError(f"{path} is not a directory of this user") from None
    path.chmod(0o711)
    return path


def owned_directory(path: Path, user: User | None) -> Path:
    """Makes a directory that only the store's user (and root) gets into."""
    if not path.exists():
        path.mkdir(mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (os.geteuid(), user.uid if user else os.geteuid()):
        raise StoreError(f"{path} is not a directory of the store's user")
    if user is not None:
        os.chown(path, user.uid, user.gid)
    return path


def write_owned(path: Path, content: str, user: User | None) -> None:
    """Writes a file that only the store's user (and root) can read."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        if user is not None:
            os.fchown(descriptor, user.uid, user.gid)
        file.write(content)


def installed(
    source: Path,
    probes: Sequence[str],
    user: User | None,
    name: str,
    ignore: Callable[..., set[str]],
    parts: Sequence[str] = (".",),
) -> Path:
    """Returns where the user can run an installation from: `source`, or a copy under /var/tmp.

    `probes` are files below `source` that must be readable, directories on the way to them included. `parts` are the
    folders that belong to the installation, where there are others beside; they keep their places to each other.
    """
    if all(reachable(source / probe, user, os.R_OK) for probe in probes):
        return source
    shelf = private_directory(SHARED_STATE / f"gatefold-{short_hash(source)}-programs")
    copy = shelf / name
    if copy.exists():
        return copy
    fresh = Path(tempfile.mkdtemp(dir=shelf))
    try:
        for part in parts:
            if (source / part).is_dir():
                shutil.copytree(source / part, fresh / name / part, symlinks=True, ignore=ignore, dirs_exist_ok=True)
        for path in (fresh / name, *(fresh / name).rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
        (fresh / name).rename(copy)
    except FileExistsError:
        pass  # another process has copied it meanwhile
    except OSError as error:
        if not copy.exists():
            raise StoreError(f"cannot copy {source} to {copy}: {error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return copy


def reachable(path: Path, user: User | None, access: int) -> bool:
    """Answers whether the user may pass every directory above `path`, and `access` it where it exists."""
    if user is None:
        return True
    for parent in path.parents:
        if parent.exists() and not _allowed(parent, user, os.X_OK):
            return False
    return not path.exists() or _allowed(path, user, access)


def last_lines(log: Path, count: int = 12) -> str:
    """Returns the end of a log file, for messages about a failed start."""
    if not log.exists():
        return "(nothing logged)"
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:]) or "(nothing logged)"


def short_hash(path: Path) -> str:
    """Returns 12 hex digits that stand for a path."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


def _allowed(path: Path, user: User, access: int) -> bool:
    """As the kernel decides by owner, group and others; access is os.R_OK or os.X_OK (4 or 1, as in the mode)."""
    found = path.stat()
    if found.st_uid == user.uid:
        return bool(found.st_mode >> 6 & access)
    if found.st_gid == user.gid:
        return bool(found.st_mode >> 3 & access)
    return bool(found.st_mode & access)
