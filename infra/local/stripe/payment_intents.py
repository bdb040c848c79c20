"""Owns PaymentIntents: made, confirmed, authenticated, cancelled."""

from infra.local.stripe import attempts, charges, intents
from infra.local.stripe.cards import AUTHENTICATION_REQUIRED, Decline
from infra.local.stripe.engine import Call, Engine, hidden, visible
from infra.local.stripe.problems import Json, bad_param, refused

_SETTABLE = frozenset(
    {
        "amount", "currency", "customer", "description", "expand", "metadata", "payment_method", "receipt_email",
        "setup_future_usage", "shipping", "statement_descriptor", "statement_descriptor_suffix",
    }
)  # fmt: skip
_CONFIRMING = frozenset(
    {
        "error_on_requires_action", "expand", "off_session", "payment_method", "payment_method_data",
        "payment_method_options", "receipt_email", "return_url", "setup_future_usage", "use_stripe_sdk",
    }
)  # fmt: skip
_CREATING = _SETTABLE | _CONFIRMING | {"automatic_payment_methods", "capture_method", "confirm", "payment_method_types"}
_REASONS = ("abandoned", "duplicate", "fraudulent", "requested_by_customer")
_CONFIRMABLE = frozenset({"requires_payment_method", "requires_confirmation", "requires_action"})
_SMALLEST_MINOR = 50
_AUTHENTICATION_FAILED = Decline(
    "payment_intent_authentication_failure",
    None,
    "We are unable to authenticate your payment method. Please choose a different payment method and try again.",
)


def create(engine: Engine, call: Call) -> Json:
    """POST /v1/payment_intents."""
    params = call.params
    params.only(_CREATING)
    confirm = params.boolean("confirm") or False
    if not confirm and params.boolean("off_session"):
        raise refused("off_session can only be used when confirm is true.", param="off_session")
    params.required("amount")
    params.required("currency")
    automatic, types = intents.method_types(call)
    intent_id = engine.new_id("payment_intent")
    intent: Json = {
        "id": intent_id,
        "object": "payment_intent",
        "amount": 0,
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": 0,
        "application": None,
        "application_fee_amount": None,
        "automatic_payment_methods": automatic,
        "canceled_at": None,
        "cancellation_reason": None,
        "capture_method": params.choice("capture_method", ("automatic", "automatic_async")) or "automatic_async",
        "client_secret": intents.client_secret(engine, intent_id),
        "confirmation_method": "automatic",
        "created": engine.now(),
        "currency": None,
        "customer": None,
        "description": None,
        "last_payment_error": None,
        "latest_charge": None,
        "livemode": call.scope.live,
        "metadata": {},
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": None,
        "payment_method_configuration_details": None,
        "payment_method_options": {
            "card": {
                "installments": None, "mandate_options": None, "network": None, "request_three_d_secure": "automatic"
            }
        },
        "payment_method_types": types,
        "processing": None,
        "receipt_email": None,
        "review": None,
        "setup_future_usage": None,
        "shipping": None,
        "source": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": None,
        "status": "requires_payment_method",
        "transfer_data": None,
        "transfer_group": None,
    }  # fmt: skip
    _write(engine, call, intent)
    engine.save(call, intent)
    engine.emit(call, "payment_intent.created", intent)
    if confirm:
        intents.need_return_url(call, intent)
        _confirm(engine, call, intent)
    return engine.render(call, intent)


def update(engine: Engine, call: Call, intent_id: str) -> Json:
    """POST /v1/payment_intents/:id."""
    call.params.only(_SETTABLE)
    intent = engine.load(call, "payment_intent", intent_id)
    if intent["status"] not in _CONFIRMABLE:
        raise attempts.unexpected_state(intent, "update")
    _write(engine, call, intent)
    engine.save(call, intent)
    return engine.render(call, intent)


def retrieve(engine: Engine, call: Call, intent_id: str) -> Json:
    """GET /v1/payment_intents/:id."""
    call.params.only({"expand"} | intents.FROM_BROWSER)
    return engine.render(call, attempts.owned(engine, call, "payment_intent", intent_id))


def index(engine: Engine, call: Call) -> Json:
    """GET /v1/payment_intents."""
    call.params.only(intents.PAGING)
    customer = call.params.text("customer")
    url = "/v1/payment_intents"
    return engine.page(call, "payment_intent", url, lambda body: customer is None or body["customer"] == customer)


def confirm(engine: Engine, call: Call, intent_id: str) -> Json:
    """POST /v1/payment_intents/:id/confirm."""
    call.params.only(_CONFIRMING | (intents.FROM_BROWSER if call.publishable else set()))
    intent = attempts.owned(engine, call, "payment_intent", intent_id)
    if intent["status"] not in _CONFIRMABLE:
        raise attempts.unexpected_state(intent, "confirm")
    _write(engine, call, intent)
    intents.need_return_url(call, intent)
    _confirm(engine, call, intent)
    return engine.render(call, intent)


def cancel(engine: Engine, call: Call, intent_id: str) -> Json:
    """POST /v1/payment_intents/:id/cancel."""
    call.params.only({"cancellation_reason", "expand"})
    intent = engine.load(call, "payment_intent", intent_id)
    if intent["status"] not in _CONFIRMABLE:
        raise attempts.unexpected_state(intent, "cancel")
    intent |= {
        "status": "canceled",
        "canceled_at": engine.now(),
        "cancellation_reason": call.params.choice("cancellation_reason", _REASONS),
        "next_action": None,
    }
    engine.save(call, intent)
    engine.emit(call, "payment_intent.canceled", intent)
    return engine.render(call, intent)


def authenticated(engine: Engine, call: Call, intent: Json, *, success: bool) -> None:
    """What the bank's page tells: the reader proved themselves, or did not."""
    method = engine.load(call, "payment_method", intent["payment_method"])
    intent["next_action"] = None
    if not success:
        _fail(engine, call, intent, method, _AUTHENTICATION_FAILED, charged=False)
        return
    result = attempts.outcome(method, off_session=False, authenticated=True, storing=False)
    if isinstance(result, Decline):
        _fail(engine, call, intent, method, result, charged=True)
    else:
        _succeed(engine, call, intent, method)


def _confirm(engine: Engine, call: Call, intent: Json) -> None:
    off_session = call.params.text("off_session") not in (None, "false")
    if off_session and intent["setup_future_usage"] is not None:
        raise refused("setup_future_usage cannot be used when one of the following is set: off_session.")
    method = attempts.chosen_method(engine, call, intent)
    intent |= {"payment_method": method["id"], "last_payment_error": None, "next_action": None}
    result = attempts.outcome(method, off_session=off_session, authenticated=False, storing=False)
    if result == "authenticate" and call.params.boolean("error_on_requires_action"):
        result = AUTHENTICATION_REQUIRED
    if isinstance(result, Decline):
        _fail(engine, call, intent, method, result, charged=True)
        charge = {"charge": intent["latest_charge"]}
        raise attempts.declined(result, method, intent, charge)
    if result == "authenticate":
        return_url = call.params.text("return_url")
        hidden(intent)["return_url"] = return_url
        intent |= {"status": "requires_action", "next_action": attempts.redirect(call, intent, return_url)}
        engine.save(call, intent)
        engine.emit(call, "payment_intent.requires_action", intent)
        return
    _succeed(engine, call, intent, method)


def _succeed(engine: Engine, call: Call, intent: Json, method: Json) -> None:
    attempts.keep_method(engine, call, method, intent["customer"], intent["setup_future_usage"])
    intent |= {"status": "succeeded", "amount_received": intent["amount"], "last_payment_error": None}
    charges.record(engine, call, intent, method, None)
    engine.save(call, intent)
    engine.emit(call, "payment_intent.succeeded", intent)


def _fail(engine: Engine, call: Call, intent: Json, method: Json, decline: Decline, *, charged: bool) -> None:
    intent |= {"status": "requires_payment_method", "payment_method": None}
    if charged:
        charges.record(engine, call, intent, method, decline)
    charge = {"charge": intent["latest_charge"]} if charged else {}
    intent["last_payment_error"] = decline.as_error() | charge | {"payment_method": visible(method)}
    engine.save(call, intent)
    engine.emit(call, "payment_intent.payment_failed", intent)


def _write(engine: Engine, call: Call, intent: Json) -> None:
    params = call.params
    amount = params.integer("amount")
    if amount is not None:
        if amount < 1:
            raise bad_param("This value must be greater than or equal to 1.", "amount", "parameter_invalid_integer")
        if amount < _SMALLEST_MINOR:
            message = f"Amount must convert to at least {_SMALLEST_MINOR} cents."
            raise refused(message, param="amount", code="amount_too_small")
        if amount > 99_999_999:
            raise refused("Amount must be no more than 999,999.99", param="amount", code="amount_too_large")
        intent["amount"] = amount
    currency = params.text("currency")
    if currency is not None:
        if not (len(currency) == 3 and currency.isascii() and currency.isalpha()):
            raise refused(f"Invalid currency: {currency}.", param="currency")
        intent["currency"] = currency.lower()
    if "customer" in params:
        intent["customer"] = intents.customer_of(engine, call, intent)
    for name in ("description", "receipt_email", "statement_descriptor", "statement_descriptor_suffix"):
        if name in params:
            intent[name] = params.text(name)
    if "shipping" in params:
        intent["shipping"] = params.mapping("shipping") or None
    if "setup_future_usage" in params:
        intent["setup_future_usage"] = params.choice("setup_future_usage", ("off_session", "on_session"))
    if "metadata" in params:
        intent["metadata"] = params.metadata(intent["metadata"])
    if "payment_method" in params:
        intent["payment_method"] = attempts.chosen_method(engine, call, intent)["id"]
        # From here on the method has an id of its own, also where a test id was given.
        params.values["payment_method"] = intent["payment_method"]
        intent["status"] = "requires_confirmation"
