"""Attacks on what gateways enforce: by tenants, by operators without a second factor, by what is handed in."""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from gatefold.edge.v1 import policy_pb2
from gatefold.gateway.v1 import firewall_pb2, firewall_pb2_grpc
from google.api import annotations_pb2

from infra.local.valkey import ValkeyServer
from libs.caller import Caller, CallerKind, CallerSigner
from libs.clock import SystemClock
from libs.grpc_stack import CALLER_KEY
from libs.ids import encode
from tests.support.gateway import ACCOUNT, PUBLISHABLE_KEY, SECRET_KEY
from tests.support.operator import BLOCK, Operator, running_operator
from tests.support.stores import TestPostgres
from tests.support.waiting import until

SERVICE = firewall_pb2.DESCRIPTOR.services_by_name["FirewallService"]
TOO_LARGE = "at 22: the pattern is refused: it is too large when its repetitions are written out"
FILLED = {
    "{id}": encode("rule", ACCOUNT),
    "{number}": "1",
}


def endpoints() -> list[tuple[str, str, str, bool]]:
    """Name, verb and path of every endpoint, and whether it changes what is enforced."""
    found = []
    for method in SERVICE.methods:
        rule = method.GetOptions().Extensions[annotations_pb2.http]
        policy = method.GetOptions().Extensions[policy_pb2.policy]
        verb = rule.WhichOneof("pattern")
        path: str = getattr(rule, verb)
        for variable, value in FILLED.items():
            path = path.replace(variable, encode("list", ACCOUNT) if "/lists/{id}" in path else value)
        changes = policy.idempotency == policy_pb2.IDEMPOTENCY_OPTIONAL
        found.append((method.name, verb.upper(), path, changes))
    return found


ENDPOINTS = endpoints()
CHANGES = [found for found in ENDPOINTS if found[3]]


@pytest.fixture(scope="module")
async def operator(
    run_directory: Path, valkey_server: ValkeyServer, postgres_server: TestPostgres
) -> AsyncIterator[Operator]:
    database = await postgres_server.service_database("gateway")
    async with running_operator(run_directory, valkey_server.url(), postgres_server, database) as operator:
        yield operator


def test_all_endpoints_are_looked_at() -> None:
    assert len(ENDPOINTS) == len(SERVICE.methods) >= 29
    assert len(CHANGES) >= 14
    assert not any("{" in path for _, _, path, _ in ENDPOINTS)


@pytest.mark.parametrize(("name", "verb", "path", "changes"), ENDPOINTS, ids=[found[0] for found in ENDPOINTS])
async def test_no_credential_of_a_tenant_reaches_it(
    operator: Operator, name: str, verb: str, path: str, changes: bool
) -> None:
    signer = operator.gateway.backend.signer
    every = "rules:write firewall:write catalogue:write team:write"
    before = await operator.version()
    for credential in (
        SECRET_KEY,
        PUBLISHABLE_KEY,
        signer.token(scope=every),
        signer.staff(scope=every, acr="aal2", role="owner"),
    ):
        answer = await operator.gateway.ask(verb, path, credential=credential, json={})
        assert answer.status == 403, credential
    anonymous = await operator.gateway.ask(verb, path, json={})
    assert (anonymous.status, anonymous.reason) == (401, "credential_required")
    assert await operator.version() == before


@pytest.mark.parametrize(("name", "verb", "path", "changes"), CHANGES, ids=[found[0] for found in CHANGES])
async def test_a_change_needs_a_second_factor_proven_lately(
    operator: Operator, name: str, verb: str, path: str, changes: bool
) -> None:
    signer = operator.gateway.backend.signer
    stale = int((datetime.now(UTC) - timedelta(seconds=901)).timestamp())
    before = await operator.version()
    for token in (signer.operator(acr="aal1"), signer.operator(acr="aal2", auth_time=stale)):
        answer = await operator.gateway.ask(verb, path, credential=token, json={})
        assert (answer.status, answer.reason) == (401, "authentication_insufficient")
    assert await operator.version() == before


async def test_an_operator_without_a_second_factor_can_look(operator: Operator) -> None:
    token = operator.gateway.backend.signer.operator(acr="aal1")
    answer = await operator.gateway.ask("GET", "/v1/firewall/rules", credential=token)
    assert answer.status == 200


async def test_an_operator_that_must_add_a_factor_first_sees_nothing(operator: Operator) -> None:
    token = operator.gateway.backend.signer.operator(acr="enrol")
    answer = await operator.gateway.ask("GET", "/v1/firewall/rules", credential=token)
    assert (answer.status, answer.reason) == (403, "enrolment_required")


@pytest.mark.parametrize("issuer", ["gateway", "billing"])
async def test_whoever_reaches_the_socket_needs_the_gateways_own_key(operator: Operator, issuer: str) -> None:
    forged = CallerSigner(issuer, {f"{issuer}>gateway": (b"k" * 32,)}, SystemClock())
    token = forged.sign(Caller(CallerKind.PLATFORM_OPERATOR, "per_x", acr="aal2"), "gateway")
    async with grpc.aio.insecure_channel(operator.gateway.process.config.listen) as channel:
        stub = firewall_pb2_grpc.FirewallServiceStub(channel)
        for metadata in ((), ((CALLER_KEY, token),)):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.ListRules(firewall_pb2.ListRulesRequest(), metadata=metadata, timeout=10)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


class TestWhatIsHandedIn:
    async def test_five_million_lines_are_refused_before_they_are_read(self, operator: Operator) -> None:
        key = await operator.list_of("five-million")
        lines = b"192.0.2.1\n" * 5_000_000
        answer = await operator.imported(key, lines)
        assert answer.status == 413
        assert (await operator.done("GET", f"/lists/{key}"))["size"] == 0

    async def test_five_million_lines_of_no_stated_length_are_refused_as_soon_as_they_are_too_many(
        self, operator: Operator
    ) -> None:
        key = await operator.list_of("five-million-chunks")
        sent = 0

        async def chunks() -> AsyncIterator[bytes]:
            nonlocal sent
            for _ in range(5_000):
                sent += 1
                yield b"192.0.2.1\n" * 1_000

        answer = await operator.gateway.ask(
            "POST",
            f"/v1/firewall/lists/{key}/import",
            credential=operator.token,
            headers={"Content-Type": "text/plain"},
            data=chunks(),
        )
        assert (answer.status, answer.reason) == (413, "body_too_large")
        assert "8388608 bytes" in answer.json["detail"]
        assert sent < 5_000
        assert (await operator.done("GET", f"/lists/{key}"))["size"] == 0

    async def test_others_are_served_while_the_largest_list_is_read_kept_and_compiled(self, operator: Operator) -> None:
        key = await operator.list_of("largest")
        networks = (f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}\n" for n in range(200_000))
        importing = asyncio.create_task(operator.imported(key, "".join(networks)))
        served = 0
        while not importing.done():
            answer = await operator.gateway.ask("GET", "/v1/offers", credential=SECRET_KEY)
            assert answer.status == 200
            served += 1
        assert (await importing).status == 200
        assert served >= 20
        newest = await operator.version()
        gateway = operator.gateway
        while gateway.metric("gatefold_gateway_bundle_version") != newest:
            assert (await gateway.ask("GET", "/v1/offers", credential=SECRET_KEY)).status == 200
        await operator.done("DELETE", f"/lists/{key}")

    async def test_as_many_lines_as_the_body_holds_are_counted_and_refused(self, operator: Operator) -> None:
        key = await operator.list_of("four-million", "asns")
        answer = await operator.imported(key, b"1\n" * 4_000_000)
        assert (answer.status, answer.reason) == (422, "list_too_long")
        assert "200,000" in answer.json["detail"]

    async def test_a_body_of_wrong_lines_is_answered_with_the_first_twenty(self, operator: Operator) -> None:
        key = await operator.list_of("rubbish")
        answer = await operator.imported(key, b"x\n" * 4_000_000)
        assert (answer.status, answer.reason) == (422, "entry_invalid")
        assert len(answer.json["errors"]) == 20

    @pytest.mark.parametrize(
        ("data", "status", "reason"),
        [
            (b"x" * 1_000_000, 422, "entry_invalid"),
            (b"\xff\xfe\n", 400, "file_not_text"),
            (b"192.0.2.1\x00\n", 422, "entry_invalid"),
            (b"192.0.2.1 9999-12-31T23:59:59.9Z\n", 422, "entry_invalid"),
            (b"192.0.2.1 0001-01-01T00:00:00+14:00\n", 422, "entry_invalid"),
        ],
        ids=["one line", "no text", "a zero", "the end of time", "the beginning of time"],
    )
    async def test_strange_lines_are_refused(self, operator: Operator, data: bytes, status: int, reason: str) -> None:
        key = await operator.list_of(f"strange-{os.urandom(4).hex()}")
        answer = await operator.imported(key, data)
        assert (answer.status, answer.reason) == (status, reason)

    async def test_lines_of_another_media_type_are_refused(self, operator: Operator) -> None:
        key = await operator.list_of("media")
        answer = await operator.gateway.ask(
            "POST",
            f"/v1/firewall/lists/{key}/import",
            credential=operator.token,
            headers={"Content-Type": "image/png"},
            data=b"192.0.2.1\n",
        )
        assert (answer.status, answer.reason) == (415, "media_type_unsupported")

    @pytest.mark.parametrize("cursor", ["%FF", "a", "AA", "bm90IGFuIGFjY291bnQ", "x" * 400])
    async def test_a_forged_cursor_is_refused(self, operator: Operator, cursor: str) -> None:
        key = await operator.list_of(f"cursor-{os.urandom(4).hex()}")
        for path in ("/overrides", "/versions", f"/lists/{key}/entries"):
            answer = await operator.ask("GET", f"{path}?cursor={cursor}")
            assert answer.status in (200, 400, 422), path
            if answer.status == 200:
                assert path.endswith("/entries")  # any text is a place in a list

    @pytest.mark.parametrize(
        "change",
        [
            {"name": "Zeichen ä"},
            {"name": "name\n"},
            {"name": ""},
            {"name": "x" * 81},
            {"expression": ""},
            {"expression": "\u0000"},
            {"description": "x" * 501},
            {"action": "erase"},
            {"mode": 17},
            {"priority": -1},
            {"expected_version": -1},
            {"expected_version": 2**63},
            {"expires_at": "soon"},
            {"unknown": 1},
        ],
    )
    async def test_a_rule_that_is_none_is_refused(self, operator: Operator, change: dict[str, object]) -> None:
        answer = await operator.ask("POST", "/rules", json={**BLOCK, **change})
        assert answer.status in (400, 422)

    @pytest.mark.parametrize(
        ("expression", "words"),
        [
            ("request.path ==", "at 16: the end was not expected here"),
            ("(" * 4_000, "at 33: an expression has 32 levels at most"),
            ("request.path == 'a' || " * 200 + "true", "at most 4096 characters"),
            ("request.no_such_field == 1", "at 1: there is no field request.no_such_field"),
            ("request.path.matches('(')", "at 22: the pattern is refused: missing )"),
            ("request.path.matches('(a?){1000}')", TOO_LARGE),
            ("request.path.matches('((a{10}){10}){10}')", TOO_LARGE),
        ],
        ids=["no end", "deep", "long", "an unknown field", "no pattern", "a large pattern", "a nested pattern"],
    )
    async def test_an_expression_that_is_none_is_refused_with_what_is_wrong(
        self, operator: Operator, expression: str, words: str
    ) -> None:
        before = await operator.version()
        answer = await operator.ask("POST", "/rules", json={**BLOCK, "name": "bad", "expression": expression})
        assert answer.status == 422
        assert words in answer.json["errors"][0]["detail"]
        tried = await operator.ask("POST", "/back_test", json={"expression": expression})
        assert (tried.status, tried.reason) == (422, answer.reason)
        assert await operator.version() == before

    @pytest.mark.case("edge-13")
    async def test_a_pattern_that_would_go_back_for_ever_slows_nobody(self, operator: Operator) -> None:
        hostile = "request.query.matches('^(a+)+$') || request.query.matches('(.*a){20}$')"
        rule = {"name": "hostile", "expression": hostile, "action": "block", "mode": "enforce"}
        made = await operator.done("POST", "/rules", json=rule)
        newest = await operator.version()
        gateway = operator.gateway
        await until(lambda: gateway.metric("gatefold_gateway_bundle_version") == newest)
        blocked = await gateway.ask("GET", f"/v1/offers?{'a' * 7_000}", credential=SECRET_KEY)
        assert (blocked.status, blocked.reason) == (403, "firewall_blocked")
        passed = await gateway.ask("GET", f"/v1/offers?{'a' * 7_000}!", credential=SECRET_KEY)
        assert passed.status != 403
        assert (await gateway.ask("GET", "/v1/offers", credential=SECRET_KEY)).status == 200
        await operator.done("POST", "/back_test", json={"expression": hostile})
        await operator.done("DELETE", f"/rules/{made['id']}")

    async def test_numbers_beyond_all_bounds_are_refused(self, operator: Operator) -> None:
        for body in (
            {"amount": 0, "seconds": 60},
            {"amount": 2**40, "seconds": 60},
            {"amount": 1, "seconds": 2_678_401},
        ):
            answer = await operator.ask("PUT", "/quotas", json={"name": "read.person", **body})
            assert (answer.status, answer.reason) == (422, "request_invalid")
        for path in (
            "/quota?name=READ.person",
            "/quota?name=read",
            "/quota",
            "/versions/0",
            "/versions/x",
            f"/versions/{2**63}",
        ):
            assert (await operator.ask("GET", path)).status in (400, 404, 422)
