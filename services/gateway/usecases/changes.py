"""Owns what every change has in common: one at a time, checked as a whole, a version, once for each key."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

from gatefold.gateway.v1 import firewall_pb2
from google.protobuf.message import Message

from libs import caller, errors, idempotency
from libs.clock import WallClock
from libs.ids import IdSource
from libs.postgres import Connection, Database, violated
from services.gateway.domain.bundle import Bundle
from services.gateway.domain.register import KEPT_VERSIONS, MOST_ENTRIES_TOGETHER, Contents, Version
from services.gateway.repository import lists, quotas, rules, versions
from services.gateway.usecases import packing
from services.gateway.usecases.packing import EntrySets

Check = Callable[[Bundle], object]
"""Raises `invalid` with what keeps gateways from enforcing a bundle; may take long, so it is called in a thread."""


@dataclass(frozen=True)
class Draft:
    """The change under way."""

    conn: Connection
    number: int
    """Of the version that it makes."""
    key: UUID
    """Identifier for what it adds; the same when the request is repeated under its Idempotency-Key."""


@dataclass(frozen=True)
class Made:
    """A change that was made."""

    number: int
    key: UUID


class Changes:
    """Makes versions."""

    def __init__(
        self, db: Database, clock: WallClock, id_source: IdSource, check: Check, wake: Callable[[], None]
    ) -> None:
        """`wake` is called after each change, so that gateways are told at once."""
        self._db = db
        self._clock = clock
        self._ids = id_source
        self._check = check
        self._wake = wake
        self._sets = EntrySets()

    async def make(
        self,
        change: str,
        request: Message,
        expected: int,
        write: Callable[[Draft], Awaitable[str]],
        *,
        restored_from: int | None = None,
    ) -> Made:
        """Writes within one transaction what `write` does, which returns the name of what was changed, and the version
        that comes of it; nothing of it stays when the check refuses the whole.

        Raises `conflict("firewall_changed")` when the newest version is not the expected one (0 expects any), and what
        `write` and the check raise.
        """
        who = caller.current()
        try:
            async with self._db.transaction("change_firewall") as conn:
                key = self._ids.new()
                claim = await idempotency.claim(conn, who, change, request, clock=self._clock, reference=key)
                if claim.replay is not None:
                    former = firewall_pb2.Change.FromString(claim.replay)
                    return Made(former.version, claim.reference or key)
                newest = await versions.lock(conn)
                if expected not in (0, newest):
                    raise errors.conflict(
                        "firewall_changed",
                        "This was changed in the meantime; read it again.",
                        metadata={"version": str(newest)},
                    )
                number = newest + 1
                about = await write(Draft(conn, number, key))
                await self._add(conn, number, who.actor, change, about, restored_from)
                await idempotency.record(conn, who, change, firewall_pb2.Change(version=number))
        except Exception as error:
            if violated(error) in ("rule_name_key", "entry_list_name_key"):
                raise errors.conflict("name_taken", "Another one has this name.") from error
            raise
        self._wake()
        return Made(number, key)

    async def _add(
        self, conn: Connection, number: int, actor: str, change: str, about: str, restored_from: int | None
    ) -> None:
        contents = Contents(
            await rules.all_rules(conn),
            await lists.all_lists(conn),
            await quotas.all_quotas(conn),
            await quotas.all_overrides(conn),
        )
        if sum(held.size for held in contents.lists) > MOST_ENTRIES_TOGETHER:
            raise errors.precondition("entries_full", f"All lists together have {MOST_ENTRIES_TOGETHER:,} entries.")
        digests = [held.digest for held in contents.lists]
        sets = await lists.sets(conn, self._sets.lacking(digests))
        now = self._clock.wall()

        def checked() -> bytes:
            self._sets.take(sets)
            self._check(packing.bundle_of(number, now, contents, self._sets))
            return packing.serialised(contents)

        # Compiling long lists takes a while, and requests are served meanwhile.
        content = await asyncio.to_thread(checked)
        self._sets.keep(digests)
        version = Version(number, now, actor, change, about, restored_from, hashlib.sha256(content).digest(), kept=True)
        await versions.add(conn, version, content, digests)
        if await versions.forget_content(conn, number - KEPT_VERSIONS):
            await versions.forget_sets(conn)
