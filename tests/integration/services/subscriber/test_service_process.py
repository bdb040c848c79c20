"""The service as its own process, from its environment: an import survives SIGKILL, strangers are refused."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import grpc
import pytest
from gatefold.subscriber.v1 import import_pb2, import_pb2_grpc, subscriber_pb2, subscriber_pb2_grpc
from google.api import httpbody_pb2

from infra.local.valkey import ValkeyServer
from libs import ids
from libs.caller import Caller, CallerKind, CallerSigner
from libs.clock import SystemClock
from libs.config import Secret
from libs.grpc_stack import CALLER_KEY
from tests.conftest import ServiceDb
from tests.support.stores import ServiceDatabase, role_dsn
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[4]
DATA = ROOT / "tests" / "data"
PAIRS = {f"{issuer}>subscriber": b"k" * 32 for issuer in ("gateway", "auth")} | {"subscriber>abuse": b"k" * 32}
KILLED_AT = "subscriber:after-commit:import_chunk#3"


class Running:
    """The service's process, and calls to it as the gateway makes them."""

    def __init__(self, environ: dict[str, str], socket: Path, account: UUID) -> None:
        self._environ = environ
        self._signer = CallerSigner("gateway", {pair: (key,) for pair, key in PAIRS.items()}, SystemClock())
        self._account = account
        self.channel = grpc.aio.insecure_channel(f"unix:{socket}")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "services.subscriber"], cwd=ROOT, env=self._environ, stdin=subprocess.DEVNULL
        )

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)

    def metadata(self) -> list[tuple[str, str]]:
        who = Caller(
            kind=CallerKind.STAFF,
            actor="per_1",
            account=self._account,
            live=False,
            scopes=frozenset({"subscribers:read", "subscribers:write"}),
            request_id="req_test",
        )
        return [(CALLER_KEY, self._signer.sign(who, "subscriber"))]


@pytest.fixture
async def database(service_db: ServiceDb) -> ServiceDatabase:
    return await service_db("subscriber")


@pytest.fixture
async def running(
    database: ServiceDatabase,
    keys_dsn: Secret,
    key_file: Path,
    valkey_server: ValkeyServer,
    run_directory: Path,
    tmp_path: Path,
) -> AsyncIterator[Running]:
    socket = run_directory / "subscriber.sock"
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'gen'}",
        "GATEFOLD_LISTEN": f"unix:{socket}",
        "GATEFOLD_METRICS_LISTEN": f"unix:{run_directory / 'subscriber-metrics.sock'}",
        "GATEFOLD_POSTGRES_APP_DSN": role_dsn(database.owner_dsn, "subscriber_app").reveal(),
        "GATEFOLD_POSTGRES_JOBS_DSN": role_dsn(database.owner_dsn, "subscriber_jobs").reveal(),
        "GATEFOLD_REDIS_URL": valkey_server.url(database=7).reveal(),
        "GATEFOLD_CALLER_KEYS": json.dumps({pair: base64.b64encode(key).decode() for pair, key in PAIRS.items()}),
        "GATEFOLD_PEERS": json.dumps({name: f"unix:{run_directory / name}.sock" for name in ("billing", "abuse")}),
        "GATEFOLD_KEY_PEPPER": "key-pepper-of-tests-".ljust(40, "x"),
        "GATEFOLD_KEYS_DSN": role_dsn(keys_dsn, "subscriber_keys").reveal(),
        "GATEFOLD_KEY_FILE": str(key_file),
        "GATEFOLD_OBJECT_STORE_URL": (tmp_path / "objects").as_uri(),
        "GATEFOLD_KILL_LOG": str(tmp_path / "points"),
        "GATEFOLD_KILL_AT": KILLED_AT,
    }
    service = Running(environ, socket, UUID(int=0x0197 << 112 | 7 << 76 | 2 << 62 | 1))
    service.start()
    yield service
    await service.channel.close()
    service.stop()


async def call(method: grpc.aio.UnaryUnaryMultiCallable, request: object, running: Running) -> object:  # type: ignore[type-arg]
    return await method(request, metadata=running.metadata(), timeout=20, wait_for_ready=True)


async def test_an_import_whose_worker_is_killed_is_finished_by_the_next(
    running: Running, database: ServiceDatabase
) -> None:
    imports = import_pb2_grpc.ImportServiceStub(running.channel)
    expected = json.loads((DATA / "ghost_members.expected.json").read_text())
    body = httpbody_pb2.HttpBody(content_type="text/csv", data=(DATA / "ghost_members.csv").read_bytes())
    accepted = await call(imports.CreateImport, import_pb2.CreateImportRequest(file=body), running)
    assert running.process is not None
    await until(lambda: running.process.poll() is not None)
    assert running.process.returncode == -9
    async with database.app.transaction("expire_lease") as conn:
        # As if the lease's seconds had passed.
        assert await conn.execute("UPDATE due SET leased_until = NULL") == "UPDATE 1"
    running.start()
    request = import_pb2.GetImportRequest(id=accepted.id)

    async def over() -> bool:
        return (await call(imports.GetImport, request, running)).state == import_pb2.IMPORT_STATE_DONE

    await until(over)
    done = await call(imports.GetImport, request, running)
    assert (done.total, done.created, done.updated, done.unchanged, done.duplicates, done.refused) == (
        expected["total"],
        expected["created"],
        0,
        0,
        expected["duplicates"],
        expected["refused"],
    )
    readers = subscriber_pb2_grpc.SubscriberServiceStub(running.channel)
    page = await call(readers.ListSubscribers, subscriber_pb2.ListSubscribersRequest(limit=100), running)
    assert len({reader.email for reader in page.data}) == 100
    async with database.jobs.transaction("count_events") as conn:
        created = await conn.fetchval("SELECT count(*) FROM outbox WHERE type = 'subscriber.created'")
    assert created == expected["created"]


async def test_a_call_without_the_gateways_signature_is_refused(running: Running) -> None:
    readers = subscriber_pb2_grpc.SubscriberServiceStub(running.channel)
    request = subscriber_pb2.GetSubscriberRequest(id=ids.encode("subj", UUID(int=1)))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await readers.GetSubscriber(request, timeout=20, wait_for_ready=True)
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await readers.EnsureSubject(
            subscriber_pb2.EnsureSubjectRequest(email="mei@example.com"), metadata=running.metadata(), timeout=20
        )
    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
