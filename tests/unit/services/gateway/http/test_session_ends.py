"""Ends of sessions in a gateway's memory."""

from typing import Any
from uuid import UUID

import pytest

from libs import errors
from libs.errors import GatefoldError
from libs.telemetry import Telemetry
from services.gateway.http.session_ends import KEEP_SECONDS, SessionEnds

ENDED, OTHER = UUID(int=1), UUID(int=2)


class Auth:
    """What auth answers: pages, and then nothing new."""

    def __init__(self, *pages: list[UUID]) -> None:
        self.pages = list(pages)
        self.asked: list[str] = []
        self.away = False

    async def __call__(self, cursor: str, request_id: str) -> tuple[list[UUID], str]:
        self.asked.append(cursor)
        if self.away:
            raise errors.unavailable("service_unavailable", "away")
        return (self.pages.pop(0), f"{len(self.asked)}") if self.pages else ([], cursor)


def ends(auth: Auth, now: list[float]) -> SessionEnds:
    store: Any = None
    return SessionEnds(store, auth, monotonic=lambda: now[0], telemetry=Telemetry("tests"))


async def test_the_first_request_asks_auth_for_all_and_the_next_for_nothing() -> None:
    auth = Auth([ENDED], [OTHER])
    found = ends(auth, [0.0])
    for session in (ENDED, OTHER):
        with pytest.raises(GatefoldError, match="session_ended"):
            await found.check(session)
    await found.check(UUID(int=3))
    assert auth.asked == ["", "1", "2"]


async def test_nothing_is_believed_while_auth_was_never_asked() -> None:
    auth = Auth()
    auth.away = True
    found = ends(auth, [0.0])
    with pytest.raises(GatefoldError, match="service_unavailable"):
        await found.check(ENDED)
    auth.away = False
    await found.check(ENDED)
    auth.away = True
    await found.check(ENDED)


async def test_an_end_is_forgotten_when_no_token_is_left() -> None:
    now = [0.0]
    found = ends(Auth([ENDED]), now)
    await found.loaded()
    now[0] = KEEP_SECONDS - 1
    found.add(OTHER)
    assert len(found) == 2
    now[0] = KEEP_SECONDS
    found.add(OTHER)
    assert len(found) == 1
    await found.check(ENDED)


async def test_a_token_without_a_session_is_not_held_up() -> None:
    await ends(Auth([ENDED]), [0.0]).check(None)
