"""Owns how many mails that anybody can ask for a mailbox gets."""

from collections.abc import Sequence
from datetime import datetime, timedelta

HOURLY = 5
DAILY = 20
"""At most 20: the table keeps no more times."""
KEPT = timedelta(days=1)


def has_room(mailed_at: Sequence[datetime], now: datetime) -> bool:
    """Tells whether one more may be sent, by when the last ones were."""
    lately = [at for at in mailed_at if now - at < KEPT]
    return len(lately) < DAILY and sum(now - at < timedelta(hours=1) for at in lately) < HOURLY


def with_one_more(mailed_at: Sequence[datetime], now: datetime) -> list[datetime]:
    """Returns the times that are to be kept once one more was sent."""
    return [*mailed_at, now][-DAILY:]
