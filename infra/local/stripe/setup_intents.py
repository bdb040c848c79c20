"""Owns SetupIntents: a card stored for later without a charge."""

from infra.local.stripe import attempts, intents
from infra.local.stripe.cards import Decline
from infra.local.stripe.engine import Call, Engine, hidden, visible
from infra.local.stripe.problems import Json

_SETTABLE = frozenset({"customer", "description", "expand", "metadata", "payment_method"})
_CONFIRMING = frozenset(
    {"expand", "payment_method", "payment_method_data", "payment_method_options", "return_url", "use_stripe_sdk"}
)
_CREATING = _SETTABLE | _CONFIRMING | {"automatic_payment_methods", "confirm", "payment_method_types", "usage"}
_REASONS = ("abandoned", "duplicate", "requested_by_customer")
_CONFIRMABLE = frozenset({"requires_payment_method", "requires_confirmation", "requires_action"})
_AUTHENTICATION_FAILED = Decline(
    "setup_intent_authentication_failure",
    None,
    "We are unable to authenticate your payment method. Please choose a different payment method and try again.",
)


def create(engine: Engine, call: Call) -> Json:
    """POST /v1/setup_intents."""
    params = call.params
    params.only(_CREATING)
    automatic, types = intents.method_types(call)
    intent_id = engine.new_id("setup_intent")
    intent: Json = {
        "id": intent_id,
        "object": "setup_intent",
        "application": None,
        "automatic_payment_methods": automatic,
        "cancellation_reason": None,
        "client_secret": intents.client_secret(engine, intent_id),
        "created": engine.now(),
        "customer": None,
        "description": None,
        "flow_directions": None,
        "last_setup_error": None,
        "latest_attempt": None,
        "livemode": call.scope.live,
        "mandate": None,
        "metadata": {},
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": None,
        "payment_method_configuration_details": None,
        "payment_method_options": {
            "card": {"mandate_options": None, "network": None, "request_three_d_secure": "automatic"}
        },
        "payment_method_types": types,
        "single_use_mandate": None,
        "status": "requires_payment_method",
        "usage": params.choice("usage", ("off_session", "on_session")) or "off_session",
    }  # fmt: skip
    _write(engine, call, intent)
    engine.save(call, intent)
    engine.emit(call, "setup_intent.created", intent)
    if params.boolean("confirm"):
        intents.need_return_url(call, intent)
        _confirm(engine, call, intent)
    return engine.render(call, intent)


def retrieve(engine: Engine, call: Call, intent_id: str) -> Json:
    """GET /v1/setup_intents/:id."""
    call.params.only({"expand"} | intents.FROM_BROWSER)
    return engine.render(call, attempts.owned(engine, call, "setup_intent", intent_id))


def update(engine: Engine, call: Call, intent_id: str) -> Json:
    """POST /v1/setup_intents/:id."""
    call.params.only(_SETTABLE)
    intent = engine.load(call, "setup_intent", intent_id)
    if intent["status"] not in _CONFIRMABLE:
        raise attempts.unexpected_state(intent, "update")
    _write(engine, call, intent)
    engine.save(call, intent)
    return engine.render(call, intent)


def index(engine: Engine, call: Call) -> Json:
    """GET /v1/setup_intents."""
    call.params.only(intents.PAGING)
    customer = call.params.text("customer")
    url = "/v1/setup_intents"
    return engine.page(call, "setup_intent", url, lambda body: customer is None or body["customer"] == customer)


def confirm(engine: Engine, call: Call, intent_id: str) -> Json:
    """POST /v1/setup_intents/:id/confirm."""
    call.params.only(_CONFIRMING | (intents.FROM_BROWSER if call.publishable else set()))
    intent = attempts.owned(engine, call, "setup_intent", intent_id)
    if intent["status"] not in _CONFIRMABLE:
        raise attempts.unexpected_state(intent, "confirm")
    intents.need_return_url(call, intent)
    _confirm(engine, call, intent)
    return engine.render(call, intent)


def cancel(engine: Engine, call: Call, intent_id: str) -> Json:
    """POST /v1/setup_intents/:id/cancel."""
    call.params.only({"cancellation_reason", "expand"})
    intent = engine.load(call, "setup_intent", intent_id)
    if intent["status"] not in _CONFIRMABLE:
        raise attempts.unexpected_state(intent, "cancel")
    reason = call.params.choice("cancellation_reason", _REASONS)
    intent |= {"status": "canceled", "cancellation_reason": reason, "next_action": None}
    engine.save(call, intent)
    engine.emit(call, "setup_intent.canceled", intent)
    return engine.render(call, intent)


def authenticated(engine: Engine, call: Call, intent: Json, *, success: bool) -> None:
    """What the bank's page tells: the reader proved themselves, or did not."""
    method = engine.load(call, "payment_method", intent["payment_method"])
    intent["next_action"] = None
    result = attempts.outcome(method, off_session=False, authenticated=True, storing=True)
    if not success:
        _fail(engine, call, intent, method, _AUTHENTICATION_FAILED)
    elif isinstance(result, Decline):
        _fail(engine, call, intent, method, result)
    else:
        _succeed(engine, call, intent, method)


def _confirm(engine: Engine, call: Call, intent: Json) -> None:
    method = attempts.chosen_method(engine, call, intent)
    intent |= {"payment_method": method["id"], "last_setup_error": None, "next_action": None}
    result = attempts.outcome(method, off_session=False, authenticated=False, storing=True)
    if isinstance(result, Decline):
        _fail(engine, call, intent, method, result)
        raise attempts.declined(result, method, intent, {})
    if result == "authenticate":
        return_url = call.params.text("return_url")
        hidden(intent)["return_url"] = return_url
        intent |= {"status": "requires_action", "next_action": attempts.redirect(call, intent, return_url)}
        engine.save(call, intent)
        engine.emit(call, "setup_intent.requires_action", intent)
        return
    _succeed(engine, call, intent, method)


def _succeed(engine: Engine, call: Call, intent: Json, method: Json) -> None:
    attempts.keep_method(engine, call, method, intent["customer"], intent["usage"])
    intent |= {"status": "succeeded", "last_setup_error": None}
    engine.save(call, intent)
    engine.emit(call, "setup_intent.succeeded", intent)


def _fail(engine: Engine, call: Call, intent: Json, method: Json, decline: Decline) -> None:
    intent |= {
        "status": "requires_payment_method",
        "payment_method": None,
        "last_setup_error": decline.as_error() | {"payment_method": visible(method)},
    }
    engine.save(call, intent)
    engine.emit(call, "setup_intent.setup_failed", intent)


def _write(engine: Engine, call: Call, intent: Json) -> None:
    params = call.params
    if "customer" in params:
        intent["customer"] = intents.customer_of(engine, call, intent)
    if "description" in params:
        intent["description"] = params.text("description")
    if "metadata" in params:
        intent["metadata"] = params.metadata(intent["metadata"])
    if "payment_method" in params:
        intent["payment_method"] = attempts.chosen_method(engine, call, intent)["id"]
        params.values["payment_method"] = intent["payment_method"]
        intent["status"] = "requires_confirmation"
