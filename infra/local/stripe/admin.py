"""Owns /_sim: faults, deliveries, what was made, and the bank's 3-D Secure page."""

from html import escape
from importlib.resources import files
from string import Template
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from aiohttp import web

from infra.local.stripe import faults, payment_intents, setup_intents, webhook_endpoints
from infra.local.stripe.deliveries import Deliveries
from infra.local.stripe.engine import Call, Engine, hidden, visible
from infra.local.stripe.faults import Faults
from infra.local.stripe.forms import Params
from infra.local.stripe.problems import Json
from infra.local.stripe.store import Scope

_PAGES = files("infra.local.stripe") / "browser"


class Admin:
    """What tests and people at the machine ask of the simulator itself."""

    def __init__(self, engine: Engine, faults_left: Faults, deliveries: Deliveries) -> None:
        self._engine = engine
        self._faults = faults_left
        self._deliveries = deliveries

    def add_to(self, app: web.Application) -> None:
        """Adds the routes."""
        app.router.add_get("/_sim/health", self._health)
        app.router.add_get("/_sim/faults", self._list_faults)
        app.router.add_post("/_sim/faults", self._add_fault)
        app.router.add_delete("/_sim/faults", self._clear_faults)
        app.router.add_get("/_sim/deliveries", self._list_deliveries)
        app.router.add_post("/_sim/deliveries/hurry", self._hurry)
        app.router.add_post("/_sim/events/{id}/resend", self._resend)
        app.router.add_post("/_sim/webhook_endpoints/{id}/roll", self._roll)
        app.router.add_get("/_sim/objects/{kind}", self._objects)
        app.router.add_get("/_sim/authenticate/{id}", self._bank)
        app.router.add_post("/_sim/authenticate/{id}", self._bank)

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"ok": True})

    async def _list_faults(self, request: web.Request) -> web.Response:
        return web.json_response({"data": self._faults.all()})

    async def _add_fault(self, request: web.Request) -> web.Response:
        try:
            self._faults.add(faults.read(await request.json()))
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({"data": self._faults.all()})

    async def _clear_faults(self, request: web.Request) -> web.Response:
        self._faults.clear()
        return web.json_response({"data": []})

    async def _list_deliveries(self, request: web.Request) -> web.Response:
        wanted = {name: request.query[name] for name in ("account", "event", "type", "state") if name in request.query}
        rows = [row for row in self._deliveries.all() if all(row[name] == value for name, value in wanted.items())]
        return web.json_response({"data": rows})

    async def _hurry(self, request: web.Request) -> web.Response:
        self._deliveries.hurry()
        return web.json_response({})

    async def _resend(self, request: web.Request) -> web.Response:
        return web.json_response({"deliveries": self._deliveries.resend(request.match_info["id"])})

    async def _roll(self, request: web.Request) -> web.Response:
        found = self._engine.store.find("webhook_endpoint", request.match_info["id"])
        if found is None:
            raise web.HTTPNotFound
        scope, endpoint = found
        secret = webhook_endpoints.roll(self._engine, endpoint)
        self._engine.store.put(scope, endpoint)
        return web.json_response({"secret": secret})

    async def _objects(self, request: web.Request) -> web.Response:
        """All objects of a kind, of every account: what tests count."""
        bodies = self._engine.store.everything(request.match_info["kind"])
        return web.json_response({"data": [visible(body) for body in bodies]})

    async def _bank(self, request: web.Request) -> web.Response:
        """The bank's page: asks the reader, and sends them back when they answered `success` or `fail`.

        With `?outcome=…` in its address it answers the intent instead: for clients that are no browser.
        """
        intent_id = request.match_info["id"]
        kind = "setup_intent" if intent_id.startswith("seti_") else "payment_intent"
        found = self._engine.store.find(kind, intent_id)
        if found is None:
            raise web.HTTPNotFound(text="There is no such payment.")
        scope, intent = found
        called = "outcome" in request.query
        outcome = request.query.get("outcome") or (await request.post()).get("outcome")
        if outcome is None:
            return self._page(intent)
        if outcome not in ("success", "fail"):
            raise web.HTTPBadRequest(text="outcome must be success or fail")
        if intent["status"] == "requires_action":
            self._finish(scope, intent, success=outcome == "success")
        return_url = hidden(intent).get("return_url")
        if called or return_url is None:
            return web.json_response(visible(intent))
        raise web.HTTPSeeOther(_returned(return_url, kind, intent))

    def _finish(self, scope: Scope, intent: Json, *, success: bool) -> None:
        engine = self._engine
        call = Call(scope, publishable=False, params=Params({}), request_id=engine.new_id("request"),
                    idempotency_key=None, origin="")  # fmt: skip
        with engine.store.transaction():
            if intent["object"] == "setup_intent":
                setup_intents.authenticated(engine, call, intent, success=success)
            else:
                payment_intents.authenticated(engine, call, intent, success=success)

    def _page(self, intent: Json) -> web.Response:
        amount = (
            f"{intent['amount']} {intent['currency'].upper()} (minor units)" if "amount" in intent else "card set-up"
        )
        template = Template((_PAGES / "authenticate.html").read_text(encoding="utf-8"))
        text = template.substitute(intent=escape(intent["id"]), amount=escape(amount), status=escape(intent["status"]))
        return web.Response(text=text, content_type="text/html")


def _returned(return_url: str, kind: str, intent: Json) -> str:
    parts = urlsplit(return_url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    query += [
        (kind, intent["id"]),
        (f"{kind}_client_secret", intent["client_secret"]),
        ("redirect_status", "succeeded" if intent["status"] == "succeeded" else "failed"),
    ]
    return urlunsplit(parts._replace(query=urlencode(query)))
