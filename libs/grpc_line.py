"""Owns the connection to one peer: which channel calls are made on, and its successor once certificates are renewed."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from libs.reloaded import Reloaded
from libs.tls import Pem

_GRACE_SECONDS = 5.0


class Line:
    """One channel at a time. A connection that stands is kept; the next is made with the newest certificates."""

    def __init__(self, connect: Callable[[Pem | None], grpc.aio.Channel], certificates: Reloaded[Pem] | None) -> None:
        self._connect = connect
        self._certificates = certificates
        self._pem = certificates.value() if certificates else None
        self._channel = connect(self._pem)
        self._calls: dict[str, Any] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def channel(self) -> grpc.aio.Channel:
        """Returns the channel to call on now, which is another one where the last stands no more and files changed."""
        if self._certificates is not None and self._channel.get_state() is not grpc.ChannelConnectivity.READY:
            pem = self._certificates.value()
            if pem is not self._pem:
                self._replace(pem)
        return self._channel

    def unary(self, method: str) -> Any:
        """Returns what calls a method with bytes, and returns bytes: so a request is serialised once, however often it
        is made.
        """
        call = self._calls.get(method)
        if call is None:
            call = self._calls[method] = self._channel.unary_unary(method, None, None)
        return call

    async def close(self, grace: float | None = None) -> None:
        """Closes the connection."""
        await asyncio.gather(self._channel.close(grace), *self._closing)

    def _replace(self, pem: Pem) -> None:
        old, self._channel, self._pem = self._channel, self._connect(pem), pem
        self._calls.clear()
        closing = asyncio.get_running_loop().create_task(old.close(_GRACE_SECONDS))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
