"""Who is refused and sends the same again: told the same, counted each time, and heard as soon as something changes."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import UUID

import pytest

from infra.local.valkey import ValkeyServer
from libs.patterns import Patterns
from libs.redis_client import RedisConfig, Store, connect
from services.gateway.domain.bundle import Action, Bundle, Mode, Quota, Rule
from services.gateway.domain.firewall import compile_bundle
from tests.support.activity_streams import activities
from tests.support.gateway import SECRET_KEY, Answer, RunningGateway, api_key, running_gateway
from tests.support.waiting import until

PRODUCTS = "/v1/products"
RULE = UUID(int=7)


@pytest.fixture(scope="module")
async def shared(run_directory: Path, valkey_server: ValkeyServer) -> AsyncIterator[RunningGateway]:
    quotas = '{"strict.address":[100000,60],"read.address":[100000,60],"read.server":[2,3600],"read.person":[300,3600]}'
    async with running_gateway(run_directory, valkey_server.url(), background=True, rate_quotas=quotas) as running:
        yield running


@pytest.fixture
def gateway(shared: RunningGateway) -> Iterator[RunningGateway]:
    rules = shared.firewall._rules
    yield shared
    shared.firewall.replace(rules)


@pytest.fixture
async def store(valkey_server: ValkeyServer) -> AsyncIterator[Store]:
    made = connect(RedisConfig(valkey_server.url()))
    yield made
    await made.aclose()


def enforce(gateway: RunningGateway, expression: str) -> None:
    rule = Rule(RULE, "a rule", expression, Action.BLOCK, mode=Mode.ENFORCE)
    gateway.firewall.replace(compile_bundle(Bundle(1, (rule,)), Patterns()))


def shown(answer: Answer) -> tuple[int, dict[str, object], dict[str, str]]:
    """Everything but the request's id, and what depends on the moment."""
    moment = ("date", "x-request-id", "ratelimit", "retry-after")
    headers = {name.lower(): value for name, value in answer.headers.items() if name.lower() not in moment}
    problem = dict(answer.json)
    assert problem.pop("instance") == f"urn:gatefold:request:{answer.headers['X-Request-Id']}"
    return answer.status, problem, headers


@pytest.mark.parametrize(
    ("path", "reason"), [("/v1/nothing-here", "route_unknown"), (f"{PRODUCTS}?limit=1", "firewall_blocked")]
)
async def test_the_same_again_is_answered_counted_and_told_of_each_time(
    gateway: RunningGateway, store: Store, path: str, reason: str
) -> None:
    enforce(gateway, 'request.query == "limit=1"')
    before = gateway.metric("gatefold_gateway_problems_total", reason=reason)

    answers = [await gateway.ask("GET", path) for _ in range(5)]

    assert {answer.reason for answer in answers} == {reason}
    assert [shown(answer) for answer in answers] == [shown(answers[0])] * 5
    names = {answer.headers["X-Request-Id"] for answer in answers}
    assert len(names) == 5
    assert gateway.metric("gatefold_gateway_problems_total", reason=reason) == before + 5
    assert gateway.firewall._rules.counters()[RULE][0] == (5 if reason == "firewall_blocked" else 0)

    async def told() -> bool:
        found = [one for one in await activities(store) if one.request_id in names]
        assert {(one.problem_reason, one.http_response_status_code) for one in found} <= {(reason, answers[0].status)}
        return sorted(one.request_id for one in found) == sorted(names)

    await until(told)


async def test_a_quota_that_is_used_up_is_said_with_the_seconds_that_are_left(gateway: RunningGateway) -> None:
    # Of its own: what others used of theirs is in the same store.
    key = api_key(body="q" * 43)
    gateway.backend.add_key(key, scopes=("catalogue:read",))

    answers = [await gateway.ask("GET", PRODUCTS, credential=key) for _ in range(8)]

    assert [answer.status for answer in answers] == [200, 200] + [429] * 6
    assert [shown(answer) for answer in answers[2:]] == [shown(answers[2])] * 6
    left = [int(answer.headers["Retry-After"]) for answer in answers[2:]]
    assert left == sorted(left, reverse=True)
    assert all(0 < seconds <= 1800 for seconds in left)
    assert all('"read-server";r=0;t=' in answer.headers["RateLimit"] for answer in answers[2:])


async def test_what_is_counted_before_it_is_refused_is_counted_each_time(gateway: RunningGateway) -> None:
    token = gateway.backend.signer.token()
    answers = [await gateway.ask("GET", PRODUCTS, credential=token) for _ in range(305)]

    assert [answer.reason for answer in answers] == ["caller_kind_not_allowed"] * 300 + ["rate_limited"] * 5
    left = [int(answer.headers["RateLimit"].partition(";r=")[2].partition(";")[0]) for answer in answers[:300]]
    assert left == list(range(299, -1, -1))
    assert [shown(answer) for answer in answers[1:300]] == [shown(answers[0])] * 299


async def test_what_changes_is_obeyed_at_once(gateway: RunningGateway) -> None:
    enforce(gateway, 'request.path == "/v1/nothing-here" && request.user_agent == "a"')
    agent = {"User-Agent": "a"}
    assert (await gateway.ask("GET", "/v1/nothing-here", headers=agent)).reason == "firewall_blocked"
    assert (await gateway.ask("GET", "/v1/nothing-here", headers={"User-Agent": "b"})).reason == "route_unknown"

    enforce(gateway, "false")
    assert (await gateway.ask("GET", "/v1/nothing-here", headers=agent)).reason == "route_unknown"

    for _ in range(4):
        limited = await gateway.ask("GET", PRODUCTS, credential=SECRET_KEY)
    assert limited.status == 429
    gateway.limits.replace([Quota("read.server", 100_000, 60)], ())
    assert (await gateway.ask("GET", PRODUCTS, credential=SECRET_KEY)).status == 200
    gateway.limits.replace((), ())


async def test_another_request_is_never_taken_for_it(gateway: RunningGateway) -> None:
    enforce(gateway, '"x-a" in request.headers && request.method == "GET" && request.path == "/v1/access"')

    for _ in range(2):
        assert (await gateway.ask("GET", "/v1/access", headers={"X-A": "1"})).reason == "firewall_blocked"
        assert (await gateway.ask("GET", "/v1/access", headers={"X-B": "1"})).reason == "credential_required"
        assert (await gateway.ask("POST", "/v1/access", headers={"X-A": "1"})).reason == "method_not_allowed"
