"""Owns webhook endpoints and their signing secrets."""

from infra.local.stripe.engine import API_VERSION, Call, Engine, hidden
from infra.local.stripe.problems import Json, bad_param

_WRITABLE = frozenset({"description", "enabled_events", "expand", "metadata", "url"})
_PAGING = frozenset({"created", "ending_before", "expand", "limit", "starting_after"})


def create(engine: Engine, call: Call) -> Json:
    """POST /v1/webhook_endpoints; the answer is the only one that shows the secret."""
    call.params.only(_WRITABLE | {"api_version"})
    call.params.required("url")
    endpoint: Json = {
        "id": engine.new_id("webhook_endpoint"),
        "object": "webhook_endpoint",
        "api_version": API_VERSION,
        "application": None,
        "created": engine.now(),
        "description": None,
        "enabled_events": [],
        "livemode": call.scope.live,
        "metadata": {},
        "status": "enabled",
        "url": None,
    }
    _write(call, endpoint)
    if not endpoint["enabled_events"]:
        raise bad_param("Missing required param: enabled_events.", "enabled_events", "parameter_missing")
    secret = _secret(engine)
    hidden(endpoint)["secrets"] = [secret]
    engine.save(call, endpoint)
    return engine.render(call, endpoint) | {"secret": secret}


def update(engine: Engine, call: Call, endpoint_id: str) -> Json:
    """POST /v1/webhook_endpoints/:id."""
    call.params.only(_WRITABLE | {"disabled"})
    endpoint = engine.load(call, "webhook_endpoint", endpoint_id)
    _write(call, endpoint)
    disabled = call.params.boolean("disabled")
    if disabled is not None:
        endpoint["status"] = "disabled" if disabled else "enabled"
    engine.save(call, endpoint)
    return engine.render(call, endpoint)


def retrieve(engine: Engine, call: Call, endpoint_id: str) -> Json:
    """GET /v1/webhook_endpoints/:id."""
    call.params.only({"expand"})
    return engine.render(call, engine.load(call, "webhook_endpoint", endpoint_id))


def index(engine: Engine, call: Call) -> Json:
    """GET /v1/webhook_endpoints."""
    call.params.only(_PAGING)
    return engine.page(call, "webhook_endpoint", "/v1/webhook_endpoints", lambda body: True)


def delete(engine: Engine, call: Call, endpoint_id: str) -> Json:
    """DELETE /v1/webhook_endpoints/:id."""
    engine.load(call, "webhook_endpoint", endpoint_id)
    engine.store.delete(call.scope, endpoint_id)
    return {"id": endpoint_id, "object": "webhook_endpoint", "deleted": True}


def roll(engine: Engine, endpoint: Json) -> str:
    """Gives an endpoint a new secret, as the dashboard's button does; the old one signs beside it."""
    secret = _secret(engine)
    hidden(endpoint)["secrets"] = [secret, hidden(endpoint)["secrets"][0]]
    return secret


def wants(endpoint: Json, event_type: str) -> bool:
    """Answers whether an endpoint is to be told of an event."""
    enabled = endpoint["enabled_events"]
    return endpoint["status"] == "enabled" and (event_type in enabled or "*" in enabled)


def _secret(engine: Engine) -> str:
    return f"whsec_{engine.token(32)}"


def _write(call: Call, endpoint: Json) -> None:
    url = call.params.text("url")
    if url is not None:
        if not url.startswith(("https://", "http://")) or (call.scope.live and not url.startswith("https://")):
            raise bad_param("Invalid URL: An explicit scheme (such as https) must be provided.", "url", "url_invalid")
        endpoint["url"] = url
    if "enabled_events" in call.params:
        endpoint["enabled_events"] = call.params.texts("enabled_events")
    if "description" in call.params:
        endpoint["description"] = call.params.text("description")
    endpoint["metadata"] = call.params.metadata(endpoint["metadata"])
