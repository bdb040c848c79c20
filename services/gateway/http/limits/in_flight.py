"""Owns how many requests are under way at one time, by whom, in this gateway."""

from collections.abc import Sequence
from weakref import WeakValueDictionary

from services.gateway.http.limits.limit import Limit


class _Count:
    """Requests under way that one limit counts."""

    __slots__ = ("__weakref__", "taken")

    def __init__(self) -> None:
        self.taken = 0


class Places:
    """The places that requests of one caller take, in each limit on how many may be under way."""

    __slots__ = ("_counts",)

    def __init__(self, counts: Sequence[tuple[Limit, _Count]]) -> None:
        self._counts = counts

    def take(self) -> bool:
        """Takes a place in each limit until `leave`; False, and none is taken, where one is full, in shadow or not."""
        for limit, count in self._counts:
            if count.taken >= limit.amount:
                return False
        for _, count in self._counts:
            count.taken += 1
        return True

    def full(self) -> list[Limit]:
        """Returns the limits that have no place left."""
        return [limit for limit, count in self._counts if count.taken >= limit.amount]

    def squeeze(self) -> None:
        """Takes a place in each limit, full or not, until `leave`."""
        for _, count in self._counts:
            count.taken += 1

    def leave(self) -> None:
        """Gives the places of one request back."""
        for _, count in self._counts:
            count.taken -= 1


class InFlight:
    """Counts requests under way; limits of one key count together, whatever quota is in force."""

    def __init__(self) -> None:
        # A count is kept by those who take places in it: nothing stays of who has left.
        self._counts: WeakValueDictionary[str, _Count] = WeakValueDictionary()

    def __len__(self) -> int:
        """Returns how many callers have requests under way."""
        return sum(1 for count in self._counts.values() if count.taken)

    def places(self, limits: Sequence[Limit]) -> Places:
        """Returns where requests that are held against these limits are counted."""
        return Places(tuple((limit, self._counts.setdefault(limit.key, _Count())) for limit in limits))
