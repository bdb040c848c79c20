"""Owns the rate limiter within this process, for when the store is away."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from services.gateway.http.caches import Monotonic
from services.gateway.http.limits.decision import Decision, State
from services.gateway.http.limits.limit import Limit

STRICT_SHARE = 4
"""Strict quotas are divided by this while each replica counts alone: several together then stay near the quota."""

_MOST_KEYS = 50_000


class LocalLimiter:
    """The same algorithm as in the store, on this process's clock and memory."""

    def __init__(self, monotonic: Monotonic) -> None:
        self._monotonic = monotonic
        self._arrivals: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def decide(self, limits: Sequence[Limit], cost: int) -> Decision:
        """Decides; a request that is refused moves no counter."""
        own = [_tightened(limit) for limit in limits]
        now = round(self._monotonic() * 1_000_000)
        states: list[State] = []
        moved: list[int] = []
        for limit in own:
            arrival = self._arrival(limit, now)
            increment = min(cost, limit.amount) * limit.emission
            states.append(State(arrival - now, max(0, arrival + increment - limit.tolerance - now)))
            moved.append(arrival + increment)
        decision = Decision(own, states)
        if not decision.admitted:
            return decision
        for index, (limit, arrival) in enumerate(zip(own, moved, strict=True)):
            if not states[index].wait:
                self._arrivals[limit.key] = arrival, limit.emission
                self._arrivals.move_to_end(limit.key)
                states[index] = State(arrival - now, 0)
        while len(self._arrivals) > _MOST_KEYS:
            self._arrivals.popitem(last=False)
        return decision

    def _arrival(self, limit: Limit, now: int) -> int:
        arrival, emission = self._arrivals.get(limit.key, (0, limit.emission))
        if emission != limit.emission:
            # As in the store: what was used stays used, in units.
            arrival = now + min((arrival - now) * limit.emission // emission, limit.tolerance)
        return max(arrival, now)

    def __len__(self) -> int:
        return len(self._arrivals)


def _tightened(limit: Limit) -> Limit:
    if not limit.strict:
        return limit
    return replace(limit, amount=max(1, limit.amount // STRICT_SHARE))
