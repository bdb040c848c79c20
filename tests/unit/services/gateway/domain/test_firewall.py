"""What follows from a bundle for a request: order, actions, shadow, expiry, lists that allow, counters."""

from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.errors import GatefoldError
from libs.patterns import Patterns
from services.gateway.domain.bundle import Action, Bundle, EntryList, ListKind, Mode, Rule
from services.gateway.domain.expression import FIELDS
from services.gateway.domain.firewall import (
    MOST_RULES,
    PASSED,
    Facts,
    Outcome,
    Phase,
    Ruleset,
    check_expression,
    compile_bundle,
)

ENGINE = Patterns()
NOW = 1_000.0
BEFORE, AFTER = Phase.BEFORE, Phase.AFTER


def rule(number: int, expression: str, action: Action = Action.BLOCK, **rest: Any) -> Rule:
    return Rule(UUID(int=number), f"rule {number}", expression, action, **{"mode": Mode.ENFORCE, **rest})


def listed(name: str, kind: ListKind, *entries: str, allows: bool = False, until: float | None = None) -> EntryList:
    end = None if until is None else datetime.fromtimestamp(until, UTC)
    return EntryList(UUID(int=99), name, kind, allows, tuple((entry, end) for entry in entries))


def made(*rules: Rule, lists: tuple[EntryList, ...] = ()) -> Ruleset:
    return compile_bundle(Bundle(7, rules, lists), ENGINE)


def judged(rules: Ruleset, phase: Phase = BEFORE, now: float = NOW, **facts: Any) -> Outcome:
    return rules.judge(Facts(**facts), phase, now)


def refused(bundle: Bundle, **rest: Any) -> list[tuple[str, str]]:
    with pytest.raises(GatefoldError) as raised:
        compile_bundle(bundle, ENGINE, **rest)
    assert raised.value.reason == "rules_invalid"
    return [(violation.field, violation.detail) for violation in raised.value.violations]


def test_nothing_matches_nothing() -> None:
    assert judged(made()) is PASSED
    assert judged(made(rule(1, 'request.path == "/x"'))) is PASSED


def test_rules_are_looked_at_by_priority_then_age() -> None:
    rules = made(
        rule(3, "true", Action.LOG, priority=5), rule(2, "true", Action.LOG), rule(1, "request.size < 1", Action.LOG)
    )

    assert judged(rules).matched == (UUID(int=3), UUID(int=1), UUID(int=2))


def test_a_block_ends_it_and_a_challenge_does_not() -> None:
    rules = made(
        rule(1, "true", Action.CHALLENGE),
        rule(2, "true", Action.CHALLENGE),
        rule(3, 'request.path.startsWith("/a")'),
        rule(4, "true", Action.LOG),
    )

    assert judged(rules) == Outcome(Action.CHALLENGE, UUID(int=1), matched=(UUID(int=1), UUID(int=2), UUID(int=4)))
    assert judged(rules, request_path="/ab") == Outcome(
        Action.BLOCK, UUID(int=3), ends=True, matched=(UUID(int=1), UUID(int=2), UUID(int=3))
    )


def test_a_skip_ends_it_in_both_phases() -> None:
    rules = made(rule(1, "true", Action.SKIP), rule(2, "true"), rule(3, 'caller.kind == "X"'))

    assert judged(rules) == Outcome(ends=True, matched=(UUID(int=1),))


def test_tags_are_read_by_later_rules_of_both_phases() -> None:
    rules = made(
        rule(1, '"seen" in tags', Action.LOG),
        rule(2, "request.size == 3", Action.TAG, parameter="seen"),
        rule(3, '"seen" in tags', Action.LOG),
        rule(4, "size(tags) == 1", Action.LOG),
        rule(5, '"seen" in tags && caller.kind == "X"'),
    )
    facts = Facts(request_size=3, caller_kind="X")

    assert rules.judge(facts, BEFORE, NOW).matched == (UUID(int=2), UUID(int=3), UUID(int=4))
    assert facts.tags == ("seen",)
    assert rules.judge(facts, AFTER, NOW).action is Action.BLOCK
    assert judged(rules, AFTER, caller_kind="X") is PASSED


def test_rules_of_callers_wait_until_the_caller_is_known() -> None:
    rules = made(rule(1, 'caller.account == "acct_1" || request.size == 9'))

    assert judged(rules, request_size=9) is PASSED
    assert judged(rules, AFTER, request_size=9).rule == UUID(int=1)
    assert check_expression("caller.kind == 'x'", {}, ENGINE) is AFTER
    assert check_expression("in_list(client.country, 'a')", {"a": ListKind.COUNTRIES}, ENGINE) is BEFORE


def test_a_rate_names_its_classes() -> None:
    rules = made(
        rule(1, "true", Action.RATE, parameter="strict"), rule(2, "request.size < 5", Action.RATE, parameter="bulk")
    )

    assert judged(rules).rates == ("strict", "bulk")


def test_a_shadow_rule_is_counted_and_nothing_else() -> None:
    rules = made(
        rule(1, "true", Action.TAG, parameter="a", mode=Mode.SHADOW),
        rule(2, "request.size == 0", mode=Mode.SHADOW),
        rule(3, '"a" in tags'),
        rule(4, "true", mode=Mode.OFF),
    )

    assert judged(rules) == Outcome(shadow=(UUID(int=1), UUID(int=2)))
    assert rules.counters() == {UUID(int=1): (1, 0), UUID(int=2): (1, 0), UUID(int=3): (0, 0)}


def test_what_fails_does_not_match_and_is_counted() -> None:
    rules = made(
        rule(1, 'request.headers["x"] == "y"'),
        rule(2, "!(1 / request.size == 1)"),
        rule(3, "1 / request.size == 1 || request.method == 'GET'", Action.LOG),
        rule(4, "request.path == '/x' && 1 / request.size == 1"),
    )

    assert judged(rules).matched == (UUID(int=3),)
    judged(rules, request_headers={"x": "y"})
    assert rules.counters() == {
        UUID(int=1): (1, 1),
        UUID(int=2): (0, 1),
        UUID(int=3): (1, 0),
        UUID(int=4): (0, 0),
    }


def test_a_rule_ends_when_it_is_said_to() -> None:
    rules = made(rule(1, "true", expires_at=datetime.fromtimestamp(NOW, UTC)))

    assert judged(rules, now=NOW - 1).action is Action.BLOCK
    assert judged(rules, now=NOW) is PASSED


def test_lists_are_asked_by_kind_and_their_entries_end() -> None:
    lists = (
        listed("nets", ListKind.NETWORKS, "192.0.2.0/24", "2001:db8::/32", until=NOW),
        listed("lands", ListKind.COUNTRIES, "DE", until=NOW + 1),
        listed("hosts", ListKind.ASNS, "64500"),
        listed("bots", ListKind.USER_AGENTS, "sqlmap", until=NOW + 2),
        listed("mails", ListKind.EMAIL_DOMAINS, "mail.example"),
    )
    rules = made(
        rule(1, 'in_list(client.address, "nets")', Action.LOG),
        rule(2, 'in_list(client.country, "lands")', Action.LOG),
        rule(3, 'in_list(client.asn, "hosts")', Action.LOG),
        rule(4, 'in_list(request.user_agent, "bots")', Action.LOG),
        rule(5, 'in_list(request.headers["mail"], "mails")', Action.LOG),
        rule(6, 'in_cidr(client.address, "192.0.2.0/31") && !in_list(client.country, "lands")', Action.LOG),
        lists=lists,
    )
    facts: Any = {
        "client_address": "192.0.2.1",
        "client_country": "DE",
        "client_asn": 64500,
        "request_user_agent": "SQLMap/1",
        "request_headers": {"mail": "a@mail.example"},
    }

    def found(now: float) -> list[int]:
        return [one.int for one in judged(rules, now=now, **facts).matched]

    assert judged(rules, client_address="2001:db8::5", now=0).matched == (UUID(int=1),)
    assert found(NOW - 1) == [1, 2, 3, 4, 5]
    assert found(NOW) == [2, 3, 4, 5]
    assert found(NOW + 1) == [3, 4, 5, 6]
    assert found(NOW + 2) == [3, 5, 6]
    assert judged(rules, client_address="") == PASSED


@pytest.mark.parametrize(
    ("entries", "facts"),
    [
        (listed("ours", ListKind.NETWORKS, "192.0.2.0/24", allows=True), {"client_address": "192.0.2.9"}),
        (listed("ours", ListKind.ASNS, "64500", allows=True), {"client_asn": 64500}),
        (listed("ours", ListKind.COUNTRIES, "DE", allows=True), {"client_country": "DE"}),
        (listed("ours", ListKind.USER_AGENTS, "monitor", allows=True), {"request_user_agent": "Our-Monitor/1"}),
    ],
)
def test_who_is_on_a_list_that_allows_passes_every_rule(entries: EntryList, facts: dict[str, Any]) -> None:
    rules = made(rule(1, "true"), rule(2, 'client.address == "192.0.2.9"'), lists=(entries,))

    assert judged(rules, **facts) == Outcome(allowed=True, ends=True)
    assert judged(rules).action is Action.BLOCK
    assert rules.counters()[UUID(int=1)] == (1, 0)


@pytest.mark.case("edge-10")
def test_a_bad_bundle_is_refused_whole_with_all_that_is_wrong() -> None:
    good = rule(1, "true")
    found = refused(
        Bundle(
            1,
            (
                good,
                rule(2, "request.pth == 'a'"),
                rule(3, "true", Action.TAG),
                rule(4, "in_list(client.address, 'gone')", mode=Mode.OFF),
                rule(5, "true", Action.RATE, parameter="a b"),
            ),
            (listed("mails", ListKind.EMAIL_DOMAINS, "a.example", allows=True), listed("mails", ListKind.ASNS)),
        )
    )

    assert [where for where, _ in found] == [
        "lists",
        "lists[0].allows",
        "rules[1].expression",
        "rules[2].parameter",
        "rules[3].expression",
        "rules[4].parameter",
    ]
    assert "'rule 2': at 1: there is no field request.pth" in dict(found)["rules[1].expression"]
    assert refused(Bundle(1, (), (listed("n", ListKind.NETWORKS, "10.0.0.1/8"),)))[0][0] == "lists[0].entries"


def test_bundles_are_bounded() -> None:
    many = tuple(rule(number, "true") for number in range(MOST_RULES + 1))
    costly = " || ".join(["request.path.matches('a')"] * 30)

    assert refused(Bundle(1, many)) == [("rules", "There are 1,000 rules at most.")]
    assert refused(Bundle(1, tuple(rule(number, costly) for number in range(60))))[0][0] == "rules"
    big = listed("n", ListKind.NETWORKS, "10.0.0.1", "10.0.0.2", "10.0.0.3")
    assert refused(Bundle(1, (), (big,)), most_entries=2) == [("lists", "All lists together have 2 entries at most.")]
    agents = listed("a", ListKind.USER_AGENTS, *(f"agent{number}" for number in range(2_001)))
    assert refused(Bundle(1, (), (agents,)))[0][0] == "lists[0].entries"
    assert refused(Bundle(1, (), tuple(replace(big, name=str(number)) for number in range(101))))[0][0] == "lists"


def test_facts_are_the_fields() -> None:
    assert {field.attribute for field in FIELDS} == {field.name for field in fields(Facts)}


PARTS = [
    'request.path == "/a"',
    'request.path.startsWith("/a")',
    'request.path.endsWith("b")',
    'request.path.contains("a")',
    'request.path.contains("b")',
    'request.path.contains("/")',
    'request.path.matches("^/[ab]+$")',
    'request.path.matches("bb")',
    'request.user_agent.matches("(?i)bot")',
    'request.method in ["GET", "PUT"]',
    'in_cidr(client.address, "192.0.2.0/25")',
    'client.address == "192.0.2.200"',
    'in_list(client.address, "nets")',
    'in_list(client.country, "lands")',
    'request.headers["a"] == "a"',
    "request.size / request.size == 1",
    '"t" in tags',
    'request.route != ""',
    "client.verified_crawler",
]


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(
            st.recursive(
                st.sampled_from(PARTS),
                lambda part: st.one_of(
                    st.tuples(part, st.sampled_from(["&&", "||"]), part).map(lambda it: f"({it[0]} {it[1]} {it[2]})"),
                    part.map(lambda one: f"!({one})"),
                ),
                max_leaves=4,
            ),
            st.sampled_from([Action.LOG, Action.LOG, Action.TAG]),
        ),
        min_size=1,
        max_size=12,
    ),
    st.lists(
        st.builds(
            Facts,
            client_address=st.sampled_from(["", "192.0.2.1", "192.0.2.200", "2001:db8::1"]),
            client_country=st.sampled_from(["", "DE"]),
            client_verified_crawler=st.booleans(),
            request_method=st.sampled_from(["GET", "POST"]),
            request_path=st.sampled_from(["/", "/a", "/ab", "/abb", "b"]),
            request_user_agent=st.sampled_from(["", "Robot"]),
            request_headers=st.sampled_from([{}, {"a": "a"}]),
            request_size=st.integers(0, 1),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_together_rules_find_what_each_finds_alone(written: list[tuple[str, Action]], asked: list[Facts]) -> None:
    lists = (listed("nets", ListKind.NETWORKS, "192.0.2.128/25"), listed("lands", ListKind.COUNTRIES, "DE"))
    rules = [
        rule(number, text, action, parameter="t" if action is Action.TAG else "")
        for number, (text, action) in enumerate(written, 1)
    ]
    together = made(*rules, lists=lists)
    alone = [made(one, lists=lists) for one in rules]

    for facts in asked:
        expected: list[UUID] = []
        one_by_one = replace(facts)
        for one, single in zip(rules, alone, strict=True):
            # The rule's own function, without whatever decides that it need not be asked.
            if single._phases[BEFORE.value].tests[0](one_by_one) is True:
                expected.append(one.id)
                if one.action is Action.TAG:
                    one_by_one.tags = ("t",)
        assert together.judge(facts, BEFORE, NOW).matched == tuple(expected)
        assert facts.tags == one_by_one.tags
