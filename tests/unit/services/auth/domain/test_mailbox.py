"""How many mails a mailbox gets in an hour and in a day, whoever asks for them."""

from datetime import UTC, datetime, timedelta

from services.auth.domain import mailbox

AT = datetime(2026, 1, 1, tzinfo=UTC)


def test_any_hour_has_five_and_any_day_twenty() -> None:
    sent: list[datetime] = []
    mailed: list[datetime] = []
    for minute in range(2 * 24 * 60):
        now = AT + timedelta(minutes=minute)
        if mailbox.has_room(mailed, now):
            mailed = mailbox.with_one_more(mailed, now)
            sent.append(now)
    assert len(mailed) == mailbox.DAILY
    for span, most in ((timedelta(hours=1), mailbox.HOURLY), (timedelta(days=1), mailbox.DAILY)):
        assert max(sum(start <= each < start + span for each in sent) for start in sent) == most


def test_an_hour_later_there_is_room_again() -> None:
    mailed = [AT] * mailbox.HOURLY
    assert not mailbox.has_room(mailed, AT + timedelta(minutes=59))
    assert mailbox.has_room(mailed, AT + timedelta(hours=1))
