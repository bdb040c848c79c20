"""Owns thousands of connections that say little or nothing, from many addresses, without a task for any of them."""

import resource
import select
import socket
import time
from collections.abc import Iterator
from itertools import cycle

PER_ADDRESS = 200
"""Below what one client may have open."""
SPARE_FILES = 1000


def allow_files(count: int) -> None:
    """Lets this process have so many files open, and some more; raises OSError where the machine does not allow it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + SPARE_FILES
    if hard != resource.RLIM_INFINITY and wanted > hard:
        raise OSError(f"{wanted} open files are needed, and {hard} allowed (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class IdleCrowd:
    """Open connections; all calls block, and belong into a thread where something else is to go on."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: dict[int, socket.socket] = {}
        self._poll = select.epoll()
        self.heard = 0
        """Bytes of answers."""

    def __len__(self) -> int:
        return len(self._open)

    def open(self, count: int) -> None:
        """Opens so many more, from as many addresses as that takes."""
        for number, address in zip(range(count), cycle(_addresses(count)), strict=False):
            if number % 200 == 199:
                time.sleep(0.03)  # what a full queue cannot take is dropped, and asked for again a second later
            one = socket.socket()
            one.bind((address, 0))
            one.connect(("127.0.0.1", self._port))
            one.setblocking(False)
            self._open[one.fileno()] = one
            self._poll.register(one.fileno(), select.EPOLLIN)

    def say(self, data: bytes, count: int) -> None:
        """Says the same on so many of them, and waits until each was answered."""
        asked = dict(list(self._open.items())[:count])
        for one in asked.values():
            one.sendall(data)
        while asked:
            for number in self._listen(60):
                asked.pop(number, None)

    def until(self, left: int) -> None:
        """Returns once no more than so many are open; what the others hear until they end is thrown away."""
        while len(self._open) > left:
            if not self._listen(60):
                raise TimeoutError(f"{len(self._open)} connections are still open")

    def close(self) -> None:
        """Ends all that are left."""
        for one in self._open.values():
            one.close()
        self._open.clear()
        self._poll.close()

    def _listen(self, seconds: float) -> list[int]:
        ready = [number for number, _ in self._poll.poll(seconds)]
        for number in ready:
            one = self._open[number]
            try:
                data = one.recv(65536)
            except ConnectionError:
                data = b""
            self.heard += len(data)
            if not data:
                self._poll.unregister(number)
                del self._open[number]
                one.close()
        return ready


def _addresses(count: int) -> Iterator[str]:
    return (f"127.0.1.{number}" for number in range(1, 2 + count // PER_ADDRESS))
