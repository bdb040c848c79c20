"""Owns telling gateways which sessions have ended: at once by a stream, and whenever they ask.

What has ended is written by triggers of the database, in the transaction that ends it.
"""

from libs import ids
from libs.clock import WallClock
from libs.events.place import cursor_of, place_of
from libs.kill_points import KillPoints
from libs.postgres import Database
from services.auth.clients.session_feed import SessionFeed
from services.auth.repository import session_ends

PAGE = 500


class SessionEnds:
    """The ends of sessions, for gateways."""

    def __init__(
        self, db: Database, jobs: Database, feed: SessionFeed, clock: WallClock, kill_points: KillPoints
    ) -> None:
        self._db = db
        self._jobs = jobs
        self._feed = feed
        self._clock = clock
        self._kill_points = kill_points

    async def since(self, cursor: str) -> tuple[list[str], str]:
        """Returns sessions that ended after a cursor and may still have access tokens, and the next cursor.

        An empty cursor is the beginning. One of another cluster's history (after a restore) starts over.
        """
        place = place_of(cursor)
        async with self._db.transaction("list_session_ends", read_only=True) as conn:
            if place[0] >= await session_ends.newest_transaction(conn):
                place = (0, 0)
            found = await session_ends.after(conn, place, self._clock.wall(), PAGE)
        if not found:
            return [], cursor
        return [ids.encode("ses", session) for session, _ in found], cursor_of(found[-1][1])

    async def announce(self) -> int:
        """Tells gateways of one batch; returns how many. Killed in between, it tells them again."""
        async with self._jobs.transaction("read_session_ends", read_only=True) as conn:
            found = await session_ends.unannounced(conn, PAGE)
        if not found:
            return 0
        self._kill_points.at("publish", "before", "announce_session_ends")
        await self._feed.tell([session for _, session in found])
        self._kill_points.at("publish", "after", "announce_session_ends")
        async with self._jobs.transaction("note_session_ends") as conn:
            await session_ends.announced(conn, [position for position, _ in found], self._clock.wall())
        return len(found)
