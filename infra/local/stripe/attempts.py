"""Owns what happens when a card is tried: it goes through, is declined, or has to be authenticated first."""

from collections.abc import Mapping
from typing import Any, Literal

from infra.local.stripe import cards, payment_methods
from infra.local.stripe.cards import Card, Decline
from infra.local.stripe.engine import Call, Engine, hidden, visible
from infra.local.stripe.forms import Params
from infra.local.stripe.problems import Json, StripeError, bad_param, refused

Outcome = Literal["through", "authenticate"] | Decline


def outcome(method: Json, *, off_session: bool, authenticated: bool, storing: bool) -> Outcome:
    """Returns what the bank says to a try: `storing` is a set-up without a charge."""
    card = payment_methods.card_of(method)
    if not authenticated and _asks(card, method, off_session=off_session):
        return cards.AUTHENTICATION_REQUIRED if off_session else "authenticate"
    if card.decline is not None and not (storing and card.stores):
        return card.decline
    return "through"


def _asks(card: Card, method: Json, *, off_session: bool) -> bool:
    if card.authenticate == "unless_set_up":
        return not (off_session and hidden(method)["set_up"])
    return card.authenticate == "always"


def chosen_method(engine: Engine, call: Call, intent: Json) -> Json:
    """Returns the payment method to confirm an intent with; raises 400 when there is none or it is used up."""
    given = call.params.mapping("payment_method_data")
    method_id = call.params.text("payment_method") or intent["payment_method"]
    if given:
        method = payment_methods.make(engine, call, Params(given))
    elif method_id is not None:
        method = payment_methods.resolve(engine, call, method_id)
    else:
        noun = "PaymentIntent" if intent["object"] == "payment_intent" else "SetupIntent"
        code = f"{intent['object']}_unexpected_state"
        message = (
            f"You cannot confirm this {noun} because it's missing a payment method. You can either update the {noun} "
            "with a payment method and then confirm it again, or confirm it again directly with a payment method."
        )
        raise StripeError(400, "invalid_request_error", message, code=code, extra={intent["object"]: visible(intent)})
    owner = method["customer"]
    if owner is not None and owner != intent["customer"]:
        raise refused(
            f"The payment method {method['id']} belongs to the Customer {owner}. Please include the Customer in the "
            "`customer` parameter.",
            param="payment_method",
        )
    if hidden(method)["spent"]:
        raise refused(
            "The provided PaymentMethod was previously used with a PaymentIntent without Customer attachment, or was "
            "detached from a Customer. It may not be used again.",
            param="payment_method",
        )
    return method


def keep_method(engine: Engine, call: Call, method: Json, customer_id: str | None, usage: str | None) -> None:
    """After a success: attaches the method for later use, or marks it as used up."""
    if usage is None or customer_id is None:
        hidden(method)["spent"] = method["customer"] is None
    else:
        hidden(method)["set_up"] = hidden(method)["set_up"] or usage == "off_session"
        payment_methods.attach_to(engine, call, method, customer_id)
    engine.save(call, method)


def declined(decline: Decline, method: Json, intent: Json, extra: Mapping[str, Any]) -> StripeError:
    """Returns the 402 of a declined card; what was written about the try stays."""
    body = {**extra, "payment_method": visible(method), intent["object"]: visible(intent)}
    return StripeError(402, "card_error", decline.message, extra=decline.as_error() | body, keeps_effect=True)


def unexpected_state(intent: Json, verb: str) -> StripeError:
    """Returns the 400 for what cannot be done to an intent in its state."""
    noun = "PaymentIntent" if intent["object"] == "payment_intent" else "SetupIntent"
    if intent["status"] == "succeeded" and verb == "confirm":
        message = f"You cannot confirm this {noun} because it has already succeeded after being previously confirmed."
    else:
        message = f"You cannot {verb} this {noun} because it has a status of {intent['status']}."
    code = f"{intent['object']}_unexpected_state"
    return StripeError(400, "invalid_request_error", message, code=code, extra={intent["object"]: visible(intent)})


def owned(engine: Engine, call: Call, kind: str, intent_id: str) -> Json:
    """Returns an intent of the caller's; a browser has to show the client secret."""
    intent = engine.load(call, kind, intent_id)
    if call.publishable and call.params.text("client_secret") != intent["client_secret"]:
        message = f"The client_secret provided does not match any associated {kind} on this account."
        raise bad_param(message, "client_secret", f"{kind}_invalid_parameter")
    return intent


def redirect(call: Call, intent: Json, return_url: str | None) -> Json:
    """Returns the `next_action` that sends the reader to their bank."""
    if return_url is None:
        # Stripe's own script would open the page in a dialogue; it finds the address in here.
        return {
            "type": "use_stripe_sdk",
            "use_stripe_sdk": {"type": "three_d_secure_redirect", "stripe_js": _page(call, intent)},
        }
    return {"type": "redirect_to_url", "redirect_to_url": {"return_url": return_url, "url": _page(call, intent)}}


def _page(call: Call, intent: Json) -> str:
    return f"{call.origin}/_sim/authenticate/{intent['id']}"
