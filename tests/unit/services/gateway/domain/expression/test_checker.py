"""The rule language: what is taken, what is refused, and with which words."""

import pytest

from libs.patterns import Patterns
from services.gateway.domain.expression import FIELDS, ExpressionError, Schema, check, parse
from services.gateway.domain.expression.checker import MOST_COST
from services.gateway.domain.expression.parser import DEEPEST, LONGEST

SCHEMA = Schema(
    lists={"bad": "networks", "lands": "countries", "hosts": "asns", "bots": "user_agents", "mails": "email_domains"}
)
ENGINE = Patterns()


def refusal(text: str) -> tuple[int, str]:
    with pytest.raises(ExpressionError) as raised:
        check(parse(text), SCHEMA, ENGINE)
    return raised.value.position, raised.value.message


@pytest.mark.parametrize(
    "text",
    [
        "true",
        'request.path == "/a" && request.method in ["GET", "HEAD",]',
        '!request.path.startsWith("/v1/") || request.size > 1024 * 1024',
        'in_cidr(client.address, "10.0.0.0/8") && !in_list(client.address, "bad")',
        'client.address == "2001:DB8::1" || client.address in ["192.0.2.1"]',
        'in_list(client.country, "lands") || in_list(client.asn, "hosts") || in_list(request.user_agent, "bots")',
        'in_list(request.headers["x-mail"], "mails")',
        'has(request.headers.accept) && request.headers.accept.contains("html")',
        '"x-a" in request.headers && size(request.headers["x-a"]) <= 3 && request.path.size() > 0',
        '"seen" in tags && size(tags) == 1 || tags == [] || tags != ["a"] + ["b"]',
        'verdict.action == "challenge" && "stuffing" in verdict.reasons',
        'caller.kind == "SUBSCRIBER" ? caller.account == "acct_1" : client.verified_crawler',
        r"request.path.matches(r'^/[a-z]+\.php$') || matches(request.path, '(?i)x')",
        "-9223372036854775808 < request.size // a remark\n && 0x10 == 16",
        "'''it's''' == \"it's\" && '\\u00e9\\x41\\101' != ''",
        "1 < 2 == true",
        "--request.size == - - 3 && !!true",
    ],
)
def test_well_formed_rules_are_taken(text: str) -> None:
    check(parse(text), SCHEMA, ENGINE)


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("", 0, "empty"),
        ("request.pth == 'a'", 0, "there is no field request.pth"),
        ("true && request == 'a'", 8, "there is no field request"),
        ("request.path", 8, "a rule is a condition, this is a string"),
        ("request.path == 1", 13, "== does not go with a string and a int"),
        ("request.size < 'a'", 13, "< does not go with"),
        ("'a' + 1 == 'a1'", 4, "+ does not go with"),
        ("request.size && true", 8, "&& joins conditions"),
        ("!request.size", 0, "! is about a bool"),
        ("-request.path == 'a'", 0, "- is about a int"),
        ("request.path.startswith('a')", 13, "there is no function startswith"),
        ("startsWith(request.path, 'a')", 0, "there is no function startsWith"),
        ("request.path.startsWith(1)", 24, "startsWith is about strings"),
        ("request.path.startsWith('a', 'b')", 13, "takes 2 values"),
        ("in_list(client.address, 'none')", 24, "there is no list 'none'"),
        ("in_list(client.country, 'bad')", 15, "which a string cannot be on"),
        ("in_list(client.address, request.path)", 32, "is written in the rule"),
        ("in_cidr(client.address, '10.0.0.1/8')", 24, "the one around it is 10.0.0.0/8"),
        ("in_cidr(client.address, '10.0.0.0/33')", 24, "the prefix is too long"),
        ("in_cidr(request.path, '10.0.0.0/8')", 16, "about an address"),
        ("client.address == '10.0.0.256'", 18, "is no IP address"),
        ("client.address in ['10.0.0.1', 'x']", 18, "is no IP address"),
        ("client.address.startsWith('10.')", 7, "startsWith is about strings"),
        ("request.headers['X-Upper'] == 'a'", 16, "names are in lower case"),
        ("request.headers == request.headers", 16, "== does not go with"),
        ("request.path.length > 1", 13, "request.path is a string, it has no length"),
        ("request.path[0] == 'a'", 12, "has no entries by name"),
        ("has(request.path)", 0, "has takes one entry"),
        ("request.path.matches('(a)\\\\1')", 21, "the pattern is refused: invalid escape sequence"),
        ("request.path.matches('a(?=b)')", 21, "the pattern is refused"),
        ("request.path.matches(request.query)", 29, "a pattern is written in the rule"),
        ("request.path.matches('(a?){400}b')", 21, "too large"),
        ("request.path in ['a', 1]", 22, "a list is of one type"),
        ("request.size in ['a']", 13, "is not looked for in"),
        ("true ? 1 : 'a'", 11, "both sides of :"),
        ("1 == 9223372036854775808", 5, "more than 64 bits"),
        (f"1 == {'9' * 5000}"[:4000], 5, "more than 64 bits"),
        ("1u == 1", 0, "unsigned"),
        ("1.5 == 1", 0, "fraction"),
        ("b'a' == 'a'", 0, "bytes"),
        ("null == 'a'", 0, "there is no null"),
        ("{'a': 1}", 0, "maps cannot be written"),
        ("'abc", 0, "the text does not end"),
        ("'\\q' == ''", 1, "no such escape"),
        ("'\\ud800' == ''", 1, "no such character"),
        ("true &", 5, "'&' means nothing here"),
        ("true true", 5, "'true' was not expected here"),
        ("(true", 5, "the end was not expected here"),
        ("import == 1", 0, "'import' was not expected here"),
        ("request.headers.exists(h, true)", 16, "there is no function exists"),
        ("true; import os", 4, "';' means nothing here"),
    ],
)
def test_everything_else_is_refused_with_its_place(text: str, position: int, words: str) -> None:
    at, said = refusal(text)

    assert words in said
    assert at == position


def test_length_depth_and_cost_are_bounded() -> None:
    assert "characters at most" in refusal("true " + " " * LONGEST)[1]
    for deep in (
        "(" * (DEEPEST + 1) + "true" + ")" * (DEEPEST + 1),
        "!" * (DEEPEST + 1) + "true",
        "1 == " + "-" * (DEEPEST + 1) + "request.size",
        "1 == 1" + " + 1" * DEEPEST,
        "true ? true : " * DEEPEST + "true",
        "size([" * DEEPEST + "1" + "]) == 1",
    ):
        assert "levels at most" in refusal(deep)[1]
    costly = " || ".join(["request.path.matches('a')"] * (MOST_COST // 30))
    assert "is the most" in refusal(costly)[1]


def test_a_chain_is_one_level() -> None:
    assert check(parse(" && ".join(["request.size > 1"] * 200)), SCHEMA, ENGINE).parts[199]


def test_every_field_says_what_it_is() -> None:
    assert all(field.description for field in FIELDS)
    assert len({field.attribute for field in FIELDS}) == len(FIELDS)
