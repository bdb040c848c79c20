"""Owns building what is enforced: versions that are followed, and the rules service that makes them."""

import os
import platform
import time
from collections.abc import Collection

from gatefold.gateway.v1.bundle_pb2 import Snapshot
from gatefold.gateway.v1.firewall_pb2_grpc import add_FirewallServiceServicer_to_server

from libs import caller, errors, migrate
from libs.caller import CallerVerifier
from libs.grpc_server import GrpcServer
from libs.idempotency import Purger
from libs.patterns import Patterns
from libs.postgres import Database
from libs.process import Process
from libs.version import CODE_VERSION
from services.gateway.clients import BackTestBoard, BundleFeed, RollCall
from services.gateway.clients.bundle_file import BundleFile
from services.gateway.config import GatewayConfig
from services.gateway.domain.bundle import Bundle
from services.gateway.domain.default_rules import default_rules
from services.gateway.domain.firewall import Ruleset, compile_bundle
from services.gateway.domain.quotas import DEFAULTS
from services.gateway.domain.quotas import check as check_quota
from services.gateway.domain.register import Identity
from services.gateway.http.firewall import Firewall
from services.gateway.http.limits import Limits
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
from services.gateway.wiring.peers import caller_keys
from services.gateway.wiring.stores import Stores
from services.gateway.worker.following import FollowingLoop
from services.gateway.worker.opening import Opening
from services.gateway.worker.telling import Announcing, Answering, HitFlushing, Reporting


async def enforce(
    process: Process, settings: GatewayConfig, stores: Stores, firewall: Firewall, limits: Limits
) -> None:
    """Takes the version that is to be enforced and follows; serves the rules once their database is there."""
    clock, telemetry = process.clock, process.telemetry

    def prepare(bundle: Bundle) -> Swap:
        ruleset = checked(bundle)

        def swap() -> None:
            limits.replace(bundle.quotas, bundle.overrides)
            firewall.replace(ruleset)

        return swap

    feed, roll_call = BundleFeed(stores.common, stores.blocking()), RollCall(stores.common)
    board = BackTestBoard(stores.common, stores.blocking())
    back_tests = BackTests(board, roll_call, firewall.lookback, firewall.matcher(Patterns()), clock, process.ids)
    databases = await stores.databases()
    fetch = None if databases is None else _serve(process, settings, databases, firewall, feed, roll_call, back_tests)
    file = BundleFile(settings.bundle_file) if settings.bundle_file else None
    following = Following(fetch, prepare, file.save if file else None, clock=clock, telemetry=telemetry)
    loop = FollowingLoop(following, feed, file, monotonic=time.monotonic, telemetry=telemetry)
    await loop.begin()
    process.background("bundles", loop.run, in_closed_mode=True)
    name = f"{platform.node()}:{os.getpid()}"
    process.background("roll call", Reporting(following, roll_call, name, process.version).run, in_closed_mode=True)
    answering = Answering(back_tests, board, firewall.lookback)
    process.background("back-tests", answering.run, in_closed_mode=True)


def _serve(
    process: Process,
    settings: GatewayConfig,
    databases: tuple[Database, Database],
    firewall: Firewall,
    feed: BundleFeed,
    roll_call: RollCall,
    back_tests: BackTests,
) -> Fetch:
    """Serves the rules as soon as their database is there; returns what reads the newest version of it."""
    (app, jobs), clock, telemetry = databases, process.clock, process.telemetry
    announcing = Announcing(Announcements(jobs, feed, clock, process.kill_points), telemetry)
    changes = Changes(app, clock, process.ids, checked, announcing.wake)
    rules = Rules(app, changes, clock, telemetry)
    versions = Versions(app, changes)
    hits = HitCounts(app, firewall.hits, clock)
    server = GrpcServer(
        "gateway",
        process.config.listen,
        verifier=CallerVerifier("gateway", caller_keys(settings), clock),
        telemetry=telemetry,
        closed=process.config.closed_mode,
        tls=settings.grpc.tls(),
    )
    servicer = FirewallServicer(
        rules,
        EntryLists(app, changes, clock),
        RateLimits(app, changes, clock, {**DEFAULTS, **settings.quotas()}),
        versions,
        hits,
        back_tests,
        Fleet(versions, roll_call, clock),
    )
    server.add(add_FirewallServiceServicer_to_server, servicer)

    async def check() -> None:
        await migrate.check(app, "gateway", code_version=CODE_VERSION)

    async def begin() -> None:
        if not process.config.closed_mode:
            with caller.serving(caller.service_caller("gateway", None, request_id="introduce")):
                await rules.introduce(default_rules())
        process.background("announcing", announcing.run)
        process.background("hits", HitFlushing(hits, firewall.count, telemetry).run)
        process.background("idempotency", Purger(jobs, clock).run)

    async def serve() -> None:
        await process.serve(server)

    opening = Opening(check, begin, serve, telemetry)
    process.background("rules", opening.run, in_closed_mode=True)

    async def fetch_newest(held: Identity, digests: Collection[bytes]) -> Snapshot | None:
        await opening.checked()
        return await versions.newest(held, digests)

    return fetch_newest


def checked(bundle: Bundle) -> Ruleset:
    """Returns what the edge holds requests against; raises `invalid` for what cannot be enforced."""
    for quota in (*bundle.quotas, *(override.quota for override in bundle.overrides)):
        try:
            check_quota(quota.name, quota.amount, quota.seconds)
        except ValueError as error:
            raise errors.invalid("quota_unknown", f"This cannot be: {error}.", field="name") from None
    ruleset = compile_bundle(bundle, Patterns())
    ruleset.self_test()
    return ruleset
