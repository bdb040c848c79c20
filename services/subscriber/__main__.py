"""Builds the subscriber service and runs it."""

import sys
from collections.abc import Mapping

from gatefold.subscriber.v1.entitlement_pb2_grpc import add_EntitlementServiceServicer_to_server
from gatefold.subscriber.v1.import_pb2_grpc import add_ImportServiceServicer_to_server
from gatefold.subscriber.v1.site_pb2_grpc import add_SiteServiceServicer_to_server
from gatefold.subscriber.v1.subscriber_pb2_grpc import add_SubscriberServiceServicer_to_server

from libs import config, process
from libs.activity import Pseudonyms
from libs.privacy import SubjectTable
from libs.process import Process
from libs.service import Service
from libs.verdicts.held import HeldVerdicts
from services.subscriber import servicer
from services.subscriber.config import Config
from services.subscriber.repository import sealing
from services.subscriber.usecases.entitlements import BILLING_EVENTS, Entitlements
from services.subscriber.usecases.facts import Facts
from services.subscriber.usecases.files import ImportFiles
from services.subscriber.usecases.import_chunk import ChunkWriter
from services.subscriber.usecases.import_run import ImportRun
from services.subscriber.usecases.imports import DUE_KIND, Imports
from services.subscriber.usecases.sites import Sites
from services.subscriber.usecases.soft_walls import ACTIONS, SCOPES, SoftWalls
from services.subscriber.usecases.subscribers import Subscribers

PERSONAL_TABLES = (
    SubjectTable("entitlement", number=202),
    SubjectTable("entitlement_head", number=203),
    SubjectTable("subscriber", number=sealing.TABLE, row_column="subject_id"),
)


async def compose(process: Process, environ: Mapping[str, str] | None) -> None:
    """Opens the parts and puts them together."""
    settings = config.load(Config, environ)
    service = await Service.open(process, settings.service)
    app, vault, clock, ids = service.app, service.vault, service.clock, service.ids
    facts = Facts(clock, ids, service.telemetry.headers)
    files = ImportFiles(settings.object_store.open(), vault)
    writer = ChunkWriter(app, vault, clock, ids, facts)
    run = ImportRun(app, files, writer, clock, facts, stopping=process.stopping)
    # One at a time for each account: two of its files would only wait for each other's readers.
    worker = service.due_worker({DUE_KIND: run.work}, per_account=1)
    walls = SoftWalls(Pseudonyms(settings.key_pepper.reveal()))
    entitlements = Entitlements(app, clock, facts, walls)
    service.consume(("billing",), entitlements.take_billing_event, BILLING_EVENTS)
    subscribers = Subscribers(app, vault, clock, ids, facts)
    imports = Imports(app, files, clock, ids, worker.wake)
    service.add(add_SubscriberServiceServicer_to_server, servicer.SubscriberServicer(subscribers))
    service.add(add_EntitlementServiceServicer_to_server, servicer.EntitlementServicer(entitlements))
    service.add(add_SiteServiceServicer_to_server, servicer.SiteServicer(Sites(app, clock, ids)))
    service.add(add_ImportServiceServicer_to_server, servicer.ImportServicer(imports))
    held = HeldVerdicts(app, service.jobs, SCOPES, ACTIONS, clock=clock, telemetry=service.telemetry)
    service.follow_verdicts(held.obey, held.forget)
    service.holds_personal_data(PERSONAL_TABLES, owns_keys=True)
    await service.serve()


def main(environ: Mapping[str, str] | None = None) -> int:
    """Runs the subscriber service; returns its exit code."""
    return process.run("subscriber", compose, environ)


if __name__ == "__main__":
    sys.exit(main())
