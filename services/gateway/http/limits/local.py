"""Owns the rate limiter within this process, for when the store is away."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from services.gateway.http.caches import Monotonic
from services.gateway.http.limits.decision import Decision, State
from services.gateway.http.limits.quotas import Limit

STRICT_SHARE = 4
"""Strict quotas are divided by this while each replica counts alone: several together then stay near the quota."""

_MOST_KEYS = 50_000


class LocalLimiter:
    """The same algorithm as in the store, on this process's clock and memory."""

    def __init__(self, monotonic: Monotonic) -> None:
        self._monotonic = monotonic
        self._arrivals: OrderedDict[str, int] = OrderedDict()

    def decide(self, limits: Sequence[Limit], cost: int) -> Decision:
        """Decides; a request that is refused moves no counter."""
        own = [_tightened(limit) for limit in limits]
        now = int(self._monotonic() * 1_000_000)
        arrivals = [max(self._arrivals.get(limit.key, 0), now) for limit in own]
        waits = [
            max(0, arrival + cost * limit.emission - limit.tolerance - now)
            for limit, arrival in zip(own, arrivals, strict=True)
        ]
        if not any(waits):
            arrivals = [arrival + cost * limit.emission for limit, arrival in zip(own, arrivals, strict=True)]
            for limit, arrival in zip(own, arrivals, strict=True):
                self._arrivals[limit.key] = arrival
                self._arrivals.move_to_end(limit.key)
            while len(self._arrivals) > _MOST_KEYS:
                self._arrivals.popitem(last=False)
        states = [State(arrival - now, wait) for arrival, wait in zip(arrivals, waits, strict=True)]
        return Decision(own, states)

    def __len__(self) -> int:
        return len(self._arrivals)


def _tightened(limit: Limit) -> Limit:
    if not limit.name.startswith("strict-"):
        return limit
    return replace(limit, amount=max(1, limit.amount // STRICT_SHARE))
