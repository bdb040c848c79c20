"""The edge answers whatever is away; the rules are served once their database is there, and by whoever is left."""

import asyncio
from pathlib import Path

import asyncpg
import pytest

from infra.local.valkey import ValkeyServer
from libs.config import Secret
from tests.support.gateway import RunningGateway, Signer, running_gateway
from tests.support.operator import BLOCK, WIDE, Operator, running_operator
from tests.support.proxy import PostgresProxy
from tests.support.stores import TestPostgres
from tests.support.waiting import until

NOWHERE = Secret("redis://127.0.0.1:1")


async def rules(gateway: RunningGateway) -> tuple[int, str]:
    """What a gateway answers when it is asked for its rules."""
    answer = await gateway.ask("GET", "/v1/firewall/rules", credential=gateway.backend.signer.operator(acr="aal2"))
    return answer.status, "" if answer.status == 200 else answer.reason


async def test_the_edge_serves_before_its_database_does_and_the_rules_come_by_themselves(
    run_directory: Path, valkey_server: ValkeyServer, postgres_server: TestPostgres, tmp_path: Path
) -> None:
    database = await postgres_server.service_database("gateway")
    proxy = PostgresProxy(postgres_server.dsn(database, "gateway_app"), tmp_path)
    jobs = proxy.dsn.reveal().replace("gateway_app", "gateway_jobs")
    async with running_gateway(
        run_directory,
        valkey_server.url(),
        background=True,
        rate_quotas=WIDE,
        postgres_app_dsn=proxy.dsn.reveal(),
        postgres_jobs_dsn=jobs,
    ) as gateway:
        assert (await gateway.ask("GET", "/healthz")).status == 200
        assert (await gateway.ask("GET", "/openapi.json")).status == 200
        assert await rules(gateway) == (503, "service_unavailable")
        await proxy.listen()

        async def served() -> bool:
            return (await rules(gateway))[0] == 200

        await until(served)
        await proxy.refuse()
        assert await rules(gateway) == (503, "database_unavailable")
        assert (await gateway.ask("GET", "/openapi.json")).status == 200


async def test_tables_that_are_not_there_yet_are_waited_for(
    run_directory: Path, valkey_server: ValkeyServer, postgres_server: TestPostgres
) -> None:
    database = await postgres_server.service_database("gateway")
    owner = await asyncpg.connect(postgres_server.dsn(database, "gateway_owner").reveal())
    try:
        await owner.execute("CREATE TABLE kept AS SELECT * FROM schema_migration WHERE component = 'gateway'")
        await owner.execute("DELETE FROM schema_migration WHERE component = 'gateway'")
        async with running_gateway(
            run_directory,
            valkey_server.url(),
            background=True,
            rate_quotas=WIDE,
            postgres_app_dsn=postgres_server.dsn(database, "gateway_app").reveal(),
            postgres_jobs_dsn=postgres_server.dsn(database, "gateway_jobs").reveal(),
        ) as gateway:
            assert (await rules(gateway))[0] == 503
            await owner.execute("INSERT INTO schema_migration SELECT * FROM kept")

            async def served() -> bool:
                return (await rules(gateway))[0] == 200

            await until(served)
    finally:
        await owner.close()


async def test_a_gateway_without_a_database_of_its_own_serves_all_but_the_rules(
    run_directory: Path, valkey_server: ValkeyServer
) -> None:
    async with running_gateway(run_directory, valkey_server.url(), background=True, rate_quotas=WIDE) as gateway:
        assert await rules(gateway) == (503, "service_unavailable")
        assert (await gateway.ask("GET", "/openapi.json")).status == 200


async def test_a_gateway_starts_with_its_last_version_when_every_store_is_away(
    run_directory: Path, valkey_server: ValkeyServer, postgres_server: TestPostgres, tmp_path: Path
) -> None:
    database = await postgres_server.service_database("gateway")
    file = tmp_path / "bundle"
    async with running_operator(
        run_directory, valkey_server.url(), postgres_server, database, bundle_file=str(file)
    ) as operator:
        await operator.done("POST", "/rules", json={**BLOCK, "name": "kept"})
        newest = await operator.version()
        gateway = operator.gateway
        await until(lambda: gateway.metric("gatefold_gateway_bundle_version") == newest)
    async with running_gateway(run_directory, NOWHERE, rate_quotas=WIDE, bundle_file=str(file)) as gateway:
        assert gateway.metric("gatefold_gateway_bundle_version") == newest
        assert (await gateway.ask("GET", "/openapi.json")).status == 200


@pytest.mark.case("edge-5")
async def test_a_change_at_one_gateway_is_enforced_by_the_others_and_the_status_says_so(
    run_directory: Path, valkey_server: ValkeyServer, postgres_server: TestPostgres
) -> None:
    database = await postgres_server.service_database("gateway")
    signer, url = Signer(), valkey_server.url()

    def another() -> object:
        return running_operator(run_directory, url, postgres_server, database, signer=signer)

    async with another() as one, another() as two:  # type: ignore[attr-defined]
        assert isinstance(one, Operator)
        await one.done("PUT", "/quotas", json={"name": "read.server", "amount": 5, "seconds": 60})
        newest = await two.version()

        async def enforced() -> bool:
            held = [each.gateway.metric("gatefold_gateway_bundle_version") for each in (one, two)]
            return held == [newest, newest]

        await until(enforced)
        # Both write their rules anew: whoever is asked, one after the other is served.
        done = await asyncio.gather(
            *(
                each.ask("POST", "/rules", json={**BLOCK, "name": f"rule-{place}"})
                for place, each in enumerate((one, two) * 3)
            )
        )
        assert {answer.status for answer in done} == {200}
        assert await one.version() == await two.version() == newest + 6
