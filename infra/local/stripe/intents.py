"""Owns what PaymentIntents and SetupIntents have in common: their parameters, and which methods they take."""

from infra.local.stripe.engine import Call, Engine
from infra.local.stripe.problems import Json, bad_param, refused

PAGING = frozenset({"created", "customer", "ending_before", "expand", "limit", "starting_after"})
# The browser's script sends these with a confirmation.
FROM_BROWSER = frozenset({"client_context", "client_secret", "expected_payment_method_type", "key", "use_stripe_sdk"})


def method_types(call: Call) -> tuple[Json | None, list[str]]:
    """Returns `automatic_payment_methods` and `payment_method_types` of a new intent."""
    given = call.params.mapping("automatic_payment_methods")
    types = call.params.texts("payment_method_types")
    automatic = given.get("enabled", "true") == "true"
    if types and given and automatic:
        message = "You may only specify one of these parameters: automatic_payment_methods, payment_method_types."
        raise refused(message)
    if any(name != "card" for name in types):
        raise bad_param("This simulator takes cards only.", "payment_method_types", "parameter_unknown")
    if types or not automatic:
        return None, ["card"]
    return {"allow_redirects": given.get("allow_redirects", "always"), "enabled": True}, ["card"]


def need_return_url(call: Call, intent: Json) -> None:
    """Refuses to confirm without a way back, where a payment method may lead the reader away."""
    automatic = intent["automatic_payment_methods"]
    if automatic is None or automatic["allow_redirects"] == "never" or "return_url" in call.params:
        return
    if call.params.boolean("use_stripe_sdk"):
        return
    noun = "PaymentIntent" if intent["object"] == "payment_intent" else "SetupIntent"
    raise refused(
        f"This {noun} is configured to accept payment methods enabled in your Dashboard. Because some of these payment "
        "methods might redirect your customer off of your page, you must provide a `return_url`. If you don't want to "
        "accept redirect-based payment methods, set `automatic_payment_methods[enabled]` to `true` and "
        "`automatic_payment_methods[allow_redirects]` to `never` when creating Setup Intents and Payment Intents.",
        param="return_url",
    )


def customer_of(engine: Engine, call: Call, intent: Json) -> str | None:
    """Returns the customer that the call names, who must be there; else the intent's own."""
    given = call.params.text("customer")
    if given is None:
        own: str | None = intent.get("customer")
        return own
    if intent.get("customer") not in (None, given):
        raise refused("You cannot change the customer of an intent once it is set.", param="customer")
    customer: str = engine.load(call, "customer", given, param="customer")["id"]
    return customer


def client_secret(engine: Engine, intent_id: str) -> str:
    """Returns the text that lets a browser see and confirm this intent."""
    return f"{intent_id}_secret_{engine.token(25)}"
