"""Owns customers."""

from infra.local.stripe import payment_methods
from infra.local.stripe.engine import Call, Engine
from infra.local.stripe.problems import Json, bad_param

_WRITABLE = frozenset(
    {
        "address", "description", "email", "expand", "invoice_settings", "metadata", "name", "payment_method", "phone",
        "preferred_locales", "shipping", "tax_exempt",
    }
)  # fmt: skip
_PAGING = frozenset({"created", "ending_before", "expand", "limit", "starting_after"})


def create(engine: Engine, call: Call) -> Json:
    """POST /v1/customers."""
    call.params.only(_WRITABLE)
    customer: Json = {
        "id": engine.new_id("customer"),
        "object": "customer",
        "address": None,
        "balance": 0,
        "created": engine.now(),
        "currency": None,
        "default_source": None,
        "delinquent": False,
        "description": None,
        "email": None,
        "invoice_prefix": engine.token(8).upper(),
        "invoice_settings": {
            "custom_fields": None, "default_payment_method": None, "footer": None, "rendering_options": None
        },
        "livemode": call.scope.live,
        "metadata": {},
        "name": None,
        "next_invoice_sequence": 1,
        "phone": None,
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": None,
    }  # fmt: skip
    _write(engine, call, customer)
    engine.save(call, customer)
    method = call.params.text("payment_method")
    if method is not None:
        payment_methods.attach_to(engine, call, payment_methods.resolve(engine, call, method), customer["id"])
    engine.emit(call, "customer.created", customer)
    return engine.render(call, customer)


def update(engine: Engine, call: Call, customer_id: str) -> Json:
    """POST /v1/customers/:id."""
    call.params.only(_WRITABLE - {"payment_method"})
    customer = engine.load(call, "customer", customer_id)
    before = dict(customer)
    _write(engine, call, customer)
    engine.save(call, customer)
    changed = {key: before[key] for key in before if before[key] != customer[key]}
    if changed:
        engine.emit(call, "customer.updated", customer, changed)
    return engine.render(call, customer)


def retrieve(engine: Engine, call: Call, customer_id: str) -> Json:
    """GET /v1/customers/:id."""
    call.params.only({"expand"})
    return engine.render(call, engine.load(call, "customer", customer_id))


def index(engine: Engine, call: Call) -> Json:
    """GET /v1/customers."""
    call.params.only(_PAGING | {"email"})
    email = call.params.text("email")
    return engine.page(call, "customer", "/v1/customers", lambda body: email is None or body["email"] == email)


def _write(engine: Engine, call: Call, customer: Json) -> None:
    for name in ("description", "email", "name", "phone", "tax_exempt"):
        if name in call.params:
            customer[name] = call.params.text(name)
    email = customer["email"]
    if email is not None and ("@" not in email or len(email) > 512):
        raise bad_param(f"Invalid email address: {email}", "email", "email_invalid")
    for name in ("address", "shipping"):
        if name in call.params:
            customer[name] = call.params.mapping(name) or None
    if "preferred_locales" in call.params:
        customer["preferred_locales"] = call.params.texts("preferred_locales")
    customer["metadata"] = call.params.metadata(customer["metadata"])
    settings = call.params.mapping("invoice_settings")
    method = settings.get("default_payment_method")
    if method is not None:
        if method:
            stored = engine.load(call, "payment_method", method, param="invoice_settings[default_payment_method]")
            if stored["customer"] != customer["id"]:
                message = "The customer does not have a payment method with the ID " + method
                raise bad_param(message, "invoice_settings[default_payment_method]", "resource_missing")
        customer["invoice_settings"] = {**customer["invoice_settings"], "default_payment_method": method or None}
