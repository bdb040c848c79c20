"""An attack of one try at each of many publishers, through the real streams, ends in a verdict for all of them."""

import io
from pathlib import Path

import pytest

from infra.local.valkey import ValkeyServer
from libs.activity import ActivityStream
from libs.config import Secret
from libs.ids import IdMaker, encode
from libs.postgres import PLATFORM
from libs.redis_client import Store
from libs.telemetry import Telemetry
from tests.conftest import ServiceDb
from tests.support.abuse import at_present, running
from tests.support.activities import Story, hashed
from tests.support.waiting import until

pytestmark = pytest.mark.case("edge-15")


async def test_one_try_at_each_of_many_publishers_is_seen(
    service_db: ServiceDb,
    keys_dsn: Secret,
    valkey_server: ValkeyServer,
    key_file: Path,
    run_directory: Path,
    tmp_path: Path,
    redis: Store,
    ids: IdMaker,
) -> None:
    database, url = await service_db("abuse"), valkey_server.url().reveal()
    story = Story()
    for index in range(24):
        account = encode("acct", ids.new())
        story.sign_in(index, f"person {index}", account=account, address="thin", network="around thin")
    stream = ActivityStream(redis, Telemetry("auth", stream=io.StringIO()))
    folder = run_directory / "platform"
    async with running(database, keys_dsn.reveal(), url, key_file, folder, tmp_path / "objects") as house:
        for event in at_present(story.events):
            stream.record(event)
        await stream.close()

        async def accused() -> bool:
            async with database.app.tenant(PLATFORM, "look", read_only=True) as conn:
                return bool(
                    await conn.fetchval(
                        "SELECT EXISTS (SELECT FROM verdict WHERE account_id = $1 AND scope = 'address'"
                        " AND entity_hash = $2 AND detector = 'stuffing-address')",
                        PLATFORM,
                        hashed("address", "thin"),
                    )
                )

        await until(accused)
        assert house.count("abuse_activities_dropped_total") == 0
    async with database.jobs.transaction("look", read_only=True) as conn:
        # Nobody's account is accused of, or by, what the platform alone can see.
        elsewhere = await conn.fetchval("SELECT count(*) FROM verdict WHERE account_id <> $1", PLATFORM)
    assert elsewhere == 0
