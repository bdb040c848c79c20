"""Owns versions: reading those that were, bringing one back, handing the newest to gateways, and telling of it."""

import asyncio
from collections.abc import Collection

from gatefold.gateway.v1 import bundle_pb2
from google.protobuf.message import Message

from libs import errors
from libs.clock import WallClock
from libs.kill_points import KillPoints
from libs.postgres import Connection, Database
from services.gateway.clients.bundle_feed import BundleFeed
from services.gateway.domain.register import Contents, Identity, Version
from services.gateway.repository import lists, quotas, rules, versions
from services.gateway.repository.versions import StoredVersion
from services.gateway.usecases import packing, present
from services.gateway.usecases.changes import Changes, Draft


class Versions:
    """The versions."""

    def __init__(self, db: Database, changes: Changes) -> None:
        self._db = db
        self._changes = changes

    async def page(self, before: int, limit: int) -> list[Version]:
        """Returns versions below a number, newest first."""
        async with self._db.transaction("list_versions", read_only=True) as conn:
            return await versions.page(conn, before, limit)

    async def get(self, number: int) -> tuple[Version, Contents]:
        """Returns a version and what it held, where that is kept; raises `not_found("version_not_found")`."""
        async with self._db.transaction("get_version", read_only=True) as conn:
            found = await _find(conn, number)
        return found.version, _contents(found) if found.content is not None else Contents()

    async def restore(self, number: int, request: Message, expected: int) -> Version:
        """Makes a new version with all that a former one held.

        Rules that stay keep their hits. Raises `not_found("version_not_found")`, `precondition("version_not_kept")`,
        and as Changes.make: what could be enforced once may be refused today.
        """

        async def write(draft: Draft) -> str:
            found = await _find(draft.conn, number)
            if found.content is None:
                raise errors.precondition("version_not_kept", "What this version held is not kept any more.")
            await _put_back(draft.conn, _contents(found))
            return str(number)

        made = await self._changes.make("version.restored", request, expected, write, restored_from=number)
        return (await self.get(made.number))[0]

    async def newest(self, held: Identity, digests: Collection[bytes]) -> bundle_pb2.Snapshot | None:
        """Returns the newest version, without entries whose digests are given; None when it is the one that is held.

        A database that was put back to a former state answers that state, whatever number is held.
        """
        async with self._db.transaction("read_newest_version", read_only=True) as conn:
            newest = await versions.identity(conn)
            if newest == held or newest.version == 0:
                return None
            found = await versions.find(conn, newest.version)
            assert found is not None
            return await _snapshot(conn, found, frozenset(digests))

    async def newest_number(self) -> int:
        """Returns the newest version's number."""
        async with self._db.transaction("read_newest_number", read_only=True) as conn:
            return await versions.newest(conn)


class Announcements:
    """Tells gateways of versions that nobody has told them of."""

    def __init__(self, jobs: Database, feed: BundleFeed, clock: WallClock, kill_points: KillPoints) -> None:
        self._jobs = jobs
        self._feed = feed
        self._clock = clock
        self._kill_points = kill_points

    async def announce(self) -> bool:
        """Tells of the newest version, if gateways were not told; answers whether it did.

        Killed in between, it tells them again. Raises `unavailable` while a store is away.
        """
        async with self._jobs.transaction("look_for_versions", read_only=True) as conn:
            if not await versions.any_unpublished(conn):
                return False
        async with self._jobs.transaction("announce_version") as conn:
            found = await versions.lock_unpublished(conn)
            if found is None:
                return False
            snapshot = await _snapshot(conn, found, frozenset())
            self._kill_points.at("publish", "before", "announce_version")
            await self._feed.tell(snapshot)
            self._kill_points.at("publish", "after", "announce_version")
            await versions.published(conn, found.version.number, self._clock.wall())
        return True


async def _put_back(conn: Connection, contents: Contents) -> None:
    # Two that swap their names are put back one after the other.
    await versions.check_names_at_the_end(conn)
    await rules.remove_others(conn, [held.rule.id for held in contents.rules])
    for rule in contents.rules:
        await rules.put(conn, rule)
    there = {held.list.id: held.digest for held in await lists.all_lists(conn)}
    await lists.remove_others(conn, [held.list.id for held in contents.lists])
    for held in contents.lists:
        await lists.put(conn, held)
        if there.get(held.list.id) != held.digest:
            sets = await lists.sets(conn, [held.digest])
            entries = await asyncio.to_thread(packing.unpacked, held.digest, sets[held.digest])
            await lists.remove_all_entries(conn, held.list.id)
            await lists.add_all_entries(conn, held.list.id, entries)
    await quotas.remove_everything(conn)
    for quota in contents.quotas:
        await quotas.put_quota(conn, quota)
    await quotas.add_overrides(conn, contents.overrides)


async def _snapshot(conn: Connection, found: StoredVersion, digests: frozenset[bytes]) -> bundle_pb2.Snapshot:
    sets = await lists.sets(conn, [digest for digest in dict.fromkeys(found.sets) if digest not in digests])
    return bundle_pb2.Snapshot(
        lineage=(await versions.lineage(conn)).bytes,
        version=found.version.number,
        made_at=present.timestamp(found.version.made_at),
        digest=found.version.digest,
        content=found.content or b"",
        sets=[bundle_pb2.PackedSet(digest=digest, packed=packed) for digest, packed in sets.items()],
    )


async def _find(conn: Connection, number: int) -> StoredVersion:
    found = await versions.find(conn, number)
    if found is None:
        raise errors.not_found("version_not_found", "There is no such version.")
    return found


def _contents(found: StoredVersion) -> Contents:
    return present.held_contents(bundle_pb2.Content.FromString(found.content or b""))
