"""Owns the test cards: what each one does when it is stored or charged (docs.stripe.com/testing)."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from infra.local.stripe.problems import Json, StripeError


@dataclass(frozen=True)
class Decline:
    """How a bank says no: Stripe's error code, its decline code where there is one, and the text for the reader."""

    code: str
    decline_code: str | None
    message: str

    def as_error(self) -> Json:
        """Returns the fields of the error, as they also stand in an intent's `last_payment_error`."""
        decline = {} if self.decline_code is None else {"decline_code": self.decline_code}
        return {
            "code": self.code,
            **decline,
            "doc_url": f"https://stripe.com/docs/error-codes/{self.code.replace('_', '-')}",
            "message": self.message,
            "type": "card_error",
        }


@dataclass(frozen=True)
class Card:
    """A test card.

    `authenticate`: `unless_set_up` asks for 3-D Secure unless the charge is off-session and the card was set up for
    that; `always` asks every time. `decline` comes at once or, with 3-D Secure, after it. `stores` says whether the
    card can be attached although its charges fail.
    """

    number: str
    name: str
    brand: str = "visa"
    authenticate: Literal["never", "unless_set_up", "always"] = "never"
    decline: Decline | None = None
    stores: bool = False


def _declined(decline_code: str, message: str = "Your card was declined.") -> Decline:
    return Decline("card_declined", decline_code, message)


_FUNDS = _declined("insufficient_funds", "Your card has insufficient funds.")
AUTHENTICATION_REQUIRED = Decline(
    "authentication_required",
    "authentication_required",
    "Your card was declined. This transaction requires authentication.",
)
_LIVE_CARD = _declined(
    "test_mode_live_card",
    "Your card was declined. Your request was in test mode, but used a non test card. "
    "For a list of valid test cards, visit: https://stripe.com/docs/testing.",
)

_CARDS = (
    Card("4242424242424242", "visa"),
    Card("4000056655665556", "visa_debit"),
    Card("5555555555554444", "mastercard", brand="mastercard"),
    Card("378282246310005", "amex", brand="amex"),
    Card("4000000000000002", "chargeDeclined", decline=_declined("generic_decline")),
    Card("4000000000009995", "chargeDeclinedInsufficientFunds", decline=_FUNDS),
    Card("4000000000009987", "chargeDeclinedLostCard", decline=_declined("lost_card")),
    Card("4000000000009979", "chargeDeclinedStolenCard", decline=_declined("stolen_card")),
    Card(
        "4000000000000069", "chargeDeclinedExpiredCard", decline=Decline("expired_card", None, "Your card has expired.")
    ),
    Card(
        "4000000000000127",
        "chargeDeclinedIncorrectCvc",
        decline=Decline("incorrect_cvc", None, "Your card's security code is incorrect."),
    ),
    Card(
        "4000000000000119",
        "chargeDeclinedProcessingError",
        decline=Decline(
            "processing_error", None, "An error occurred while processing your card. Try again in a little bit."
        ),
    ),
    Card("4000000000000341", "chargeCustomerFail", decline=_declined("generic_decline"), stores=True),
    Card("4000002500003155", "authenticationRequiredOnSetup", authenticate="unless_set_up"),
    Card("4000002760003184", "authenticationRequired", authenticate="always"),
    Card("4000000000003220", "threeDSecure2Required", authenticate="always"),
    Card(
        "4000008260003178",
        "authenticationRequiredChargeDeclinedInsufficientFunds",
        authenticate="always",
        decline=_FUNDS,
        stores=True,
    ),
)
_BY_NUMBER: Mapping[str, Card] = MappingProxyType({card.number: card for card in _CARDS})
_BY_NAME: Mapping[str, Card] = MappingProxyType(
    {card.name: card for card in _CARDS} | {f"visa_{card.name}": card for card in _CARDS if card.decline}
)


def by_number(number: str) -> Card:
    """Returns the card with a number; one that is no test card declines, as Stripe's test mode does.

    Raises the card error `incorrect_number` for digits that fail the Luhn check (ISO/IEC 7812-1).
    """
    digits = number.replace(" ", "").replace("-", "")
    if not digits.isdigit() or not 12 <= len(digits) <= 19 or not _luhn(digits):
        message = "Your card number is incorrect."
        raise StripeError(402, "card_error", message, code="incorrect_number", param="number")
    return _BY_NUMBER.get(digits) or Card(digits, "unknown", decline=_LIVE_CARD)


def by_name(test_id: str) -> Card | None:
    """Returns the card of a test id like `pm_card_visa` or `tok_visa`; None for any other text."""
    return _BY_NAME.get(test_id.removeprefix("pm_card_").removeprefix("tok_"))


def _luhn(digits: str) -> bool:
    doubled = (int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits)))
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0
