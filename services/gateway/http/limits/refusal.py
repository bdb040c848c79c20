"""Owns a refusal that holds for a while: it is said again and again without being decided again."""

from collections.abc import Mapping

from services.gateway.http.limits.decision import Decision


class Refusal:
    """What a request of a cost is told until a microsecond of the monotonic clock.

    A flood of what is used up comes by here: nothing is worked out that can be kept.
    """

    __slots__ = ("_full", "_policies", "_retry_at", "cost", "names", "until", "violations")

    def __init__(self, decision: Decision, cost: int, now: int) -> None:
        violated = [
            (limit, state)
            for limit, state in zip(decision.limits, decision.states, strict=True)
            if state.wait and not limit.shadow
        ]
        self.cost = cost
        self.until = decision.refused_until
        self.names = [limit.name for limit, _ in violated]
        self.violations: Mapping[str, str] = {"violated_policies": ",".join(self.names)}
        self._retry_at = now + max(state.wait for _, state in violated)
        self._policies = ", ".join(limit.policy for limit in decision.limits if not limit.shadow)
        self._full = [(limit.name, limit.tolerance, limit.emission, now + state.backlog) for limit, state in violated]

    def retry_after_seconds(self, now: int) -> int:
        """Returns the seconds until all limits would let it through; never too few."""
        return max(1, -((now - self._retry_at) // 1_000_000))

    def headers(self, now: int) -> dict[str, str]:
        """Returns `RateLimit` and `RateLimit-Policy`, as Decision does."""
        left = [
            f'"{name}";r={max(0, (tolerance + now - full) // emission)};t={-((now - full) // 1_000_000)}'
            for name, tolerance, emission, full in self._full
        ]
        return {"RateLimit-Policy": self._policies, "RateLimit": ", ".join(left)}
