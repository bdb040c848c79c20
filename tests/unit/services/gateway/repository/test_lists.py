"""Whole lists go in and out of the database in portions, so that others are served in between."""

from typing import Any
from uuid import UUID

import pytest

from services.gateway.repository import lists

LIST = UUID(int=7)
MOST = 2_000


class Connection:
    """A table of one list, and how much was asked of it at one time."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.portions: list[int] = []

    async def fetch(self, query: str, key: UUID, after: str, limit: int) -> list[dict[str, Any]]:
        found = [text for text in self.texts if text > after][:limit]
        self.portions.append(len(found))
        return [{"text": text, "expires_at": None} for text in found]

    async def execute(self, query: str, key: UUID, texts: list[str], ends: list[None]) -> str:
        self.texts += texts
        self.portions.append(len(texts))
        return ""


@pytest.mark.parametrize("count", [0, 1, MOST - 1, MOST, MOST + 1, 5 * MOST + 7])
async def test_a_whole_list_is_kept_and_read_in_portions(count: int) -> None:
    texts = [f"{number:06}" for number in range(count)]
    conn: Any = Connection([])
    await lists.add_all_entries(conn, LIST, [(text, None) for text in texts])
    assert conn.texts == texts
    assert await lists.entries(conn, LIST) == tuple((text, None) for text in texts)
    assert max(conn.portions) <= MOST
