"""Operators change what gateways enforce: rules, lists, quotas; every change is a version, and any can come back."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infra.local.valkey import ValkeyServer
from libs.ids import encode
from services.gateway.domain.quotas import DEFAULTS
from tests.support.gateway import ACCOUNT, OTHER_ACCOUNT, READER
from tests.support.operator import BLOCK, WIDE, Operator, running_operator
from tests.support.stores import TestPostgres
from tests.support.waiting import until


@pytest.fixture(scope="module")
async def operator(
    run_directory: Path, valkey_server: ValkeyServer, postgres_server: TestPostgres
) -> AsyncIterator[Operator]:
    """One gateway for the module; each test makes things of its own names."""
    database = await postgres_server.service_database("gateway")
    async with running_operator(run_directory, valkey_server.url(), postgres_server, database) as operator:
        yield operator


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
            ({"name": " Not A Name"}, 422, "request_invalid"),
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


class TestLists:
    async def test_entries_are_kept_in_one_form_and_in_order(self, operator: Operator) -> None:
        key = await operator.list_of("forms")
        wanted = ["2001:DB8:0::/48", "192.0.2.7", "192.0.2.7/32", "10.0.0.0/8"]
        held = await operator.done(
            "POST", f"/lists/{key}/entries", json={"entries": [{"text": text} for text in wanted]}
        )
        assert held["size"] == 3
        texts = [entry["text"] for entry in (await operator.done("GET", f"/lists/{key}/entries"))["data"]]
        assert texts == ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/48"]
        left = await operator.done("POST", f"/lists/{key}/remove_entries", json={"texts": ["192.0.2.7", "192.0.2.99"]})
        assert left["size"] == 2

    async def test_entries_are_read_page_by_page(self, operator: Operator) -> None:
        key = await operator.list_of("paged", "asns", "\n".join(str(number) for number in range(64_500, 64_545)))
        found: list[str] = []
        cursor = ""
        while True:
            page = await operator.done("GET", f"/lists/{key}/entries?limit=20&cursor={cursor}")
            found += [entry["text"] for entry in page["data"]]
            cursor = page["next_cursor"]
            if not cursor:
                break
        assert found == [str(number) for number in range(64_500, 64_545)]

    async def test_an_import_takes_ends_comments_and_blank_lines(self, operator: Operator) -> None:
        key = await operator.list_of("imported", "countries")
        lines = "# a comment\r\nfr\r\n\r\nDE 2100-01-31T00:00:00Z # why\r\nFR\r\n"
        answer = await operator.imported(key, lines)
        assert answer.status == 200, answer.body
        assert (answer.json["lines"], answer.json["duplicates"], answer.json["list"]["size"]) == (3, 1, 2)
        entries = (await operator.done("GET", f"/lists/{key}/entries"))["data"]
        assert entries == [
            {"text": "DE", "expires_at": "2100-01-31T00:00:00Z"},
            {"text": "FR", "expires_at": None},
        ]

    async def test_an_import_can_take_the_place_of_all_entries(self, operator: Operator) -> None:
        key = await operator.list_of("replaced", "countries", "FR\nDE\n")
        assert (await operator.imported(key, "IT\n", "?replace=true&expires_in_seconds=3600")).status == 200
        (entry,) = (await operator.done("GET", f"/lists/{key}/entries"))["data"]
        assert entry["text"] == "IT"
        assert entry["expires_at"] is not None

    async def test_lines_that_are_no_entries_are_named_and_nothing_is_changed(self, operator: Operator) -> None:
        key = await operator.list_of("wrong", "networks", "192.0.2.0/24\n")
        before = await operator.version()
        answer = await operator.imported(key, "198.51.100.1/24\n203.0.113.0/24\n0.0.0.0/0\nnonsense\n", "?replace=true")
        assert (answer.status, answer.reason) == (422, "entry_invalid")
        told = [(violation["field"], violation["rule"]) for violation in answer.json["errors"]]
        assert told == [
            ("line 1", "host_bits_set"),
            ("line 3", "network_too_wide"),
            ("line 4", "network_malformed"),
        ]
        assert await operator.version() == before
        assert (await operator.done("GET", f"/lists/{key}"))["size"] == 1

    async def test_a_list_is_described_anew_and_removed(self, operator: Operator) -> None:
        key = await operator.list_of("described")
        said = {"name": "described-anew", "allows": True, "description": "the office"}
        changed = await operator.done("PUT", f"/lists/{key}", json=said)
        assert {name: changed[name] for name in said} == said
        await operator.done("DELETE", f"/lists/{key}")
        gone = await operator.ask("GET", f"/lists/{key}/entries")
        assert (gone.status, gone.reason) == (404, "list_not_found")


class TestQuotas:
    async def test_a_quota_is_set_read_and_taken_back(self, operator: Operator) -> None:
        held = await operator.done("PUT", "/quotas", json={"name": "bulk.server", "amount": 5, "seconds": 60})
        assert (held["amount"], held["seconds"], held["mode"]) == (5, 60, "enforce")
        assert held in (await operator.done("GET", "/quotas"))["data"]
        assert not held["is_default"]
        await operator.done("DELETE", "/quotas?name=bulk.server")
        again = await operator.ask("DELETE", "/quotas?name=bulk.server")
        assert (again.status, again.reason) == (404, "quota_not_found")
        answer = await operator.ask("GET", "/quota?name=rule:nobody.address")
        assert (answer.status, answer.reason) == (404, "quota_not_found")

    async def test_what_holds_without_a_change_is_shown_as_a_default(self, operator: Operator) -> None:
        held = (await operator.done("GET", "/quotas"))["data"]
        assert [quota["name"] for quota in held] == sorted({*DEFAULTS, *(quota["name"] for quota in held)})
        shown = await operator.done("GET", "/quota?name=webhook.person")
        assert shown in held
        assert (shown["amount"], shown["seconds"], shown["mode"]) == (*DEFAULTS["webhook.person"], "enforce")
        assert shown["is_default"]
        told = await operator.done("GET", "/quota?name=bulk.person")
        assert (told["amount"], told["is_default"]) == (json.loads(WIDE)["bulk.person"][0], True)

    async def test_a_quota_that_is_none_is_refused_by_the_check_of_the_whole(self, operator: Operator) -> None:
        before = await operator.version()
        answer = await operator.ask("PUT", "/quotas", json={"name": "read.nobody", "amount": 5, "seconds": 60})
        assert (answer.status, answer.reason) == (422, "quota_unknown")
        assert await operator.version() == before

    async def test_an_account_gets_a_quota_of_its_own(self, operator: Operator) -> None:
        of_account = {"account_id": encode("acct", ACCOUNT), "name": "write.account"}
        wanted = {**of_account, "amount": 9, "seconds": 60, "mode": "shadow"}
        held = await operator.done("PUT", "/overrides", json=wanted)
        assert held["account_id"] == encode("acct", ACCOUNT)
        assert held["quota"]["mode"] == "shadow"
        second = {"account_id": encode("acct", OTHER_ACCOUNT), "name": "read.account", "amount": 1, "seconds": 1}
        await operator.done("PUT", "/overrides", json=second)
        page = await operator.done("GET", "/overrides?limit=1")
        assert page["data"] == [held]
        (other,) = (await operator.done("GET", f"/overrides?limit=1&cursor={page['next_cursor']}"))["data"]
        assert other["account_id"] == encode("acct", OTHER_ACCOUNT)
        assert (await operator.done("GET", f"/overrides?account_id={encode('acct', ACCOUNT)}"))["data"] == [held]
        path = f"/overrides?account_id={encode('acct', ACCOUNT)}&name=write.account"
        await operator.done("DELETE", path)
        answer = await operator.ask("DELETE", path)
        assert (answer.status, answer.reason) == (404, "override_not_found")


class TestVersions:
    async def test_versions_say_who_changed_what(self, operator: Operator) -> None:
        await operator.done("POST", "/rules", json={**BLOCK, "name": "told-of"})
        newest = (await operator.done("GET", "/versions?limit=1"))["data"][0]
        assert newest["number"] == await operator.version()
        assert (newest["change"], newest["about"]) == ("rule.created", "told-of")
        assert newest["made_by"] == encode("per", READER)
        assert newest["kept"] is True

    async def test_numbers_have_no_gap(self, operator: Operator) -> None:
        await operator.done("POST", "/rules", json={**BLOCK, "name": "numbered"})
        await operator.ask("POST", "/rules", json={**BLOCK, "name": "numbered"})
        numbers: list[int] = []
        cursor = ""
        while True:
            page = await operator.done("GET", f"/versions?limit=3&cursor={cursor}")
            numbers += [version["number"] for version in page["data"]]
            cursor = page["next_cursor"]
            if not cursor:
                break
        assert numbers == list(range(numbers[0], 0, -1))

    async def test_a_version_is_brought_back_with_everything_in_it(self, operator: Operator) -> None:
        await operator.done("POST", "/rules", json={**BLOCK, "name": "kept"})
        key = await operator.list_of("kept-list", "networks", "192.0.2.0/24 2100-01-01T00:00:00Z\n198.51.100.0/24\n")
        await operator.done("PUT", "/quotas", json={"name": "webhook.server", "amount": 5, "seconds": 60})
        good = await operator.version()
        before = await operator.done("GET", f"/versions/{good}")
        rules = {rule["name"]: rule["id"] for rule in (await operator.done("GET", "/rules"))["data"]}
        await operator.done("DELETE", f"/rules/{rules['kept']}")
        await operator.done("POST", "/rules", json={**BLOCK, "name": "kept"})
        assert (await operator.imported(key, "203.0.113.0/24\n", "?replace=true")).status == 200
        await operator.done("DELETE", "/quotas?name=webhook.server")
        restored = await operator.done("POST", f"/versions/{good}/restore", json={})
        assert (restored["number"], restored["restored_from"]) == (good + 5, good)
        assert restored["digest"] == before["version"]["digest"]
        after = await operator.done("GET", f"/versions/{restored['number']}")
        assert {**after, "version": None} == {**before, "version": None}
        entries = (await operator.done("GET", f"/lists/{key}/entries"))["data"]
        assert entries == [
            {"text": "192.0.2.0/24", "expires_at": "2100-01-01T00:00:00Z"},
            {"text": "198.51.100.0/24", "expires_at": None},
        ]

    async def test_names_that_were_swapped_are_swapped_back(self, operator: Operator) -> None:
        one = await operator.done("POST", "/rules", json={**BLOCK, "name": "swap-one"})
        two = await operator.done("POST", "/rules", json={**BLOCK, "name": "swap-two"})
        good = await operator.version()
        for key, name in ((one["id"], "swap-three"), (two["id"], "swap-one"), (one["id"], "swap-two")):
            await operator.done("PUT", f"/rules/{key}", json={**BLOCK, "name": name})
        await operator.done("POST", f"/versions/{good}/restore", json={})
        assert (await operator.done("GET", f"/rules/{one['id']}"))["name"] == "swap-one"

    async def test_a_version_that_never_was_cannot_come_back(self, operator: Operator) -> None:
        answer = await operator.ask("POST", "/versions/1000000/restore", json={})
        assert (answer.status, answer.reason) == (404, "version_not_found")


class TestStatus:
    async def test_the_gateway_says_which_version_it_enforces(self, operator: Operator) -> None:
        await operator.done("POST", "/rules", json={**BLOCK, "name": "spread"})
        newest = await operator.version()

        async def settled() -> bool:
            status = await operator.done("GET", "/status")
            return status["settled"] and [gateway["version"] for gateway in status["gateways"]] == [newest]

        await until(settled)
        (gateway,) = (await operator.done("GET", "/status"))["gateways"]
        assert gateway["refused_version"] == 0
        assert gateway["source"] in ("stream", "database")
