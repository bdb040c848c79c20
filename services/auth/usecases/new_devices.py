"""Owns telling people by mail that somebody signed in as them on a device that is new."""

from dataclasses import dataclass

from libs import caller
from libs.caller import CallerKind
from libs.clock import WallClock
from libs.ids import IdSource
from libs.postgres import Connection, Database, as_tenant
from services.auth.domain import challenge
from services.auth.domain import device as rules
from services.auth.domain.challenge import Challenge
from services.auth.domain.device import Device
from services.auth.domain.sign_in import Door
from services.auth.repository import device_sights
from services.auth.usecases.challenges import Challenges
from services.auth.usecases.secrets import TokenSecrets


@dataclass(frozen=True, repr=False)
class Arrival:
    """What somebody signs in from, and the mail if that is new."""

    sight: bytes
    notice: Challenge | None


class NewDevices:
    """Devices as sign-ins see them."""

    def __init__(
        self, db: Database, challenges: Challenges, secrets: TokenSecrets, clock: WallClock, make: IdSource
    ) -> None:
        self._db = db
        self._challenges = challenges
        self._secret = secrets.device
        self._clock = clock
        self._make = make

    async def look(self, door: Door) -> Arrival | None:
        """Returns what the request of a sign-in comes from; None behind a secret key, where it is a server's.

        The first device of all is no news. What an account's own provider said is noted apart: whoever runs that
        makes no device known for the person's own sign-ins.
        """
        who = caller.current()
        held = Device(who.user_agent or "", who.address or "")
        place = door.account if door.federated_staff else door.owner
        sight = rules.sight(held, place, door.principal, self._secret)
        if sight is None or who.kind is CallerKind.SECRET_KEY:
            return None
        now = self._clock.wall()
        async with self._db.tenant(door.owner, "look_for_device", read_only=True) as conn:
            anything, known = await device_sights.look(conn, door.owner, door.principal, sight, now - rules.KNOWN_FOR)
        if known or not anything:
            return Arrival(sight, None)
        told = {"device": rules.name(held), "address": held.address, "time": now.strftime("%d %B %Y %H:%M UTC")}
        details = {key: text for key, text in told.items() if text}
        return Arrival(sight, await self._challenges.prepare_for(door, challenge.NEW_DEVICE, details=details))

    async def note(self, conn: Connection, door: Door, arrival: Arrival) -> None:
        """Notes the device and has the mail sent, in the transaction of the session; of two at once one tells."""
        now = self._clock.wall()
        async with as_tenant(conn, door.owner):
            fresh = await device_sights.note(
                conn, door.owner, self._make.new(), door.principal, arrival.sight, now, now - rules.KNOWN_FOR
            )
            if fresh:
                await device_sights.forget_beyond(conn, door.owner, door.principal, rules.MOST_KNOWN)
        if fresh and arrival.notice is not None:
            await self._challenges.store_for(conn, door, arrival.notice)
