"""Owns the state of all gateways: who enforces which version."""

from gatefold.gateway.v1 import firewall_pb2

from libs.clock import WallClock
from services.gateway.clients.roll_call import RollCall
from services.gateway.usecases.versions import Versions


class Fleet:
    """All gateways."""

    def __init__(self, versions: Versions, roll_call: RollCall, clock: WallClock) -> None:
        self._versions = versions
        self._roll_call = roll_call
        self._clock = clock

    async def status(self) -> tuple[int, list[firewall_pb2.Gateway]]:
        """Returns the newest version and who was heard of lately; raises `unavailable` while a store is away."""
        newest = await self._versions.newest_number()
        return newest, await self._roll_call.present(self._clock.wall())
