"""Owns the gateway's composition: configuration in, a served edge out."""

import os
import sys
import time
from collections.abc import Mapping

from libs import config, process, redis_client
from libs.activity import Pseudonyms
from libs.caller import CallerSigner
from libs.grpc_client import Channels
from libs.patterns import Patterns
from libs.process import Process
from services.gateway.clients import Backends
from services.gateway.config import GatewayConfig
from services.gateway.domain.bundle import Bundle
from services.gateway.domain.default_rules import default_rules
from services.gateway.domain.firewall import compile_bundle
from services.gateway.http.address import ClientAddress
from services.gateway.http.api_keys import ApiKeys
from services.gateway.http.app import App, Edge, operations
from services.gateway.http.authentication import Authentication
from services.gateway.http.authorisation import Authorisation
from services.gateway.http.challenge import Challenges
from services.gateway.http.contracts import Contracts
from services.gateway.http.cookies import Cookies
from services.gateway.http.cors import Cors
from services.gateway.http.crawlers import Crawlers, SystemResolver
from services.gateway.http.facts import Sources
from services.gateway.http.firewall import Firewall, network_of
from services.gateway.http.hardening import Bodies
from services.gateway.http.headers import StandardHeaders
from services.gateway.http.leaks import Leaks
from services.gateway.http.limits import Limits, LocalLimiter, Quotas, RateStore
from services.gateway.http.openapi import document
from services.gateway.http.pages import Pages
from services.gateway.http.places import Places
from services.gateway.http.problems import Problems
from services.gateway.http.routes import Routes
from services.gateway.http.server import HttpServer
from services.gateway.http.session_ends import SessionEnds
from services.gateway.http.tokens import KeySet, Tokens
from services.gateway.http.verdicts import Verdicts


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
    verdict_store = redis_client.connect(settings.redis, blocking_seconds=1, most_connections=1)
    process.on_drain(verdict_store.aclose)
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
    verdicts = Verdicts(
        verdict_store,
        # There is no service yet that could be asked; the stream is read all the same.
        None,
        Pseudonyms(settings.key_pepper.reveal()),
        clock=process.clock,
        monotonic=time.monotonic,
        telemetry=process.telemetry,
    )
    process.background("verdicts", verdicts.follow, in_closed_mode=True)
    places = Places(settings.places_database, settings.networks_database, process.telemetry)
    process.on_drain(places.close)
    process.background("places", places.watch, in_closed_mode=True)
    crawlers = Crawlers(SystemResolver(), monotonic=time.monotonic, telemetry=process.telemetry)
    process.on_drain(crawlers.close)
    routes = Routes(contracts.endpoints)
    challenges = Challenges(
        settings.key_pepper.reveal(),
        bits=settings.challenge_bits,
        clearance_seconds=settings.clearance_seconds,
        clock=process.clock,
        randomness=os.urandom,
    )
    firewall = Firewall(
        compile_bundle(Bundle(rules=default_rules()), Patterns()),
        Sources(places, crawlers, verdicts, routes.template_of, network_of),
        challenges,
        clock=process.clock,
        telemetry=process.telemetry,
    )
    edge = Edge(
        telemetry=process.telemetry,
        ids=process.ids,
        problems=Problems(settings.problem_base),
        headers=StandardHeaders(settings.hsts_seconds),
        address=ClientAddress(settings.trusted_proxies),
        leaks=leaks,
        firewall=firewall,
        challenges=challenges,
        pages=Pages(document(contracts), settings.problem_page),
        routes=routes,
        operations=operations(contracts, backends.call),
        authentication=Authentication(api_keys, tokens, cookies),
        cookies=cookies,
        limits=Limits(Quotas(settings.quotas()), limiter),
        authorisation=Authorisation(process.clock, closed=process.config.closed_mode),
        cors=Cors(backends.accounts_of_origin, monotonic=time.monotonic),
        bodies=Bodies(settings.body_bytes, settings.body_seconds),
    )
    server = HttpServer(App(edge), settings.http_listen, drain_seconds=process.config.drain_seconds)
    await process.serve(server)


def main(environ: Mapping[str, str] | None = None) -> int:
    """Runs the gateway and returns its exit code."""
    return process.run("gateway", compose, environ)


if __name__ == "__main__":
    sys.exit(main())
