"""Shows how webhooks are verified and what is read from Stripe's objects."""

import hashlib
import hmac

import pytest

from libs.money import Money
from services.billing.clients import observation, verify_signature

BODY = b'{"id": "evt_1"}'
SECRET = "whsec_abcdefghijklmnop"


def header(second: int = 1000, secret: str = SECRET) -> str:
    mark = hmac.new(secret.encode(), f"{second}.".encode() + BODY, hashlib.sha256).hexdigest()
    return f"t={second},v1={mark}"


@pytest.mark.case("billing-17")
@pytest.mark.parametrize(
    ("now", "secrets", "holds"),
    [
        (1000, (SECRET,), True),
        (1000, ("whsec_other_other_other", SECRET), True),
        (1300, (SECRET,), True),
        (1301, (SECRET,), False),
        (699, (SECRET,), False),
        (1000, ("whsec_other_other_other",), False),
        (1000, (), False),
        (1000, ("",), False),
    ],
)
def test_one_of_the_secrets_signed_within_five_minutes(now: int, secrets: tuple[str, ...], holds: bool) -> None:
    assert verify_signature(BODY, header(), secrets, now, 300) is holds


def test_a_signature_by_an_empty_secret_does_not_hold() -> None:
    assert not verify_signature(BODY, header(secret=""), ("", " "), 1000, 300)


def test_a_body_that_is_no_text_is_not_signed() -> None:
    assert not verify_signature(b"\xff", header(), (SECRET,), 1000, 300)


@pytest.mark.case("billing-10")
@pytest.mark.parametrize(
    ("amount", "currency", "money"),
    [(990, "eur", Money(990, "EUR")), (500, "jpy", Money(500, "JPY")), (70000, "isk", Money(700, "ISK"))],
)
def test_an_intent_is_read_in_our_units(amount: int, currency: str, money: Money) -> None:
    seen = observation({"id": "pi_1", "status": "succeeded", "amount": amount, "currency": currency}, second=7)
    assert (seen.amount, seen.second) == (money, 7)


def test_a_setup_intent_has_no_amount_and_names_its_error() -> None:
    error = {"code": "card_declined", "decline_code": "do_not_honor"}
    seen = observation(
        {"id": "seti_1", "status": "requires_payment_method", "last_setup_error": error, "payment_method": None},
        second=1,
    )
    assert (seen.amount, seen.error_reason, seen.decline_code) == (None, "card_declined", "do_not_honor")


def test_an_expanded_payment_method_is_read_by_its_id() -> None:
    seen = observation({"id": "pi_1", "status": "succeeded", "payment_method": {"id": "pm_1"}}, second=1)
    assert seen.method == "pm_1"
