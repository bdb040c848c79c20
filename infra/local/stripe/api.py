"""Owns a call of the API from its HTTP request to its answer: key, parameters, idempotency, faults, one transaction."""

import asyncio
import base64
import binascii
import re
from dataclasses import dataclass

from aiohttp import web

from infra.local.stripe import accounts, forms, idempotency
from infra.local.stripe.engine import API_VERSION, Call, Engine, fingerprint
from infra.local.stripe.faults import ON_CALLS, Fault, Faults
from infra.local.stripe.forms import Params
from infra.local.stripe.idempotency import Answer, InFlight
from infra.local.stripe.problems import Json, StripeError, broken, rate_limited, refused, unauthenticated
from infra.local.stripe.routes import Route, Routes

_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}(\.[a-z_]+)?")
_CORS = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key, Stripe-Version"),
    ("Access-Control-Allow-Methods", "GET, POST, DELETE, OPTIONS"),
    ("Access-Control-Expose-Headers", "Request-Id"),
)


@dataclass(frozen=True)
class _Work:
    """A call that was understood: what to do, for whom, and how to know it again."""

    call: Call
    route: Route
    ids: tuple[str, ...]
    path: str
    digest: str


class Api:
    """Answers /v1/…"""

    def __init__(self, engine: Engine, faults: Faults) -> None:
        self._engine = engine
        self._faults = faults
        self._routes = Routes()
        self._in_flight = InFlight()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answers one request."""
        if request.method == "OPTIONS":
            return web.Response(status=204, headers=dict(_CORS))
        request_id = self._engine.new_id("request")
        headers = {"Request-Id": request_id, "Stripe-Version": request.headers.get("Stripe-Version", API_VERSION)}
        headers |= dict(_CORS)
        try:
            work = self._understand(request, await request.text(), request_id)
            answer = await self._answer(work, request)
        except StripeError as error:
            return web.json_response(error.body(request_id), status=error.status, headers=headers)
        if answer is None:
            # The caller sees the connection go, as when a network fails; what was done stays done.
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        key = work.call.idempotency_key
        if key is not None:
            headers |= {"Idempotency-Key": key, "Original-Request": answer.request_id}
            if answer.request_id != request_id:
                headers["Idempotent-Replayed"] = "true"
        return web.json_response(answer.body, status=answer.status, headers=headers)

    def _understand(self, request: web.Request, text: str, request_id: str) -> _Work:
        version = request.headers.get("Stripe-Version")
        if version is not None and not _VERSION.fullmatch(version):
            raise refused(f"Invalid Stripe API version: {version}")
        values = forms.parse(text) if request.method == "POST" else forms.parse(request.query_string)
        scope, publishable = accounts.identify(_key(request, values))
        route, ids = self._routes.find(request.method, request.path)
        if publishable and not route.publishable:
            message = "This API call cannot be made with a publishable API key. Please use a secret API key."
            raise unauthenticated(message)
        key = request.headers.get("Idempotency-Key") if request.method == "POST" else None
        origin = f"{request.scheme}://{request.host}"
        call = Call(scope, publishable, Params(values), request_id, key or None, origin)
        return _Work(call, route, ids, request.path, fingerprint(values))

    async def _answer(self, work: _Work, request: web.Request) -> Answer | None:
        call, key = work.call, work.call.idempotency_key
        if key is None:
            return await self._with_faults(work, request)
        self._in_flight.enter(call.scope, key)
        try:
            before = idempotency.recall(self._engine.store, call.scope, key, work.path, work.digest, self._engine.now())
            return before or await self._with_faults(work, request)
        finally:
            self._in_flight.leave(call.scope, key)

    async def _with_faults(self, work: _Work, request: web.Request) -> Answer | None:
        taken = self._faults.take(ON_CALLS, work.call.scope.account, request.method, request.path)
        fault = taken[0] if taken is not None else Fault("none")
        if fault.kind == "rate_limit":
            raise rate_limited()
        if fault.kind == "lost_request":
            return None
        if fault.kind == "error" and not fault.after_effect:
            raise broken(fault.status)
        if fault.kind == "delay" and not fault.after_effect:
            await asyncio.sleep(fault.seconds)
        answer = self._carry_out(work, broken(fault.status) if fault.kind == "error" else None)
        if fault.kind == "delay" and fault.after_effect:
            await asyncio.sleep(fault.seconds)
        return None if fault.kind == "lost_reply" else answer

    def _carry_out(self, work: _Work, after: StripeError | None) -> Answer:
        """Does the work in one transaction, together with the answer that is kept for its idempotency key."""
        engine, call = self._engine, work.call
        with engine.store.transaction():
            try:
                body = self._effect(work)
                if after is not None:
                    raise after
                answer = Answer(200, body, call.request_id)
            except StripeError as error:
                if not error.executed:
                    raise
                answer = Answer(error.status, error.body(call.request_id), call.request_id)
            if call.idempotency_key is not None:
                now = engine.now()
                idempotency.keep(engine.store, call.scope, call.idempotency_key, work.path, work.digest, now, answer)
        return answer

    def _effect(self, work: _Work) -> Json:
        kept: StripeError
        with self._engine.store.savepoint():
            try:
                return work.route.handler(self._engine, work.call, *work.ids)
            except StripeError as error:
                if not error.keeps_effect:
                    raise
                kept = error  # a declined card is on record
        raise kept


def _key(request: web.Request, values: Json) -> str:
    given = request.headers.get("Authorization", "")
    if given.startswith("Bearer "):
        return given.removeprefix("Bearer ").strip()
    if given.startswith("Basic "):
        try:
            return base64.b64decode(given.removeprefix("Basic "), validate=True).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            raise unauthenticated("Invalid basic authorization.") from None
    key = values.get("key")
    if isinstance(key, str) and key.startswith("pk_"):
        return key
    raise unauthenticated(
        "You did not provide an API key. You need to provide your API key in the Authorization header, using Bearer "
        "auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY')."
    )
