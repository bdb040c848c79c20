"""Owns acting on verdicts that end sessions or keys: whom a hash stands for is found by hashing who there is.

Such verdicts are few, and nobody's identifier is kept hashed beside it for their sake.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID

from gatefold.activity.v1 import activity_pb2

from libs import ids
from libs.activity import Pseudonyms
from libs.clock import WallClock
from libs.errors import GatefoldError
from libs.postgres import PLATFORM, Connection, Database, as_tenant
from libs.telemetry import Telemetry
from services.auth.repository import NEWEST, accounts, api_keys, credentials, people, sessions, sign_ins, verdicts

REASON = "abuse"
_BEFORE_ALL = UUID(int=0)


class Verdicts:
    """Ends sessions and keys, and has passwords changed, as the abuse service says; each verdict once."""

    def __init__(self, db: Database, pseudonyms: Pseudonyms, clock: WallClock, telemetry: Telemetry) -> None:
        self._db = db
        self._hash = pseudonyms.of
        self._clock = clock
        self._obeyed = telemetry.counter("verdicts_obeyed", "Verdicts that ended sessions or keys.", ["scope"])
        self._log = telemetry.logger("verdicts")

    async def obey(self, told: Iterable[activity_pb2.Verdict]) -> None:
        """Acts on those that are to end something, hold, and were not acted on before.

        A crash in between acts again, on who is still there.
        """
        now = self._clock.wall()
        for verdict in told:
            until = verdict.expires_at.ToDatetime(tzinfo=UTC)
            ends = verdict.action == activity_pb2.Verdict.ACTION_REVOKE and not (verdict.shadow or verdict.revoked)
            if ends and until > now:
                await self._once(verdict, now, until)

    async def forget(self) -> None:
        """Forgets verdicts that are over."""
        async with self._db.transaction("forget_verdicts") as conn:
            await verdicts.forget(conn, self._clock.wall())

    async def _once(self, verdict: activity_pb2.Verdict, now: datetime, until: datetime) -> None:
        try:
            key = ids.decode("verdict", verdict.id)
            limited = ids.decode("acct", verdict.account_id) if verdict.account_id else None
        except GatefoldError:
            self._log.warning("a verdict cannot be read")
            return
        async with self._db.transaction("look_up_verdict", read_only=True) as conn:
            if await verdicts.obeyed(conn, key):
                return
        places = [limited] if limited else await self._everywhere()
        ended = 0
        for account in places:
            ended += await self._in(account, verdict, now)
        async with self._db.transaction("note_verdict") as conn:
            await verdicts.note(conn, key, until)
        self._obeyed.labels(verdict.scope).inc()
        self._log.info("a verdict ended sessions or keys", extra={"scope": verdict.scope, "ended": ended})

    async def _in(self, account: UUID, verdict: activity_pb2.Verdict, now: datetime) -> int:
        wanted = verdict.entity_hash
        async with self._db.tenant(account, "obey_verdict") as conn:
            if verdict.scope == "session":
                return await self._end_session(conn, account, wanted, now)
            if verdict.scope == "actor":
                return await self._end_actor(conn, account, wanted, now)
            if verdict.scope == "target":
                return await self._reset(conn, account, wanted, now)
        return 0

    async def _end_session(self, conn: Connection, account: UUID, wanted: bytes, now: datetime) -> int:
        async def part(after: UUID) -> Sequence[tuple[UUID, str, UUID]]:
            return await verdicts.sessions_after(conn, account, after, now)

        found = await _first(part, lambda row: self._hash("session", ids.encode("ses", row[0])) == wanted)
        return int(found is not None and await sessions.revoke(conn, account, found[0], now, REASON))

    async def _end_actor(self, conn: Connection, account: UUID, wanted: bytes, now: datetime) -> int:
        async def held(after: UUID) -> Sequence[tuple[UUID, str, UUID]]:
            return await verdicts.sessions_after(conn, account, after, now)

        async def keys(after: UUID) -> Sequence[tuple[UUID]]:
            return [(key,) for key in await verdicts.keys_after(conn, account, after)]

        whose = await _first(held, lambda row: self._hash("actor", ids.encode(row[1], row[2])) == wanted)
        if whose is not None:
            await sign_ins.remove_of(conn, account, whose[2])
            return await sessions.revoke_all_of(conn, account, whose[2], now, REASON)
        key = await _first(keys, lambda row: self._hash("actor", ids.encode("key", row[0])) == wanted)
        return int(key is not None and await api_keys.revoke(conn, account, key[0], now) is not None)

    async def _reset(self, conn: Connection, account: UUID, wanted: bytes, now: datetime) -> int:
        """Has a password changed that others know or are about to, and ends what was begun with it."""

        def hashed(index: bytes) -> bytes:
            # As sign-ins are told of (services/auth/usecases/attempts.py).
            return self._hash("target", account.hex + index.hex())

        async def readers(after: UUID) -> Sequence[tuple[UUID, UUID, bytes]]:
            return await verdicts.credentials_after(conn, account, after)

        async def persons(after: UUID) -> Sequence[tuple[UUID, bytes]]:
            return await verdicts.people_after(conn, after)

        if account == PLATFORM:
            person = await _first(persons, lambda row: hashed(row[1]) == wanted)
            if person is None:
                return 0
            await people.demand_change(conn, person[0])
            ended = 0
            for place in await people.session_accounts_of(conn, person[0]):
                async with as_tenant(conn, place):
                    await sign_ins.remove_of(conn, place, person[0])
                    ended += await sessions.revoke_all_of(conn, place, person[0], now, REASON)
            return ended
        reader = await _first(readers, lambda row: hashed(row[2]) == wanted)
        if reader is None:
            return 0
        await credentials.demand_change(conn, account, reader[1])
        await sign_ins.remove_of(conn, account, reader[1])
        return await sessions.revoke_all_of(conn, account, reader[1], now, REASON)

    async def _everywhere(self) -> list[UUID]:
        found, before = [PLATFORM], NEWEST
        while True:
            async with self._db.transaction("list_accounts", read_only=True) as conn:
                page = await accounts.page(conn, before, verdicts.PART)
            if not page:
                return found
            found += [account.id for account in page]
            before = page[-1].id


_Row = TypeVar("_Row", bound=tuple[object, ...])


async def _first(part: Callable[[UUID], Awaitable[Sequence[_Row]]], matches: Callable[[_Row], bool]) -> _Row | None:
    """Walks rows in parts, each row led by its identifier, to the first that matches."""
    after = _BEFORE_ALL
    while rows := await part(after):
        for row in rows:
            if matches(row):
                return row
        last = rows[-1][0]
        assert isinstance(last, UUID)
        after = last
    return None
