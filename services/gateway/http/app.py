"""Owns the order in which a request is dealt with, from its first byte to its answer."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from gatefold.edge.v1 import policy_pb2
from google.protobuf.descriptor import MethodDescriptor
from opentelemetry.trace import SpanKind

from libs import errors
from libs.caller import Caller
from libs.clock import WallClock
from libs.codecs import RequestCodecs, ResponseCodecs
from libs.errors import GatefoldError, Kind
from libs.telemetry import Telemetry
from services.gateway.clients import Call
from services.gateway.http import hardening, idempotency
from services.gateway.http.activity import Activities, refused_by_edge
from services.gateway.http.address import ClientAddress, Peer
from services.gateway.http.answer import Answer
from services.gateway.http.authentication import Authentication
from services.gateway.http.authorisation import Authorisation
from services.gateway.http.challenge import PATH as CHALLENGE_PATH
from services.gateway.http.challenge import Challenges
from services.gateway.http.clients import Clients
from services.gateway.http.contracts import Contracts, Endpoint
from services.gateway.http.cookies import Cookies
from services.gateway.http.cors import Cors
from services.gateway.http.exchange import Exchange, RequestIds, origin_of, request_id_of, text_of
from services.gateway.http.firewall import Firewall
from services.gateway.http.hardening import Bodies
from services.gateway.http.headers import StandardHeaders
from services.gateway.http.leaks import Leaks
from services.gateway.http.limits import Limits
from services.gateway.http.overload import Overload
from services.gateway.http.pages import READY_PATH, Pages, reposted
from services.gateway.http.problems import Problems
from services.gateway.http.refusals import REASONS, Refusals
from services.gateway.http.request import Request
from services.gateway.http.routes import Routes
from services.gateway.http.transcoding import Transcoder

DEADLINE_SECONDS: Mapping[int, float] = {
    policy_pb2.RATE_CLASS_READ: 5.0,
    policy_pb2.RATE_CLASS_WRITE: 15.0,
    policy_pb2.RATE_CLASS_STRICT: 15.0,
    policy_pb2.RATE_CLASS_BULK: 60.0,
    policy_pb2.RATE_CLASS_WEBHOOK: 15.0,
}
"""How long a service may take, by rate class."""


@dataclass(frozen=True)
class Operation:
    """An endpoint, ready to be served."""

    endpoint: Endpoint
    transcoder: Transcoder
    call: Call
    seconds: float
    """How long the service may take."""
    headers: Mapping[str, str]
    """Of all its answers."""


@dataclass(frozen=True)
class Edge:
    """Everything a request meets, in the order of DESIGN section 5."""

    telemetry: Telemetry
    clock: WallClock
    request_ids: RequestIds
    problems: Problems
    headers: StandardHeaders
    address: ClientAddress
    clients: Clients
    leaks: Leaks
    firewall: Firewall
    challenges: Challenges
    pages: Pages
    routes: Routes
    operations: Mapping[str, Operation]
    """By RPC."""
    authentication: Authentication
    limits: Limits
    authorisation: Authorisation
    cookies: Cookies
    cors: Cors
    bodies: Bodies
    overload: Overload
    activities: Activities
    refusals: Refusals


def operations(contracts: Contracts, connect: Callable[[str, MethodDescriptor], Call]) -> dict[str, Operation]:
    """Returns all endpoints, ready to be served, by RPC; raises UnsupportedMessageError."""
    requests, responses = RequestCodecs(), ResponseCodecs()
    return {
        endpoint.rpc: Operation(
            endpoint,
            Transcoder(endpoint, requests, responses),
            connect(endpoint.peer, endpoint.method),
            DEADLINE_SECONDS[endpoint.policy.message.rate],
            _caching(endpoint),
        )
        for endpoint in contracts.endpoints
    }


class App:
    """Answers requests; every error becomes a problem here, and nowhere else."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._draining = False
        self._log = edge.telemetry.logger("http")
        self._debugging = self._log.isEnabledFor(_DEBUG)
        seconds = edge.telemetry.histogram(
            "gateway_http_seconds",
            "Time to answer a request by route, method and status",
            ("route", "method", "status"),
        )
        self._seconds = lru_cache(_MOST_LABELS)(seconds.labels)
        refused = edge.telemetry.counter(
            "gateway_problems", "Requests answered with a problem, by its reason", ("reason",)
        )
        # Looking a metric up by its labels costs more than moving it.
        self._refused = lru_cache(_MOST_LABELS)(refused.labels)

    async def handle(self, request: Request) -> Answer:
        """Returns the answer to a request."""
        answer = self._edge.refusals.again(request)
        if answer is not None:
            await request.protocol.refused()
            return answer
        exchange = self._exchange(request)
        try:
            response = await self._answer(exchange)
        except GatefoldError as error:
            response = await self._problem(exchange, error)
        except Exception:  # noqa: BLE001 — the one place where a fault of ours becomes an answer
            self._log.exception("a request failed", extra={"request_id": exchange.request_id, "route": exchange.route})
            failure = errors.internal("internal_error", "Something failed on our side.")
            response = await self._problem(exchange, failure)
        response = self._finish(exchange, response)
        if exchange.problem and not exchange.called:
            await request.protocol.refused()
        return response

    def unreadable(self, peer: Peer, error: GatefoldError) -> Answer:
        """Returns the answer to what a peer sent that is no whole HTTP request, or one beyond its limits."""
        request_id = self._edge.request_ids.new()
        self._refused(error.reason).inc()
        response = self._edge.problems.response(error, request_id)
        response.ends = True
        self._edge.headers.add(response, request_id)
        address = self._edge.address.of_peer(peer)
        self._edge.activities.record_unreadable(address, request_id, response.status, error.reason)
        return response

    def drain(self) -> None:
        """Says from now on that this process takes no new work, to whoever asks whether it is ready."""
        self._draining = True

    def _exchange(self, request: Request) -> Exchange:
        edge, headers = self._edge, request.headers
        path, _, query = request.raw_path.partition("?")
        peer = request.protocol.peer
        forwarded = headers.getall("X-Forwarded-For", ()) if edge.address.trusts(peer) else ()
        address = edge.address.of(peer, forwarded)
        agent = text_of(headers.get("User-Agent", ""))
        return Exchange(
            request,
            request_id_of(request) or edge.request_ids.new(),
            time.monotonic(),
            edge.clock.seconds(),
            path,
            query,
            address,
            origin_of(request),
            agent,
            edge.clients.of(address),
            edge.clients.program(agent),
            edge.routes.find(path),
        )

    async def _answer(self, exchange: Exchange) -> Answer:
        edge, request = self._edge, exchange.request
        hardening.check(exchange)
        edge.leaks.check(exchange)
        edge.firewall.check_request(exchange)
        if exchange.path == CHALLENGE_PATH:
            await edge.limits.count_preflight(exchange)
            return edge.challenges.answer(exchange, await edge.bodies.read(request, None))
        page = edge.pages.find(exchange.path)
        exchange.page = page is not None
        if self._draining and exchange.path == READY_PATH:
            raise errors.unavailable("draining", "This process is about to end.")
        if page is not None and page.forms and request.method == "POST":
            await edge.limits.count_preflight(exchange)
            form = await edge.bodies.read(request, None)
            exchange.body_bytes = len(form)
            return reposted(exchange.path, form)
        if page is not None:
            return page.response(request)
        match = exchange.match
        if match is None:
            raise errors.not_found("route_unknown", "There is nothing at this path.")
        if request.method == "OPTIONS":
            await edge.limits.count_preflight(exchange)
            return await edge.cors.preflight(exchange, match)
        endpoint = match.endpoint(request.method)
        exchange.endpoint, exchange.values = endpoint, match.values
        if not edge.telemetry.tracing:
            # A span that nobody collects costs more than all the checks together; the request id tells logs together.
            return await self._serve(exchange, edge.operations[endpoint.rpc])
        with edge.telemetry.tracer.start_as_current_span(
            f"{endpoint.verb} {endpoint.template}",
            # A client's own trace is not joined: its sampling would decide ours.
            kind=SpanKind.SERVER,
            attributes={"http.route": endpoint.template, "gatefold.request_id": exchange.request_id},
        ):
            return await self._serve(exchange, edge.operations[endpoint.rpc])

    async def _serve(self, exchange: Exchange, operation: Operation) -> Answer:
        edge, endpoint = self._edge, operation.endpoint
        edge.overload.check(endpoint.criticality)
        edge.bodies.check(exchange.request, endpoint)
        edge.cookies.admit(exchange, endpoint)
        exchange.idempotency_key = idempotency.key_of(exchange, endpoint)
        caller = edge.authentication.known(exchange, endpoint) or await self._authenticate(exchange, endpoint)
        exchange.caller = caller
        edge.firewall.check_caller(exchange, caller)
        limits = edge.limits
        places = limits.enter(exchange, caller, endpoint) or await limits.admit(exchange, caller, endpoint)
        try:
            return await self._perform(exchange, caller, operation)
        finally:
            places.leave()

    async def _perform(self, exchange: Exchange, caller: Caller, operation: Operation) -> Answer:
        edge, endpoint = self._edge, operation.endpoint
        edge.authorisation.authorise(caller, endpoint)
        # A form of another site leads its browser on: there is no answer that a script could read.
        posted = endpoint.redirects and endpoint.anonymous_only
        if exchange.origin is not None and not (exchange.by_cookie or exchange.wants_cookie or posted):
            await edge.cors.admit(exchange, caller)
        body = await edge.bodies.read(exchange.request, endpoint) if exchange.request.body_exists else b""
        exchange.body_bytes = len(body)
        message = operation.transcoder.request(
            exchange.values,
            exchange.query,
            exchange.request.headers,
            exchange.header("Content-Type") if body else "",
            body,
        )
        edge.overload.begin(endpoint.criticality)
        try:
            exchange.called = True
            answer: Any = await operation.call(message, operation.seconds, caller)
            if exchange.wants_cookie or exchange.by_cookie:
                answer = await edge.cookies.answer(exchange, answer)
        finally:
            edge.overload.end()
        if endpoint.redirects:
            return Answer(endpoint.success_status, {"Location": answer.location})
        written, media_type = operation.transcoder.response(answer)
        headers = {**operation.headers, **operation.transcoder.headers(answer)}
        if "ETag" in headers and endpoint.policy.safe and headers["ETag"] == exchange.header("If-None-Match"):
            return Answer(304, headers)
        if written:
            headers["Content-Type"] = media_type
        return Answer(endpoint.success_status, headers, written)

    async def _authenticate(self, exchange: Exchange, endpoint: Endpoint) -> Caller:
        try:
            return await self._edge.authentication.caller(exchange, endpoint)
        except GatefoldError as error:
            if error.kind is Kind.UNAUTHENTICATED:
                # Guessing keys and tokens ends here: beyond the limit the guess is not even judged aloud.
                await self._edge.limits.count_failed_authentication(exchange, error.reason)
            raise

    async def _problem(self, exchange: Exchange, error: GatefoldError) -> Answer:
        count = self._refused(error.reason).inc
        count()
        exchange.counts.append(count)
        exchange.problem = error.reason
        exchange.refused = exchange.refused or refused_by_edge(exchange, error)
        if error.kind is Kind.INTERNAL:
            self._log.error("a fault", extra={"request_id": exchange.request_id, "reason": error.reason})
        self._edge.cors.reveal(exchange)
        wire = exchange.endpoint.wire if exchange.endpoint else policy_pb2.WIRE_UNSPECIFIED
        if error.reason == "challenge_required" and self._edge.challenges.wants_page(exchange):
            response = self._edge.challenges.page(exchange, error.kind.http_status)
        else:
            response = self._edge.problems.response(error, exchange.request_id, wire)
        if exchange.request.body_exists and not exchange.request.content.is_eof():
            # What is left of the body is not read, so nothing more can be asked on this connection.
            response.ends = True
        return response

    def _finish(self, exchange: Exchange, response: Answer) -> Answer:
        if exchange.headers:
            response.headers = {**exchange.headers, **response.headers}
        self._edge.headers.add(response, exchange.request_id)
        response.cookies += exchange.cookies
        elapsed = time.monotonic() - exchange.began
        verb = exchange.request.method if exchange.endpoint else "-"
        seconds = self._seconds(exchange.route, verb, response.status)
        seconds.observe(elapsed)
        size = len(response.body)
        self._edge.activities.record(exchange, response.status, seconds=elapsed, body_bytes=size)
        self._edge.firewall.remember(exchange)
        if exchange.problem in REASONS:
            still = self._edge.activities.still(exchange, response.status, body_bytes=size)
            remember = partial(self._edge.firewall.remember, exchange)
            self._edge.refusals.keep(exchange, response, still, seconds, remember)
        if response.status >= 500:
            self._log.warning("answered", extra=_line(exchange, response.status, elapsed))
        elif self._debugging:
            self._log.debug("answered", extra=_line(exchange, response.status, elapsed))
        return response


_DEBUG = 10
_MOST_LABELS = 4096


def _line(exchange: Exchange, status: int, elapsed: float) -> dict[str, object]:
    caller = exchange.caller
    return {
        "request_id": exchange.request_id,
        "route": exchange.route,
        "method": exchange.request.method,
        "status": status,
        "milliseconds": round(elapsed * 1000, 1),
        "caller": caller.kind.name.lower() if caller else None,
        "account": str(caller.account) if caller and caller.account else None,
    }


def _caching(endpoint: Endpoint) -> Mapping[str, str]:
    # What anybody may read without a credential is the same for all; everything else is never stored.
    if endpoint.anonymous_only and endpoint.policy.safe:
        return {"Cache-Control": "public, max-age=60"}
    return {}
