"""The service as a process of its own, killed at its worst moments: nothing is lost and nothing doubled."""

from pathlib import Path

import pytest

from infra.local.valkey import ValkeyServer
from libs.config import Secret
from libs.ids import IdMaker, encode
from libs.redis_client import Store
from tests.conftest import ServiceDb
from tests.support.abuse import at_present, environment, send, told
from tests.support.activities import Story, hashed
from tests.support.auth_process import ServiceProcess
from tests.support.stores import ServiceDatabase
from tests.support.waiting import until

pytestmark = pytest.mark.case("edge-15")


@pytest.fixture(scope="module")
async def database(service_db: ServiceDb) -> ServiceDatabase:
    return await service_db("abuse")


@pytest.fixture
def environ(
    database: ServiceDatabase, keys_dsn: Secret, valkey_server: ValkeyServer, key_file: Path, tmp_path: Path
) -> dict[str, str]:
    url = valkey_server.url().reveal()
    return environment(database, keys_dsn.reveal(), url, key_file, tmp_path, tmp_path / "objects")


@pytest.mark.parametrize(
    "point",
    [
        "after-commit:store_verdicts",
        "before-publish:announce_verdicts",
        "after-publish:announce_verdicts",
        "before-ack:activities",
    ],
)
async def test_killed_at_any_step_it_goes_on(
    environ: dict[str, str], database: ServiceDatabase, redis: Store, ids: IdMaker, tmp_path: Path, point: str
) -> None:
    log = tmp_path / "points"
    service = ServiceProcess(
        "abuse", {**environ, "GATEFOLD_KILL_AT": f"abuse:{point}", "GATEFOLD_KILL_LOG": str(log)}, tmp_path
    )
    account, story = ids.new(), Story()
    for index in range(20):
        story.sign_in(index, f"person {index}", account=encode("acct", account), address=point, request_id=f"{index}")
    await service.start()
    try:
        await send(redis, at_present(story.events))
        await service.ended()
        assert log.with_name("points.killed").exists()
        await service.start()

        async def accused() -> bool:
            return any(verdict.entity_hash == hashed("address", point) for verdict in await told(redis))

        await until(accused)
        async with database.jobs.transaction("count", read_only=True) as conn:
            made = await conn.fetch(
                "SELECT decision_key FROM verdict WHERE entity_hash = $1 AND state = 'active'", hashed("address", point)
            )
        assert len(made) == 1
    finally:
        await service.stop()
