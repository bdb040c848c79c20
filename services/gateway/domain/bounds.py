"""Owns how much of the edge one client, one account or all together may take; docs/hardening.md says the same."""

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class ConnectionBounds:
    """How many connections there are, and how long each may be silent; seconds unless a name says otherwise."""

    connections: int = 8192
    """Open ones of a process, those that are being opened included; the longest idle gives way to a new one."""
    connections_per_client: int = 256
    """Of one IPv4 address or IPv6 /64; trusted proxies speak for many and are not counted."""
    handshakes: int = 512
    """Connections of a process that send their PROXY header or negotiate TLS; the longest under way gives way."""
    handshakes_per_client: int = 32
    handshake_seconds: float = 10.0
    """For the PROXY header, and again for TLS."""
    first_byte_seconds: float = 15.0
    """Until a new connection says anything."""
    idle_seconds: float = 75.0
    """Between requests."""
    header_seconds: float = 10.0
    """From the first byte of a request to the end of its headers."""
    header_bytes: int = 64 * 1024
    """Of a request's line and headers together."""
    write_seconds: float = 30.0
    """For a client to take what waits to be sent."""
    connection_requests: int = 10_000
    connection_seconds: float = 3600.0
    """A connection that is older ends with its next answer."""
    refusals_per_client: int = 50
    """A second, that are told at once; each further one is held back."""
    refusal_seconds: float = 1.0
    """How long, from half to one and a half of it."""
    drain_notice_seconds: float = 0.0
    """How long everything goes on after readiness says that this process drains."""
    drain_grace_seconds: float = 2.0
    """How long idle connections are kept while it drains, so that their next answer can say that they end."""

    def __post_init__(self) -> None:
        _check(self, may_be_zero={"drain_notice_seconds", "drain_grace_seconds"})


@dataclass(frozen=True)
class LoadBounds:
    """How much work is under way, and how late the event loop may be, before requests are refused."""

    in_flight: int = 1024
    """Requests of a process that a service is asked for: nine tenths for what is of normal criticality, three
    quarters for what is of low."""
    lag_low_seconds: float = 0.25
    """From this lag on, what is of low criticality is refused."""
    lag_normal_seconds: float = 1.0
    """And all but what is of high criticality."""
    lag_high_seconds: float = 3.0
    """And everything."""

    def __post_init__(self) -> None:
        _check(self)
        if not self.lag_low_seconds <= self.lag_normal_seconds <= self.lag_high_seconds:
            raise ValueError("lag_low_seconds, lag_normal_seconds and lag_high_seconds must not fall")


@dataclass(frozen=True)
class BodyBounds:
    """How large a request's body may be, and how slow."""

    body_bytes: int = 256 * 1024
    """Of endpoints whose policy states none."""
    body_seconds: float = 30.0
    """For all of it."""
    body_bytes_per_second: int = 500
    """What must arrive on average, once the grace is over."""
    body_grace_seconds: float = 5.0

    def __post_init__(self) -> None:
        _check(self, may_be_zero={"body_bytes_per_second", "body_grace_seconds"})


def _check(bounds: Any, may_be_zero: Collection[str] = ()) -> None:
    for field in fields(bounds):
        value = getattr(bounds, field.name)
        if value < 0 or (value == 0 and field.name not in may_be_zero):
            raise ValueError(f"{field.name} must be more than 0")
