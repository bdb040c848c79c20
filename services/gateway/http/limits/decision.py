"""Owns what was decided on a request's limits, and how the headers say it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from services.gateway.http.limits.limit import Limit


class State(NamedTuple):
    """One limit after the decision, in microseconds."""

    backlog: int
    wait: int
    """Until it lets the request through, never too few; 0 when it does."""


UNKNOWN = State(-1, 0)
"""Of a limit that was not asked, since another one refused already or the store is away."""


@dataclass(frozen=True, slots=True)
class Decision:
    """All limits of one request after the decision."""

    limits: Sequence[Limit]
    states: Sequence[State]
    unavailable: bool = False
    """The store is away, and a limit is of a class that is closed without it."""
    refused_until: int = 0
    """Microsecond of the monotonic clock before which the same would be refused again, whatever else is asked."""

    @property
    def admitted(self) -> bool:
        """Whether every limit that counts lets the request through."""
        if self.unavailable:
            return False
        return not any(state.wait and not limit.shadow for limit, state in zip(self.limits, self.states, strict=True))

    @property
    def violated(self) -> list[Limit]:
        """The limits that refuse it."""
        return [limit for limit, state in zip(self.limits, self.states, strict=True) if state.wait and not limit.shadow]

    @property
    def shadowed(self) -> list[Limit]:
        """The limits that would refuse it if they were not in shadow."""
        return [limit for limit, state in zip(self.limits, self.states, strict=True) if state.wait and limit.shadow]

    @property
    def retry_after_seconds(self) -> int:
        """Seconds until all limits would let it through; never too few."""
        waits = [state.wait for limit, state in zip(self.limits, self.states, strict=True) if not limit.shadow]
        return -(-max(waits, default=0) // 1_000_000)

    def headers(self) -> dict[str, str]:
        """Returns `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-11).

        `r` are the units left, `t` the seconds until the whole quota is there again. A limit in shadow is not told of,
        nor what is left of one that was not asked.
        """
        policies: list[str] = []
        left: list[str] = []
        for limit, (backlog, _) in zip(self.limits, self.states, strict=True):
            if limit.shadow:
                continue
            policies.append(limit.policy)
            if backlog >= 0:
                units = (limit.tolerance - backlog) // limit.emission
                left.append(f'"{limit.name}";r={max(0, units)};t={-(-backlog // 1_000_000)}')
        headers = {"RateLimit-Policy": ", ".join(policies)} if policies else {}
        if left:
            headers["RateLimit"] = ", ".join(left)
        return headers
