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


STAFF = replace(HELD, kind=session.STAFF, expires_at=NOW + session.STAFF_LIFETIME, last_used_at=NOW)


@pytest.mark.case("auth-48")
@pytest.mark.parametrize("kind", [session.STAFF, session.OPERATOR])
def test_a_session_of_staff_is_over_after_an_hour_without_use(kind: str) -> None:
    held = replace(STAFF, kind=kind)
    assert not session.over(held, NOW + session.STAFF_IDLE - timedelta(microseconds=1))
    assert session.over(held, NOW + session.STAFF_IDLE)
    assert session.judge(held, 7, NOW + session.STAFF_IDLE) is Answer.REFUSE


@pytest.mark.case("auth-48")
def test_a_session_of_staff_is_over_after_a_day_however_much_it_is_used() -> None:
    held = replace(STAFF, last_used_at=STAFF.expires_at)
    assert not session.over(held, STAFF.expires_at - timedelta(microseconds=1))
    assert session.over(held, STAFF.expires_at)


@pytest.mark.case("auth-48")
def test_a_reader_may_leave_the_paper_for_weeks_and_not_for_longer_than_thirty_days() -> None:
    assert session.lifetime(session.SUBSCRIBER) == timedelta(days=30)
    assert session.lifetime(session.STAFF) == session.lifetime(session.OPERATOR) == timedelta(hours=24)
    assert not session.over(HELD, NOW + timedelta(days=29))
    assert session.over(HELD, NOW + timedelta(days=30))


def test_a_session_that_older_code_began_counts_from_its_last_refresh() -> None:
    assert replace(STAFF, last_used_at=None).used_at == NOW


def test_a_session_tells_when_it_was_started_by_its_identifier() -> None:
    assert replace(HELD, id=UUID(int=int(NOW.timestamp() * 1000) << 80)).started_at == NOW


def test_a_cookie_reads_back_and_its_signature_binds_session_salt_and_secret() -> None:
    text = session.cookie(HELD.id, HELD.salt, SECRET)
    claimed = session.read_cookie(text)
    assert claimed is not None
    found, signature = claimed
    assert found == HELD.id
    assert session.signed_cookie(HELD, signature, SECRET)
    assert not session.signed_cookie(replace(HELD, id=UUID(int=6)), signature, SECRET)
    assert not session.signed_cookie(replace(HELD, salt=b"y" * 32), signature, SECRET)
    assert not session.signed_cookie(HELD, signature, b"t" * 32)


def test_a_cookie_is_no_refresh_token_and_a_refresh_token_no_cookie() -> None:
    cookie, token = session.cookie(HELD.id, HELD.salt, SECRET), session.refresh_token(HELD.id, HELD.salt, 7, SECRET)
    assert session.read(cookie) is None
    assert session.read_cookie(token) is None
    claimed = session.read_cookie(cookie)
    assert claimed is not None
    assert not session.signed(HELD, 7, claimed[1], SECRET)
