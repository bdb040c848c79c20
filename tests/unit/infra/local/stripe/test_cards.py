"""The test cards."""

import pytest

from infra.local.stripe import cards
from infra.local.stripe.problems import StripeError


def test_test_ids_and_tokens_name_cards() -> None:
    visa = cards.by_name("pm_card_visa")
    assert visa is not None
    assert visa == cards.by_name("tok_visa") == cards.by_number("4242 4242 4242 4242")
    assert cards.by_name("pm_card_unheard_of") is None


def test_real_looking_card_is_declined() -> None:
    decline = cards.by_number("4111111111111111").decline
    assert decline is not None
    assert decline.decline_code == "test_mode_live_card"


@pytest.mark.parametrize("number", ["4242424242424241", "", "abcd", "42"])
def test_numbers_that_are_none_are_refused(number) -> None:
    with pytest.raises(StripeError, match="incorrect"):
        cards.by_number(number)
