"""Owns how many requests are under way at one time, by whom, in this gateway."""

from collections.abc import Sequence
from types import TracebackType

from services.gateway.http.limits.limit import Limit


class InFlight:
    """Counts requests from `enter` until the end of their slot."""

    def __init__(self) -> None:
        self._under_way: dict[str, int] = {}

    def __len__(self) -> int:
        """Returns how many callers have requests under way."""
        return len(self._under_way)

    def full(self, limits: Sequence[Limit]) -> list[Limit]:
        """Returns the limits that have no place left."""
        return [limit for limit in limits if self._under_way.get(limit.key, 0) >= limit.amount]

    def enter(self, limits: Sequence[Limit]) -> "Slot":
        """Takes a place in each limit."""
        for limit in limits:
            self._under_way[limit.key] = self._under_way.get(limit.key, 0) + 1
        return Slot(self._under_way, limits)


class Slot:
    """The places that one request takes until it ends."""

    __slots__ = ("_limits", "_under_way")

    def __init__(self, under_way: dict[str, int], limits: Sequence[Limit]) -> None:
        self._under_way = under_way
        self._limits = limits

    def leave(self) -> None:
        """Gives the places back; nothing the second time."""
        limits, self._limits = self._limits, ()
        for limit in limits:
            left = self._under_way[limit.key] - 1
            if left:
                self._under_way[limit.key] = left
            else:
                del self._under_way[limit.key]

    def __enter__(self) -> None:
        """Holds the places within the block."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives them back."""
        self.leave()
