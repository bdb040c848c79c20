"""Owns the gateway's composition: configuration in, a served edge out."""

import asyncio
import hmac
import os
import platform
import random
import sys
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import orjson
from gatefold.gateway.v1.bundle_pb2 import Snapshot
from gatefold.gateway.v1.firewall_pb2 import RestoreVersionRequest
from gatefold.gateway.v1.firewall_pb2_grpc import add_FirewallServiceServicer_to_server

from libs import caller, config, errors, migrate, process, redis_client
from libs.activity import ActivityStream, Pseudonyms
from libs.caller import CallerSigner, CallerVerifier, Keys
from libs.clock import SystemClock
from libs.config import ConfigError, Secret
from libs.errors import GatefoldError
from libs.grpc_client import Channels, GrpcConfig
from libs.grpc_server import GrpcServer
from libs.idempotency import Purger
from libs.ids import IdMaker
from libs.patterns import Patterns
from libs.postgres import Database, Role
from libs.process import Process
from libs.redis_client import RedisConfig, Store
from libs.version import CODE_VERSION
from services.gateway.clients import Backends, BackTestBoard, BundleFeed, RollCall
from services.gateway.clients.bundle_file import BundleFile
from services.gateway.config import CommandConfig, GatewayConfig
from services.gateway.domain.bundle import Bundle
from services.gateway.domain.default_rules import default_rules
from services.gateway.domain.firewall import Ruleset, compile_bundle
from services.gateway.domain.hits import HitCounter
from services.gateway.domain.lookback import Lookback
from services.gateway.domain.quotas import check as check_quota
from services.gateway.domain.register import Identity
from services.gateway.http.activity import Activities
from services.gateway.http.address import ClientAddress
from services.gateway.http.api_keys import ApiKeys
from services.gateway.http.app import App, Edge, operations
from services.gateway.http.authentication import Authentication
from services.gateway.http.authorisation import Authorisation
from services.gateway.http.certificates import Certificates
from services.gateway.http.challenge import Challenges
from services.gateway.http.contracts import Contracts
from services.gateway.http.cookies import Cookies
from services.gateway.http.cors import Cors
from services.gateway.http.crawlers import Crawlers, SystemResolver
from services.gateway.http.exchange import RequestIds
from services.gateway.http.facts import Sources
from services.gateway.http.firewall import Firewall, network_of
from services.gateway.http.grpc_logs import GrpcLogs
from services.gateway.http.hardening import Bodies
from services.gateway.http.headers import StandardHeaders
from services.gateway.http.leaks import Leaks
from services.gateway.http.limits import Away, Limits, LocalLimiter, Quotas, RateStore
from services.gateway.http.openapi import document
from services.gateway.http.overload import Overload
from services.gateway.http.pages import Pages
from services.gateway.http.places import Places
from services.gateway.http.problems import Problems
from services.gateway.http.routes import Routes
from services.gateway.http.server import HttpServer
from services.gateway.http.session_ends import SessionEnds
from services.gateway.http.tokens import KeySet, Tokens
from services.gateway.http.verdicts import Verdicts
from services.gateway.servicer import FirewallServicer
from services.gateway.usecases.back_tests import BackTests
from services.gateway.usecases.changes import Changes
from services.gateway.usecases.fleet import Fleet
from services.gateway.usecases.following import Fetch, Following, Swap
from services.gateway.usecases.hits import HitCounts
from services.gateway.usecases.lists import EntryLists
from services.gateway.usecases.quotas import RateLimits
from services.gateway.usecases.rules import Rules
from services.gateway.usecases.versions import Announcements, Versions
from services.gateway.worker.following import FollowingLoop
from services.gateway.worker.opening import Opening
from services.gateway.worker.telling import Announcing, Answering, HitFlushing, Reporting

_VERSIONS_SHOWN = 20
_OWN_PAIR = "gateway>gateway"


async def compose(process: Process, environ: Mapping[str, str] | None) -> None:
    """Builds the edge and starts listening."""
    settings = config.load(GatewayConfig, environ)
    contracts = Contracts.load(settings.descriptors)
    store = redis_client.connect(settings.redis)
    process.on_drain(store.aclose)
    keys_of_pairs = _caller_keys(settings)
    signer = CallerSigner("gateway", keys_of_pairs, process.clock)
    peers = _with_itself(settings.grpc, process.config.listen)
    channels = Channels("gateway", peers, signer, telemetry=process.telemetry, kill_points=process.kill_points)
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
    counters = store
    if settings.rate_redis_url is not None:
        counters = redis_client.connect(RedisConfig(settings.rate_redis_url))
        process.on_drain(counters.aclose)
    limiter = RateStore(
        counters,
        LocalLimiter(time.monotonic),
        seconds=settings.rate_store_seconds,
        monotonic=time.monotonic,
        telemetry=process.telemetry,
    )
    await limiter.warm()
    process.on_drain(limiter.close)
    away = {rate: Away(value) for rate, value in settings.away().items()}
    limits = Limits(
        Quotas(settings.quotas(), away=away, monotonic=time.monotonic),
        limiter,
        clock=process.clock,
        monotonic=time.monotonic,
        telemetry=process.telemetry,
    )
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
    verdicts = Verdicts(
        verdict_store,
        # Without an abuse service there is nobody to ask; the stream is read all the same.
        backends.verdicts if "abuse" in settings.grpc.addresses() else None,
        pseudonyms,
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
        HitCounter(),
        Lookback(process.clock.wall, random.random),
        clock=process.clock,
        telemetry=process.telemetry,
    )
    await _enforce(process, settings, store, keys_of_pairs, firewall, limits)
    edge = Edge(
        telemetry=process.telemetry,
        request_ids=RequestIds(os.urandom),
        problems=Problems(settings.problem_base),
        headers=StandardHeaders(settings.hsts()),
        address=address,
        leaks=leaks,
        firewall=firewall,
        challenges=challenges,
        pages=Pages(document(contracts), settings.problem_page),
        routes=routes,
        operations=operations(contracts, backends.call),
        authentication=Authentication(api_keys, tokens, cookies),
        cookies=cookies,
        limits=limits,
        authorisation=Authorisation(process.clock, closed=process.config.closed_mode),
        cors=Cors(backends.accounts_of_origin, monotonic=time.monotonic),
        bodies=Bodies(settings.bodies),
        overload=overload,
        activities=Activities(stream, pseudonyms, places.of, clock=process.clock),
    )
    app = App(edge)
    server = HttpServer(
        app,
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
    if settings.otlp_listen is not None:
        logs = GrpcLogs(app.handle, settings.otlp_listen, settings.pem(), shared_port=settings.http_shared_port)
        await process.serve(logs)


def _certificates(settings: GatewayConfig, process: Process) -> Certificates | None:
    pem = settings.pem()
    if pem is None:
        return None
    return Certificates(*pem, monotonic=time.monotonic, telemetry=process.telemetry)


async def _enforce(
    process: Process, settings: GatewayConfig, store: Store, keys: Keys, firewall: Firewall, limits: Limits
) -> None:
    """Takes the version that is to be enforced and follows; serves the rules once their database is there."""
    clock, telemetry = process.clock, process.telemetry

    def prepare(bundle: Bundle) -> Swap:
        ruleset = _checked(bundle)

        def swap() -> None:
            limits.replace(bundle.quotas, bundle.overrides)
            firewall.replace(ruleset)

        return swap

    def blocking() -> Store:
        client = redis_client.connect(settings.redis, blocking_seconds=1, most_connections=1)
        process.on_drain(client.aclose)
        return client

    feed, roll_call, board = BundleFeed(store, blocking()), RollCall(store), BackTestBoard(store, blocking())
    back_tests = BackTests(board, roll_call, firewall.lookback, firewall.matcher(Patterns()), clock, process.ids)
    app, jobs = await _databases(process, settings)
    fetch: Fetch | None = None
    if app is not None and jobs is not None:
        announcing = Announcing(Announcements(jobs, feed, clock, process.kill_points), telemetry)
        changes = Changes(app, clock, process.ids, _checked, announcing.wake)
        rules = Rules(app, changes, clock, telemetry)
        versions = Versions(app, changes)
        hits = HitCounts(app, firewall.hits, clock)
        server = GrpcServer(
            "gateway",
            process.config.listen,
            verifier=CallerVerifier("gateway", keys, clock),
            telemetry=telemetry,
            closed=process.config.closed_mode,
            tls=settings.grpc.tls(),
        )
        servicer = FirewallServicer(
            rules,
            EntryLists(app, changes, clock),
            RateLimits(app, changes, clock),
            versions,
            hits,
            back_tests,
            Fleet(versions, roll_call, clock),
        )
        server.add(add_FirewallServiceServicer_to_server, servicer)

        async def check() -> None:
            await migrate.check(app, "gateway", code_version=CODE_VERSION)

        async def serve() -> None:
            if not process.config.closed_mode:
                with caller.serving(caller.service_caller("gateway", None, request_id="introduce")):
                    await rules.introduce(default_rules())
            await process.serve(server)
            process.background("announcing", announcing.run)
            process.background("hits", HitFlushing(hits, firewall.count, telemetry).run)
            process.background("idempotency", Purger(jobs, clock).run)

        opening = Opening(check, serve)
        process.background("rules", opening.run, in_closed_mode=True)

        async def fetch_newest(held: Identity, digests: Collection[bytes]) -> Snapshot | None:
            await opening.checked()
            return await versions.newest(held, digests)

        fetch = fetch_newest
    file = BundleFile(settings.bundle_file) if settings.bundle_file else None
    following = Following(fetch, prepare, file.save if file else None, clock=clock, telemetry=telemetry)
    loop = FollowingLoop(following, feed, file, monotonic=time.monotonic, telemetry=telemetry)
    await loop.begin()
    process.background("bundles", loop.run, in_closed_mode=True)
    name = f"{platform.node()}:{os.getpid()}"
    process.background("roll call", Reporting(following, roll_call, name, process.version).run, in_closed_mode=True)
    answering = Answering(back_tests, board, firewall.lookback)
    process.background("back-tests", answering.run, in_closed_mode=True)


async def _databases(process: Process, settings: GatewayConfig) -> tuple[Database | None, Database | None]:
    """Returns pools that connect when they are first used, or none where no database is stated."""

    async def opened(dsn: Secret | None, role: Role) -> Database | None:
        if dsn is None:
            return None
        database = await Database.open(
            dsn,
            service="gateway",
            role=role,
            pool_size=settings.postgres_pool_size,
            kill_points=process.kill_points,
            telemetry=process.telemetry,
            statement_cache_size=settings.postgres_statement_cache_size,
        )
        process.on_drain(database.close)
        return database

    return await opened(settings.postgres_app_dsn, "app"), await opened(settings.postgres_jobs_dsn, "jobs")


def _caller_keys(settings: GatewayConfig) -> Keys:
    """Returns the keys of all pairs; the gateway calls itself with one that all gateways can make."""
    own = hmac.digest(settings.key_pepper.reveal().encode(), f"gatefold/caller/{_OWN_PAIR}".encode(), "sha256")
    return {_OWN_PAIR: (own,), **settings.caller.keys()}


def _with_itself(grpc: GrpcConfig, listen: str) -> GrpcConfig:
    """Returns the peers with the gateway among them: it serves its rules where it listens, and nowhere else."""
    return replace(grpc, peers=orjson.dumps({"gateway": listen, **grpc.addresses()}).decode())


def _checked(bundle: Bundle) -> Ruleset:
    """Returns what the edge holds requests against; raises `invalid` for what cannot be enforced."""
    for quota in (*bundle.quotas, *(override.quota for override in bundle.overrides)):
        try:
            check_quota(quota.name, quota.amount, quota.seconds)
        except ValueError as error:
            raise errors.invalid("quota_unknown", f"This cannot be: {error}.", field="name") from None
    ruleset = compile_bundle(bundle, Patterns())
    ruleset.self_test()
    return ruleset


async def list_versions(environ: Mapping[str, str] | None, _: str) -> str:
    """Returns the newest versions, one a line, for whoever looks for the one to go back to."""
    async with _versions(environ) as versions:
        found = await versions.page(1 << 62, _VERSIONS_SHOWN)
    return "\n".join(
        f"{each.number:>6}  {each.made_at:%Y-%m-%d %H:%M:%S}  {each.change:<22} {each.about}  {each.made_by}"
        for each in found
    )


async def roll_back(environ: Mapping[str, str] | None, number: str) -> str:
    """Brings a version back; for the day on which a rule shuts out those who could take it back."""
    wanted = int(number) if number.isascii() and number.isdecimal() and len(number) < 19 else 0
    async with _versions(environ) as versions:
        with caller.serving(caller.service_caller("gateway", None, request_id="roll-back")):
            made = await versions.restore(wanted, RestoreVersionRequest(number=wanted), 0)
    return f"Version {made.number} has what version {number} had; gateways take it within a second."


@asynccontextmanager
async def _versions(environ: Mapping[str, str] | None) -> AsyncIterator[Versions]:
    settings = config.load(CommandConfig, environ).postgres
    clock = SystemClock()
    db = await Database.open(settings.postgres_app_dsn, service="gateway", role="app", pool_size=1)
    try:
        yield Versions(db, Changes(db, clock, IdMaker(clock, os.urandom), _checked, lambda: None))
    finally:
        await db.close()


_COMMANDS = {"versions": list_versions, "roll-back": roll_back}


def main(environ: Mapping[str, str] | None = None, arguments: Sequence[str] = ()) -> int:
    """Runs the gateway, or the command that is named; returns the exit code."""
    if not arguments:
        return process.run("gateway", compose, environ)
    command = _COMMANDS.get(arguments[0])
    if command is None or len(arguments) != 1 + (command is roll_back):
        sys.stderr.write("usage: python -m services.gateway [versions | roll-back NUMBER]\n")
        return 2
    try:
        sys.stdout.write(asyncio.run(command(environ, arguments[-1])) + "\n")
    except (ConfigError, GatefoldError) as error:
        sys.stderr.write(f"gateway: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(arguments=sys.argv[1:]))
