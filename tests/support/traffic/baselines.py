"""Owns the defences that ours is compared with."""

from collections import defaultdict, deque
from collections.abc import Sequence

from gatefold.activity.v1 import activity_pb2

from tests.support.traffic.world import Answer


class Open:
    """No detector at all."""

    def judge(self, activity: activity_pb2.Activity, inside: Sequence[activity_pb2.Activity], at: float) -> Answer:
        """Lets everything through."""
        return Answer.SERVED

    def observe(self, activities: Sequence[activity_pb2.Activity], at: float) -> None:
        """Looks away."""


class Bucket:
    """An address that has asked for five things in ten seconds waits for a minute: what is often put in front."""

    def __init__(self, most: int = 5, seconds: float = 10.0, wait: float = 60.0) -> None:
        self._most, self._seconds, self._wait = most, seconds, wait
        self._seen: dict[bytes, deque[float]] = defaultdict(deque)
        self._until: dict[bytes, float] = {}

    def judge(self, activity: activity_pb2.Activity, inside: Sequence[activity_pb2.Activity], at: float) -> Answer:
        """Counts a request against its address."""
        address = activity.client_address_hash
        if self._until.get(address, 0.0) > at:
            return Answer.BLOCKED
        seen = self._seen[address]
        while seen and seen[0] <= at - self._seconds:
            seen.popleft()
        seen.append(at)
        if len(seen) > self._most:
            self._until[address] = at + self._wait
            return Answer.BLOCKED
        return Answer.SERVED

    def observe(self, activities: Sequence[activity_pb2.Activity], at: float) -> None:
        """Learns nothing."""


class Static:
    """The published quotas: so many a minute by rate class, for an address and for a person."""

    def __init__(self) -> None:
        self._quotas = {"/v1/sessions": 30, "/v1/checkouts": 30, "/v1/registrations": 30}
        self._windows: dict[tuple[bytes, int, int], int] = defaultdict(int)

    def judge(self, activity: activity_pb2.Activity, inside: Sequence[activity_pb2.Activity], at: float) -> Answer:
        """Counts a request in its minute."""
        quota = self._quotas.get(activity.http_route, 600)
        key = activity.client_address_hash
        if activity.caller_kind in {"SUBSCRIBER", "STAFF", "SECRET_KEY"}:
            key = activity.actor_hash
            quota *= 10 if activity.caller_kind == "SECRET_KEY" else 1
        window = (key, quota, int(at // 60))
        self._windows[window] += 1
        return Answer.THROTTLED if self._windows[window] > quota else Answer.SERVED

    def observe(self, activities: Sequence[activity_pb2.Activity], at: float) -> None:
        """Learns nothing."""
