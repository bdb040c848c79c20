"""Owns what a publisher sells: products, plans and prices, and the rules for adding them."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from libs import errors
from libs.money import Money
from services.billing.domain.periods import Interval

MOST_INTERVALS = {Interval.DAY: 3650, Interval.WEEK: 520, Interval.MONTH: 120, Interval.YEAR: 10}
MOST_TRIAL_DAYS = 730
# Far above any price of a subscription and far below what Stripe refuses (99999999) in every currency.
MOST_AMOUNT_MINOR = 99_999_999


@dataclass(frozen=True)
class Product:
    """Something readers may use."""

    id: UUID
    name: str
    features: tuple[str, ...]
    external_id: str | None
    created_at: datetime


@dataclass(frozen=True)
class Plan:
    """A way of subscribing to a product."""

    id: UUID
    product_id: UUID
    name: str
    interval: Interval
    interval_count: int
    trial_days: int
    created_at: datetime


@dataclass(frozen=True)
class Price:
    """What a plan costs a period; never changed, only archived."""

    id: UUID
    plan_id: UUID
    amount: Money
    created_at: datetime
    archived_at: datetime | None


@dataclass(frozen=True)
class Offer:
    """A price with what it is for."""

    product: Product
    plan: Plan
    price: Price


def check_product(name: str, features: tuple[str, ...]) -> None:
    """Raises `invalid` for a product without a name or a feature, or with a feature named twice."""
    if not name.strip():
        raise errors.invalid("name_required", "A product needs a name.", field="name")
    if not features:
        raise errors.invalid("features_required", "A product needs at least one feature.", field="features")
    if len(set(features)) != len(features):
        raise errors.invalid("features_repeated", "A feature is named twice.", field="features")


def check_plan(name: str, interval: Interval, count: int, trial_days: int) -> None:
    """Raises `invalid` for a plan without a name, or with periods longer than ten years or a trial over two."""
    if not name.strip():
        raise errors.invalid("name_required", "A plan needs a name.", field="name")
    if not 1 <= count <= MOST_INTERVALS[interval]:
        raise errors.invalid("interval_count_invalid", "A period is at most ten years long.", field="interval_count")
    if not 0 <= trial_days <= MOST_TRIAL_DAYS:
        raise errors.invalid("trial_days_invalid", "A trial lasts 0 to 730 days.", field="trial_days")


def check_price(amount: Money) -> None:
    """Raises `invalid` for an amount that is negative, too large or not chargeable in its currency."""
    if amount.amount_minor < 0:
        raise errors.invalid("amount_negative", "A price is not negative.", field="amount.amount_minor")
    if amount.amount_minor > MOST_AMOUNT_MINOR:
        raise errors.invalid("amount_too_large", "This price is too large to be charged.", field="amount.amount_minor")
    amount.to_stripe()
