"""Owns telling people by mail that somebody signed in as them on a device that is new, or from impossibly far away."""

from dataclasses import dataclass
from datetime import datetime

from libs import caller
from libs.caller import CallerKind
from libs.clock import WallClock
from libs.ids import IdSource
from libs.postgres import Connection, Database, as_tenant
from libs.telemetry import Telemetry
from libs.vault import Vault
from services.auth.clients.places import Places
from services.auth.domain import challenge, travel
from services.auth.domain import device as rules
from services.auth.domain.challenge import Challenge
from services.auth.domain.device import Device
from services.auth.domain.session import Session
from services.auth.domain.sign_in import Door
from services.auth.domain.travel import Place
from services.auth.repository import device_sights, sessions
from services.auth.usecases.challenges import Challenges
from services.auth.usecases.secrets import TokenSecrets
from services.auth.usecases.sessions import device_of, places_of


@dataclass(frozen=True, repr=False)
class Arrival:
    """What somebody signs in from, and the mail if that is new."""

    sight: bytes
    notice: Challenge | None


class NewDevices:
    """Devices as sign-ins see them."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        challenges: Challenges,
        places: Places,
        secrets: TokenSecrets,
        clock: WallClock,
        make: IdSource,
        telemetry: Telemetry,
    ) -> None:
        self._db = db
        self._vault = vault
        self._places = places
        self._travels = telemetry.counter("impossible_travels", "Sign-ins from farther away than anybody travels.")
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
        home = door.account if door.federated_staff else door.owner
        sight = rules.sight(held, home, door.principal, self._secret)
        if sight is None or who.kind is CallerKind.SECRET_KEY:
            return None
        now = self._clock.wall()
        async with self._db.tenant(door.owner, "look_for_device", read_only=True) as conn:
            anything, known = await device_sights.look(conn, door.owner, door.principal, sight, now - rules.KNOWN_FOR)
        if known or not anything:
            return Arrival(sight, None)
        place = self._places.of(held.address)
        far = place is not None and await self._too_far(door, place, now)
        told = {
            "device": rules.name(held),
            "address": held.address,
            "place": place.name if place else "",
            "time": now.strftime("%d %B %Y %H:%M UTC"),
        }
        details = {key: text for key, text in told.items() if text}
        purpose = challenge.IMPOSSIBLE_TRAVEL if far else challenge.NEW_DEVICE
        return Arrival(sight, await self._challenges.prepare_for(door, purpose, details=details))

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

    async def _too_far(self, door: Door, place: Place, now: datetime) -> bool:
        """Tells whether nobody gets here from where whoever goes in signed in last, since then."""
        found: list[Session] = []
        async with self._db.tenant(door.owner, "find_last_session", read_only=True) as conn:
            for account in await places_of(conn, door):
                async with as_tenant(conn, account):
                    last = await sessions.newest_of(conn, account, door.principal)
                    found += [last] if last else []
        if not found:
            return False
        newest = max(found, key=lambda one: one.started_at)
        cipher = await self._vault.cipher(door.owner, door.principal)
        before = self._places.of(device_of(cipher, newest).address)
        if before is None or not travel.impossible(before, newest.started_at, place, now):
            return False
        self._travels.inc()
        return True
