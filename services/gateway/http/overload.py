"""Owns refusing work that would make everybody wait: what is in flight, and how late the event loop is."""

import asyncio

from gatefold.edge.v1 import policy_pb2

from libs import errors
from libs.events.pause import pause
from libs.telemetry import Telemetry
from services.gateway.domain.bounds import LoadBounds
from services.gateway.http.caches import Monotonic

LOOK_SECONDS = 0.1
RETRY_SECONDS = 2
_FADES = 0.7
"""What is left of a lag after each look that found less: shedding does not flap."""

_LOW, _NORMAL, _HIGH = (
    int(policy_pb2.CRITICALITY_LOW),
    int(policy_pb2.CRITICALITY_NORMAL),
    int(policy_pb2.CRITICALITY_HIGH),
)
_SHARES = {_LOW: 0.75, _NORMAL: 0.9, _HIGH: 1.0}
_NAMES = {_LOW: "low", _NORMAL: "normal", _HIGH: "high"}


class Overload:
    """Knows how much is going on in this process."""

    def __init__(self, bounds: LoadBounds, *, monotonic: Monotonic, telemetry: Telemetry) -> None:
        self._monotonic = monotonic
        self._lags = {_LOW: bounds.lag_low_seconds, _NORMAL: bounds.lag_normal_seconds, _HIGH: bounds.lag_high_seconds}
        self._most = {criticality: max(1, int(share * bounds.in_flight)) for criticality, share in _SHARES.items()}
        self._in_flight = 0
        self._shed = telemetry.counter(
            "gateway_shed", "Requests refused because of load, by criticality", ("criticality",)
        )
        self._lag_gauge = telemetry.gauge("gateway_loop_lag_seconds", "How late the event loop is")
        telemetry.gauge("gateway_in_flight", "Requests that a service is asked for").set_function(
            lambda: self._in_flight
        )
        self.lag_seconds = 0.0
        """How late the event loop is, fading."""

    def check(self, criticality: int) -> None:
        """Refuses what cannot be served soon, before any work is done for it; raises `unavailable("overloaded")`."""
        criticality = criticality or _NORMAL
        if self.lag_seconds >= self._lags[criticality] or self._in_flight >= self._most[criticality]:
            self._shed.labels(_NAMES[criticality]).inc()
            raise errors.unavailable("overloaded", "There is too much to do for a moment.", RETRY_SECONDS)

    def begin(self, criticality: int) -> None:
        """Counts a request as under way until `end`; raises `unavailable("overloaded")`."""
        # Many may have passed the first check before one of them came here.
        self.check(criticality)
        self._in_flight += 1

    def end(self) -> None:
        """Counts a request as over."""
        self._in_flight -= 1

    async def watch(self, stop: asyncio.Event) -> None:
        """Measures the event loop's lag until `stop` is set."""
        while not stop.is_set():
            began = self._monotonic()
            await pause(stop, LOOK_SECONDS)
            self.measured(self._monotonic() - began - LOOK_SECONDS)

    def measured(self, lag_seconds: float) -> None:
        """Takes one measurement; a high one counts at once, and fades."""
        self.lag_seconds = max(lag_seconds, self.lag_seconds * _FADES, 0.0)
        self._lag_gauge.set(self.lag_seconds)
