"""Owns what tests of rate limits measure by: one integer GCRA, and the real store's script on a clock of the test's."""

from collections.abc import Sequence
from typing import Any

from libs.redis_client import Store
from libs.telemetry import Telemetry
from services.gateway.http.limits import LocalLimiter, RateStore
from services.gateway.http.limits.limit import Limit


class Microseconds:
    """A clock that stands still until it is moved; called, it tells seconds as time.monotonic does."""

    def __init__(self, now: int = 1_000_000_000) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now / 1_000_000


class TimedStore:
    """The store, whose scripts read this clock in place of its own; calls take `latency` there and back."""

    def __init__(self, store: Store, clock: Microseconds, latency: tuple[int, int] = (0, 0)) -> None:
        self._store = store
        self._clock = clock
        self.latency = latency
        self.calls = 0

    def register_script(self, source: str) -> Any:
        """Returns the script with its clock exchanged, and nothing else but when unused keys are dropped."""
        for real, ours in (
            ("redis.call('TIME')", "{0, table.remove(ARGV)}"),
            ("margin_milliseconds = 1000", "margin_milliseconds = 600000"),
        ):
            assert source.count(real) == 1
            source = source.replace(real, ours)
        script = self._store.register_script(source)

        async def run(keys: Sequence[str], args: Sequence[int]) -> Any:
            self.calls += 1
            self._clock.now += self.latency[0]
            answer = await script(keys=keys, args=[*args, self._clock.now])
            self._clock.now += self.latency[1]
            return answer

        return run


class Oracle:
    """A single integer GCRA: what all gateways together ought to decide."""

    def __init__(self) -> None:
        self._arrivals: dict[str, int] = {}

    def admits(self, limits: Sequence[Limit], cost: int, now: int) -> bool:
        """Decides; a request that is refused moves nothing."""
        after = {
            limit.key: max(self._arrivals.get(limit.key, 0), now) + min(cost, limit.amount) * limit.emission
            for limit in limits
        }
        if any(after[limit.key] - limit.tolerance > now for limit in limits):
            return False
        self._arrivals.update(after)
        return True


def gateway(store: Any, clock: Microseconds, *, lease_seconds: float = 0.0, away_seconds: float = 60.0) -> RateStore:
    """Returns the limiter of one gateway; without leases unless said otherwise."""
    return RateStore(
        store,
        LocalLimiter(clock),
        seconds=away_seconds,
        monotonic=clock,
        telemetry=Telemetry("gateway"),
        lease_seconds=lease_seconds,
    )
