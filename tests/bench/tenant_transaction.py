"""The tenant transaction against the same point read by asyncpg alone, at 1, 100 and 10,000 tenants."""

import random
import tempfile
from pathlib import Path
from uuid import UUID

import asyncpg

from infra.local.postgres import PostgresServer
from libs import migrate
from libs.config import Secret
from libs.migrate.files import shared_components
from libs.postgres import Database
from tests.bench.harness import Bench

ROWS = 10
SERVICE = "bench"
DATABASE = "gatefold"
TABLE = """
CREATE TABLE item (account_id uuid NOT NULL, id integer NOT NULL, value bigint NOT NULL, PRIMARY KEY (account_id, id));
SELECT gatefold_tenant_table('item');
"""


async def measure(bench: Bench) -> None:
    """Same rows, same key, same server: with tenant and row-level security, and without either."""
    with tempfile.TemporaryDirectory(prefix="gatefold-bench-") as folder:
        # The store's own user has to get through; otherwise its files would be kept elsewhere, and stay.
        Path(folder).chmod(0o711)
        server = PostgresServer(Path(folder) / "postgres", Secret("bench"))
        server.start()
        try:
            await _measure(bench, server)
        finally:
            server.stop()


async def _measure(bench: Bench, server: PostgresServer) -> None:
    passwords = dict.fromkeys(migrate.roles_of(SERVICE), "bench")
    await migrate.create_database(server.dsn(), DATABASE)
    admin = server.dsn(database=DATABASE)
    await migrate.bootstrap(admin, SERVICE, passwords)
    owner = server.dsn(f"{SERVICE}_owner", Secret("bench"), DATABASE)
    await migrate.apply_components(owner, shared_components())
    connection = await asyncpg.connect(owner.reveal())
    await connection.execute(TABLE)
    tenants = [UUID(int=number + 1) for number in range(10_000)]
    await connection.execute(
        "INSERT INTO item SELECT account, id, id FROM unnest($1::uuid[]) account, generate_series(1, $2) id",
        tenants,
        ROWS,
    )
    await connection.execute("ANALYZE item")
    await connection.close()
    app = await Database.open(
        server.dsn(f"{SERVICE}_app", Secret("bench"), DATABASE), service=SERVICE, role="app", pool_size=4
    )
    plain = await asyncpg.create_pool(admin.reveal(), min_size=4, max_size=4, reset=_nothing)
    pick = random.Random(1)
    try:
        for count in (1, 100, 10_000):
            for concurrency in (1, 64):
                some = tenants[:count]

                async def ours(some: list[UUID] = some) -> None:
                    account = pick.choice(some)
                    async with app.tenant(account, "bench", read_only=True) as conn:
                        await conn.fetchval("SELECT value FROM item WHERE account_id = $1 AND id = $2", account, 3)

                async def alone(some: list[UUID] = some) -> None:
                    account = pick.choice(some)
                    await plain.fetchval("SELECT value FROM bench.item WHERE account_id = $1 AND id = $2", account, 3)

                await bench.compare(
                    f"tenant-transaction-{count}-tenants-{concurrency}",
                    ours,
                    alone,
                    named="one SELECT by asyncpg, no transaction, no row-level security",
                    concurrency=concurrency,
                    tenants=count,
                )
    finally:
        await app.close()
        await plain.close()


async def _nothing(connection: object) -> None:
    """Leaves the connection as it is: the fastest pool there is."""
