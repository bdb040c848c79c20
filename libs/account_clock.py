"""Owns the `account_clock` table of a service: how far each test account's clock runs ahead."""

import math
from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

from libs.postgres import Database


class AccountClocks:
    """Reads and stores offsets; hand its methods to OffsetRefresher and ClockServicer (libs/clock)."""

    def __init__(self, app: Database) -> None:
        self._app = app

    async def read(self) -> Mapping[UUID, timedelta]:
        """Returns all offsets by account."""
        async with self._app.transaction("read_account_clock") as connection:
            rows = await connection.fetch("SELECT account_id, offset_seconds FROM account_clock")
        return {row["account_id"]: timedelta(seconds=row["offset_seconds"]) for row in rows}

    async def store(self, account: UUID, offset: timedelta) -> None:
        """Stores an offset, in whole seconds; of two that come at once the greater stays."""
        async with self._app.transaction("store_account_clock") as connection:
            await connection.execute(
                """
                INSERT INTO account_clock (account_id, offset_seconds) VALUES ($1, $2)
                ON CONFLICT (account_id) DO UPDATE
                SET offset_seconds = greatest(account_clock.offset_seconds, excluded.offset_seconds)
                """,
                account,
                math.ceil(offset.total_seconds()),
            )
