"""Owns what follows a renewal that was not paid: when it is tried again and when the subscription ends."""

from dataclasses import dataclass
from datetime import datetime, timedelta

# Days after the unpaid period's beginning at which the charge is repeated; the last failure ends the subscription.
RETRY_DAYS = (1, 3, 5)
END_DAYS = RETRY_DAYS[-1]

HELD_AT_MOST = timedelta(days=1)
"""For so long a suspicion keeps a renewal from being charged; nobody loses what they paid for by one."""

# Declines that charging again cannot mend: the reader has to act (Stripe, "Decline codes"; the card schemes fine
# merchants who repeat them).
HARD = frozenset(
    {
        "authentication_required",
        "expired_card",
        "fraudulent",
        "incorrect_number",
        "invalid_account",
        "lost_card",
        "merchant_blacklist",
        "payment_method_missing",
        "pickup_card",
        "restricted_card",
        "stolen_card",
        "transaction_not_allowed",
    }
)


@dataclass(frozen=True)
class RetryAt:
    """The charge is repeated then."""

    at: datetime


@dataclass(frozen=True)
class EndAt:
    """The subscription ends then, unless it is paid before."""

    at: datetime


def after_failure(
    due_at: datetime, attempt: int, reason: str, decline_code: str | None, now: datetime
) -> RetryAt | EndAt:
    """Returns what follows the failure of an attempt, from 1, at a charge that was due at `due_at`.

    However late the attempt was, a day lies between it and the next step; only the last failure ends at once.
    """
    tomorrow = now + timedelta(days=1)
    if reason in HARD or decline_code in HARD:
        return EndAt(max(due_at + timedelta(days=END_DAYS), tomorrow))
    if attempt <= len(RETRY_DAYS):
        return RetryAt(max(due_at + timedelta(days=RETRY_DAYS[attempt - 1]), tomorrow))
    return EndAt(max(due_at + timedelta(days=END_DAYS), now))


def held_until(due_at: datetime, grace: timedelta) -> datetime:
    """Returns until when a charge that was due at `due_at` may be put off: never beyond the access that it is for."""
    return due_at + min(HELD_AT_MOST, grace)
