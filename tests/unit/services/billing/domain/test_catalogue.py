"""Shows what may be sold at what price."""

import pytest

from libs.errors import GatefoldError
from libs.money import Money
from services.billing.domain import catalogue
from services.billing.domain.connection import check_keys
from services.billing.domain.periods import Interval

PK, SK, WH = "pk_test_abcdefgh", "sk_test_abcdefgh", "whsec_abcdefghijklmnop"


@pytest.mark.case("billing-10")
@pytest.mark.parametrize(("amount", "currency"), [(990, "EUR"), (500, "JPY"), (1230, "KWD"), (7, "ISK"), (0, "EUR")])
def test_amounts_are_whole_minor_units_of_their_currency(amount: int, currency: str) -> None:
    catalogue.check_price(Money(amount, currency))


@pytest.mark.case("billing-10")
@pytest.mark.parametrize(
    ("amount", "currency", "reason"),
    [
        (-1, "EUR", "amount_negative"),
        (100_000_000, "EUR", "amount_too_large"),
        (1234, "KWD", "amount_not_chargeable"),
    ],
)
def test_what_stripe_cannot_charge_is_refused_when_the_price_is_made(amount: int, currency: str, reason: str) -> None:
    with pytest.raises(GatefoldError, match=reason):
        catalogue.check_price(Money(amount, currency))


@pytest.mark.parametrize(("name", "features"), [(" ", ("a",)), ("A", ()), ("A", ("a", "a"))])
def test_a_product_needs_a_name_and_features(name: str, features: tuple[str, ...]) -> None:
    with pytest.raises(GatefoldError):
        catalogue.check_product(name, features)


@pytest.mark.parametrize(("count", "trial"), [(0, 0), (121, 0), (1, -1), (1, 731)])
def test_a_plan_is_at_most_ten_years_long(count: int, trial: int) -> None:
    with pytest.raises(GatefoldError):
        catalogue.check_plan("Monthly", Interval.MONTH, count, trial)


@pytest.mark.parametrize(
    ("live", "publishable", "secret", "webhook", "reason"),
    [
        (True, PK, SK, WH, "key_mode_mismatch"),
        (False, "pk_live_abcdefgh", SK, WH, "key_mode_mismatch"),
        (False, PK, "sk_live_abcdefgh", WH, "key_mode_mismatch"),
        (False, PK, "nonsense", WH, "key_malformed"),
        (False, SK, SK, WH, "key_malformed"),
        (False, PK, SK, "", "webhook_secret_malformed"),
        (False, PK, SK, "whsec_", "webhook_secret_malformed"),
    ],
)
def test_keys_of_another_mode_or_none_are_refused(
    live: bool, publishable: str, secret: str, webhook: str, reason: str
) -> None:
    with pytest.raises(GatefoldError, match=reason):
        check_keys(live, publishable, secret, webhook)


def test_restricted_keys_are_taken() -> None:
    check_keys(False, PK, "rk_test_abcdefgh", WH)
