"""Owns how every sign-in goes on from what was proven: to a session, or to what is still missing."""

import base64
import binascii
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from uuid import UUID

from libs import errors
from libs.clock import WallClock
from libs.ids import IdSource
from libs.postgres import Connection, Database, as_tenant, violated
from services.auth.domain import session, sign_in
from services.auth.domain.sign_in import Door, Pending, Standing
from services.auth.repository import factors, sign_ins
from services.auth.usecases.new_devices import NewDevices
from services.auth.usecases.secrets import TokenSecrets
from services.auth.usecases.sessions import Pair, Sessions, role_now

_MARK = "gfsi_"
_MAC_BYTES = 32

LookUp = Callable[[Door], Awaitable[Standing]]
"""Tells what is known of whoever goes in."""
Remember = Callable[[Connection, Door], Awaitable[str]]
"""Keeps where somebody signs in from, in the transaction that begins the session; returns the device's token."""
Write = Callable[[Connection], Awaitable[None]]
"""Writes in the transaction in which the sign-in goes on."""


@dataclass(frozen=True, repr=False)
class Waiting:
    """What is answered instead of tokens."""

    token: str
    pending: Pending


class SignIn:
    """The end of every way in: password, mail, passkey, another provider."""

    def __init__(
        self,
        db: Database,
        sessions: Sessions,
        standing: LookUp,
        remember: Remember,
        new_devices: NewDevices,
        secrets: TokenSecrets,
        clock: WallClock,
        make: IdSource,
    ) -> None:
        self._db = db
        self._sessions = sessions
        self._standing = standing
        self._remember = remember
        self._new_devices = new_devices
        self._secret = secrets.sign_in
        self._clock = clock
        self._make = make

    async def proven(
        self, door: Door, methods: tuple[str, ...], write: Write | None = None, *, must_change: bool = False
    ) -> Pair | Waiting:
        """Begins a session when `methods` are enough, or a wait for what is missing; `write` commits with either.

        `must_change` says that the password which was proven is known to attackers. Raises `forbidden` with reason
        `provider_required` or `provider_too_weak`, to whom everything else was proven.
        """
        standing = replace(await self._standing(door), password_must_change=must_change)
        following = sign_in.step(methods, standing)
        if following is None:
            level = sign_in.acr(methods, standing)
            sign_in.refuse(door, standing, level)
            return await self._begin(door, level, write, without_factor=level != session.AAL2 and not standing.factors)
        pending = Pending(
            id=self._make.new(),
            door=door,
            proven=methods,
            next=following,
            methods=sign_in.methods(methods, standing) if following == sign_in.SECOND_FACTOR else (),
            must_change=must_change,
            expires_at=self._clock.wall() + sign_in.LIFETIME,
        )
        return await self._wait(pending, write)

    async def prove_anew(
        self, door: Door, held: UUID, methods: tuple[str, ...], *, wait: Write, write: Write
    ) -> Pair | Waiting:
        """Begins to prove a session anew (step-up, RFC 9470), with the password or without.

        Where a second factor is set up it is waited for, and `wait` commits with that; otherwise the password is
        enough, `write` commits with it, and `invalid("password_required")` is raised without it.
        """
        standing = await self._standing(door)
        if standing.factors:
            pending = Pending(
                id=self._make.new(),
                door=door,
                proven=methods,
                next=sign_in.SECOND_FACTOR,
                methods=sign_in.methods(methods, standing),
                expires_at=self._clock.wall() + sign_in.LIFETIME,
                session=held,
            )
            return await self._wait(pending, wait)
        if not methods:
            raise errors.invalid("password_required", "Give the password.", field="password")
        return await self._renew(door, held, session.AAL1, write)

    async def _wait(self, pending: Pending, write: Write | None = None) -> Waiting:
        async with self._going_in(pending.door, "wait_for_more") as conn:
            await sign_ins.add(conn, pending)
            if write is not None:
                await write(conn)
        return Waiting(self._token(pending), pending)

    async def waiting(self, token: str, following: str) -> Pending:
        """Returns the sign-in that waits for `following`; raises `unauthenticated("sign_in_expired")` for none."""
        place = self._read(token)
        if place is not None:
            account, key = place
            async with self._db.tenant(account, "read_sign_in", read_only=True) as conn:
                found = await sign_ins.find(conn, account, key, self._clock.wall())
            if found is not None and found.next == following:
                return found
        raise sign_in_expired()

    async def count_try(self, pending: Pending) -> int:
        """Counts a second factor before it is looked at, and returns which it is; 0 when there were five.

        Counted first and atomically, so that codes tried in parallel are no more tries than those in a row.
        """
        async with self._db.tenant(pending.door.account, "count_second_factor") as conn:
            return await sign_ins.count_try(conn, pending.door.account, pending.id, sign_in.MOST_TRIES) or 0

    async def end(self, pending: Pending, write: Write | None = None) -> None:
        """Ends a wait for good; `write` commits with it, once."""
        async with self._db.tenant(pending.door.account, "end_sign_in") as conn:
            if await sign_ins.remove(conn, pending.door.account, pending.id) and write is not None:
                await write(conn)

    async def go_on(self, pending: Pending, method: str, write: Write | None = None) -> Pair | Waiting:
        """Goes on with one more method proven; whoever is second to spend the wait is refused."""
        spend = self._spending(pending, write)
        if pending.session is not None:
            return await self._renew(pending.door, pending.session, session.AAL2, spend)
        return await self.proven(pending.door, (*pending.proven, method), spend, must_change=pending.must_change)

    async def changed(self, pending: Pending, write: Write) -> Pair | Waiting:
        """Goes on with a new password, which `write` stores; whoever is second is refused."""
        return await self.proven(pending.door, pending.proven, self._spending(pending, write))

    def _spending(self, pending: Pending, write: Write | None) -> Write:
        async def spend(conn: Connection) -> None:
            if not await sign_ins.remove(conn, pending.door.account, pending.id):
                raise sign_in_expired()
            if write is not None:
                await write(conn)

        return spend

    async def _renew(self, door: Door, held: UUID, acr: str, write: Write) -> Pair:
        async with self._db.tenant(door.account, "step_up") as conn:
            await write(conn)
            renewed = await self._sessions.prove_anew(conn, door.account, held, acr)
            if renewed is None:
                raise sign_in_expired()
        return await self._sessions.access(renewed)

    async def _begin(self, door: Door, acr: str, write: Write | None, *, without_factor: bool) -> Pair:
        held = await self._sessions.begin(door, acr)
        arrival = await self._new_devices.look(door)
        async with self._going_in(door, "sign_in") as conn:
            if without_factor:
                await _refuse_a_factor(conn, door)
            if write is not None:
                await write(conn)
            await self._sessions.store(conn, held)
            role = await role_now(conn, door)
            if door.kind == session.STAFF and role is None:
                raise credentials_invalid()
            device = await self._remember(conn, door)
            if arrival is not None:
                await self._new_devices.note(conn, door, arrival)
        pair = await self._sessions.pair(held, held.generation, None if acr == session.ENROL else role)
        return replace(pair, device_token=device)

    @asynccontextmanager
    async def _going_in(self, door: Door, name: str) -> AsyncIterator[Connection]:
        """A transaction that lets somebody in; for who is kept out it answers as to a wrong password."""
        try:
            async with self._db.tenant(door.account, name) as conn:
                yield conn
        except Exception as error:
            if violated(error) == "sign_in_disabled":
                raise credentials_invalid() from error
            raise

    def _token(self, pending: Pending) -> str:
        head = pending.door.account.bytes + pending.id.bytes
        return _MARK + base64.urlsafe_b64encode(head + self._mac(head)).rstrip(b"=").decode()

    def _read(self, token: str) -> tuple[UUID, UUID] | None:
        text = token.removeprefix(_MARK)
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        head, mac = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if text == token or not hmac.compare_digest(self._mac(head), mac):
            return None
        return UUID(bytes=head[:16]), UUID(bytes=head[16:])

    def _mac(self, head: bytes) -> bytes:
        return hmac.digest(self._secret, head, "sha256")


async def _refuse_a_factor(conn: Connection, door: Door) -> None:
    """Raises `conflict("concurrent_change")` where a factor was added since it was seen that there is none.

    Until the transaction ends none is added: whoever adds one then ends the session that begins here.
    """
    async with as_tenant(conn, door.owner):
        await factors.lock(conn, door.principal)
        if await factors.left(conn, door.owner, door.principal):
            raise errors.conflict("concurrent_change", "Another change got in the way; try again.")


def sign_in_expired() -> errors.GatefoldError:
    """Returns the answer to a sign-in that is over, unknown, or waits for something else."""
    return errors.unauthenticated("sign_in_expired", "This sign-in is over; start again with the password.")


def credentials_invalid() -> errors.GatefoldError:
    """Returns the one answer to everybody who may not sign in."""
    return errors.unauthenticated("credentials_invalid", "Address or password is wrong.")
