"""Shows that the service starts as a process, serves its contracts behind signed callers and ends when told to."""

import asyncio
import base64
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from gatefold.activity.v1 import activity_pb2
from gatefold.billing.v1 import catalogue_pb2, catalogue_pb2_grpc
from gatefold.clock.v1 import clock_pb2, clock_pb2_grpc

from infra.local.valkey import ValkeyServer
from libs import caller
from libs.activity import Pseudonyms
from libs.caller import CallerConfig, CallerSigner
from libs.clock import SystemClock
from libs.config import Secret
from libs.grpc_client import Channels, GrpcConfig
from libs.ids import IdMaker, encode
from libs.kill_points import KillPoints
from libs.redis_client import RedisConfig, connect
from libs.telemetry import Telemetry
from tests.conftest import ServiceDb
from tests.support.auth_process import ServiceProcess
from tests.support.verdicts import verdict
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[4]
PEPPER = "key-pepper-of-tests-".ljust(40, "x")
KEY = base64.b64encode(bytes(32)).decode()


@pytest.fixture
async def environment(
    service_db: ServiceDb, keys_dsn: Secret, key_file: Path, valkey_server: ValkeyServer, run_directory: Path
) -> Mapping[str, str]:
    """What the service reads, with every part real but its neighbours, who are not called."""
    owner = (await service_db("billing")).owner_dsn.reveal()
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}",
        "GATEFOLD_LISTEN": f"unix:{run_directory}/b.sock",
        "GATEFOLD_METRICS_LISTEN": f"unix:{run_directory}/bm.sock",
        "GATEFOLD_READY_FILE": f"{run_directory}/billing.ready",
        "GATEFOLD_POSTGRES_APP_DSN": owner.replace("billing_owner", "billing_app"),
        "GATEFOLD_POSTGRES_JOBS_DSN": owner.replace("billing_owner", "billing_jobs"),
        "GATEFOLD_REDIS_URL": valkey_server.url().reveal(),
        "GATEFOLD_CALLER_KEYS": json.dumps({"gateway>billing": KEY, "auth>billing": KEY, "billing>abuse": KEY}),
        "GATEFOLD_PEERS": json.dumps({name: f"unix:/nowhere/{name}.sock" for name in ("auth", "subscriber", "abuse")}),
        "GATEFOLD_KEY_PEPPER": PEPPER,
        "GATEFOLD_KEYS_DSN": keys_dsn.reveal(),
        "GATEFOLD_KEY_FILE": str(key_file),
    }


@pytest.fixture
async def process(environment: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """The service, ready."""
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.billing", env=environment, cwd=ROOT, stderr=asyncio.subprocess.PIPE
    )
    ready = Path(environment["GATEFOLD_READY_FILE"])
    async with asyncio.timeout(60):
        while not ready.exists():
            if started.returncode is not None:
                assert started.stderr is not None
                pytest.fail((await started.stderr.read()).decode())
            await asyncio.sleep(0.05)
    yield started
    if started.returncode is None:
        started.kill()
        await started.wait()


async def test_the_service_starts_serves_and_drains(
    environment: Mapping[str, str], process: asyncio.subprocess.Process, ids: IdMaker
) -> None:
    clock = SystemClock()
    keys = CallerConfig(Secret(environment["GATEFOLD_CALLER_KEYS"])).keys()
    config = GrpcConfig(peers=json.dumps({"billing": environment["GATEFOLD_LISTEN"]}))

    def channels(service: str) -> Channels:
        signer = CallerSigner(service, keys, clock)
        return Channels(service, config, signer, telemetry=Telemetry(service), kill_points=KillPoints(service))

    account = ids.new()
    gateway, auth = channels("gateway"), channels("auth")
    try:
        key = caller.Caller(kind=caller.CallerKind.SECRET_KEY, actor="key_1", account=account, live=False,
                            scopes=frozenset({"catalogue:write"}), request_id="req_1")  # fmt: skip
        stub = catalogue_pb2_grpc.CatalogueServiceStub(gateway.channel("billing"))
        with caller.acting(key):
            product = await stub.CreateProduct(
                catalogue_pb2.CreateProductRequest(name="Paper", features=["premium"]), timeout=5
            )
        assert product.id.startswith("prod_")
        clock_stub = clock_pb2_grpc.ClockServiceStub(auth.channel("billing"))
        with caller.acting(caller.service_caller("auth", account, live=False, request_id="req_2")):
            drained = await clock_stub.Drained(clock_pb2.DrainedRequest(), timeout=5)
        assert drained.drained
    finally:
        await gateway.close()
        await auth.close()
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 30) == 0


@pytest.mark.case("edge-15")
@pytest.mark.parametrize("point", ["before-commit:hold_verdicts", "after-commit:hold_verdicts"])
async def test_killed_while_it_hears_of_a_verdict_it_holds_payments_after_its_next_start(
    environment: Mapping[str, str],
    service_db: ServiceDb,
    valkey_server: ValkeyServer,
    ids: IdMaker,
    tmp_path: Path,
    point: str,
) -> None:
    account, hidden = ids.new(), Pseudonyms(PEPPER)
    told = verdict("actor", hidden.of("actor", encode("subj", ids.new())), account, SystemClock().wall())
    store = connect(RedisConfig(valkey_server.url()))
    log = tmp_path / "points"
    killing = {"GATEFOLD_KILL_AT": f"billing:{point}", "GATEFOLD_KILL_LOG": str(log)}
    service = ServiceProcess("billing", {**environment, **killing}, tmp_path)
    database = await service_db("billing")
    try:
        await service.start()
        batch = activity_pb2.VerdictBatch(verdicts=[told])
        await store.xadd("gatefold:verdicts", {"batch": batch.SerializeToString()})
        await service.ended()
        assert log.with_name("points.killed").exists()
        await service.start()

        async def held() -> bool:
            async with database.app.tenant(account, "look", read_only=True) as conn:
                return bool(
                    await conn.fetchval(
                        "SELECT EXISTS (SELECT FROM held_verdict WHERE account_id = $1 AND entity_hash = $2)"
                        " AND NOT EXISTS (SELECT FROM due WHERE account_id = $1 AND kind = 'withdraw_payments')",
                        account,
                        told.entity_hash,
                    )
                )

        await until(held)
    finally:
        await service.stop()
        await store.aclose()
