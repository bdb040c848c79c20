"""Owns the stream by which gateways learn that sessions have ended."""

from collections.abc import Sequence
from uuid import UUID

from libs.redis_client import Store

STREAM = "gatefold:session_ends"
"""The gateway reads it (services/gateway/http/session_ends.py)."""
FIELD = "sessions"
MOST_ENTRIES = 4_096


class SessionFeed:
    """Tells gateways."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def tell(self, sessions: Sequence[UUID]) -> None:
        """Adds an entry; raises `unavailable("store_unavailable")`. Telling twice does no harm."""
        packed = b"".join(session.bytes for session in sessions)
        await self._store.xadd(STREAM, {FIELD: packed}, maxlen=MOST_ENTRIES, approximate=True)
