"""Owns payment methods: cards as the browser or a test id gives them, attached to customers."""

from infra.local.stripe import cards
from infra.local.stripe.cards import Card
from infra.local.stripe.engine import Call, Engine, fingerprint, hidden
from infra.local.stripe.forms import Params
from infra.local.stripe.problems import Json, StripeError, bad_param, missing, refused

_WRITABLE = frozenset({"allow_redisplay", "billing_details", "card", "expand", "metadata", "type"})
# The browser's script sends these with what the reader typed.
_FROM_BROWSER = frozenset(
    {"client_secret", "key", "guid", "muid", "sid", "payment_user_agent", "time_on_page", "referrer"}
)
_PAGING = frozenset({"created", "ending_before", "expand", "limit", "starting_after"})


def create(engine: Engine, call: Call) -> Json:
    """POST /v1/payment_methods."""
    call.params.only(_WRITABLE | (_FROM_BROWSER if call.publishable else set()))
    return engine.render(call, make(engine, call, call.params))


def make(engine: Engine, call: Call, params: Params) -> Json:
    """Makes a payment method from `type=card` with card numbers (browser only) or a token."""
    if params.required("type") != "card":
        raise bad_param("This simulator takes cards only.", "type", "parameter_unknown")
    given = Params(params.mapping("card"))
    token = given.text("token")
    if token is not None:
        card = cards.by_name(token) if token.startswith("tok_") else None
        if card is None:
            raise refused(f"No such token: '{token}'", param="card[token]", code="resource_missing")
        month, year = 12, _year(engine) + 3
    else:
        card, month, year = _typed(engine, call, given)
    return _save(engine, call, card, month, year, params)


def _typed(engine: Engine, call: Call, given: Params) -> tuple[Card, int, int]:
    if not call.publishable:
        message = (
            "Sending credit card numbers directly to the Stripe API is generally unsafe. We suggest you use test "
            "tokens that map to the test card you are using, see https://stripe.com/docs/testing."
        )
        raise StripeError(402, "invalid_request_error", message, executed=False)
    for name in ("number", "exp_month", "exp_year"):
        if given.text(name) is None:
            raise missing(f"card[{name}]")
    card = cards.by_number(given.required("number"))
    month, year = given.integer("exp_month") or 0, given.integer("exp_year") or 0
    year += 2000 if year < 100 else 0
    if not 1 <= month <= 12:
        message = "Your card's expiration month is invalid."
        raise StripeError(402, "card_error", message, code="invalid_expiry_month", param="exp_month")
    if not _year(engine) <= year <= _year(engine) + 50:
        message = "Your card's expiration year is invalid."
        raise StripeError(402, "card_error", message, code="invalid_expiry_year", param="exp_year")
    cvc = given.text("cvc")
    if cvc is not None and not (cvc.isdigit() and 3 <= len(cvc) <= 4):
        message = "Your card's security code is invalid."
        raise StripeError(402, "card_error", message, code="invalid_cvc", param="cvc")
    return card, month, year


def _save(engine: Engine, call: Call, card: Card, month: int, year: int, params: Params) -> Json:
    billing = Params(params.mapping("billing_details"))
    method: Json = {
        "id": engine.new_id("payment_method"),
        "object": "payment_method",
        "allow_redisplay": params.text("allow_redisplay") or "unspecified",
        "billing_details": {
            "address": {"city": None, "country": None, "line1": None, "line2": None, "postal_code": None, "state": None}
            | billing.mapping("address"),
            "email": billing.text("email"),
            "name": billing.text("name"),
            "phone": billing.text("phone"),
            "tax_id": None,
        },
        "card": {
            "brand": card.brand,
            "checks": {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": "unchecked"},
            "country": "US",
            "display_brand": card.brand,
            "exp_month": month,
            "exp_year": year,
            "fingerprint": fingerprint([call.scope.account, card.number])[:16],
            "funding": "credit",
            "generated_from": None,
            "last4": card.number[-4:],
            "networks": {"available": [card.brand], "preferred": None},
            "regulated_status": "unregulated",
            "three_d_secure_usage": {"supported": True},
            "wallet": None,
        },
        "created": engine.now(),
        "customer": None,
        "livemode": call.scope.live,
        "metadata": params.metadata({}),
        "type": "card",
    }
    hidden(method).update(number=card.number, set_up=False, spent=False)
    engine.save(call, method)
    return method


def card_of(method: Json) -> Card:
    """Returns the test card behind a payment method."""
    return cards.by_number(hidden(method)["number"])


def resolve(engine: Engine, call: Call, method_id: str, *, param: str = "payment_method") -> Json:
    """Returns a payment method by its id; a test id like `pm_card_visa` makes a fresh one."""
    card = cards.by_name(method_id) if method_id.startswith("pm_card_") else None
    if card is not None:
        return _save(engine, call, card, 12, _year(engine) + 3, Params({}))
    return engine.load(call, "payment_method", method_id, param=param)


def attach_to(engine: Engine, call: Call, method: Json, customer_id: str) -> None:
    """Attaches a payment method to a customer; a card that cannot be stored raises its decline."""
    if method["customer"] == customer_id:
        return
    if method["customer"] is not None:
        raise refused(
            "The payment method you provided has already been attached to a customer.", param="payment_method"
        )
    if hidden(method)["spent"]:
        raise refused(
            "This PaymentMethod was previously used without being attached to a Customer or was detached from a "
            "Customer, and may not be used again.",
            param="payment_method",
        )
    method["customer"] = customer_id
    engine.save(call, method)
    engine.emit(call, "payment_method.attached", method)


def attach(engine: Engine, call: Call, method_id: str) -> Json:
    """POST /v1/payment_methods/:id/attach."""
    call.params.only({"customer", "expand"})
    customer = engine.load(call, "customer", call.params.required("customer"), param="customer")
    method = resolve(engine, call, method_id)
    card = card_of(method)
    if card.decline is not None and not card.stores:
        raise StripeError(402, "card_error", card.decline.message, extra=card.decline.as_error())
    attach_to(engine, call, method, customer["id"])
    return engine.render(call, method)


def detach(engine: Engine, call: Call, method_id: str) -> Json:
    """POST /v1/payment_methods/:id/detach."""
    call.params.only({"expand"})
    method = engine.load(call, "payment_method", method_id)
    if method["customer"] is None:
        raise refused("The payment method you provided is not attached to a customer so detachment is impossible.")
    previous = {"customer": method["customer"]}
    method["customer"] = None
    hidden(method)["spent"] = True
    engine.save(call, method)
    engine.emit(call, "payment_method.detached", method, previous)
    return engine.render(call, method)


def retrieve(engine: Engine, call: Call, method_id: str) -> Json:
    """GET /v1/payment_methods/:id."""
    call.params.only({"expand"})
    return engine.render(call, engine.load(call, "payment_method", method_id))


def index_of_customer(engine: Engine, call: Call, customer_id: str) -> Json:
    """GET /v1/customers/:id/payment_methods."""
    call.params.only(_PAGING | {"type"})
    engine.load(call, "customer", customer_id)
    url = f"/v1/customers/{customer_id}/payment_methods"
    return engine.page(call, "payment_method", url, lambda body: body["customer"] == customer_id)


def _year(engine: Engine) -> int:
    # Whole years since 1970, good to a day: enough for whether a card has expired.
    return 1970 + engine.now() // 31_556_952
