"""What requests are held against: by whom, by route and by rule, replaced at once, in shadow, and so many at a time."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from infra.local.valkey import ValkeyServer
from libs.caller import Caller, CallerKind
from libs.clock import FixedClock
from libs.errors import GatefoldError
from libs.redis_client import Store
from libs.telemetry import Telemetry
from services.gateway.config import ROOT
from services.gateway.domain.bundle import Mode, Override, Quota
from services.gateway.http.contracts import Contracts, Endpoint
from services.gateway.http.exchange import Exchange
from services.gateway.http.limits import Limits, Quotas, RateStore
from tests.support.gateway import SECRET_KEY, RunningGateway, running_gateway
from tests.support.rates import Microseconds, TimedStore, gateway
from tests.support.waiting import until

HOUR = 3600
LIST_PRODUCTS = "/gatefold.billing.v1.CatalogueService/ListProducts"
REFRESH = "/gatefold.auth.v1.SessionService/RefreshSession"


class Edge:
    """The limits of one gateway, on clocks that the test moves."""

    def __init__(self, redis: Store, endpoints: dict[str, Endpoint], *, quotas: dict[str, tuple[int, int]]) -> None:
        self.clock = Microseconds()
        self.wall = FixedClock(datetime(2026, 11, 1, tzinfo=UTC))
        self.store = TimedStore(redis, self.clock)
        self.limiter: RateStore = gateway(self.store, self.clock, lease_seconds=5)
        self.telemetry = Telemetry("gateway")
        self.limits = Limits(
            Quotas(quotas, monotonic=self.clock),
            self.limiter,
            clock=self.wall,
            monotonic=self.clock,
            telemetry=self.telemetry,
        )
        self._endpoints = endpoints
        self.told = 0
        """Seconds to wait, as the last refusal said."""
        self.headers: dict[str, str] = {}

    async def ask(
        self,
        caller: Caller,
        rpc: str = LIST_PRODUCTS,
        *,
        address: str = "203.0.113.7",
        rates: tuple[str, ...] = (),
        leave: bool = True,
    ) -> str:
        """Returns `ok`, or which limits refused."""
        exchange = Exchange(cast("Any", None), "r", 0.0, 0.0, "/", "", address, None, rates=rates)
        try:
            slot = await self.limits.admit(exchange, caller, self._endpoints[rpc])
        except GatefoldError as error:
            self.told, self.headers = error.retry_after_seconds or 0, exchange.headers
            return f"{error.reason} {error.metadata['violated_policies']}"
        if leave:
            slot.leave()
        return "ok"

    def refused(self, quota: str, mode: str) -> float:
        labels = {"quota": quota, "mode": mode}
        return self.telemetry.registry.get_sample_value("gatefold_gateway_rate_limited_total", labels) or 0.0


MakeEdge = Callable[..., Edge]


@pytest.fixture(scope="module")
def endpoints() -> dict[str, Endpoint]:
    return {endpoint.rpc: endpoint for endpoint in Contracts.load(ROOT / "gen" / "descriptors.binpb").endpoints}


@pytest.fixture
def edge(redis: Store, endpoints: dict[str, Endpoint]) -> MakeEdge:
    def make(**quotas: tuple[int, int]) -> Edge:
        return Edge(redis, endpoints, quotas={name.replace("__", "."): value for name, value in quotas.items()})

    return make


def server(account: UUID) -> Caller:
    return Caller(kind=CallerKind.SECRET_KEY, actor=f"key_{uuid4().hex}", account=account)


def staff(account: UUID) -> Caller:
    return Caller(kind=CallerKind.STAFF, actor=f"per_{uuid4().hex}", account=account)


@pytest.mark.case("edge-5")
async def test_an_override_counts_at_once_where_the_account_is_known_to_be_used_up(edge: MakeEdge) -> None:
    one, account = edge(read__server=(10, HOUR)), uuid4()
    key, other = server(account), server(uuid4())
    for caller in (key, other):
        assert [await one.ask(caller) for _ in range(11)] == ["ok"] * 10 + ["rate_limited read-server"]
    calls = one.store.calls
    assert await one.ask(key) == "rate_limited read-server"
    assert one.store.calls == calls, "it is known here to be used up"
    one.limits.replace([], [Override(account, Quota("read.server", 15, HOUR))])
    # What was used stays used: ten of fifteen.
    assert [await one.ask(key) for _ in range(6)] == ["ok"] * 5 + ["rate_limited read-server"]
    assert await one.ask(other) == "rate_limited read-server"
    one.limits.replace([], [])
    assert await one.ask(key) == "rate_limited read-server"


async def test_after_a_quota_is_lowered_a_whole_one_is_the_most_that_is_owed(edge: MakeEdge) -> None:
    one, key = edge(read__server=(100, 100)), server(uuid4())
    assert [await one.ask(key) for _ in range(60)] == ["ok"] * 60
    one.limits.replace([Quota("read.server", 10, 100)], [])
    assert await one.ask(key) == "rate_limited read-server"
    one.clock.now += 10_000_000
    assert await one.ask(key) == "ok"
    assert await one.ask(key) == "rate_limited read-server"


@pytest.mark.case("edge-6")
async def test_a_step_of_the_gateways_clock_changes_nothing(edge: MakeEdge) -> None:
    one, account = edge(read__server=(5, 5)), uuid4()
    key = server(account)
    expires = one.wall.wall() + timedelta(seconds=60)
    one.limits.replace([], [Override(account, Quota("read.server", 20, 200), expires_at=expires)])
    answers = []
    for step in (timedelta(days=3), timedelta(days=-9), timedelta(0)) * 8:
        one.wall.set(one.wall.wall() + step)
        answers.append(await one.ask(key))
    assert answers == ["ok"] * 20 + ["rate_limited read-server"] * 4
    one.wall.set(one.wall.wall() + timedelta(days=100))
    one.clock.now += 10_000_000
    assert await one.ask(key) == "ok"
    assert await one.ask(key) == "rate_limited read-server"
    # A minute after it was told of, and by no other clock, the override has ended: what is owed is five of five, and
    # comes back in a second each.
    one.clock.now += 50_000_000
    assert await one.ask(key) == "rate_limited read-server"
    one.clock.now += 2_000_000
    assert [await one.ask(key) for _ in range(3)] == ["ok", "ok", "rate_limited read-server"]


async def test_what_cannot_be_a_quota_is_refused_and_the_old_ones_stay(edge: MakeEdge) -> None:
    one, key = edge(read__server=(2, HOUR)), server(uuid4())
    for bad in (Quota("read.nobody", 5, 5), Quota("read.server", 0, 5), Quota("route:CreateSession.address", 5, 5)):
        with pytest.raises(ValueError, match=bad.name.replace(".", r"\.")):
            one.limits.replace([Quota("read.server", 99, 5), bad], [])
        with pytest.raises(ValueError, match=bad.name.replace(".", r"\.")):
            one.limits.replace([], [Override(uuid4(), bad)])
    assert [await one.ask(key) for _ in range(3)] == ["ok", "ok", "rate_limited read-server"]


async def test_a_quota_in_shadow_is_counted_told_of_and_refuses_nobody(
    edge: MakeEdge, capsys: pytest.CaptureFixture[str]
) -> None:
    one, key = edge(read__account=(5, HOUR)), server(uuid4())
    one.limits.replace([Quota("read.server", 2, HOUR, Mode.SHADOW)], [])
    assert [await one.ask(key) for _ in range(6)] == ["ok"] * 5 + ["rate_limited read-account"]
    assert one.refused("read-server", "shadow") == 3
    assert (one.refused("read-server", "enforce"), one.refused("read-account", "enforce")) == (0, 1)
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["quota"] for line in said] == ["read-server"], "once a minute"
    one.limits.replace([Quota("read.server", 2, HOUR, Mode.OFF), Quota("read.account", 2, HOUR, Mode.OFF)], [])
    assert [await one.ask(key) for _ in range(20)] == ["ok"] * 20


async def test_a_route_has_quotas_of_its_own_by_whom_and_by_address(edge: MakeEdge) -> None:
    one, account = edge(), uuid4()
    one.limits.replace(
        [Quota(f"route:{LIST_PRODUCTS}.address", 3, HOUR), Quota(f"route:{LIST_PRODUCTS}.person", 2, HOUR)], []
    )
    first, second = staff(account), staff(account)
    assert [await one.ask(first) for _ in range(3)] == ["ok", "ok", "rate_limited CatalogueService.ListProducts-person"]
    answers = [await one.ask(second, address="203.0.113.7") for _ in range(2)]
    assert answers == ["ok", "rate_limited CatalogueService.ListProducts-address"]
    assert await one.ask(second, address="203.0.113.8") == "ok"
    anonymous = Caller(kind=CallerKind.ANONYMOUS, actor="anonymous")
    assert await one.ask(anonymous, REFRESH) == "ok", "another route is no matter of theirs"


async def test_an_address_is_a_64_of_ipv6(edge: MakeEdge) -> None:
    one, anonymous = edge(), Caller(kind=CallerKind.ANONYMOUS, actor="anonymous")
    one.limits.replace([Quota(f"route:{REFRESH}.address", 2, HOUR)], [])
    addresses = ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:1::3", "2001:db8:0:2::1")
    answers = [await one.ask(anonymous, REFRESH, address=address) for address in addresses]
    assert answers == ["ok", "ok", "rate_limited SessionService.RefreshSession-address", "ok"]


@pytest.mark.case("edge-7")
async def test_a_refusal_that_is_said_again_tells_what_the_store_would(edge: MakeEdge, redis: Store) -> None:
    one, key = edge(read__server=(7, 50)), server(uuid4())
    one.store.latency = (6_000, 9_000)
    while await one.ask(key) == "ok":
        pass
    calls = one.store.calls
    at = await _let_through_at(redis, key)
    for before in (6_999_999, 5_123_456, 3_005_000, 3_004_999, 2_000_000, 1_001_000, 20_000):
        # Beyond whole seconds by less than the store's answer took, too: rounded up, never down.
        one.clock.now = at - before
        assert await one.ask(key) == "rate_limited read-server"
        decision = await one.limiter.decide(Quotas({"read.server": (7, 50)}).of("read", key, "").limits, 1)
        assert one.headers == {**one.headers, **decision.headers()}
        assert one.told == decision.retry_after_seconds
        assert one.clock.now + one.told * 1_000_000 >= await _let_through_at(redis, key)
    assert one.store.calls == calls
    one.clock.now = await _let_through_at(redis, key)
    assert await one.ask(key) == "ok"


async def _let_through_at(redis: Store, key: Caller) -> int:
    stored = await redis.get(f"gatefold:gcra:read:server:{key.actor}")
    arrival, emission = (int(part) for part in stored.split(b"/"))
    return arrival + emission - 7 * emission


async def test_a_rule_holds_requests_against_a_class_or_a_quota_of_its_own_besides(edge: MakeEdge) -> None:
    one, key = edge(strict__server=(2, HOUR)), server(uuid4())
    answers = [await one.ask(key, rates=("strict",)) for _ in range(3)]
    assert answers == ["ok", "ok", "rate_limited strict-server"]
    assert await one.ask(key) == "ok"
    one.limits.replace([Quota("rule:scrapers.address", 1, HOUR)], [])
    assert [await one.ask(key, rates=("scrapers", "unknown")) for _ in range(2)] == [
        "ok",
        "rate_limited scrapers-address",
    ]


async def test_requests_under_way_have_places_which_they_leave(edge: MakeEdge) -> None:
    one, account = edge(in_flight__person=(2, 1), in_flight__account=(3, 1), read__person=(5, HOUR)), uuid4()
    first, second = staff(account), staff(account)
    assert [await one.ask(first, leave=False) for _ in range(3)] == [
        "ok",
        "ok",
        "too_many_in_flight in_flight-person",
    ]
    assert await one.ask(second, leave=False) == "ok"
    assert await one.ask(second) == "too_many_in_flight in_flight-account"
    # Neither took a unit: three are left of five, and refused requests leave their places as others do.
    one.limits.replace([Quota("in_flight.person", 50, 1), Quota("in_flight.account", 50, 1)], [])
    answers = [await one.ask(first) for _ in range(100)]
    assert answers == ["ok"] * 3 + ["rate_limited read-person"] * 97


# -- through the gateway ----------------------------------------------------------------------------------------------


@pytest.fixture
async def one_at_a_time(
    run_directory: Path, valkey_server: ValkeyServer, redis: Store
) -> AsyncIterator[RunningGateway]:
    async with running_gateway(run_directory, valkey_server.url(), rate_quotas='{"in_flight.server":[1,1]}') as running:
        yield running
    await redis.flushall()


async def test_a_second_request_at_one_time_is_a_429_until_the_first_has_ended(one_at_a_time: RunningGateway) -> None:
    backend = one_at_a_time.backend
    backend.goes_on.clear()

    async def ask() -> Any:
        return await one_at_a_time.ask("GET", "/v1/access?feature=premium", credential=SECRET_KEY)

    first = asyncio.create_task(ask())
    await backend.entered.wait()
    refused = await one_at_a_time.ask("GET", "/v1/offers", credential=SECRET_KEY)
    assert (refused.status, refused.reason) == (429, "too_many_in_flight")
    assert refused.json["violated-policies"] == ["in_flight-server"]
    assert refused.headers["Retry-After"] == "1"
    backend.goes_on.set()
    await first

    async def free() -> bool:
        return bool((await one_at_a_time.ask("GET", "/v1/offers", credential=SECRET_KEY)).status == 200)

    await until(free)


async def test_a_class_that_is_closed_without_its_store_answers_503(
    run_directory: Path, valkey_server: ValkeyServer
) -> None:
    nothing = f"unix://{run_directory}/nothing.sock"
    async with running_gateway(
        run_directory, valkey_server.url(), rate_redis_url=nothing, rate_store_away='{"read":"closed"}'
    ) as gateway:
        answer = await gateway.ask("GET", "/v1/offers", credential=SECRET_KEY)
        assert (answer.status, answer.reason) == (503, "rate_limits_away")
        assert answer.headers["Retry-After"] == "1"
        assert gateway.backend.calls == []
