"""Owns the file of the last known good version: private, checksummed, replaced as a whole."""

import hashlib
import os
import stat
from contextlib import suppress
from pathlib import Path

from gatefold.gateway.v1 import bundle_pb2
from google.protobuf.message import DecodeError

from libs import errors

MAGIC = b"gatefold bundle 1\n"
MOST_BYTES = 128 * 1024 * 1024


class BundleFile:
    """One file. Whoever may write to its folder could replace it, so the folder is the gateway's own."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def save(self, packed: bytes) -> None:
        """Replaces the file; a crash leaves the old one or the new one. Raises OSError."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._path.with_name(f"{self._path.name}.{os.getpid()}.new")
        with suppress(FileNotFoundError):
            fresh.unlink()
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(MAGIC + hashlib.sha256(packed).digest() + packed)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)

    def load(self) -> bundle_pb2.Snapshot | None:
        """Returns what was saved last; None where nothing was.

        Raises `invalid("bundle_damaged")` for a file that others could write to, or that is not as it was written.
        """
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError:
            raise _damaged() from None
        with os.fdopen(descriptor, "rb") as file:
            held = os.fstat(file.fileno())
            private = held.st_uid == os.geteuid() and not held.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
            if not stat.S_ISREG(held.st_mode) or not private or held.st_size > MOST_BYTES:
                raise _damaged()
            content = file.read(MOST_BYTES)
        checksum, packed = content[len(MAGIC) : len(MAGIC) + 32], content[len(MAGIC) + 32 :]
        if not content.startswith(MAGIC) or hashlib.sha256(packed).digest() != checksum:
            raise _damaged()
        try:
            return bundle_pb2.Snapshot.FromString(packed)
        except DecodeError:
            raise _damaged() from None


def _damaged() -> errors.GatefoldError:
    return errors.invalid("bundle_damaged", "This version is not whole.")
