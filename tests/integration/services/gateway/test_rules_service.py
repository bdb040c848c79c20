"""Operators change what gateways enforce: rules, lists, quotas; every change is a version, and any can come back."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infra.local.valkey import ValkeyServer
from tests.support.operator import BLOCK, Operator, running_operator
from tests.support.stores import TestPostgres


@pytest.fixture(scope="module")
async def shared(
    run_directory: Path, valkey_server: ValkeyServer, postgres_server: TestPostgres
) -> AsyncIterator[Operator]:
    """One gateway for the module; each test makes things of its own names."""
    database = await postgres_server.service_database("gateway")
    async with running_operator(run_directory, valkey_server.url(), postgres_server, database) as operator:
        yield operator


@pytest.fixture
def operator(shared: Operator) -> Operator:
    return shared


class TestRules:
    async def test_a_rule_begins_in_shadow_and_is_read_again(self, operator: Operator) -> None:
        made = await operator.done("POST", "/rules", json={**BLOCK, "name": "first", "owner": "edge team"})
        assert made["mode"] == "shadow"
        assert made["priority"] == 1000
        assert made["changed_in"] == await operator.version()
        assert await operator.done("GET", f"/rules/{made['id']}") == made

    async def test_rules_are_listed_in_the_order_they_are_looked_at(self, operator: Operator) -> None:
        for name, priority in (("late", 900_000), ("early", 1), ("middle", 500)):
            await operator.done("POST", "/rules", json={**BLOCK, "name": name, "priority": priority})
        names = [rule["name"] for rule in (await operator.done("GET", "/rules"))["data"]]
        assert names.index("early") < names.index("middle") < names.index("late")

    async def test_a_rule_is_replaced_switched_and_removed(self, operator: Operator) -> None:
        made = await operator.done("POST", "/rules", json={**BLOCK, "name": "changing"})
        path = f"/rules/{made['id']}"
        changed = await operator.done("PUT", path, json={**BLOCK, "name": "changed", "action": "challenge"})
        assert (changed["name"], changed["action"]) == ("changed", "challenge")
        assert changed["created_at"] == made["created_at"]
        assert (await operator.done("POST", f"{path}/mode", json={"mode": "enforce"}))["mode"] == "enforce"
        before = await operator.version()
        assert await operator.done("DELETE", path) == {"version": before + 1}
        gone = await operator.ask("GET", path)
        assert (gone.status, gone.reason) == (404, "rule_not_found")

    async def test_what_no_rule_can_be_is_refused_and_makes_no_version(self, operator: Operator) -> None:
        await operator.done("POST", "/rules", json={**BLOCK, "name": "taken"})
        before = await operator.version()
        for change, status, reason in (
            ({"name": "taken"}, 409, "name_taken"),
            ({"action": "tag"}, 422, "rule_parameter"),
            ({"parameter": "x"}, 422, "rule_parameter"),
            ({"expires_at": "2001-01-01T00:00:00Z"}, 422, "end_past"),
            ({"name": "Not A Name"}, 422, "request_invalid"),
            ({"expression": "x" * 4097}, 422, "request_invalid"),
            ({"action": None}, 422, "request_invalid"),
            ({"priority": 1_000_001}, 422, "request_invalid"),
        ):
            answer = await operator.ask("POST", "/rules", json={**BLOCK, "name": "refused", **change})
            assert (answer.status, answer.reason) == (status, reason), change
        assert await operator.version() == before


class TestConcurrency:
    async def test_of_two_operators_who_read_the_same_version_one_is_refused(self, operator: Operator) -> None:
        made = await operator.done("POST", "/rules", json={**BLOCK, "name": "contested"})
        path, read = f"/rules/{made['id']}", await operator.version()
        first = await operator.ask("PUT", path, json={**BLOCK, "name": "mine", "expected_version": read})
        second = await operator.ask("PUT", path, json={**BLOCK, "name": "yours", "expected_version": read})
        assert first.status == 200
        assert (second.status, second.reason) == (409, "firewall_changed")
        assert (await operator.done("GET", path))["name"] == "mine"

    async def test_a_repeated_key_makes_one_rule(self, operator: Operator) -> None:
        wanted = {**BLOCK, "name": "once"}
        made = await operator.done("POST", "/rules", key="the-same", json=wanted)
        version = await operator.version()
        assert await operator.done("POST", "/rules", key="the-same", json=wanted) == made
        assert await operator.version() == version
        other = await operator.ask("POST", "/rules", key="the-same", json={**wanted, "name": "twice"})
        assert (other.status, other.reason) == (422, "idempotency_key_reused")
