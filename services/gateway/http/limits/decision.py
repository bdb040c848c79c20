"""Owns what was decided on a request's limits, and how the headers say it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from services.gateway.http.limits.quotas import Limit


@dataclass(frozen=True, slots=True)
class State:
    """One limit after the decision, in microseconds."""

    backlog: int
    wait: int
    """Until it lets the request through; 0 when it does."""


@dataclass(frozen=True, slots=True)
class Decision:
    """All limits of one request after the decision."""

    limits: Sequence[Limit]
    states: Sequence[State]

    @property
    def admitted(self) -> bool:
        """Whether every limit lets the request through."""
        return not any(state.wait for state in self.states)

    @property
    def retry_after_seconds(self) -> int:
        """Seconds until all limits would; never too few."""
        return math.ceil(max(state.wait for state in self.states) / 1_000_000)

    def headers(self) -> dict[str, str]:
        """Returns `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10).

        `r` are the units left, `t` the seconds until the whole quota is there again.
        """
        policies = [f'"{limit.name}";q={limit.amount};w={limit.seconds}' for limit in self.limits]
        left = [
            f'"{limit.name}";r={max(0, (limit.tolerance - state.backlog) // limit.emission)}'
            f";t={math.ceil(state.backlog / 1_000_000)}"
            for limit, state in zip(self.limits, self.states, strict=True)
        ]
        return {"RateLimit": ", ".join(left), "RateLimit-Policy": ", ".join(policies)}
