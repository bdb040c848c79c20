"""Refresh tokens: what follows from what, and what each deserves."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from services.auth.domain import session
from services.auth.domain.session import Answer, Session

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = b"s" * 32
HELD = Session(
    id=UUID(int=5),
    account=UUID(int=1),
    kind=session.SUBSCRIBER,
    live=True,
    principal=UUID(int=2),
    acr=session.AAL1,
    salt=b"x" * 32,
    generation=7,
    rotated_at=NOW,
    authenticated_at=NOW,
    expires_at=NOW + session.LIFETIME,
)


@pytest.mark.parametrize(
    ("generation", "after_seconds", "answer"),
    [
        (7, 0, Answer.ROTATE),
        (7, 86_400, Answer.ROTATE),
        (6, 0, Answer.REPEAT),
        (6, 9.999, Answer.REPEAT),
        (6, 10, Answer.REUSED),
        (5, 0, Answer.REUSED),
        (1, 0, Answer.REUSED),
        (8, 0, Answer.REFUSE),
    ],
)
def test_a_token_is_judged_by_its_generation(generation: int, after_seconds: float, answer: Answer) -> None:
    assert session.judge(HELD, generation, NOW + timedelta(seconds=after_seconds)) is answer


@pytest.mark.parametrize("generation", [1, 6, 7, 8])
def test_a_session_that_is_over_refuses_every_token(generation: int) -> None:
    assert session.judge(HELD, generation, HELD.expires_at) is Answer.REFUSE
    assert session.judge(replace(HELD, revoked_at=NOW), generation, NOW) is Answer.REFUSE


def test_a_token_reads_back_and_its_signature_binds_session_generation_salt_and_secret() -> None:
    token = session.refresh_token(HELD.id, HELD.salt, 7, SECRET)
    claimed = session.read(token)
    assert claimed is not None
    found, generation, signature = claimed
    assert (found, generation) == (HELD.id, 7)
    assert session.signed(HELD, 7, signature, SECRET)
    assert not session.signed(HELD, 8, signature, SECRET)
    assert not session.signed(replace(HELD, id=UUID(int=6)), 7, signature, SECRET)
    assert not session.signed(replace(HELD, salt=b"y" * 32), 7, signature, SECRET)
    assert not session.signed(HELD, 7, signature, b"t" * 32)


def test_every_replica_derives_the_same_token() -> None:
    assert session.refresh_token(HELD.id, HELD.salt, 8, SECRET) == session.refresh_token(HELD.id, HELD.salt, 8, SECRET)


@pytest.mark.parametrize("text", ["", "gfrt_", "gfrt_!!!!", "gfct_" + "A" * 70, "gfrt_" + "A" * 69, "gfrt_" + "A" * 72])
def test_other_text_is_no_token(text: str) -> None:
    assert session.read(text) is None
