"""The store restarted, deaf, failed over, its scripts flushed: nobody waits for it, and nobody has to do anything."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infra.local.settings import free_port
from infra.local.valkey import ValkeyServer
from libs.config import Secret
from libs.redis_client import RedisConfig, Store, connect
from libs.telemetry import Telemetry
from services.gateway.http.limits import Away, LocalLimiter, RateStore
from services.gateway.http.limits.limit import Limit
from services.gateway.http.limits.store import FAILURES_TO_OPEN, OPEN_SECONDS
from tests.support.rates import Microseconds
from tests.support.valkey_proxy import ValkeyProxy, valkey_proxy
from tests.support.waiting import until

PASSWORD = Secret("password-of-tests")
HOUR = 3600


class Server(ValkeyServer):
    """A server of a test's own, with an operator who may make it a primary or a replica."""

    def __init__(self, state: Path, *, primary_port: int | None = None) -> None:
        self.port = free_port()
        self._primary_port = primary_port
        super().__init__(state, PASSWORD, port=self.port, append=False)

    def init(self) -> None:
        super().init()
        data = self.home / "data"
        with (data / "users.acl").open("a") as users:
            users.write(f"user operator on #{hashlib.sha256(PASSWORD.reveal().encode()).hexdigest()} ~* &* +@all\n")
        if self._primary_port is not None:
            with (data / "valkey.conf").open("a") as lines:
                lines.write(f"replicaof 127.0.0.1 {self._primary_port}\n")
                lines.write(f"primaryuser operator\nprimaryauth {PASSWORD.reveal()}\n")

    async def as_operator(self, *command: str) -> object:
        operator = connect(RedisConfig(Secret(self.url().reveal().replace("//gatefold:", "//operator:"))))
        try:
            return await operator.execute_command(*command)
        finally:
            await operator.aclose()


@pytest.fixture
async def proxy(valkey_server: ValkeyServer, redis: Store) -> AsyncIterator[ValkeyProxy]:
    async with valkey_proxy(valkey_server, PASSWORD) as opened:
        yield opened


class Gateway:
    """The limiter of one gateway on a client of its own."""

    def __init__(self, url: Secret, *, seconds: float = 0.05) -> None:
        self.clock = Microseconds()
        self.client = connect(RedisConfig(url))
        self.telemetry = Telemetry("gateway")
        local = LocalLimiter(self.clock)
        self.limiter = RateStore(
            self.client, local, seconds=seconds, monotonic=self.clock, telemetry=self.telemetry, lease_seconds=0
        )

    def count(self, name: str) -> float:
        return self.telemetry.registry.get_sample_value(f"gatefold_gateway_rate_store_{name}_total") or 0.0

    async def asks_the_store(self, limit: Limit) -> bool:
        """Answers whether a decision is the store's again, after the time for which it is left alone."""
        self.clock.now += round(OPEN_SECONDS * 1_000_000)
        failures, calls = self.count("failures"), self.count("calls")
        await self.limiter.decide([limit], 1)
        return self.count("failures") == failures and self.count("calls") > calls


@pytest.fixture
async def gateway(proxy: ValkeyProxy) -> AsyncIterator[Gateway]:
    opened = Gateway(proxy.url)
    await opened.limiter.warm()
    yield opened
    await opened.client.aclose()


def limit(key: str, amount: int = 5, **rest: object) -> Limit:
    return Limit("read-server", f"away:{key}", amount, HOUR, **rest)  # type: ignore[arg-type]


@pytest.mark.case("edge-4")
@pytest.mark.parametrize(
    ("away", "let_through", "unavailable"), [(Away.LOCAL, 5, False), (Away.OPEN, 12, False), (Away.CLOSED, 0, True)]
)
async def test_a_store_that_swallows_everything_is_not_waited_for_and_the_policy_holds(
    proxy: ValkeyProxy, gateway: Gateway, away: Away, let_through: int, unavailable: bool
) -> None:
    proxy.swallow()
    # The client itself would wait for two seconds: whoever is answered here was not kept waiting for it.
    decisions = [await gateway.limiter.decide([limit(f"deaf-{away}", away=away)], 1) for _ in range(12)]
    assert [decision.admitted for decision in decisions] == [True] * let_through + [False] * (12 - let_through)
    assert all(decision.unavailable == unavailable for decision in decisions)
    assert gateway.count("calls") == gateway.count("failures") == FAILURES_TO_OPEN, "then it is left alone"
    assert ("RateLimit" in decisions[0].headers()) == (away is Away.LOCAL)
    proxy.pass_on()
    await until(lambda: gateway.asks_the_store(limit("heard", 10_000)))


@pytest.mark.case("edge-4")
async def test_what_waits_while_the_store_is_deaf_is_decided_together_and_in_time(
    proxy: ValkeyProxy, gateway: Gateway
) -> None:
    proxy.swallow()
    decisions = await asyncio.gather(*(gateway.limiter.decide([limit("many", 30)], 1) for _ in range(50)))
    assert sum(decision.admitted for decision in decisions) == 30
    assert gateway.count("calls") == 1


@pytest.mark.case("edge-4")
async def test_a_strict_class_and_an_open_one_in_one_request_each_have_their_own_way(
    proxy: ValkeyProxy, gateway: Gateway
) -> None:
    proxy.swallow()
    strict, open_ = limit("strict", 8, strict=True), limit("open", 1, away=Away.OPEN)
    decisions = [await gateway.limiter.decide([open_, strict], 1) for _ in range(4)]
    assert [decision.admitted for decision in decisions] == [True, True, False, False], "a quarter of the strict quota"


@pytest.mark.case("edge-4")
async def test_a_store_that_is_started_anew_is_used_again_by_itself(run_directory: Path) -> None:
    server = Server(run_directory / "limits")
    server.start()
    gateway = Gateway(server.url(), seconds=2.0)
    try:
        assert await gateway.asks_the_store(limit("before"))
        server.stop()
        decisions = [await gateway.limiter.decide([limit("between")], 1) for _ in range(7)]
        assert [decision.admitted for decision in decisions] == [True] * 5 + [False] * 2
        server.start()
        await until(lambda: gateway.asks_the_store(limit("after", 10_000)))
    finally:
        await gateway.client.aclose()
        server.stop()


@pytest.mark.case("edge-4")
async def test_counters_survive_a_failover_to_the_replica(run_directory: Path) -> None:
    async def _holds(store: Store, key: str, value: bytes) -> bool:
        return bool(await store.get(key) == value)

    primary = Server(run_directory / "primary")
    replica = Server(run_directory / "replica", primary_port=primary.port)
    primary.start()
    replica.start()
    try:
        async with valkey_proxy(primary, PASSWORD) as proxy:
            gateway, other = Gateway(proxy.url, seconds=2.0), Gateway(proxy.url, seconds=2.0)
            used = limit("used", 3)
            assert [(await gateway.limiter.decide([used], 1)).admitted for _ in range(4)] == [True] * 3 + [False]
            kept, copied = connect(RedisConfig(primary.url())), connect(RedisConfig(replica.url()))
            stored = await kept.get(used.key)
            await until(lambda: _holds(copied, used.key, stored))
            primary.stop()
            await replica.as_operator("REPLICAOF", "NO", "ONE")
            proxy.upstream = replica.socket
            proxy.cut()
            await until(lambda: gateway.asks_the_store(limit("new", 10_000)))
            await until(lambda: other.asks_the_store(limit("new", 10_000)))
            assert not (await other.limiter.decide([used], 1)).admitted, "it knows of it by the replica alone"
            for client in (kept, copied, gateway.client, other.client):
                await client.aclose()
    finally:
        primary.stop()
        replica.stop()


@pytest.mark.case("edge-4")
async def test_flushed_scripts_are_loaded_again_and_nothing_is_decided_alone(
    valkey_server: ValkeyServer, redis: Store
) -> None:
    gateway = Gateway(valkey_server.url(), seconds=10.0)
    for left in (4, 3, 2):
        decision = await gateway.limiter.decide([limit("flushed")], 1)
        assert decision.headers()["RateLimit"].startswith(f'"read-server";r={left};')
        await redis.script_flush()
    assert gateway.count("failures") == 0
    await gateway.client.aclose()
