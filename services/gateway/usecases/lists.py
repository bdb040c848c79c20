"""Owns changing and reading the lists that rules name."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from google.protobuf.message import Message

from libs import errors
from libs.clock import WallClock
from libs.postgres import Connection, Database
from services.gateway.domain import entries as rules
from services.gateway.domain.bundle import EntryList
from services.gateway.domain.entries import MOST_ENTRIES, Entry, Lines
from services.gateway.domain.register import MOST_LISTS, HeldList
from services.gateway.repository import lists, versions
from services.gateway.usecases import packing
from services.gateway.usecases.changes import Changes, Draft, Made

_MEDIA_TYPES = frozenset({"text/plain", "text/csv", "application/octet-stream", ""})


class EntryLists:
    """The lists."""

    def __init__(self, db: Database, changes: Changes, clock: WallClock) -> None:
        self._db = db
        self._changes = changes
        self._clock = clock

    async def create(self, wanted: EntryList, description: str, request: Message, expected: int) -> HeldList:
        """Adds an empty list; its id is given here. Raises `precondition("lists_full")` and as Changes.make."""

        async def write(draft: Draft) -> str:
            if len(await lists.all_lists(draft.conn)) >= MOST_LISTS:
                raise errors.precondition("lists_full", f"There are {MOST_LISTS} lists; remove one first.")
            empty = packing.packed(())
            await lists.add_set(draft.conn, empty.digest, empty.packed)
            created = replace(wanted, id=draft.key)
            await lists.put(
                draft.conn, HeldList(created, description, 0, empty.digest, self._clock.wall(), draft.number)
            )
            return wanted.name

        made = await self._changes.make("list.created", request, expected, write)
        return await self.get(made.key)

    async def update(
        self, key: UUID, name: str, description: str, request: Message, expected: int, *, allows: bool
    ) -> HeldList:
        """Replaces what is said of a list; raises `not_found("list_not_found")` and as Changes.make."""

        async def write(draft: Draft) -> str:
            held = await _find(draft.conn, key)
            described = replace(held.list, name=name, allows=allows)
            await lists.put(draft.conn, replace(held, list=described, description=description, changed_in=draft.number))
            return name

        await self._changes.make("list.updated", request, expected, write)
        return await self.get(key)

    async def delete(self, key: UUID, request: Message, expected: int) -> Made:
        """Removes a list with its entries; raises `not_found("list_not_found")`. Rules that name it are the check's."""

        async def write(draft: Draft) -> str:
            held = await _find(draft.conn, key)
            await lists.remove(draft.conn, key)
            return held.list.name

        return await self._changes.make("list.deleted", request, expected, write)

    async def get(self, key: UUID) -> HeldList:
        """Returns a list; raises `not_found("list_not_found")`."""
        async with self._db.transaction("get_entry_list", read_only=True) as conn:
            return await _find(conn, key)

    async def list_all(self) -> tuple[tuple[HeldList, ...], int]:
        """Returns all lists by name, and the newest version."""
        async with self._db.transaction("list_entry_lists", read_only=True) as conn:
            return await lists.all_lists(conn), await versions.newest(conn)

    async def page(self, key: UUID, after: str, limit: int) -> list[Entry]:
        """Returns entries in the order of their texts; raises `not_found("list_not_found")`."""
        async with self._db.transaction("list_entries", read_only=True) as conn:
            await _find(conn, key)
            return await lists.page(conn, key, after, limit)

    async def add(self, key: UUID, added: list[Entry], request: Message, expected: int) -> HeldList:
        """Adds entries; raises `invalid` (`entry_invalid`, `list_too_long`), `not_found("list_not_found")`."""

        async def write(conn: Connection, held: HeldList, now: datetime) -> None:
            await lists.add_entries(conn, key, rules.checked(held.list.kind, added, now).items())

        return await self._change("list.entries_added", key, request, expected, write)

    async def remove(self, key: UUID, texts: Sequence[str], request: Message, expected: int) -> HeldList:
        """Removes entries, whichever way they are written; raises `not_found("list_not_found")`."""

        async def write(conn: Connection, held: HeldList, now: datetime) -> None:
            kept = rules.checked(held.list.kind, [(text, None) for text in texts], now)
            await lists.remove_entries(conn, key, list(kept))

        return await self._change("list.entries_removed", key, request, expected, write)

    async def import_lines(
        self,
        key: UUID,
        data: bytes,
        media_type: str,
        request: Message,
        expected: int,
        *,
        lasts: timedelta | None,
        replaces: bool,
    ) -> tuple[HeldList, Lines]:
        """Adds the lines of a text, or puts them in place of all entries.

        Raises `unsupported_media("media_type_unsupported")`, `not_found("list_not_found")` and as entries.read_lines.
        """
        if media_type.partition(";")[0].strip().lower() not in _MEDIA_TYPES:
            raise errors.unsupported_media("media_type_unsupported", "Send the lines as text/plain.")
        held = await self.get(key)
        now = self._clock.wall()
        # Read before anything is locked, and beside what is served.
        read = await asyncio.to_thread(rules.read_lines, held.list.kind, data, now, now + lasts if lasts else None)

        async def write(conn: Connection, held: HeldList, now: datetime) -> None:
            if replaces:
                await lists.remove_all_entries(conn, key)
            await lists.add_all_entries(conn, key, read.entries.items())

        return await self._change("list.imported", key, request, expected, write), read

    async def _change(
        self,
        change: str,
        key: UUID,
        request: Message,
        expected: int,
        write_entries: Callable[[Connection, HeldList, datetime], Awaitable[None]],
    ) -> HeldList:
        async def write(draft: Draft) -> str:
            held = await _find(draft.conn, key)
            now = self._clock.wall()
            await write_entries(draft.conn, held, now)
            await lists.remove_ended(draft.conn, key, now)
            if await lists.count_entries(draft.conn, key) > MOST_ENTRIES:
                raise rules.too_long()
            entries = await lists.entries(draft.conn, key)
            packed = await asyncio.to_thread(packing.packed, entries)
            await lists.add_set(draft.conn, packed.digest, packed.packed)
            await lists.put(draft.conn, replace(held, size=len(entries), digest=packed.digest, changed_in=draft.number))
            return held.list.name

        await self._changes.make(change, request, expected, write)
        return await self.get(key)


async def _find(conn: Connection, key: UUID) -> HeldList:
    held = await lists.find(conn, key)
    if held is None:
        raise errors.not_found("list_not_found", "There is no such list.")
    return held
