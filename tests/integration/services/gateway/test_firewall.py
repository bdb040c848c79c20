"""The firewall in a whole gateway: rules, verdicts, lists that allow, and the proof of work in place of a refusal."""

import asyncio
import hashlib
import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from gatefold.activity.v1 import activity_pb2
from mmdb_writer import MMDBWriter
from netaddr import IPSet
from yarl import URL

from infra.local.valkey import ValkeyServer
from libs import ids
from libs.activity import Pseudonyms
from libs.clock import SystemClock
from libs.errors import GatefoldError
from libs.patterns import Patterns
from libs.redis_client import Store
from libs.telemetry import Telemetry
from services.gateway.domain.bundle import Action, Bundle, EntryList, ListKind, Mode, Quota, Rule
from services.gateway.domain.firewall import compile_bundle
from services.gateway.domain.register import Hits
from services.gateway.http.challenge import COOKIE, HEADER
from services.gateway.http.verdicts import FIELD, STREAM, Verdicts
from tests.support.gateway import PEPPER, READER, SECRET_KEY, Answer, RunningGateway, running_gateway
from tests.support.waiting import until

PRODUCTS = "/v1/products"
ENGINE = Patterns()
HTML = {"Accept": "text/html,application/xhtml+xml"}


def rule(expression: str, action: Action = Action.BLOCK, number: int = 1, **rest: Any) -> Rule:
    return Rule(UUID(int=number), "a rule", expression, action, **{"mode": Mode.ENFORCE, **rest})


def bundle(*rules: Rule, lists: tuple[EntryList, ...] = ()) -> Bundle:
    return Bundle(1, rules, lists)


@pytest.fixture(autouse=True)
def former(gateway: RunningGateway) -> Iterator[None]:
    """Puts the rules back that were there, and forgets all verdicts."""
    rules = gateway.firewall._rules
    yield
    gateway.firewall.replace(rules)
    gateway.verdicts._by_id.clear()
    gateway.verdicts._by_entity.clear()


def enforce(gateway: RunningGateway, *rules: Rule, lists: tuple[EntryList, ...] = ()) -> None:
    gateway.firewall.replace(compile_bundle(bundle(*rules, lists=lists), ENGINE))


def verdict(action: Any, scope: str = "address", text: str = "127.0.0.1", **rest: Any) -> activity_pb2.Verdict:
    found = activity_pb2.Verdict(
        id="verdict_1",
        scope=scope,
        entity_hash=Pseudonyms(PEPPER).of(scope, text),
        action=action,
        revision=1,
        **rest,
    )
    found.expires_at.FromDatetime(datetime.now(UTC) + timedelta(hours=1))
    return found


def solved(challenge: str, bits: int) -> int:
    for number in itertools.count():
        digest = hashlib.sha256(f"{challenge}.{number}".encode()).digest()
        if int.from_bytes(digest, "big") < 1 << (256 - bits):
            return number
    raise AssertionError


async def listed(gateway: RunningGateway, **rest: Any) -> Answer:
    return await gateway.ask("GET", PRODUCTS, credential=SECRET_KEY, **rest)


async def test_a_rule_refuses_before_anybody_is_asked(gateway: RunningGateway) -> None:
    enforce(gateway, rule('request.path == "/v1/products" && request.query.contains("limit")'))

    assert (await listed(gateway)).status == 200
    gateway.backend.forget()
    answer = await gateway.ask("GET", f"{PRODUCTS}?limit=5", credential="gfsk_live_unknown")
    assert (answer.status, answer.reason) == (403, "firewall_blocked")
    assert ids.encode("rule", UUID(int=1)) in answer.json["detail"]
    assert "limit" not in answer.json["detail"]
    assert gateway.backend.calls == gateway.backend.lookups == []


@pytest.mark.parametrize(
    ("expression", "request_"),
    [
        ('request.path == "/.env"', {"path": "/.env"}),
        ('request.path == "/.env"', {"path": "/%2eenv"}),
        ('request.route == "/v1/products"', {}),
        ('request.method == "PUT"', {"verb": "PUT"}),
        ('request.user_agent.startsWith("evil")', {"headers": {"User-Agent": "evil/1"}}),
        ('request.headers["x-a"] == "1, 2"', {"headers": [("X-A", "1"), ("X-A", "2")]}),
        ('"x-a" in request.headers', {"headers": {"X-A": ""}}),
        ('request.content_type == "text/xml"', {"verb": "POST", "headers": {"Content-Type": "Text/XML; a=b"}}),
        ("request.size == 3", {"verb": "POST", "data": b"abc"}),
        ("request.size == -1", {"verb": "POST", "chunked": True, "data": b"abc"}),
        ('in_cidr(client.address, "127.0.0.0/8")', {}),
        ('client.address == "127.0.0.1"', {}),
        ('client.country == "" && client.asn == 0 && !client.verified_crawler', {}),
        ('request.query == "a=b"', {"path": "/v1/products?a=b"}),
        ('caller.kind == "SECRET_KEY" && caller.key.startsWith("key_") && caller.key == caller.actor', {}),
        ('caller.account.startsWith("acct_")', {}),
    ],
)
async def test_every_field_is_what_was_sent(gateway: RunningGateway, expression: str, request_: dict[str, Any]) -> None:
    asked = {"verb": "GET", "path": PRODUCTS, **request_}
    verb, path = asked.pop("verb"), asked.pop("path")
    enforce(gateway, rule(f"!({expression})"))
    assert (await plain(gateway, verb, path, **asked)).status != 403
    enforce(gateway, rule(expression))

    answer = await plain(gateway, verb, path, **asked)

    assert (answer.status, answer.reason) == (403, "firewall_blocked")


async def plain(gateway: RunningGateway, verb: str, path: str, headers: Any = (), **rest: Any) -> Answer:
    """Sends a request without changing its path or joining its headers."""
    sent = [*(headers.items() if isinstance(headers, dict) else headers), ("Authorization", f"Bearer {SECRET_KEY}")]
    url = URL(f"{gateway.url}{path}", encoded=True)
    async with gateway.client.request(verb, url, headers=sent, **rest) as response:
        return Answer(response.status, response.headers, await response.read())


async def test_a_rule_of_callers_is_asked_once_they_are_known(gateway: RunningGateway) -> None:
    enforce(gateway, rule('caller.kind == "SUBSCRIBER"'))

    assert (await listed(gateway)).status == 200
    refused = await gateway.ask("GET", "/v1/me", credential=gateway.backend.signer.token())
    assert refused.reason == "firewall_blocked"


async def test_probes_are_never_refused(gateway: RunningGateway) -> None:
    enforce(gateway, rule("true"))

    assert (await gateway.ask("GET", "/healthz")).status == 200
    assert (await gateway.ask("GET", "/docs")).status == 403


@pytest.mark.case("edge-10")
async def test_a_bad_bundle_leaves_the_old_one_in_force(gateway: RunningGateway) -> None:
    enforce(gateway, rule("true"))
    with pytest.raises(GatefoldError, match="rules_invalid"):
        enforce(gateway, rule("false", number=1), rule("request.pth == 'a'", number=2))

    assert (await listed(gateway)).reason == "firewall_blocked"


async def test_a_list_that_allows_wins_over_rules_and_verdicts(gateway: RunningGateway) -> None:
    office = EntryList(UUID(int=9), "office", ListKind.NETWORKS, allows=True, entries=(("127.0.0.0/8", None),))
    gateway.verdicts.apply([verdict(activity_pb2.Verdict.ACTION_BLOCK)])
    enforce(gateway, rule("true"), rule("caller.kind != ''", number=2))
    assert (await listed(gateway)).status == 403
    enforce(gateway, rule("true"), rule("caller.kind != ''", number=2), lists=(office,))

    assert (await listed(gateway)).status == 200


async def test_rates_of_rules_count_besides(gateway: RunningGateway) -> None:
    enforce(gateway, rule("true", Action.RATE, parameter="bulk"))

    policy = (await listed(gateway)).headers["RateLimit-Policy"]

    assert '"read-server"' in policy
    assert '"bulk-server"' in policy


async def test_counts_outlive_a_change_of_rules(gateway: RunningGateway) -> None:
    enforce(gateway, rule("true", mode=Mode.SHADOW))
    gateway.firewall.hits.take()
    assert (await listed(gateway)).status == 200
    enforce(gateway, rule("true", mode=Mode.SHADOW), rule("false", number=2))
    await listed(gateway)

    gateway.firewall.count()
    assert gateway.firewall.hits.take() == {UUID(int=1): Hits(shadow=2)}


@pytest.mark.parametrize(
    ("action", "status", "reason"),
    [
        (activity_pb2.Verdict.ACTION_BLOCK, 403, "firewall_blocked"),
        (activity_pb2.Verdict.ACTION_CHALLENGE, 403, "challenge_required"),
        (activity_pb2.Verdict.ACTION_REVOKE, 401, "credential_revoked"),
    ],
)
@pytest.mark.parametrize("scope", ["address", "actor", "session"])
async def test_a_verdict_is_acted_on(
    gateway: RunningGateway, scope: str, action: Any, status: int, reason: str
) -> None:
    texts = {
        "address": "127.0.0.1",
        "actor": ids.encode("subj", READER),
        "session": ids.encode("ses", READER),
    }
    token = gateway.backend.signer.token()
    assert (await gateway.ask("GET", "/v1/me", credential=token)).status == 200
    gateway.verdicts.apply([verdict(action, scope, texts[scope])])

    answer = await gateway.ask("GET", "/v1/me", credential=token)
    assert (answer.status, answer.reason) == (status, reason)
    assert (await listed(gateway)).status == (status if scope == "address" else 200)

    gateway.verdicts.apply([verdict(action, scope, texts[scope], shadow=True)])
    taken = verdict(action, scope, texts[scope])
    taken.revision, taken.revoked = 2, True
    gateway.verdicts.apply([taken])
    assert (await gateway.ask("GET", "/v1/me", credential=token)).status == 200


async def test_a_shadow_verdict_is_only_noted(gateway: RunningGateway) -> None:
    gateway.verdicts.apply([verdict(activity_pb2.Verdict.ACTION_BLOCK, shadow=True)])
    name = "gatefold_gateway_firewall_total"
    before = gateway.metric(name, by="verdict", action="block", mode="shadow")

    assert (await listed(gateway)).status == 200
    assert gateway.metric(name, by="verdict", action="block", mode="shadow") == before + 1


async def test_a_throttled_client_uses_its_quota_up_four_times_as_fast(gateway: RunningGateway) -> None:
    def left(answer: Answer) -> int:
        first = answer.headers["RateLimit"].split(",")[0]
        return int(first.split("r=")[1].split(";")[0])

    # So slow that nothing comes back meanwhile, and nothing is leased.
    gateway.limits.replace([Quota("read.server", 40, 30 * 86_400)], [])
    try:
        before = left(await listed(gateway))
        gateway.verdicts.apply([verdict(activity_pb2.Verdict.ACTION_THROTTLE)])
        assert left(await listed(gateway)) == before - 4
    finally:
        gateway.limits.replace([], [])


async def test_rules_read_verdicts(gateway: RunningGateway) -> None:
    enforce(gateway, rule('verdict.action == "throttle" && "stuffing" in verdict.reasons'))
    assert (await listed(gateway)).status == 200
    gateway.verdicts.apply([verdict(activity_pb2.Verdict.ACTION_THROTTLE, reasons=["stuffing"])])

    assert (await listed(gateway)).reason == "firewall_blocked"


async def test_a_client_that_solves_the_task_is_let_through(gateway: RunningGateway) -> None:
    enforce(gateway, rule("true", Action.CHALLENGE), rule('request.query == "bad"', number=2))
    refused = await listed(gateway)
    assert (refused.status, refused.reason) == (403, "challenge_required")

    task = (await gateway.ask("GET", "/challenge")).json
    answer = {"challenge": task["challenge"], "number": solved(task["challenge"], task["bits"])}
    given = await gateway.ask("POST", "/challenge", json=answer)
    assert given.status == 200
    clearance = given.json["clearance"]
    cookie = given.headers["Set-Cookie"]
    assert cookie.startswith(f"{COOKIE}={clearance}; Path=/; ")
    assert {"Secure", "HttpOnly", "SameSite=Lax"} <= set(cookie.split("; "))

    assert (await listed(gateway, headers={HEADER: clearance})).status == 200
    assert (await listed(gateway, headers={"Cookie": f"{COOKIE}={clearance}"})).status == 200
    for bent in (clearance[:-2], clearance + "A", task["challenge"], ""):
        assert (await listed(gateway, headers={HEADER: bent})).reason == "challenge_required"
    other = await listed(gateway, headers={HEADER: clearance, "User-Agent": "another"})
    assert other.reason == "challenge_required"
    blocked = await gateway.ask("GET", f"{PRODUCTS}?bad", credential=SECRET_KEY, headers={HEADER: clearance})
    assert blocked.reason == "firewall_blocked"


async def test_whoever_looks_gets_a_page(gateway: RunningGateway) -> None:
    enforce(gateway, rule("true", Action.CHALLENGE))

    answer = await gateway.ask("GET", "/docs", headers={**HTML, "X-Request-Id": "my-own"})

    assert (answer.status, answer.headers["Content-Type"]) == (403, "text/html; charset=utf-8")
    assert b"Reference: my-own" in answer.body
    assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
    assert (await gateway.ask("GET", "/challenges")).reason == "challenge_required"
    for path in ("/challenge/challenge.js", "/challenge/worker.js", "/challenge"):
        assert (await gateway.ask("GET", path)).status == 200
    assert (await gateway.ask("POST", PRODUCTS, headers=HTML)).reason == "challenge_required"
    assert (await gateway.ask("OPTIONS", "/challenge", headers={"Origin": "https://a.example"})).status == 204


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "json_malformed"),
        (b"[]", "json_malformed"),
        (b'{"challenge": "x", "number": true}', "json_malformed"),
        (b'{"challenge": "x", "number": 1.5}', "json_malformed"),
        (b'{"challenge": "' + b"x" * 2000 + b'", "number": 1}', "json_malformed"),
        (b'{"challenge": "x", "number": 1}', "challenge_refused"),
        (b'{"challenge": "\\u0000\xc3\xa9", "number": -1}', "challenge_refused"),
    ],
)
async def test_answers_that_are_none_are_refused(gateway: RunningGateway, body: bytes, reason: str) -> None:
    assert (await gateway.ask("POST", "/challenge", data=body)).reason == reason
    assert (await gateway.ask("DELETE", "/challenge")).status == 405


async def test_countries_and_operators_are_those_of_the_mounted_databases(
    run_directory: Path, valkey_server: ValkeyServer, tmp_path: Path
) -> None:
    places: dict[str, dict[str, object]] = {
        "203.0.113.0/24": {"country": {"iso_code": "DE"}, "autonomous_system_number": 64500}
    }
    writer = MMDBWriter(6, "GeoLite2-City", languages=["en"], ipv4_compatible=True, int_type="uint32")
    for network, place in places.items():
        writer.insert_network(IPSet([network]), place)
    path = tmp_path / "places.mmdb"
    writer.to_db_file(str(path))
    async with running_gateway(
        run_directory,
        valkey_server.url(),
        trusted_proxies="127.0.0.0/8",
        places_database=str(path),
        networks_database=str(path),
    ) as mounted:
        enforce(mounted, rule('client.country == "DE" && client.asn == 64500'))
        berlin = await mounted.ask("GET", "/docs", headers={"X-Forwarded-For": "203.0.113.9"})
        elsewhere = await mounted.ask("GET", "/docs", headers={"X-Forwarded-For": "198.51.100.9"})

    assert (berlin.status, elsewhere.status) == (403, 200)


async def test_verdicts_arrive_by_the_stream_and_by_asking(redis: Store) -> None:
    clock = SystemClock()
    asked: list[str] = []
    waiting = [[verdict(activity_pb2.Verdict.ACTION_CHALLENGE, "user_agent", "curl")]]
    waiting[0][0].id = "verdict_2"

    async def fetch(cursor: str, request_id: str) -> tuple[list[activity_pb2.Verdict], str]:
        asked.append(cursor)
        return (waiting.pop(), "1") if waiting else ([], cursor)

    async def tell(found: activity_pb2.Verdict) -> None:
        batch = activity_pb2.VerdictBatch(verdicts=[found])
        await redis.xadd(STREAM, {FIELD: batch.SerializeToString()})

    found = Verdicts(redis, fetch, clock=clock, monotonic=lambda: 0.0, telemetry=Telemetry("tests"))
    await tell(verdict(activity_pb2.Verdict.ACTION_BLOCK))
    stop = asyncio.Event()
    following = asyncio.create_task(found.follow(stop))
    await until(lambda: len(found) == 2)
    await redis.xadd(STREAM, {FIELD: b"\xff\xff nothing of the kind"})
    later = verdict(activity_pb2.Verdict.ACTION_REVOKE)
    later.id = "verdict_3"
    await tell(later)
    await until(lambda: len(found) == 3)
    stop.set()
    await following
    # Other gateways of these tests would act on it.
    await redis.delete(STREAM)

    hidden = Pseudonyms(PEPPER).of
    worst = found.of(
        [(scope, hidden(scope, text)) for scope, text in (("address", "127.0.0.1"), ("user_agent", "curl"))]
    )
    assert worst is not None
    assert worst.id == "verdict_3"
    assert asked[0] == ""
