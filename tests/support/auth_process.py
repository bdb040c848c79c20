"""Owns auth and gateways as processes of their own over real stores: what is measured, and what is killed."""

import asyncio
import io
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from uuid import UUID

import bcrypt
from gatefold.subscriber.v1 import subscriber_pb2_grpc

from infra.local.settings import ROOT, free_port
from libs.caller import CallerVerifier
from libs.clock import SystemClock
from libs.config import Secret
from libs.grpc_client import Channels, GrpcConfig
from libs.grpc_server import GrpcServer
from libs.ids import IdMaker
from libs.kill_points import KillPoints
from libs.postgres import PLATFORM
from libs.telemetry import Telemetry
from libs.vault import Vault, VaultConfig, create_key_file
from services.auth.domain import password as rules
from services.auth.domain.credential import Credential
from services.auth.domain.password import StoredPassword
from services.auth.domain.team import Person
from services.auth.repository import CREDENTIAL_TABLE, credentials, people
from tests.conftest import SERVICES_WITH_KEYS
from tests.support.auth import PASSWORD, AuthHouse, SubscriberDouble, addresses, environment
from tests.support.gateway import PATIENT
from tests.support.neighbours import Vouching, pair_secrets
from tests.support.stores import RunDirectory, ServiceDatabase, TestPostgres, new_valkey

READY_SECONDS = 60.0
SHARED = (
    "GATEFOLD_REDIS_URL",
    "GATEFOLD_CALLER_KEYS",
    "GATEFOLD_PEERS",
    "GATEFOLD_ISSUER",
    "GATEFOLD_KEY_PEPPER",
)
"""What auth and its gateways are told alike."""
_EMAIL_FIELD = 1


class ServiceProcess:
    """`python -m services.<name>`: started, killed, started again."""

    def __init__(self, service: str, environ: Mapping[str, str], folder: Path, name: str = "") -> None:
        self.service = service
        self.name = name or service
        self.environ = dict(environ)
        self.admin = folder / f"{self.name}-admin.sock"
        self._ready = folder / f"{self.name}.ready"
        self._log = folder / f"{self.name}.log"
        self._child: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The process id of the present run."""
        assert self._child is not None
        return self._child.pid

    async def start(self) -> None:
        """Starts it and returns once it is ready."""
        self._ready.unlink(missing_ok=True)
        own = {
            "GATEFOLD_METRICS_LISTEN": f"unix:{self.admin}",
            "GATEFOLD_READY_FILE": str(self._ready),
        }
        with self._log.open("ab") as log:
            self._child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                f"services.{self.service}",
                cwd=ROOT,
                env={"PATH": os.environ["PATH"], **self.environ, **own},
                stdout=log,
                stderr=log,
            )
        async with asyncio.timeout(READY_SECONDS):
            while not self._ready.exists():
                if self._child.returncode is not None:
                    raise AssertionError(f"{self.name} ended with {self._child.returncode}:\n{self._log.read_text()}")
                await asyncio.sleep(0.02)

    async def ended(self) -> int:
        """Returns the exit code once the process has ended by itself."""
        assert self._child is not None
        async with asyncio.timeout(READY_SECONDS):
            return await self._child.wait()

    async def stop(self) -> None:
        """Ends it."""
        if self._child is not None and self._child.returncode is None:
            self._child.terminate()
            await self._child.wait()


@asynccontextmanager
async def around_auth(
    database: ServiceDatabase, keys_dsn: str, redis_url: str, key_file: Path, folder: Path
) -> AsyncIterator[AuthHouse]:
    """What a process of auth needs around it; the process itself is started by whoever asks."""
    clock = SystemClock()
    keys = pair_secrets()
    quiet = Telemetry("tests", stream=io.StringIO())
    double = SubscriberDouble()
    at = addresses(folder)
    server = GrpcServer(
        "subscriber", at["subscriber"], verifier=CallerVerifier("subscriber", keys, clock), telemetry=quiet
    )
    server.add(subscriber_pb2_grpc.add_SubscriberServiceServicer_to_server, double)
    await server.start()
    channels = Channels(
        "gateway",
        GrpcConfig(peers=json.dumps(at), connect_seconds=20),
        Vouching(clock),
        telemetry=quiet,
        kill_points=KillPoints("gateway"),
    )
    environ = environment(database, keys_dsn, redis_url, key_file, folder)
    yield AuthHouse(clock, database, channels, (double, {}), environ, io.StringIO(), quiet)
    await channels.close()
    await server.drain(1)


@dataclass
class AuthStack:
    """auth and its gateways, each a process."""

    house: AuthHouse
    auth: ServiceProcess
    vault: Vault
    gateways: list[ServiceProcess] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)

    async def add_readers(self, account: UUID, count: int, *, cost: int, word: str = "reader") -> list[str]:
        """Adds readers with the one password at a cost, without the mails that go with it; returns their addresses."""
        make = IdMaker(self.house.clock, os.urandom)
        stored = self.hashed(cost)
        emails = [self.house.fresh(word) for _ in range(count)]
        subjects = [make.new() for _ in range(count)]
        await self.vault.create_subjects(account, subjects)
        for email, subject in zip(emails, subjects, strict=True):
            cipher = await self.vault.cipher(account, subject)
            index = await self.vault.blind_index(account, "email", email)
            held = Credential(make.new(), subject, stored, 1)
            sealed = cipher.seal(CREDENTIAL_TABLE, _EMAIL_FIELD, held.id, email.encode())
            async with self.house.app.tenant(account, "add_reader") as conn:
                await credentials.add(
                    conn, account, held, email_index=index, email_sealed=sealed, at=self.house.clock.wall()
                )
        return emails

    async def add_people(self, count: int, *, cost: int) -> list[str]:
        """Adds people of the platform with the one password at a cost; returns their addresses."""
        make = IdMaker(self.house.clock, os.urandom)
        stored = self.hashed(cost)
        emails = [self.house.fresh("person") for _ in range(count)]
        async with self.house.app.transaction("add_people") as conn:
            for email in emails:
                held = Person(make.new(), b"sealed", b"sealed", stored, operator=False)
                index = await self.vault.blind_index(PLATFORM, "email", email)
                await people.add(conn, held, index, self.house.clock.wall())
        return emails

    def hashed(self, cost: int) -> StoredPassword:
        """Returns the tests' password, hashed as auth does it."""
        pepper = self.house.environ["GATEFOLD_PASSWORD_PEPPER"].encode()
        raw = bcrypt.hashpw(rules.material(PASSWORD, pepper), bcrypt.gensalt(cost))
        return StoredPassword(rules.SCHEME, str(cost), "1", raw.decode())


@asynccontextmanager
async def auth_stack(
    gateways: int,
    settings: Mapping[str, str] = MappingProxyType({}),
    edge_settings: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[AuthStack]:
    """Runs stores, auth and gateways; `settings` and `edge_settings` are added to what they are told."""
    directory = RunDirectory()
    postgres, valkey = TestPostgres(directory.path / "postgres"), new_valkey(directory.path / "valkey")
    async with AsyncExitStack() as stack:
        stack.callback(directory.remove)
        postgres.server.start()
        stack.callback(postgres.server.stop)
        valkey.start()
        stack.callback(valkey.stop)
        folder = directory.path / "auth"
        folder.mkdir(mode=0o700)
        database = await postgres.open(await postgres.service_database("auth"), "auth")
        stack.push_async_callback(database.app.close)
        stack.push_async_callback(database.jobs.close)
        key_file = folder / "provider.key"
        create_key_file(key_file)
        keys_dsn = postgres.dsn(await postgres.keys_database(SERVICES_WITH_KEYS), "billing_keys")
        url = valkey.url().reveal()
        house = await stack.enter_async_context(around_auth(database, keys_dsn.reveal(), url, key_file, folder))
        vault = await Vault.open(VaultConfig(keys_dsn=Secret(keys_dsn.reveal()), key_file=key_file), house.clock)
        stack.push_async_callback(vault.close)
        auth = ServiceProcess("auth", {**house.environ, **settings}, folder)
        stack.push_async_callback(auth.stop)
        await auth.start()
        running = AuthStack(house, auth, vault)
        for number in range(gateways):
            port = free_port()
            gateway = ServiceProcess("gateway", edge_environment(house, folder, port, number), folder, f"edge{number}")
            gateway.environ.update(edge_settings)
            stack.push_async_callback(gateway.stop)
            await gateway.start()
            running.gateways.append(gateway)
            running.urls.append(f"http://127.0.0.1:{port}")
        yield running


def edge_environment(house: AuthHouse, folder: Path, port: int, number: int = 0) -> dict[str, str]:
    """Returns what a gateway in front of a house reads from its environment."""
    return {
        **{name: house.environ[name] for name in SHARED},
        "GATEFOLD_LISTEN": f"unix:{folder}/edge{number}.sock",
        "GATEFOLD_HTTP_LISTEN": f"127.0.0.1:{port}",
        **{f"GATEFOLD_{name.upper()}": value for name, value in PATIENT.items()},
    }
