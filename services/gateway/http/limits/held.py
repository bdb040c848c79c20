"""Owns what one caller's requests are held against, and what is known of it from one request to the next."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from services.gateway.http.limits.in_flight import Places
from services.gateway.http.limits.limit import Limit
from services.gateway.http.limits.refusal import Refusal

if TYPE_CHECKING:
    from services.gateway.http.limits.holdings import Holding

_ANY = 1 << 62


class Held:
    """What one caller's requests are held against."""

    __slots__ = (
        "_figures", "_headers", "_least", "_left", "_policies", "in_flight", "leases", "limits", "places", "refusal"
    )  # fmt: skip

    def __init__(self, limits: tuple[Limit, ...], in_flight: tuple[Limit, ...]) -> None:
        """`in_flight` is how many requests may be under way at one time."""
        self.limits = limits
        self.in_flight = in_flight
        self.places: Places | None = None
        """Where those under way are counted, once one was."""
        self.refusal: Refusal | None = None
        """What they were told last."""
        self.leases: tuple[tuple[Limit, Holding], ...] | None = None if limits else ()
        """The counters of all the limits, once they were looked up (`Holdings.bind`)."""
        # A request that costs more than a whole quota takes the whole quota.
        self._least = min((limit.amount for limit in limits), default=_ANY)
        self._figures: list[int] = []
        self._headers: Mapping[str, str] = {}
        told = [limit for limit in limits if not limit.shadow]
        self._policies = ", ".join(limit.policy for limit in told)
        self._left = ", ".join(f'"{limit.name}";r=%d;t=%d' for limit in told)

    def spend(self, cost: int, now: int) -> Mapping[str, str] | None:
        """Lets a request through that leases suffice for, as they do for nearly all; returns what its headers say.

        None, and nothing is moved, for all else. The headers are `RateLimit` and `RateLimit-Policy`, as Decision has
        them.
        """
        leases = self.leases
        if leases is None or cost > self._least:
            return None
        for _, holding in leases:
            lease = holding.lease
            if lease is None or lease.units < cost or lease.expires_at <= now:
                return None
        figures: list[int] = []
        for limit, holding in leases:
            lease = holding.lease
            if lease is None:
                continue  # never: it was just looked at
            lease.units -= cost
            holding.spent += cost
            if limit.shadow:
                continue
            backlog = holding.most - now - lease.units * limit.emission
            if backlog > 0:
                units = (limit.tolerance - backlog) // limit.emission
                figures += (units if units > 0 else 0, -(-backlog // 1_000_000))
            else:
                figures += (limit.amount, 0)
        if figures != self._figures:
            # Who asks now and then finds the same left each time.
            self._figures = figures
            self._headers = {"RateLimit-Policy": self._policies, "RateLimit": self._left % tuple(figures)}
        return self._headers
