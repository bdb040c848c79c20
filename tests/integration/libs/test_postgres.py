"""The pool and the transactions of libs.postgres on a real server, and what they do when it fails them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from libs import postgres
from libs.config import Secret
from libs.errors import GatefoldError, Kind
from libs.ids import IdMaker
from libs.kill_points import KillPoints
from libs.postgres import Database
from libs.telemetry import Telemetry
from tests.conftest import ServiceDb
from tests.support.proxy import PostgresProxy, proxy_to
from tests.support.stores import ServiceDatabase, role_dsn

INSERT = "INSERT INTO consumer_position VALUES ($1, 'billing', 'invoice', $2, 1)"
COUNT = "SELECT count(*) FROM consumer_position"


@pytest.fixture(scope="module")
async def probe(service_db: ServiceDb) -> ServiceDatabase:
    return await service_db("probe")


@pytest.fixture(scope="module")
def app_dsn(probe: ServiceDatabase) -> Secret:
    return role_dsn(probe.owner_dsn, "probe_app")


@pytest.fixture
async def proxy(app_dsn: Secret) -> AsyncIterator[PostgresProxy]:
    async with proxy_to(app_dsn) as listening:
        yield listening


@pytest.fixture
async def proxied(proxy: PostgresProxy) -> AsyncIterator[Database]:
    """A database of one connection behind the proxy."""
    database = await Database.open(proxy.dsn, service="probe", role="app", pool_size=1, acquire_seconds=1)
    yield database
    await database.close()


@pytest.fixture
async def single(app_dsn: Secret) -> AsyncIterator[Database]:
    """A database of one connection."""
    database = await Database.open(app_dsn, service="probe", role="app", pool_size=1, acquire_seconds=2)
    yield database
    await database.close()


@pytest.fixture
def account(ids: IdMaker) -> UUID:
    return ids.new()


async def backend(database: Database) -> int:
    async with database.transaction("backend", read_only=True) as conn:
        return int(await conn.fetchval("SELECT pg_backend_pid()"))


async def rows_of(database: Database, account: UUID) -> int:
    async with database.tenant(account, "count", read_only=True) as conn:
        return int(await conn.fetchval(COUNT))


class TestTransaction:
    async def test_what_ends_well_is_committed(self, probe: ServiceDatabase, account: UUID) -> None:
        async with probe.app.tenant(account, "insert") as conn:
            await conn.execute(INSERT, account, "one")
        assert await rows_of(probe.app, account) == 1

    async def test_an_error_undoes_everything_and_is_raised_as_it_is(self, single: Database, account: UUID) -> None:
        complaints: list[dict[str, object]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        try:
            with pytest.raises(KeyError):
                async with single.tenant(account, "insert") as conn:
                    await conn.execute(INSERT, account, "one")
                    raise KeyError("x")
        finally:
            loop.set_exception_handler(None)
        assert await rows_of(single, account) == 0
        # The driver complains when it gets back a connection with a transaction open.
        assert complaints == []

    async def test_an_error_of_the_operating_system_inside_is_no_outage_of_the_database(
        self, single: Database, account: UUID
    ) -> None:
        with pytest.raises(FileNotFoundError):
            async with single.tenant(account, "insert"):
                raise FileNotFoundError

    async def test_a_swallowed_statement_error_does_not_pass_for_a_commit(
        self, single: Database, account: UUID
    ) -> None:
        with pytest.raises(GatefoldError) as raised:
            async with single.tenant(account, "insert") as conn:
                await conn.execute(INSERT, account, "one")
                with pytest.raises(asyncpg.UniqueViolationError):
                    await conn.execute(INSERT, account, "one")
        assert (raised.value.kind, raised.value.reason) == (Kind.INTERNAL, "transaction_aborted")
        assert await rows_of(single, account) == 0

    async def test_a_failed_savepoint_leaves_the_rest(self, single: Database, account: UUID) -> None:
        async with single.tenant(account, "insert") as conn:
            await conn.execute(INSERT, account, "one")
            with pytest.raises(asyncpg.UniqueViolationError) as raised:
                async with postgres.savepoint(conn):
                    await conn.execute(INSERT, account, "two")
                    await conn.execute(INSERT, account, "one")
            async with postgres.savepoint(conn):
                await conn.execute(INSERT, account, "three")
        assert await rows_of(single, account) == 2
        assert postgres.violated(raised.value) == "consumer_position_pkey"
        assert postgres.violated(KeyError()) is None

    async def test_read_only_refuses_to_write(self, single: Database, account: UUID) -> None:
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            async with single.tenant(account, "insert", read_only=True) as conn:
                await conn.execute(INSERT, account, "one")

    async def test_a_tenant_transaction_takes_one_round_trip_to_begin_one_to_commit_and_none_to_reset(
        self, proxy: PostgresProxy, proxied: Database, account: UUID
    ) -> None:
        await proxied.ping()
        before = proxy.round_trips
        async with proxied.tenant(account, "count") as conn:
            assert proxy.round_trips - before == 1
            await conn.execute(COUNT)
        assert proxy.round_trips - before == 3
        async with proxied.tenant(account, "count"):
            assert proxy.round_trips - before == 4
        assert proxy.connections == 1

    async def test_kill_points_stand_before_and_after_each_commit_of_a_change(
        self, app_dsn: Secret, account: UUID, tmp_path: Path
    ) -> None:
        log = tmp_path / "points"
        points = KillPoints("probe", kill_log=log)
        database = await Database.open(app_dsn, service="probe", role="app", pool_size=1, kill_points=points)
        async with database.tenant(account, "insert") as conn:
            await conn.execute(INSERT, account, "one")
        with pytest.raises(KeyError):
            async with database.tenant(account, "fail"):
                raise KeyError
        await rows_of(database, account)
        await database.close()
        assert log.read_text().split() == ["probe:before-commit:insert", "probe:after-commit:insert"]

    async def test_metrics_tell_duration_and_outcome_by_label(self, app_dsn: Secret, account: UUID) -> None:
        telemetry = Telemetry("probe")
        database = await Database.open(app_dsn, service="probe", role="app", pool_size=1, telemetry=telemetry)
        async with database.tenant(account, "insert") as conn:
            await conn.execute(INSERT, account, "one")
            assert b'gatefold_postgres_connections_in_use{role="app"} 1.0' in telemetry.metrics()
        with pytest.raises(KeyError):
            async with database.tenant(account, "insert"):
                raise KeyError
        await database.close()
        text = telemetry.metrics().decode()
        name = "gatefold_postgres_transaction_seconds_count"
        assert f'{name}{{label="insert",outcome="commit",role="app"}} 1.0' in text
        assert f'{name}{{label="insert",outcome="rollback",role="app"}} 1.0' in text
        assert 'gatefold_postgres_connections_in_use{role="app"} 0.0' in text


class TestTenant:
    async def test_a_tenant_does_not_stay_on_the_connection(self, single: Database, account: UUID) -> None:
        async with single.tenant(account, "insert") as conn:
            await conn.execute(INSERT, account, "one")
        async with single.transaction("forgotten") as conn:
            assert await conn.fetchval(COUNT) == 0

    async def test_a_tenant_does_not_stay_on_the_connection_after_an_error(
        self, single: Database, account: UUID
    ) -> None:
        with pytest.raises(KeyError):
            async with single.tenant(account, "fail"):
                raise KeyError
        async with single.transaction("forgotten") as conn:
            assert not await conn.fetchval("SELECT current_setting('app.account_id', true)")

    async def test_concurrent_tenants_each_see_their_own(self, probe: ServiceDatabase, ids: IdMaker) -> None:
        async def write_and_count(account: UUID, rows: int) -> int:
            async with probe.app.tenant(account, "insert") as conn:
                for row in range(rows):
                    await conn.execute(INSERT, account, str(row))
                return int(await conn.fetchval(COUNT))

        counts = await asyncio.gather(*(write_and_count(ids.new(), rows) for rows in range(30)))
        assert counts == list(range(30))


class TestCancellation:
    async def test_a_cancelled_statement_is_rolled_back_and_the_connection_serves_again(
        self, single: Database, account: UUID
    ) -> None:
        pid = await backend(single)
        inserted = asyncio.Event()

        async def work() -> None:
            async with single.tenant(account, "insert") as conn:
                await conn.execute(INSERT, account, "one")
                inserted.set()
                await conn.fetchval("SELECT pg_sleep(30)")

        task = asyncio.create_task(work())
        await inserted.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await rows_of(single, account) == 0
        assert await backend(single) == pid

    async def test_cancellation_between_statements_rolls_back(self, single: Database, account: UUID) -> None:
        inserted = asyncio.Event()

        async def work() -> None:
            async with single.tenant(account, "insert") as conn:
                await conn.execute(INSERT, account, "one")
                inserted.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await inserted.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await rows_of(single, account) == 0

    async def test_many_cancelled_transactions_leak_no_connection(self, single: Database, account: UUID) -> None:
        for attempt in range(20):
            task = asyncio.create_task(rows_of(single, account))
            for _ in range(attempt % 5):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert await rows_of(single, account) == 0


class TestFailures:
    async def test_an_exhausted_pool_is_unavailable(self, single: Database, account: UUID) -> None:
        async with single.tenant(account, "hold"):
            with pytest.raises(GatefoldError) as raised:
                await rows_of(single, account)
        assert (raised.value.kind, raised.value.reason) == (Kind.UNAVAILABLE, "database_unavailable")
        assert raised.value.retry_after_seconds == 1
        assert await rows_of(single, account) == 0

    async def test_beyond_a_bound_nobody_waits_for_a_connection(self, single: Database, account: UUID) -> None:
        async with single.tenant(account, "hold"):
            waiting = [asyncio.create_task(rows_of(single, account)) for _ in range(postgres.WAITERS_PER_CONNECTION)]
            await asyncio.sleep(0)
            with pytest.raises(GatefoldError):
                await rows_of(single, account)
            assert not any(task.done() for task in waiting)
        await asyncio.gather(*waiting, return_exceptions=True)

    async def test_a_server_that_is_away_is_unavailable_and_found_again(
        self, proxy: PostgresProxy, proxied: Database, account: UUID
    ) -> None:
        assert await rows_of(proxied, account) == 0
        await proxy.refuse()
        for _ in range(3):
            with pytest.raises(GatefoldError) as raised:
                await rows_of(proxied, account)
            assert (raised.value.reason, raised.value.retry_after_seconds) == ("database_unavailable", 1)
        await proxy.listen()
        assert await rows_of(proxied, account) == 0

    async def test_a_connection_that_breaks_inside_is_unavailable(
        self, proxy: PostgresProxy, proxied: Database, account: UUID
    ) -> None:
        with pytest.raises(GatefoldError) as raised:
            async with proxied.tenant(account, "insert") as conn:
                await conn.execute(INSERT, account, "one")
                proxy.cut()
                await conn.execute(INSERT, account, "two")
        assert raised.value.reason == "database_unavailable"
        assert await rows_of(proxied, account) == 0

    async def test_a_backend_that_is_terminated_is_unavailable(
        self, probe: ServiceDatabase, single: Database, account: UUID
    ) -> None:
        with pytest.raises(GatefoldError) as raised:
            async with single.tenant(account, "insert") as conn:
                pid = await conn.fetchval("SELECT pg_backend_pid()")
                async with probe.app.transaction("terminate") as other:
                    assert await other.fetchval("SELECT pg_terminate_backend($1, 5000)", pid)
                await conn.execute(INSERT, account, "one")
        assert raised.value.reason == "database_unavailable"
        assert await rows_of(single, account) == 0

    @pytest.mark.parametrize("happened", [False, True])
    async def test_a_connection_that_breaks_during_the_commit_leaves_the_outcome_unknown(
        self, proxy: PostgresProxy, proxied: Database, probe: ServiceDatabase, account: UUID, happened: bool
    ) -> None:
        with pytest.raises(GatefoldError) as raised:
            async with proxied.tenant(account, "insert") as conn:
                await conn.execute(INSERT, account, "one")
                if happened:
                    proxy.cut_after = b"COMMIT"
                else:
                    proxy.cut_at = b"COMMIT"
        assert (raised.value.kind, raised.value.reason) == (Kind.TIMEOUT, "outcome_unknown")
        assert await rows_of(probe.app, account) == int(happened)

    async def test_a_statement_that_runs_too_long_is_unavailable(self, single: Database, account: UUID) -> None:
        with pytest.raises(GatefoldError) as raised:
            async with single.tenant(account, "slow") as conn:
                await conn.execute("SET LOCAL statement_timeout = '20ms'")
                await conn.fetchval("SELECT pg_sleep(30)")
        assert (raised.value.kind, raised.value.reason) == (Kind.UNAVAILABLE, "database_timeout")

    async def test_a_lock_that_is_not_to_be_had_is_a_conflict(self, probe: ServiceDatabase, account: UUID) -> None:
        async with probe.app.tenant(account, "insert") as conn:
            await conn.execute(INSERT, account, "one")
        update = "UPDATE consumer_position SET sequence = 2"
        async with probe.app.tenant(account, "hold") as conn:
            await conn.execute(update)
            with pytest.raises(GatefoldError) as raised:
                async with probe.app.tenant(account, "wait") as other:
                    await other.execute("SET LOCAL lock_timeout = '20ms'")
                    await other.execute(update)
        assert (raised.value.kind, raised.value.reason) == (Kind.CONFLICT, "concurrent_change")

    async def test_a_wrong_use_of_the_driver_does_not_look_like_an_outage(
        self, single: Database, account: UUID
    ) -> None:
        with pytest.raises(asyncpg.InterfaceError):
            async with single.tenant(account, "wrong") as conn:
                await conn.fetchval("SELECT $1::integer")
        assert await rows_of(single, account) == 0

    async def test_ping_raises_while_the_server_is_away(self, proxy: PostgresProxy, proxied: Database) -> None:
        await proxied.ping()
        await proxy.refuse()
        with pytest.raises(GatefoldError):
            await proxied.ping()


class TestSettings:
    async def test_search_path_and_timeouts_come_with_the_role(self, probe: ServiceDatabase) -> None:
        names = ["search_path", "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"]
        async with probe.app.transaction("settings") as conn:
            found = [await conn.fetchval("SELECT current_setting($1)", name) for name in names]
        assert found == ["probe", "10s", "3s", "15s"]

    async def test_without_a_statement_cache_nothing_is_left_prepared(self, app_dsn: Secret, account: UUID) -> None:
        """What a pooler in transaction mode needs that cannot follow prepared statements."""
        database = await Database.open(app_dsn, service="probe", role="app", pool_size=1, statement_cache_size=0)
        async with database.tenant(account, "insert") as conn:
            await conn.execute(INSERT, account, "one")
        async with database.transaction("look") as conn:
            assert await conn.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''") == 0
        await database.close()
