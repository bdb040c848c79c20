"""Owns PROXY protocol version 2: what a proxy says of its client before the connection's own bytes.

HAProxy's specification "The PROXY protocol, versions 1 & 2", section 2.2.
"""

import asyncio
import socket
import struct

from services.gateway.http.address import Peer

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
FIXED_BYTES = 16
MOST_BYTES = 536
"""Of what follows the fixed part: addresses, and extensions that are passed over."""

_LOCAL, _PROXY = 0x20, 0x21
_ADDRESSES = {0x11: (socket.AF_INET, 4), 0x21: (socket.AF_INET6, 16)}
"""TCP over IPv4 and over IPv6."""


class ProxyHeaderError(Exception):
    """The connection does not begin with a header that can be read."""


async def read(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> Peer | None:
    """Reads exactly the header and returns the client's address and port.

    None where the proxy speaks for itself (its health checks), or knows no address. Raises ProxyHeaderError.
    """
    fixed = await _exactly(loop, connection, FIXED_BYTES)
    command, family, length = parse_fixed(fixed)
    return parse_rest(command, family, await _exactly(loop, connection, length))


def parse_fixed(fixed: bytes) -> tuple[int, int, int]:
    """Returns command, family and the number of bytes that follow; raises ProxyHeaderError."""
    if fixed[:12] != SIGNATURE:
        raise ProxyHeaderError("no signature of version 2")
    command, family, length = struct.unpack_from("!BBH", fixed, 12)
    if command not in (_LOCAL, _PROXY):
        raise ProxyHeaderError("an unknown version or command")
    if length > MOST_BYTES:
        raise ProxyHeaderError("too long")
    return command, family, length


def parse_rest(command: int, family: int, rest: bytes) -> Peer | None:
    """Returns the client's address and port; raises ProxyHeaderError for addresses that are cut short."""
    if command == _LOCAL or family not in _ADDRESSES:
        return None
    kind, size = _ADDRESSES[family]
    if len(rest) < 2 * size + 4:
        raise ProxyHeaderError("addresses that are cut short")
    (port,) = struct.unpack_from("!H", rest, 2 * size)
    return socket.inet_ntop(kind, rest[:size]), port


async def _exactly(loop: asyncio.AbstractEventLoop, connection: socket.socket, number: int) -> bytes:
    # Not a byte more is taken: what follows belongs to TLS or HTTP.
    read = b""
    while len(read) < number:
        more = await loop.sock_recv(connection, number - len(read))
        if not more:
            raise ProxyHeaderError("the connection ended")
        read += more
    return read
