"""Owns a refusal that holds for a while: it is said again and again without being decided again."""

from collections.abc import Mapping

from services.gateway.http.limits.decision import Decision


class Refusal:
    """What a request of a cost is told until a microsecond of the monotonic clock.

    A flood of what is used up comes by here: nothing is worked out that can be kept.
    """

    __slots__ = (
        "_full",
        "_headers",
        "_headers_until",
        "_policies",
        "_retry_at",
        "cost",
        "names",
        "until",
        "violations",
    )

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
        self._headers: Mapping[str, str] = {}
        self._headers_until = 0

    def retry_after_seconds(self, now: int) -> int:
        """Returns the seconds until all limits would let it through; never too few."""
        return max(1, -((now - self._retry_at) // 1_000_000))

    def headers(self, now: int) -> Mapping[str, str]:
        """Returns `RateLimit` and `RateLimit-Policy`, as Decision does, and `Retry-After`.

        They are the same until one of their figures changes: a unit comes back, or another second is over.
        """
        if now < self._headers_until:
            return self._headers
        retry = self.retry_after_seconds(now)
        # Where a second is told that is not over yet, it stays.
        changes = [self._retry_at - (retry - 1) * 1_000_000] if retry > 1 else []
        left: list[str] = []
        for name, tolerance, emission, full in self._full:
            units, seconds = max(0, (tolerance + now - full) // emission), -((now - full) // 1_000_000)
            left.append(f'"{name}";r={units};t={seconds}')
            changes += (full - (seconds - 1) * 1_000_000, full - tolerance + (units + 1) * emission)
        self._headers_until = min(changes)
        self._headers = {"RateLimit-Policy": self._policies, "RateLimit": ", ".join(left), "Retry-After": str(retry)}
        return self._headers
