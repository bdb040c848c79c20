"""Owns what one caller's requests are held against, and what is known of it from one request to the next."""

from typing import TYPE_CHECKING

from services.gateway.http.limits.in_flight import Places
from services.gateway.http.limits.limit import Limit
from services.gateway.http.limits.refusal import Refusal

if TYPE_CHECKING:
    from services.gateway.http.limits.holdings import Holding, Holdings

_ANY = 1 << 62


class Held:
    """What one caller's requests are held against."""

    __slots__ = ("_left", "_policies", "holdings", "in_flight", "leases", "least", "limits", "places", "refusal")

    def __init__(self, limits: tuple[Limit, ...], in_flight: tuple[Limit, ...]) -> None:
        """`in_flight` is how many requests may be under way at one time."""
        self.limits = limits
        self.in_flight = in_flight
        self.places: Places | None = None
        """Where those under way are counted, once one was."""
        self.refusal: Refusal | None = None
        """What they were told last."""
        self.least = min((limit.amount for limit in limits), default=_ANY)
        """A request that costs more takes the whole of a quota."""
        self.holdings: Holdings | None = None
        """Whose `leases` are."""
        self.leases: tuple[tuple[Limit, Holding], ...] = ()
        """The counters of the limits, as far as they were looked up."""
        told = [limit for limit in limits if not limit.shadow]
        self._policies = ", ".join(limit.policy for limit in told)
        self._left = ", ".join(f'"{limit.name}";r=%d;t=%d' for limit in told)

    def headers(self, figures: list[int]) -> dict[str, str]:
        """Returns `RateLimit` and `RateLimit-Policy`, as Decision does, for two figures of each limit not in shadow.

        They are the units left, and the seconds until the whole quota is there again.
        """
        if not self._policies:
            return {}
        return {"RateLimit-Policy": self._policies, "RateLimit": self._left % tuple(figures)}
