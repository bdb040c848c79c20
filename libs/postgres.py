"""Owns the way to PostgreSQL: a bounded pool, the tenant transaction, and what its failures mean to a caller."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, cast
from uuid import UUID

import asyncpg

from libs import errors
from libs.config import Secret
from libs.kill_points import KillPoints

if TYPE_CHECKING:
    from prometheus_client import Gauge

    from libs.telemetry import Telemetry

PLATFORM = UUID(int=0)
"""The account of rows that belong to the platform itself."""

OLDEST_VERSION = 15
NEWEST_VERSION = 18

ACQUIRE_SECONDS = 2.0
CONNECT_SECONDS = 5.0
ROLLBACK_SECONDS = 2.0
# Beyond this many waiters for each connection the queue only adds latency to what will time out anyway.
WAITERS_PER_CONNECTION = 64

_SERVER_AWAY = (
    asyncpg.PostgresConnectionError,  # class 08
    asyncpg.TooManyConnectionsError,  # 53300
    asyncpg.AdminShutdownError,  # 57P01
    asyncpg.CrashShutdownError,  # 57P02
    asyncpg.CannotConnectNowError,  # 57P03: starting or stopping
    asyncpg.IdleInTransactionSessionTimeoutError,  # 25P03
    asyncpg.ReadOnlySQLTransactionError,  # 25006: still connected to a primary that has become a replica
)
_GOT_IN_THE_WAY = (
    asyncpg.SerializationError,  # 40001
    asyncpg.DeadlockDetectedError,  # 40P01
    asyncpg.LockNotAvailableError,  # 55P03
)

Role = Literal["app", "jobs"]
Record = asyncpg.Record
PooledConnection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[Record]"


@dataclass(frozen=True)
class PostgresConfig:
    """A service's two roles on its database; `postgres_statement_cache_size` 0 for a pgbouncer older than 1.21."""

    postgres_app_dsn: Secret = field(repr=False)
    postgres_jobs_dsn: Secret = field(repr=False)
    postgres_pool_size: int = 4
    postgres_statement_cache_size: int = 256

    def __post_init__(self) -> None:
        if self.postgres_pool_size < 1:
            raise ValueError("postgres_pool_size must be at least 1")


class Connection(Protocol):
    """What runs statements inside a transaction; asyncpg's shapes. Other libs and repositories take this."""

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str:
        """Runs a statement and returns its status, for example `UPDATE 1`."""
        ...

    async def executemany(
        self, command: str, args: Iterable[Sequence[object]], *, timeout: float | None = None
    ) -> None:
        """Runs a statement once for each row of arguments, in few round trips."""
        ...

    async def fetch(self, query: str, *args: object, timeout: float | None = None) -> list[Record]:
        """Returns all rows."""
        ...

    async def fetchrow(self, query: str, *args: object, timeout: float | None = None) -> Record | None:
        """Returns the first row."""
        ...

    async def fetchval(self, query: str, *args: object, column: int = 0, timeout: float | None = None) -> Any:
        """Returns one column of the first row; None without a row."""
        ...

    async def copy_records_to_table(
        self,
        table_name: str,
        *,
        records: Iterable[Sequence[object]],
        columns: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> str:
        """Writes many rows by COPY. PostgreSQL refuses COPY into a table with row-level security."""
        ...

    def cursor(self, query: str, *args: object, prefetch: int | None = None, timeout: float | None = None) -> Any:
        """Returns an async iterator over rows that are fetched in portions."""
        ...


class Database:
    """One role's pool on one service's database; every statement runs in one of its transactions."""

    def __init__(
        self,
        pool: "asyncpg.Pool[Record]",
        *,
        service: str,
        role: Role,
        pool_size: int,
        kill_points: KillPoints | None = None,
        telemetry: "Telemetry | None" = None,
        acquire_seconds: float = ACQUIRE_SECONDS,
    ) -> None:
        self.service = service
        self.role = role
        self._pool = pool
        self._kill_points = kill_points or KillPoints(service)
        self._acquire_seconds = acquire_seconds
        self._waiting = 0
        self._most_waiting = pool_size * WAITERS_PER_CONNECTION
        self._in_use: Gauge | None = None
        self._durations = None
        if telemetry is not None:
            self._in_use = telemetry.gauge("postgres_connections_in_use", "Connections in a transaction.", ["role"])
            self._durations = telemetry.histogram(
                "postgres_transaction_seconds", "Duration of transactions.", ["role", "label", "outcome"]
            )

    @classmethod
    async def open(
        cls,
        dsn: Secret,
        *,
        service: str,
        role: Role,
        pool_size: int = 4,
        kill_points: KillPoints | None = None,
        telemetry: "Telemetry | None" = None,
        statement_cache_size: int = 256,
        acquire_seconds: float = ACQUIRE_SECONDS,
    ) -> "Database":
        """Returns a pool of at most `pool_size` connections; each is made when first needed.

        Search path and timeouts are settings of the role itself (libs.migrate.bootstrap), since a pooler in
        transaction mode passes on neither start-up parameters nor session settings.
        """
        pool = await asyncpg.create_pool(
            dsn.reveal(),
            min_size=0,
            max_size=pool_size,
            max_inactive_connection_lifetime=300,
            timeout=CONNECT_SECONDS,
            statement_cache_size=statement_cache_size,
            server_settings={"application_name": f"gatefold {service} {role}"},
            # Transactions end here, settings are local to them: nothing is left on a connection to be reset.
            reset=_keep,
        )
        return cls(
            pool,
            service=service,
            role=role,
            pool_size=pool_size,
            kill_points=kill_points,
            telemetry=telemetry,
            acquire_seconds=acquire_seconds,
        )

    async def close(self) -> None:
        """Waits for running transactions, for at most five seconds, and disconnects."""
        try:
            await asyncio.wait_for(self._pool.close(), 5)
        except TimeoutError:
            self._pool.terminate()

    @asynccontextmanager
    async def tenant(self, account: UUID, label: str, *, read_only: bool = False) -> AsyncIterator[Connection]:
        """One transaction that sees the rows of `account` alone; commits at the end, rolls back on any error.

        `label` names it in kill points and metrics, for example `create_checkout`. Errors as of `transaction`.
        """
        # Sent with BEGIN as one simple query, which takes no parameters; a UUID prints as hex digits and hyphens only.
        tenant = f"SET LOCAL app.account_id = '{UUID(int=account.int)}'"
        async with self._transaction(f"{_begin(read_only)}; {tenant}", label, read_only) as connection:
            yield connection

    @asynccontextmanager
    async def transaction(self, label: str, *, read_only: bool = False) -> AsyncIterator[Connection]:
        """One transaction without a tenant: the app role sees the routing tables alone, the jobs role what it works on.

        Raises `unavailable("database_unavailable")` when no connection is to be had or it breaks,
        `unavailable("database_timeout")` when a statement ran too long, `conflict("concurrent_change")` on a deadlock
        or lock timeout, `timeout("outcome_unknown")` when the connection broke during COMMIT. Constraint violations
        come as asyncpg raises them: see `violated`.
        """
        async with self._transaction(_begin(read_only), label, read_only) as connection:
            yield connection

    async def ping(self) -> None:
        """Returns when the database answers; raises `unavailable`, and `internal` for a version that is not served."""
        async with self._transaction(_begin(True), "ping", True) as connection:
            major = int(await connection.fetchval("SELECT current_setting('server_version_num')::integer / 10000"))
        if not OLDEST_VERSION <= major <= NEWEST_VERSION:
            raise errors.internal(
                "database_version", f"PostgreSQL {major} is not among {OLDEST_VERSION} to {NEWEST_VERSION}."
            )

    @asynccontextmanager
    async def _transaction(self, begin: str, label: str, read_only: bool) -> AsyncIterator[Connection]:
        started = time.monotonic()
        outcome = "rollback"
        try:
            async with self._connection() as connection:
                try:
                    await connection.execute(begin)
                    yield cast("Connection", connection)
                    await self._commit(connection, label, read_only)
                    outcome = "commit"
                except BaseException as error:
                    lost = _lost(connection)
                    await _roll_back(connection)
                    translated = _translate(error, lost, read_only)
                    if translated is None:
                        raise
                    raise translated from error
        finally:
            if self._durations is not None:
                self._durations.labels(self.role, label, outcome).observe(time.monotonic() - started)

    async def _commit(self, connection: PooledConnection, label: str, read_only: bool) -> None:
        if read_only:
            await connection.execute("COMMIT")
            return
        self._kill_points.at("commit", "before", label)
        try:
            status = await connection.execute("COMMIT")
        except (*_SERVER_AWAY, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            raise errors.timeout(
                "outcome_unknown", "The connection to the database broke while the change was being saved."
            ) from error
        if status != "COMMIT":
            # A statement failed and its error was swallowed: PostgreSQL answers COMMIT with ROLLBACK.
            raise errors.internal("transaction_aborted", "The change was not saved.")
        self._kill_points.at("commit", "after", label)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[PooledConnection]:
        connection = await self._acquire()
        if self._in_use is not None:
            self._in_use.labels(self.role).inc()
        try:
            yield connection
        finally:
            if self._in_use is not None:
                self._in_use.labels(self.role).dec()
            # A connection that cannot be released is destroyed by the pool; what was committed stays committed.
            with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                await self._pool.release(connection, timeout=ROLLBACK_SECONDS)

    async def _acquire(self) -> PooledConnection:
        if self._waiting >= self._most_waiting:
            raise _unavailable()
        self._waiting += 1
        try:
            return await self._pool.acquire(timeout=self._acquire_seconds)
        except (*_SERVER_AWAY, asyncpg.InterfaceError, OSError) as error:  # OSError: refused, unreachable, timed out
            raise _unavailable() from error
        finally:
            self._waiting -= 1


@asynccontextmanager
async def savepoint(connection: Connection) -> AsyncIterator[None]:
    """Lets a part of a transaction fail alone: on an error its statements are undone, and the error is raised."""
    await connection.execute("SAVEPOINT part")
    try:
        yield
    except Exception:
        await connection.execute("ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part")
        raise
    await connection.execute("RELEASE SAVEPOINT part")


@asynccontextmanager
async def as_tenant(connection: Connection, account: UUID) -> AsyncIterator[None]:
    """Works on the rows of `account` for a part of a transaction, whatever tenant the rest of it works on.

    For what belongs to two accounts and must commit together.
    """
    former = await connection.fetchval("SELECT current_setting('app.account_id', true)")
    await _set_tenant(connection, str(UUID(int=account.int)))
    try:
        yield
    except Exception:
        # Whoever goes on after this must not do so as the other account. In an aborted transaction nobody can.
        with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError):
            await _set_tenant(connection, former or "")
        raise
    await _set_tenant(connection, former or "")


async def _set_tenant(connection: Connection, tenant: str) -> None:
    await connection.execute("SELECT set_config('app.account_id', $1, true)", tenant)


def violated(error: BaseException) -> str | None:
    """Returns the name of the constraint that a statement broke; None for any other error."""
    if isinstance(error, asyncpg.IntegrityConstraintViolationError):
        return error.constraint_name
    return None


async def _keep(connection: object) -> None:
    """Keeps a connection as it is: the pool's own reset query would cost a round trip each time."""


def _begin(read_only: bool) -> str:
    return "BEGIN READ ONLY" if read_only else "BEGIN"


async def _roll_back(connection: PooledConnection) -> None:
    """Leaves the connection idle, or destroyed where that cannot be had."""
    if _lost(connection):
        return
    try:
        # After a cancellation this also waits until the server has stopped the running statement.
        await connection.execute("ROLLBACK", timeout=ROLLBACK_SECONDS)
        if not connection.is_in_transaction():
            return
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
        pass
    except asyncio.CancelledError:
        _destroy(connection)
        raise
    _destroy(connection)


def _lost(connection: PooledConnection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:  # the pool takes a broken connection back by itself
        return True


def _destroy(connection: PooledConnection) -> None:
    with contextlib.suppress(asyncpg.InterfaceError):
        connection.terminate()


def _translate(error: BaseException, lost: bool, read_only: bool) -> errors.GatefoldError | None:
    """Returns what the error means to a caller; None where it is raised as it is."""
    if isinstance(error, asyncpg.ReadOnlySQLTransactionError) and read_only:
        return None  # a fault in our code: the database was told that nothing would be written
    # On an open connection these are wrong uses of the driver, which must not look like an outage.
    if lost and isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError):
        return _unavailable()
    if isinstance(error, _SERVER_AWAY):
        return _unavailable()
    if isinstance(error, asyncpg.QueryCanceledError):
        return errors.unavailable("database_timeout", "The database did not answer in time; nothing was changed.")
    if isinstance(error, _GOT_IN_THE_WAY):
        return errors.conflict("concurrent_change", "Another change got in the way; try again.", retry_after_seconds=1)
    return None


def _unavailable() -> errors.GatefoldError:
    return errors.unavailable("database_unavailable", "The database is away for a moment.")
