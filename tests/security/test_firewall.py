"""Attacks on the firewall by those who write rules, and by those whom rules are about."""

import builtins
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.errors import GatefoldError
from libs.patterns import LARGEST, Patterns
from services.gateway.domain.bundle import Action, Bundle, EntryList, ListKind, Mode, Rule
from services.gateway.domain.firewall import Facts, Outcome, Phase, compile_bundle

ENGINE = Patterns()
HOSTILE = [
    '"); import os; os.abort() #',
    "'); raise SystemExit #",
    '""" + __import__("os").abort() + """',
    "\\",
    '\\"',
    "{f.__class__.__mro__}",
    "%s%n\x00",
    "\n def r0(f): return True\n",
    "k1",
    "é\U0001f600",
]


def quoted(text: str) -> str:
    return '"' + "".join(f"\\U{ord(character):08x}" for character in text) + '"'


def judged(expression: str, lists: tuple[EntryList, ...] = (), **facts: Any) -> Outcome:
    rules = (Rule(UUID(int=1), "hostile", expression, Action.BLOCK, mode=Mode.ENFORCE),)
    return compile_bundle(Bundle(1, rules, lists), ENGINE).judge(Facts(**facts), Phase.BEFORE, 0.0)


def taken(expression: str) -> Outcome | None:
    """Returns what follows from a rule; nothing where it is refused as it should be, and raises all else."""
    try:
        return judged(expression)
    except GatefoldError as error:
        if error.reason != "rules_invalid":
            raise
        return None


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_of_rules_are_never_code(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    original = builtins.compile

    def noted(source: Any, *rest: Any, **more: Any) -> Any:
        if rest[:1] == ("<rules>",):
            compiled.append(source)
        return original(source, *rest, **more)

    monkeypatch.setattr(builtins, "compile", noted)
    literal = quoted(text)
    for expression in (
        f"request.query == {literal}",
        f"request.query in [{literal}, 'b', 'c', 'd', 'e']",
        f"request.query.startsWith({literal}) && request.query.endsWith({literal})",
        f"request.query.contains({literal}) && size(request.query + {literal}) > 0",
        f"!(request.query != {literal})",
        f"in_list(request.user_agent, {literal})",
        f"{literal} in request.headers || request.query == {literal}"
        if text == "k1"
        else f"{literal} == request.query",
    ):
        lists = (EntryList(UUID(int=2), text, ListKind.USER_AGENTS, entries=(("agent", None),)),)
        assert judged(expression, lists, request_query=text, request_user_agent="agent").action is Action.BLOCK
        assert judged(expression, lists, request_query="other").action is None
    assert compiled
    # Whatever a rule says, what is compiled is the same but for names and numbers of our own.
    assert not [source for source in compiled if text != "k1" and (text in source or repr(text)[1:-1] in source)]
    assert all(source.isascii() and '"' not in source and "'" not in source for source in compiled)


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').abort() == 1",
        "f.__class__ == 'a'",
        "request.__class__ == 'a'",
        "request.path.__len__() > 0",
        "request.path.format(request) == 'a'",
        "(lambda: true)()",
        "[x for x in tags] == []",
        "k0 == k1",
        "E",
        "plus(1, 2) == 3",
        "request.headers.__class__ == 'a'",
        "request.headers.get('a') == 'a'",
        "true\nimport os",
        "true if true else false",
        "client.address == client.address; exit()",
        "exec('1') == 1",
    ],
)
def test_nothing_of_python_can_be_reached(expression: str) -> None:
    outcome = taken(expression)

    # A header may be called anything; there is none of that name.
    assert (outcome is not None) == expression.startswith("request.headers.__class__")
    assert outcome is None or outcome.action is None


@settings(max_examples=400, deadline=None)
@given(st.text(alphabet="()[]{}.,!&|=<>+-*/%?:'\"\\ \n\tabrx01_é\x00\ud800", max_size=60))
def test_whatever_is_written_is_taken_or_refused(text: str) -> None:
    taken(text)


@pytest.mark.case("edge-13")
@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        # Each takes a backtracking engine longer than the universe has existed.
        ("^(a+)+$", "a" * 8_000 + "!"),
        ("(a|aa)+$", "a" * 8_000 + "!"),
        ("(.*a){20}$", "a" * 8_000 + "!"),
        ("^(([a-z])+.)+[A-Z]([a-z])+$", "a" * 8_000),
        ("(x+x+)+y", "x" * 8_000),
    ],
)
def test_no_pattern_goes_back(pattern: str, text: str) -> None:
    assert judged(f"request.query.matches({quoted(pattern)})", request_query=text).action is None
    assert judged(f"!request.query.matches({quoted(pattern)})", request_query=text).action is Action.BLOCK


@pytest.mark.case("edge-13")
def test_no_pattern_is_larger_than_it_looks() -> None:
    for pattern in ("(a?){1000}", "((a{10}){10}){10}", r"\\pL{200}", "[^x]{900}y", f"a{{{LARGEST}}}b{{9}}"):
        with pytest.raises(GatefoldError, match="rules_invalid"):
            judged(f"request.query.matches('{pattern}')")


def test_what_a_client_sends_never_makes_a_rule_raise() -> None:
    expression = " || ".join(
        [
            "request.query.matches('^x+$')",
            "request.headers['a'].matches('y')",
            "in_cidr(client.address, '10.0.0.0/8')",
            "request.user_agent.contains('z')",
            "request.size * request.size < 0",
        ]
    )
    for text in ("\ud800", "\x00", "x" * 100_000, "é" * 5_000):
        outcome = judged(
            expression,
            client_address=text,
            request_query=text,
            request_headers={"a": text},
            request_user_agent=text,
            request_size=2**63 - 1,
        )
        assert outcome.action in (None, Action.BLOCK)


def test_values_that_never_come_again_do_not_pile_up() -> None:
    rules = tuple(
        Rule(UUID(int=number), "r", f"request.user_agent.contains('bot{number}')", Action.BLOCK, mode=Mode.ENFORCE)
        for number in range(5)
    )
    ruleset = compile_bundle(Bundle(1, rules), ENGINE)
    for number in range(10_000):
        ruleset.judge(Facts(request_user_agent=f"agent {number}"), Phase.BEFORE, 0.0)
    for number in range(100):
        ruleset.judge(Facts(request_user_agent=f"{number}" * 8_000), Phase.BEFORE, 0.0)

    kept = ruleset._phases[0].indexes[0].kept
    assert 0 < len(kept) <= 4_096
    assert max(len(str(value)) for value in kept) <= 300
