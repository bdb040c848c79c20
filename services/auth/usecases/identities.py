"""Owns the caller's own identities at other providers: listing and removing them."""

from collections.abc import Mapping
from uuid import UUID

from libs import errors
from libs.clock import WallClock
from libs.postgres import Connection, Database, as_tenant
from services.auth.domain import challenge, session
from services.auth.domain.federation import Identity
from services.auth.domain.roles import OWNER
from services.auth.domain.sign_in import PASSKEY, Door
from services.auth.repository import accounts, credentials, factors, identities, people
from services.auth.usecases import doors
from services.auth.usecases.challenges import Challenges
from services.auth.usecases.factor_access import FactorAccess
from services.auth.usecases.second_factors import Method
from services.auth.usecases.sign_in import LookUp


class Identities:
    """Identities of readers, and of staff in the account that they are signed in to."""

    def __init__(
        self,
        db: Database,
        challenges: Challenges,
        access: FactorAccess,
        standing: LookUp,
        methods: Mapping[str, Method],
        clock: WallClock,
    ) -> None:
        self._db = db
        self._challenges = challenges
        self._access = access
        self._standing = standing
        self._methods = methods
        self._clock = clock

    async def list_own(self) -> list[Identity]:
        """Returns the caller's identities, oldest first."""
        door = doors.own()
        keeper = (await self._places(door))[0]
        async with self._db.tenant(keeper, "list_identities", read_only=True) as conn:
            return await identities.of_principal(conn, keeper, door.principal)

    async def remove(self, key: UUID) -> None:
        """Removes an identity and ends the sessions that it began; a mail tells.

        Raises `not_found("identity_not_found")`, `precondition("last_way_in")`, and as `FactorAccess.require`.
        """
        door = doors.own()
        await self._access.require(door)
        places = await self._places(door)
        passkey = self._methods.get(PASSKEY)
        another_way = passkey is not None and await passkey.set_up(door)
        provider_only = door.kind == session.STAFF and (await self._standing(door)).provider_required
        name = next((one.provider_name for one in await self.list_own() if one.id == key), "")
        details = {"factor": name, **self._access.circumstances()}
        notice = await self._challenges.prepare_for(door, challenge.IDENTITY_REMOVED, details=details)
        async with self._db.tenant(places[0], "remove_identity") as conn:
            # One at a time: two at once would each count on the other.
            await factors.lock(conn, door.principal)
            if not await identities.remove(conn, places[0], door.principal, key):
                raise errors.not_found("identity_not_found", "There is no such identity.")
            left = await identities.of_principal(conn, places[0], door.principal)
            own = another_way or await self._has_password(conn, door)
            if not left and (not own or (provider_only and door.role != OWNER)):
                raise errors.precondition(
                    "last_way_in", "This is the last way to sign in: ask for a new password by mail first."
                )
            for place in places:
                async with as_tenant(conn, place):
                    await identities.end_sessions(conn, place, [key], self._clock.wall(), session.IDENTITY_REMOVED)
            await self._challenges.store_for(conn, door, notice)

    async def _places(self, door: Door) -> list[UUID]:
        """Returns the account that keeps somebody's identities first, then its test sibling where they are staff."""
        if door.kind == session.SUBSCRIBER:
            return [door.account]
        async with self._db.transaction("find_account", read_only=True) as conn:
            found = await accounts.find(conn, door.account)
        if found is None:
            raise errors.not_found("account_not_found", "There is no such account.")
        return [found.team, found.sibling if found.live else found.id]

    async def _has_password(self, conn: Connection, door: Door) -> bool:
        if door.kind == session.SUBSCRIBER:
            credential = await credentials.find(conn, door.account, door.principal)
            return credential is not None and credential.password.present
        found = await people.find_many(conn, [door.principal])
        return bool(found) and found[0].password.present
