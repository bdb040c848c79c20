"""Owns the gateway's composition: configuration in, a served edge out."""

import os
import sys
import time
from collections.abc import Mapping

from libs import config, process, redis_client
from libs.activity import ActivityStream, Pseudonyms
from libs.caller import CallerSigner
from libs.grpc_client import Channels
from libs.process import Process
from services.gateway.clients import Backends
from services.gateway.config import GatewayConfig
from services.gateway.http.activity import Activities
from services.gateway.http.address import ClientAddress
from services.gateway.http.api_keys import ApiKeys
from services.gateway.http.app import App, Edge, operations
from services.gateway.http.authentication import Authentication
from services.gateway.http.authorisation import Authorisation
from services.gateway.http.certificates import Certificates
from services.gateway.http.contracts import Contracts
from services.gateway.http.cookies import Cookies
from services.gateway.http.cors import Cors
from services.gateway.http.exchange import RequestIds
from services.gateway.http.hardening import Bodies
from services.gateway.http.headers import StandardHeaders
from services.gateway.http.leaks import Leaks
from services.gateway.http.limits import Limits, LocalLimiter, Quotas, RateStore
from services.gateway.http.openapi import document
from services.gateway.http.overload import Overload
from services.gateway.http.pages import Pages
from services.gateway.http.problems import Problems
from services.gateway.http.routes import Routes
from services.gateway.http.server import HttpServer
from services.gateway.http.session_ends import SessionEnds
from services.gateway.http.tokens import KeySet, Tokens


async def compose(process: Process, environ: Mapping[str, str] | None) -> None:
    """Builds the edge and starts listening."""
    settings = config.load(GatewayConfig, environ)
    contracts = Contracts.load(settings.descriptors)
    store = redis_client.connect(settings.redis)
    process.on_drain(store.aclose)
    signer = CallerSigner("gateway", settings.caller.keys(), process.clock)
    channels = Channels("gateway", settings.grpc, signer, telemetry=process.telemetry, kill_points=process.kill_points)
    process.on_drain(channels.close)
    backends = Backends(channels)
    keys = KeySet(backends.key_set, monotonic=time.monotonic)
    process.ready(keys.loaded, "key_set")
    blocking = redis_client.connect(settings.redis, blocking_seconds=1, most_connections=1)
    process.on_drain(blocking.aclose)
    ends = SessionEnds(blocking, backends.session_ends, monotonic=time.monotonic, telemetry=process.telemetry)
    process.ready(ends.loaded, "session_ends")
    process.background("session ends", ends.follow, in_closed_mode=True)
    limiter = RateStore(
        store,
        LocalLimiter(time.monotonic),
        seconds=settings.rate_store_seconds,
        monotonic=time.monotonic,
        telemetry=process.telemetry,
    )
    await limiter.warm()
    api_keys = ApiKeys(backends.resolve_api_key, settings.key_pepper, monotonic=time.monotonic)
    leaks = Leaks(api_keys, backends.report_leaked_api_key, process.telemetry)
    process.on_drain(leaks.close)
    tokens = Tokens(keys, ends, issuer=settings.issuer, clock=process.clock)
    cookies = Cookies(backends.open_cookie, backends.use_cookie, tokens, clock=process.clock, monotonic=time.monotonic)
    telling = redis_client.connect(settings.redis, most_connections=1)
    process.on_drain(telling.aclose)
    stream = ActivityStream(telling, process.telemetry)
    process.on_drain(stream.close)
    process.background("activities", stream.run, in_closed_mode=True)
    pseudonyms = Pseudonyms(settings.key_pepper.reveal())
    overload = Overload(settings.load, monotonic=time.monotonic, telemetry=process.telemetry)
    process.background("loop lag", overload.watch, in_closed_mode=True)
    address = ClientAddress(settings.trusted_proxies)
    edge = Edge(
        telemetry=process.telemetry,
        request_ids=RequestIds(os.urandom),
        problems=Problems(settings.problem_base),
        headers=StandardHeaders(settings.hsts()),
        address=address,
        leaks=leaks,
        pages=Pages(document(contracts), settings.problem_page),
        routes=Routes(contracts.endpoints),
        operations=operations(contracts, backends.call),
        authentication=Authentication(api_keys, tokens, cookies),
        cookies=cookies,
        limits=Limits(Quotas(settings.quotas()), limiter),
        authorisation=Authorisation(process.clock, closed=process.config.closed_mode),
        cors=Cors(backends.accounts_of_origin, monotonic=time.monotonic),
        bodies=Bodies(settings.bodies),
        overload=overload,
        activities=Activities(stream, pseudonyms, clock=process.clock),
    )
    server = HttpServer(
        App(edge),
        settings.http_listen,
        settings.connections,
        address,
        monotonic=time.monotonic,
        telemetry=process.telemetry,
        certificates=_certificates(settings, process),
        proxied=settings.http_proxy_protocol,
        shared_port=settings.http_shared_port,
    )
    process.background("connections", server.sweep, in_closed_mode=True)
    await process.serve(server)


def _certificates(settings: GatewayConfig, process: Process) -> Certificates | None:
    if settings.http_certificate is None or settings.http_key is None:
        return None
    return Certificates(
        settings.http_certificate, settings.http_key, monotonic=time.monotonic, telemetry=process.telemetry
    )


def main(environ: Mapping[str, str] | None = None) -> int:
    """Runs the gateway and returns its exit code."""
    return process.run("gateway", compose, environ)


if __name__ == "__main__":
    sys.exit(main())
