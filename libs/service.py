"""Owns what every service is made of: databases, store, channels, keys, server, and the loops around them."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from gatefold.clock.v1.clock_pb2_grpc import add_ClockServiceServicer_to_server
from gatefold.events.v1.event_pb2_grpc import add_EventServiceServicer_to_server
from gatefold.privacy.v1.subject_data_pb2_grpc import add_SubjectDataServicer_to_server

from libs import due, migrate, outbox, redis_client
from libs.account_clock import AccountClocks
from libs.caller import CallerConfig, CallerSigner, CallerVerifier
from libs.clock import ClockServicer, OffsetRefresher, Waiting
from libs.due import DueWorker
from libs.events import Consumer, Event, EventServicer
from libs.grpc_client import Channels, GrpcConfig
from libs.grpc_server import AddServicer, GrpcServer
from libs.idempotency import Purger
from libs.outbox import Relay
from libs.postgres import Connection, Database, PostgresConfig
from libs.privacy import SubjectDataServicer, SubjectTable
from libs.process import Process
from libs.redis_client import RedisConfig, Store
from libs.vault import Vault, VaultConfig
from libs.verdicts.follower import Follower, Forget, Obey
from libs.verdicts.source import VerdictSource
from libs.version import CODE_VERSION

BLOCKING_SECONDS = 5.0
"""How long a consumer's read of its streams may wait for news."""


@dataclass(frozen=True)
class ServiceConfig:
    """What every service with a schema of its own reads from its environment."""

    postgres: PostgresConfig
    redis: RedisConfig
    caller: CallerConfig
    grpc: GrpcConfig
    vault: VaultConfig


class Service:
    """One service's parts, opened once by its composition root and closed by its process."""

    def __init__(
        self,
        process: Process,
        settings: ServiceConfig,
        app: Database,
        jobs: Database,
        store: Store,
        vault: Vault,
    ) -> None:
        keys = settings.caller.keys()
        self._process = process
        self._settings = settings
        self._waiting: dict[str, Waiting] = {}
        self._checks: list[Callable[[], Awaitable[None]]] = []
        self.name = process.service
        self.app = app
        self.jobs = jobs
        self.store = store
        self.vault = vault
        self.clock = process.clock
        self.ids = process.ids
        self.kill_points = process.kill_points
        self.telemetry = process.telemetry
        self.channels = Channels(
            self.name,
            settings.grpc,
            CallerSigner(self.name, keys, self.clock),
            telemetry=self.telemetry,
            kill_points=self.kill_points,
        )
        self.server = GrpcServer(
            self.name,
            process.config.listen,
            verifier=CallerVerifier(self.name, keys, self.clock),
            telemetry=self.telemetry,
            closed=process.config.closed_mode,
            tls=settings.grpc.tls(),
            hop=settings.grpc.hop,
        )
        self.relay = Relay(
            jobs, store, self.name, clock=self.clock, kill_points=self.kill_points, telemetry=self.telemetry
        )

    @classmethod
    async def open(cls, process: Process, settings: ServiceConfig) -> "Service":
        """Opens everything and checks that the schema fits this code; raises MigrationError or GatefoldError."""
        postgres = settings.postgres

        async def database(dsn: Any, role: Any) -> Database:
            opened = await Database.open(
                dsn,
                service=process.service,
                role=role,
                pool_size=postgres.postgres_pool_size,
                kill_points=process.kill_points,
                telemetry=process.telemetry,
                statement_cache_size=postgres.postgres_statement_cache_size,
            )
            process.on_drain(opened.close)
            return opened

        app = await database(postgres.postgres_app_dsn, "app")
        jobs = await database(postgres.postgres_jobs_dsn, "jobs")
        await migrate.check(app, process.service, code_version=CODE_VERSION)
        store = redis_client.connect(settings.redis)
        process.on_drain(store.aclose)
        vault = await Vault.open(
            settings.vault, process.clock, kill_points=process.kill_points, telemetry=process.telemetry
        )
        process.on_drain(vault.close)
        process.ready(app.ping, "database")
        process.ready(vault.ping, "keys")
        service = cls(process, settings, app, jobs, store, vault)
        process.on_drain(service.channels.close)
        return service

    def add(self, add_servicer: AddServicer, servicer: object) -> None:
        """Serves a servicer's RPCs."""
        self.server.add(add_servicer, servicer)

    def background(self, name: str, run: Callable[[Any], Awaitable[None]]) -> None:
        """Runs a loop of the service's own beside its requests."""
        self._process.background(name, run)

    def due_worker(
        self,
        handlers: Mapping[str, due.Handler],
        *,
        concurrency: int = 8,
        per_account: int = 4,
    ) -> DueWorker:
        """Works off what falls due of these kinds, in the background; kinds of one worker share its slots."""
        worker = DueWorker(
            self.jobs,
            self.clock,
            handlers,
            self.telemetry.logger("due"),
            concurrency=concurrency,
            per_account=per_account,
        )
        name = f"due {'-'.join(handlers)}"
        self.background(name, worker.run)

        async def waiting(account: UUID) -> int:
            worker.wake()
            return await due.waiting(self.jobs, self.clock.now(account), account, list(handlers))

        self._waiting[name] = waiting
        return worker

    def consume(
        self,
        producers: Sequence[str],
        handler: Callable[[Connection, Event], Awaitable[None]],
        types: Iterable[str] | None = None,
    ) -> Consumer:
        """Hands other services' events to `handler`, in the background.

        A burst of one producer holds up only those that are consumed together with it.
        """
        blocking = redis_client.connect(self._settings.redis, blocking_seconds=BLOCKING_SECONDS)
        self._process.on_drain(blocking.aclose)
        consumer = Consumer(
            self.name,
            producers,
            self.app,
            blocking,
            self.channels,
            handler,
            self.kill_points,
            clock=self.clock,
            telemetry=self.telemetry,
            types=types,
        )
        name = f"events of {'-'.join(producers)}"
        self.background(name, consumer.run)
        self._waiting[name] = consumer.lag
        return consumer

    def follow_verdicts(self, obey: Obey, forget: Forget) -> None:
        """Hands the abuse service's verdicts to `obey`, in the background; it must be among the peers."""
        hearing = redis_client.connect(self._settings.redis, blocking_seconds=1, most_connections=1)
        self._process.on_drain(hearing.aclose)
        source = VerdictSource(self.name, hearing, self.channels)
        follower = Follower(source, obey, forget, clock=self.clock, telemetry=self.telemetry)
        self.background("verdicts", follower.run)

    def holds_personal_data(self, tables: Sequence[SubjectTable], *, owns_keys: bool = False) -> None:
        """Serves the privacy port over the service's marked tables; who owns the keys destroys them at an erasure."""
        servicer = SubjectDataServicer(self.name, self.app, self.vault, tables, clock=self.clock, owns_keys=owns_keys)
        self._checks.append(servicer.check)
        self.server.add(add_SubjectDataServicer_to_server, servicer)

    async def serve(self) -> None:
        """Refuses personal data that is not accounted for, starts the relay and the clocks, and then the server."""
        for check in self._checks:
            await check()
        offsets = AccountClocks(self.app)
        refresher = OffsetRefresher(self.clock, offsets.read)
        await refresher.refresh()
        self._process.background("offsets", refresher.run, in_closed_mode=True)
        self.background("relay", self.relay.run)
        self.background("idempotency", Purger(self.jobs, self.clock).run)

        async def unpublished(account: UUID) -> int:
            self.relay.wake()
            return await outbox.outbox_waiting(self.jobs, account)

        self._waiting["outbox"] = unpublished
        clocks = ClockServicer(self.clock, offsets.read, offsets.store, self._waiting)
        self.server.add(add_ClockServiceServicer_to_server, clocks)
        self.server.add(add_EventServiceServicer_to_server, EventServicer(self.jobs))
        await self._process.serve(self.server)
