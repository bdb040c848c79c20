"""Measures the firewall: 200 rules against each by itself, 100,000 networks against tables of ipaddress."""

import io
import ipaddress
import itertools
import random
import time
from typing import cast
from uuid import UUID

from gatefold.activity.v1 import activity_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from libs.activity import Pseudonyms
from libs.clock import SystemClock
from libs.patterns import Patterns
from libs.telemetry import Telemetry
from services.gateway.domain.bundle import Action, Bundle, Mode, Rule
from services.gateway.domain.firewall import Facts, Phase, compile_bundle
from services.gateway.domain.networks import NetworkMap, parse_address, parse_network
from services.gateway.http.verdicts import Streams, Verdicts
from tests.bench.harness import Bench

RULES = 200
NETWORKS = 100_000
VERDICTS = 30_000
ROUND = 50
FORMS = (
    'request.path == "/admin{0}.php"',
    'request.path.startsWith("/wp{0}/")',
    'in_cidr(client.address, "10.{0}.0.0/16")',
    'request.user_agent.contains("bot{0}")',
    'client.country == "Z{0}" && request.method == "POST"',
    "client.asn in [64{0}, 65{0}]",
    'request.path.endsWith(".bak{0}") || request.path == "/x{0}"',
    'request.route == "/v1/r{0}" && request.size > {0}',
)


def rule(number: int) -> Rule:
    expression = FORMS[number % len(FORMS)].format(number)
    return Rule(UUID(int=number), f"rule {number}", expression, Action.BLOCK, mode=Mode.ENFORCE)


def requests() -> list[Facts]:
    """Returns ordinary requests that no rule matches: many clients, every path another."""
    return [
        Facts(
            client_address=f"203.0.113.{number % 200}",
            client_country="DE",
            client_asn=3320,
            request_path=f"/v1/subscribers/sub_{number:026}",
            request_user_agent=f"Mozilla/5.0 (X11; Linux x86_64) Chrome/{number % 40}.0 Safari/537.36",
            request_route="/v1/subscribers/{id}",
        )
        for number in range(2_000)
    ]


def held_verdicts() -> Verdicts:
    """Returns verdicts on many others."""
    store = cast("Streams", None)
    clock = SystemClock()
    held = Verdicts(
        store,
        None,
        clock=clock,
        monotonic=time.monotonic,
        telemetry=Telemetry("bench", stream=io.StringIO()),
    )
    until = int(clock.wall().timestamp()) + 3600
    held.apply(
        activity_pb2.Verdict(
            id=f"verdict_{number}",
            scope=("address", "network", "user_agent")[number % 3],
            entity_hash=number.to_bytes(16, "big"),
            action=activity_pb2.Verdict.ACTION_BLOCK,
            revision=1,
            expires_at=Timestamp(seconds=until),
        )
        for number in range(VERDICTS)
    )
    return held


async def measure(bench: Bench) -> None:
    """Compares both."""
    rules = [rule(number) for number in range(RULES)]
    together = compile_bundle(Bundle(1, tuple(rules)), Patterns())
    alone = [compile_bundle(Bundle(1, (one,)), Patterns()) for one in rules]
    asked = itertools.cycle(requests())

    async def fused() -> None:
        for facts in itertools.islice(asked, ROUND):
            together.judge(facts, Phase.BEFORE, 0.0)

    async def one_by_one() -> None:
        for facts in itertools.islice(asked, ROUND):
            for one in alone:
                one.judge(facts, Phase.BEFORE, 0.0)

    await bench.compare(
        "firewall-rules-200", fused, one_by_one, named="each rule by itself", goal=10.0, runs=5, seconds=0.2
    )

    chance = random.Random(1)
    texts = {f"{ipaddress.IPv4Address(chance.getrandbits(24) << 8)}/24" for _ in range(NETWORKS * 7 // 10)}
    texts |= {
        str(ipaddress.IPv6Network((0x2001 << 112 | chance.getrandbits(112), 48), strict=False))
        for _ in range(NETWORKS - len(texts))
    }
    held = NetworkMap()
    for text in texts:
        held.add(parse_network(text))
    table = {ipaddress.ip_network(text) for text in texts}
    addresses = itertools.cycle(str(ipaddress.IPv4Address(chance.getrandbits(32))) for _ in range(2_000))

    async def sets() -> None:
        for address in itertools.islice(addresses, ROUND):
            held.marks(parse_address(address))

    async def standard() -> None:
        for address in itertools.islice(addresses, ROUND):
            parsed = ipaddress.ip_address(address)
            any(ipaddress.ip_network((parsed, bits), strict=False) in table for bits in (24, 48) if bits <= 32)

    verdicts = held_verdicts()
    hidden = Pseudonyms("a pepper for benchmarks").of
    known = [
        [("address", f"203.0.113.{number}"), ("network", "203.0.113.0/24"), ("user_agent", f"agent {number % 40}")]
        for number in range(200)
    ]
    began = time.perf_counter()
    for _ in range(ROUND):
        for one in known:
            verdicts.of([(scope, hidden(scope, text)) for scope, text in one])
    micros = (time.perf_counter() - began) / ROUND / len(known) * 1e6
    bench.add("firewall-verdict", (micros, 10.0, "µs"), named="10 µs a request", goal=1.0, higher_is_better=False)

    await bench.compare(
        "firewall-cidr-100k", sets, standard, named="one look-up by ipaddress", goal=3.0, runs=5, seconds=0.2
    )
