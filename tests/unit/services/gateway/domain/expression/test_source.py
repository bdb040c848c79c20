"""Compiled rules against the Rust implementation of CEL: the same result, and the same failures."""

from functools import cache
from typing import Any

import cel
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from libs.patterns import Patterns
from services.gateway.domain.expression import Node, Schema, check, parse
from services.gateway.domain.expression.index import FieldIndex, hints, indexed
from services.gateway.domain.expression.source import FAILED, Source
from services.gateway.domain.firewall import Facts

ENGINE = Patterns()
SCHEMA = Schema()
WORDS = ["", "a", "ab", "/a", "b/", "GET", "POST", "é", "x-y", "accept", "<'\"\\>"]
NUMBERS = [0, 1, -1, 2, -2, 3, 7, 10, 2**31, 2**62, 2**63 - 1, -(2**63), -(2**63) + 1]
TEXT_FIELDS = ["request.method", "request.path", "request.query", "request.user_agent", "caller.kind"]
INT_FIELDS = ["request.size", "client.asn"]
PATTERNS = ["a", "^/a", "b/?$", "(?i)GET|post", "[^a]+x", "é", "^$", "a{2,3}|(ab)*"]
KEYS = ["accept", "x-y", "a"]


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def joined(form: str) -> Any:
    return lambda parts: form.format(*parts)


def listed(of: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(of, max_size=5).map(lambda parts: f"[{', '.join(parts)}]")


@cache
def texts(levels: int) -> st.SearchStrategy[str]:
    plain = [
        st.sampled_from(WORDS).map(quoted),
        st.sampled_from(TEXT_FIELDS),
        st.sampled_from(KEYS).map(lambda key: f"request.headers[{quoted(key)}]"),
        st.just("request.headers.accept"),
    ]
    if not levels:
        return st.one_of(plain)
    part = texts(levels - 1)
    return st.one_of(
        *plain,
        st.tuples(part, part).map(joined("({} + {})")),
        st.tuples(conditions(levels - 1), part, part).map(joined("({} ? {} : {})")),
    )


@cache
def numbers(levels: int) -> st.SearchStrategy[str]:
    plain = [
        st.sampled_from(NUMBERS).map(str),
        st.sampled_from(INT_FIELDS),
        # Of other texts the other implementation counts bytes, where CEL's definition says characters.
        st.sampled_from(["size('')", "size('ab')", "tags.size()", "size([1, 2])", "size(request.headers)"]),
    ]
    if not levels:
        return st.one_of(plain)
    part = numbers(levels - 1)
    return st.one_of(
        *plain,
        st.tuples(part, st.sampled_from("+-*/%"), part).map(joined("({} {} {})")),
        part.map(lambda part: f"(-({part}))"),
    )


ORDERS = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])


@cache
def conditions(levels: int) -> st.SearchStrategy[str]:
    text, number = texts(min(levels, 2)), numbers(min(levels, 2))
    plain = [
        st.sampled_from(["true", "false", "client.verified_crawler"]),
        st.tuples(number, ORDERS, number).map(joined("{} {} {}")),
        st.tuples(text, ORDERS, text).map(joined("{} {} {}")),
        st.tuples(text, st.sampled_from(["startsWith", "endsWith", "contains"]), text).map(joined("{}.{}({})")),
        st.tuples(text, st.sampled_from(PATTERNS).map(quoted)).map(joined("{}.matches({})")),
        st.tuples(text, listed(text)).map(joined("{} in {}")),
        st.tuples(number, listed(number)).map(joined("{} in {}")),
        st.tuples(text, st.sampled_from(["tags", "verdict.reasons"])).map(joined("{} in {}")),
        st.sampled_from(KEYS).map(lambda key: f"{quoted(key)} in request.headers"),
        st.just("has(request.headers.accept)"),
        st.tuples(listed(text), st.sampled_from(["==", "!="]), st.just("tags")).map(joined("{} {} {}")),
    ]
    if not levels:
        return st.one_of(plain)
    part = conditions(levels - 1)
    several = st.lists(part, min_size=2, max_size=4)
    return st.one_of(
        *plain,
        part.map(lambda part: f"!({part})"),
        several.map(lambda parts: " && ".join(f"({part})" for part in parts)),
        several.map(lambda parts: " || ".join(f"({part})" for part in parts)),
        st.tuples(part, part, part).map(joined("({} ? {} : {})")),
    )


words = st.sampled_from(WORDS)
contexts = st.builds(
    Facts,
    client_asn=st.sampled_from(NUMBERS),
    client_verified_crawler=st.booleans(),
    request_method=words,
    request_path=words,
    request_query=words,
    request_headers=st.dictionaries(st.sampled_from(KEYS), words),
    request_user_agent=words,
    request_size=st.sampled_from(NUMBERS),
    tags=st.lists(words, max_size=2).map(tuple),
    verdict_reasons=st.lists(words, max_size=2).map(tuple),
    caller_kind=words,
)


def pattern_tester(node: Node) -> Any:
    return ENGINE.one(str(node.value))


def compiled(node: Node) -> Any:
    source = Source(pattern_tester)
    made: dict[str, Any] = source.names
    exec(f"def rule(f): return {source.of(node)}", made)
    return made["rule"]


def as_context(facts: Facts) -> dict[str, Any]:
    return {
        "client": {"asn": facts.client_asn, "verified_crawler": facts.client_verified_crawler},
        "request": {
            "method": facts.request_method,
            "path": facts.request_path,
            "query": facts.request_query,
            "headers": dict(facts.request_headers),
            "user_agent": facts.request_user_agent,
            "size": facts.request_size,
        },
        "tags": list(facts.tags),
        "verdict": {"reasons": list(facts.verdict_reasons)},
        "caller": {"kind": facts.caller_kind},
    }


def theirs(text: str, facts: Facts) -> object:
    try:
        # The smallest number has no negative; there the other implementation errs, but not where it multiplies.
        return cel.evaluate(text.replace("(-(", "(-1 * ("), as_context(facts))
    except (ArithmeticError, KeyError):
        # No such key, overflow, division by zero; anything else would be a mistake in the test.
        return FAILED


@pytest.mark.case("edge-8")
@settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=conditions(3), facts=contexts)
@example('request.headers["a"] == "a" || true', Facts())
@example("1 / 0 == 1 && false", Facts())
@example("1 / 0 == 1 || 1 == 2", Facts())
@example("!(1 % 0 == 1) || request.size == 0", Facts())
@example("-9223372036854775808 / -1 == 1 ? true : false", Facts())
@example("-9223372036854775808 % -1 == 0", Facts())
@example("-7 / 2 == -3 && -7 % 2 == -1 && 7 % -2 == 1", Facts())
@example('"" in tags == false', Facts())
@example("(-(request.size)) == 1 || false", Facts(request_size=-(2**63)))
def test_rules_mean_what_they_mean_in_cel(text: str, facts: Facts) -> None:
    node = check(parse(text), SCHEMA, ENGINE)

    ours = compiled(node)(facts)

    assert ours is theirs(text, facts)


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=conditions(3), facts=contexts)
@example('request.path == "a" && 1 / 0 == 1', Facts(request_path="b"))
def test_a_rule_that_its_hints_rule_out_is_false_and_does_not_fail(text: str, facts: Facts) -> None:
    node = check(parse(text), SCHEMA, ENGINE)
    found = hints(node)
    if found is None:
        return
    indexes, tags = indexed([(1, found)], ENGINE, 2, pattern_tester)
    marks = 0
    for field, index in indexes.items():
        index.ready()
        value = getattr(facts, field.attribute)
        assert index.marks(value) == index.remember(value) == index.kept[value] == by_lines(index, field, facts)
        marks |= index.marks(value)
    for tag in facts.tags:
        marks |= tags.get(tag, 0)

    if not marks & 1:
        assert compiled(node)(facts) is False


def by_lines(index: FieldIndex, field: Any, facts: Facts) -> int:
    source = Source(pattern_tester)
    lines = ["def marks(f):", " m = 2", *index.lines(source, field), " return m"]
    made: dict[str, Any] = source.names
    exec("\n".join(lines), made)
    found: int = made["marks"](facts)
    return found


def test_the_deepest_rule_can_be_compiled() -> None:
    for text in (
        "request.size " + "/ 1 " * 29 + "== 1",
        "(request.headers['a'] == 'a' ? " * 14 + "true" + " : false)" * 14,
        "!(1 / request.size == 1 && " * 14 + "true" + ")" * 14,
        "true ? true : " * 15 + "1 / request.size == 1",
    ):
        assert compiled(check(parse(text), SCHEMA, ENGINE))(Facts(request_size=1)) in (True, False, FAILED)
