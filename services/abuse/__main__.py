"""Builds abuse and runs it, or one of its commands, which are named at the end."""

import argparse
import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from gatefold.abuse.v1.appeal_pb2_grpc import add_AppealServiceServicer_to_server
from gatefold.abuse.v1.case_pb2_grpc import (
    add_CaseServiceServicer_to_server,
    add_PlatformCaseServiceServicer_to_server,
)
from gatefold.abuse.v1.detector_pb2_grpc import add_DetectorServiceServicer_to_server
from gatefold.abuse.v1.otlp_pb2_grpc import add_TelemetryServiceServicer_to_server
from gatefold.abuse.v1.verdict_pb2_grpc import add_VerdictServiceServicer_to_server

from libs import config, process, redis_client
from libs.activity import Pseudonyms
from libs.clock import SystemClock
from libs.config import ConfigError
from libs.errors import GatefoldError
from libs.ids import IdMaker
from libs.postgres import Database
from libs.privacy import SubjectTable
from libs.process import Process
from libs.service import Service
from services.abuse.clients.activity_log import ActivityLog
from services.abuse.clients.snapshots import Snapshots
from services.abuse.clients.verdict_feed import VerdictFeed
from services.abuse.config import Config, ReviewConfig
from services.abuse.engine.catalogue import Catalogue
from services.abuse.servicer import terminal
from services.abuse.servicer.cases import CaseServicer, PlatformCaseServicer
from services.abuse.servicer.detectors import DetectorServicer
from services.abuse.servicer.telemetry import TelemetryServicer
from services.abuse.servicer.verdicts import AppealServicer, VerdictServicer
from services.abuse.usecases import appeals
from services.abuse.usecases.allowances import Allowances
from services.abuse.usecases.appeals import Appeals
from services.abuse.usecases.case_actions import CaseActions
from services.abuse.usecases.case_book import CaseBook
from services.abuse.usecases.cases import Cases
from services.abuse.usecases.detectors import Detectors
from services.abuse.usecases.facts import Facts
from services.abuse.usecases.intake import Intake
from services.abuse.usecases.log_records import LogRecords
from services.abuse.usecases.suppressed import Suppressed
from services.abuse.usecases.verdicts import Verdicts
from services.abuse.usecases.watch import Watch
from services.abuse.worker.loops import Announcing, Clearing, Counting, Expiring
from services.abuse.worker.reading import Reader, ReaderMetrics
from services.abuse.worker.shards import NUMBER, Shards

PERSONAL_TABLES: tuple[SubjectTable, ...] = ()
"""Nothing here names a person: hashes alone, each with its end."""


_M_MMAP_THRESHOLD = -3
_MMAP_THRESHOLD_BYTES = 128 * 1024


async def compose(process: Process, environ: Mapping[str, str] | None) -> None:
    """Opens the parts and puts them together."""
    settings = config.load(Config, environ)
    service = await Service.open(process, settings.service)
    db, clock, make = service.app, service.clock, service.ids
    book = CaseBook(clock, make, Facts(clock, make, service.telemetry.headers))
    verdicts = Verdicts(db, service.jobs, VerdictFeed(service.store), book, clock, make, service.kill_points)
    cases, actions = Cases(db, book, clock), CaseActions(db, book, clock, make)
    detectors = Detectors(db, service.jobs, clock, lambda overrides: Catalogue.load(overrides=overrides))
    appealing = Appeals(db, book, clock)
    records = LogRecords(Pseudonyms(settings.key_pepper.reveal()), clock)
    service.add(add_VerdictServiceServicer_to_server, VerdictServicer(verdicts))
    service.add(add_AppealServiceServicer_to_server, AppealServicer(appealing))
    service.add(add_CaseServiceServicer_to_server, CaseServicer(cases, actions))
    service.add(add_PlatformCaseServiceServicer_to_server, PlatformCaseServicer(cases, actions))
    service.add(add_DetectorServiceServicer_to_server, DetectorServicer(detectors))
    reading = ThreadPoolExecutor(1, "telemetry")
    process.on_drain(_ending(reading))
    allowances = Allowances(settings.otlp_records_per_second, time.monotonic)
    telemetry = TelemetryServicer(records, Intake(service.store), allowances, reading)
    service.add(add_TelemetryServiceServicer_to_server, telemetry)
    announcing = Announcing(verdicts, service.telemetry)
    service.background("verdicts", announcing.run)
    service.background("expiry", Expiring(verdicts).run)
    service.background("counting", Counting(service.jobs, service.telemetry).run)
    service.background("clearing", Clearing(service.jobs, clock).run)
    service.due_worker({appeals.DUE_KIND: appealing.work})
    service.background("shards", _shards(process, settings, service, verdicts, detectors, announcing).run)
    service.holds_personal_data(PERSONAL_TABLES)
    await service.serve()


def _shards(
    process: Process,
    settings: Config,
    service: Service,
    verdicts: Verdicts,
    detectors: Detectors,
    announcing: Announcing,
) -> Shards:
    _leave_empty_pages_empty()
    replica = service.ids.new()
    # Each shard waits for news on a connection of its own.
    blocking = redis_client.connect(settings.service.redis, blocking_seconds=1, most_connections=NUMBER)
    process.on_drain(blocking.aclose)
    log = ActivityLog(blocking, service.store, replica.hex)
    snapshots = Snapshots(settings.object_store.open())
    suppressed = Suppressed(service.jobs, service.clock)
    metrics = ReaderMetrics(service.telemetry)
    executor = ThreadPoolExecutor(settings.engine_threads, "engine")
    process.on_drain(_ending(executor))

    def reader(shard: int, catalogue: Catalogue) -> Reader:
        return Reader(
            shard,
            replica,
            lambda: Watch(catalogue, suppressed),
            log,
            snapshots,
            verdicts,
            executor=executor,
            clock=service.clock,
            kill_points=service.kill_points,
            metrics=metrics,
            telemetry=service.telemetry,
            told=announcing.wake,
        )

    return Shards(
        service.app,
        replica,
        reader,
        suppressed,
        detectors,
        clock=service.clock,
        metrics=metrics,
        telemetry=service.telemetry,
    )


def _ending(executor: ThreadPoolExecutor) -> Callable[[], Awaitable[None]]:
    async def shut_down() -> None:
        executor.shutdown(wait=False, cancel_futures=True)

    return shut_down


def _leave_empty_pages_empty() -> None:
    """Has glibc map large blocks for good: blocks that it keeps and hands out again are filled with zeros by hand, and
    tables that are nearly empty would take all the memory that they may ever need.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)


async def review(asked: argparse.Namespace, environ: Mapping[str, str] | None = None) -> str:
    """Works on cases in the database; returns what is to be shown. The service tells of what has changed."""
    settings = config.load(ReviewConfig, environ)
    clock = SystemClock()
    make = IdMaker(clock, os.urandom)
    db = await Database.open(settings.postgres.postgres_app_dsn, service="abuse", role="app", pool_size=1)
    try:
        book = CaseBook(clock, make, Facts(clock, make, dict))
        return await terminal.run(asked, Cases(db, book, clock), CaseActions(db, book, clock, make))
    finally:
        await db.close()


def main(environ: Mapping[str, str] | None = None, arguments: Sequence[str] = ()) -> int:
    """Runs abuse, or the command that is named; returns the exit code."""
    if not arguments:
        return process.run("abuse", compose, environ)
    try:
        sys.stdout.write(asyncio.run(review(terminal.parse(arguments), environ)) + "\n")
    except (ConfigError, GatefoldError) as error:
        sys.stderr.write(f"abuse: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(arguments=sys.argv[1:]))
