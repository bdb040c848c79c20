"""Owns the subscriber service put together for tests: its use cases on real stores, and callers of one account."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest

from libs import caller
from libs.activity import Pseudonyms
from libs.caller import Caller, CallerKind
from libs.clock import FixedClock
from libs.due import Due
from libs.ids import IdMaker, encode
from libs.object_store import ObjectStore
from libs.postgres import Database
from libs.vault import Vault
from services.subscriber import servicer
from services.subscriber.usecases.entitlements import Entitlements
from services.subscriber.usecases.facts import Facts
from services.subscriber.usecases.files import ImportFiles
from services.subscriber.usecases.import_chunk import ChunkWriter
from services.subscriber.usecases.import_run import ImportRun
from services.subscriber.usecases.imports import DUE_KIND, Imports
from services.subscriber.usecases.sites import Sites
from services.subscriber.usecases.soft_walls import SoftWalls
from services.subscriber.usecases.subscribers import Subscribers
from tests.conftest import ServiceDb

HIDDEN = Pseudonyms("key-pepper-of-tests-".ljust(40, "x"))


@dataclass
class House:
    """The service's parts, and one fresh account to work in."""

    app: Database
    jobs: Database
    vault: Vault
    clock: FixedClock
    ids: IdMaker
    store: ObjectStore
    account: UUID
    woken: list[None]

    def __post_init__(self) -> None:
        self.facts = Facts(self.clock, self.ids, dict)
        self.files = ImportFiles(self.store, self.vault)
        self.writer = ChunkWriter(self.app, self.vault, self.clock, self.ids, self.facts)
        self.subscribers = Subscribers(self.app, self.vault, self.clock, self.ids, self.facts)
        self.entitlements = Entitlements(self.app, self.clock, self.facts, SoftWalls(HIDDEN))
        self.sites = Sites(self.app, self.clock, self.ids)
        self.imports = Imports(self.app, self.files, self.clock, self.ids, lambda: self.woken.append(None))
        self.subscriber_rpc = servicer.SubscriberServicer(self.subscribers)
        self.entitlement_rpc = servicer.EntitlementServicer(self.entitlements)
        self.site_rpc = servicer.SiteServicer(self.sites)
        self.import_rpc = servicer.ImportServicer(self.imports)

    def run(self) -> ImportRun:
        return ImportRun(self.app, self.files, self.writer, self.clock, self.facts)

    def staff(self, key: str | None = None, account: UUID | None = None) -> AbstractContextManager[None]:
        return caller.serving(
            Caller(
                kind=CallerKind.STAFF,
                actor=encode("per", UUID(int=1)),
                account=account or self.account,
                live=False,
                request_id="req_test",
                idempotency_key=key,
            )
        )

    def key(self, kind: CallerKind = CallerKind.SECRET_KEY) -> AbstractContextManager[None]:
        return caller.serving(Caller(kind=kind, actor="key_1", account=self.account, live=False))

    def reader(self, subject: UUID) -> AbstractContextManager[None]:
        return caller.serving(
            Caller(
                kind=CallerKind.SUBSCRIBER,
                actor=encode("subj", subject),
                account=self.account,
                live=False,
                subject=subject,
            )
        )

    def service(self, name: str = "auth") -> AbstractContextManager[None]:
        return caller.serving(caller.service_caller(name, self.account, live=False, request_id="req_test"))

    async def due(self) -> list[Due]:
        """The account's due rows, as a worker would be handed them."""
        async with self.app.transaction("read_due") as conn:
            rows = await conn.fetch(
                "SELECT reference, due_at, attempts FROM due WHERE account_id = $1 AND kind = $2",
                self.account,
                DUE_KIND,
            )
        return [Due(self.account, DUE_KIND, row["reference"], row["due_at"], row["attempts"]) for row in rows]

    async def work_off(self, run: ImportRun | None = None) -> None:
        """Works the account's imports off until none is due."""
        while items := await self.due():
            for item in items:
                await (run or self.run()).work(item)

    async def events(self, prefix: str = "") -> list[tuple[str, str, int]]:
        """The account's events as (type, aggregate id, sequence), in the order they were written."""
        async with self.jobs.transaction("read_outbox") as conn:
            rows = await conn.fetch(
                "SELECT type, aggregate_id, sequence FROM outbox WHERE account_id = $1 AND starts_with(type, $2)"
                " ORDER BY position",
                self.account,
                prefix,
            )
        return [(row["type"], row["aggregate_id"], row["sequence"]) for row in rows]

    async def count(self, query: str) -> int:
        async with self.app.tenant(self.account, "count", read_only=True) as conn:
            return int(await conn.fetchval(query))


@pytest.fixture
async def house(service_db: ServiceDb, vault: Vault, clock: FixedClock, ids: IdMaker, tmp_path: Path) -> House:
    opened = await service_db("subscriber", pool_size=8)
    store = ObjectStore.open((tmp_path / "objects").as_uri())
    return House(opened.app, opened.jobs, vault, clock, ids, store, ids.new(), [])
