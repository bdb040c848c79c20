"""Tests of libs/money."""

from fractions import Fraction

import pytest
from gatefold.money.v1 import money_pb2
from hypothesis import assume, given
from hypothesis import strategies as st

from libs import money
from libs.errors import GatefoldError
from libs.money import Money

CURRENCIES = st.sampled_from(["EUR", "USD", "JPY", "KRW", "KWD", "BHD", "ISK", "UGX", "HUF", "TWD", "MGA", "CLF"])
AMOUNTS = st.integers(-(10**15), 10**15)
WEIGHTS = st.lists(st.integers(0, 10**6), min_size=1, max_size=30).filter(any)


def reason(caught: pytest.ExceptionInfo[GatefoldError]) -> str:
    return caught.value.reason


@given(AMOUNTS, CURRENCIES, WEIGHTS)
def test_allocated_parts_add_up_exactly(amount: int, currency: str, weights: list[int]) -> None:
    parts = Money(amount, currency).allocate(weights)

    assert sum(part.amount_minor for part in parts) == amount
    assert len(parts) == len(weights)
    assert all(type(part.amount_minor) is int for part in parts)


@given(AMOUNTS, WEIGHTS)
def test_each_part_is_within_one_unit_of_its_exact_share(amount: int, weights: list[int]) -> None:
    for part, weight in zip(Money(amount, "EUR").allocate(weights), weights, strict=True):
        assert abs(Fraction(amount * weight, sum(weights)) - part.amount_minor) < 1
        assert weight or part.amount_minor == 0


@given(AMOUNTS, WEIGHTS)
def test_a_negative_amount_splits_as_its_positive_twin(amount: int, weights: list[int]) -> None:
    split = Money(amount, "EUR").allocate(weights)

    assert [part.negate() for part in split] == Money(-amount, "EUR").allocate(weights)


def test_what_is_left_over_goes_to_the_largest_remainders_the_earlier_first() -> None:
    assert [part.amount_minor for part in Money(100, "EUR").allocate([1, 1, 1])] == [34, 33, 33]
    assert [part.amount_minor for part in Money(10, "EUR").allocate([1, 5, 1])] == [2, 7, 1]
    assert [part.amount_minor for part in Money(10, "EUR").allocate([1, 2])] == [3, 7]
    assert [part.amount_minor for part in Money(5, "JPY").allocate([3, 7])] == [2, 3]


@pytest.mark.parametrize("weights", [[], [0, 0], [1, -1], [2, -1]])
def test_weights_that_share_nothing_are_refused(weights: list[int]) -> None:
    with pytest.raises(GatefoldError) as caught:
        Money(1, "EUR").allocate(weights)
    assert reason(caught) == "weights_invalid"


def test_fractions_of_weights_are_refused() -> None:
    with pytest.raises(GatefoldError) as caught:
        Money(1, "EUR").allocate([0.5, 0.5])  # type: ignore[list-item]
    assert reason(caught) == "weights_invalid"


@given(AMOUNTS, st.integers(-1000, 1000), st.integers(-1000, 1000))
def test_a_ratio_is_rounded_half_to_even(amount: int, numerator: int, denominator: int) -> None:
    assume(denominator != 0)

    # Python rounds fractions half to even, by exact arithmetic.
    assert Money(amount, "EUR").ratio(numerator, denominator).amount_minor == round(
        Fraction(amount * numerator, denominator)
    )


@pytest.mark.parametrize(("amount", "expected"), [(1, 0), (3, 2), (5, 2), (7, 4), (-1, 0), (-3, -2), (-5, -2)])
def test_halves_go_to_the_even_neighbour(amount: int, expected: int) -> None:
    assert Money(amount, "EUR").ratio(1, 2) == Money(expected, "EUR")


def test_a_ratio_to_nothing_is_refused() -> None:
    with pytest.raises(GatefoldError) as caught:
        Money(1, "EUR").ratio(1, 0)
    assert reason(caught) == "ratio_undefined"


@given(AMOUNTS, AMOUNTS)
def test_sums_differences_and_order_are_those_of_the_amounts(first: int, second: int) -> None:
    a, b = Money(first, "EUR"), Money(second, "EUR")

    assert (a + b).amount_minor == first + second
    assert (a - b).amount_minor == first - second
    assert ((a < b), (a <= b), (a > b), (a >= b), (a == b)) == (
        first < second, first <= second, first > second, first >= second, first == second,
    )  # fmt: skip
    assert money.total([a, b, a], "EUR") == a + b + a
    assert -a == a * -1 == a.negate()


@pytest.mark.parametrize("operation", ["__add__", "__sub__", "__lt__", "__le__", "__gt__", "__ge__"])
def test_different_currencies_never_meet(operation: str) -> None:
    with pytest.raises(GatefoldError) as caught:
        getattr(Money(1, "EUR"), operation)(Money(1, "USD"))
    assert reason(caught) == "currency_mismatch"


def test_equal_amounts_of_different_currencies_are_not_equal() -> None:
    assert Money(1, "EUR") != Money(1, "USD")


@pytest.mark.parametrize("amount", [1.0, True, "1", None])
def test_an_amount_is_a_whole_number_and_nothing_else(amount: object) -> None:
    with pytest.raises(TypeError):
        Money(amount, "EUR")  # type: ignore[arg-type]


def test_money_is_not_multiplied_by_fractions() -> None:
    with pytest.raises(TypeError, match="ratio"):
        Money(1, "EUR") * 0.5  # type: ignore[operator]
    with pytest.raises(TypeError):
        Money(1, "EUR").ratio(0.5, 1)  # type: ignore[arg-type]


def test_amounts_beyond_64_bits_are_refused() -> None:
    assert Money(2**63 - 1, "EUR").amount_minor == 2**63 - 1
    with pytest.raises(GatefoldError) as caught:
        Money(2**62, "EUR") * 2
    assert reason(caught) == "amount_out_of_range"


@pytest.mark.parametrize(
    ("currency", "decimals"),
    [("EUR", 2), ("HUF", 2), ("TWD", 2), ("MGA", 2), ("JPY", 0), ("KRW", 0), ("ISK", 0), ("UGX", 0), ("XAF", 0),
     ("VND", 0), ("KWD", 3), ("BHD", 3), ("TND", 3), ("IQD", 3), ("CLF", 4)],
)  # fmt: skip
def test_decimals_are_those_of_iso_4217(currency: str, decimals: int) -> None:
    assert money.exponent(currency) == decimals


@pytest.mark.parametrize("currency", ["", "eur", "EURO", "XXX", "XTS", "XAU", "BTC", "DEM", "EU R"])
def test_what_is_no_current_currency_is_refused(currency: str) -> None:
    with pytest.raises(GatefoldError) as caught:
        Money(1, currency)
    assert reason(caught) == "currency_unknown"


@pytest.mark.parametrize(
    ("amount", "text"),
    [(Money(123456, "EUR"), "1234.56 EUR"), (Money(-5, "EUR"), "-0.05 EUR"), (Money(500, "JPY"), "500 JPY"),
     (Money(5, "KWD"), "0.005 KWD"), (Money(0, "USD"), "0.00 USD")],
)  # fmt: skip
def test_text_shows_the_decimals_of_the_currency(amount: Money, text: str) -> None:
    assert str(amount) == text


@pytest.mark.parametrize(
    ("ours", "stripes"),
    [
        (Money(1099, "EUR"), (1099, "eur")),
        (Money(500, "JPY"), (500, "jpy")),
        (Money(500, "KRW"), (500, "krw")),
        (Money(5, "ISK"), (500, "isk")),  # no decimals, sent with two
        (Money(5, "UGX"), (500, "ugx")),
        (Money(1045, "HUF"), (1045, "huf")),  # whole units in payouts alone
        (Money(80045, "TWD"), (80045, "twd")),
        (Money(5120, "KWD"), (5120, "kwd")),
        (Money(5120, "BHD"), (5120, "bhd")),
        (Money(500, "MGA"), (5, "mga")),  # two decimals, sent with none
    ],
)
def test_amounts_are_sent_as_stripe_takes_them(ours: Money, stripes: tuple[int, str]) -> None:
    assert ours.to_stripe() == stripes
    assert Money.from_stripe(*stripes) == ours


@pytest.mark.parametrize("amount", [Money(5124, "KWD"), Money(1, "BHD"), Money(1, "TND"), Money(150, "MGA")])
def test_amounts_that_stripe_cannot_take_are_refused(amount: Money) -> None:
    with pytest.raises(GatefoldError) as caught:
        amount.to_stripe()
    assert reason(caught) == "amount_not_chargeable"


@pytest.mark.parametrize("currency", ["isk", "ugx"])
def test_cents_that_do_not_exist_are_not_taken_from_stripe(currency: str) -> None:
    with pytest.raises(GatefoldError) as caught:
        Money.from_stripe(550, currency)
    assert reason(caught) == "amount_not_chargeable"


@given(AMOUNTS, CURRENCIES)
def test_what_stripe_takes_comes_back_the_same(amount: int, currency: str) -> None:
    try:
        sent = Money(amount, currency).to_stripe()
    except GatefoldError:
        assume(False)

    assert Money.from_stripe(*sent) == Money(amount, currency)


def test_money_is_read_from_a_message() -> None:
    assert Money.of(money_pb2.Money(amount_minor=5, currency="EUR")) == Money(5, "EUR")
