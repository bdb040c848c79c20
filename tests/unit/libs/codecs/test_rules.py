"""The rules of requests: what breaks which, and that everything that breaks is told at once."""

from typing import Any

import pytest
from google.protobuf.message import Message

from libs.codecs import MAX_VIOLATIONS, RequestCodecs, UnsupportedMessageError
from libs.errors import GatefoldError, Kind
from tests.support.messages import compiled, pool_of
from tests.unit.libs.codecs import torture

PARSE = RequestCodecs().parser(torture.message("Ruled"))
TORTURE = RequestCodecs().parser(torture.message("Torture"))
GOOD: dict[str, Any] = {"name": "abc", "tags": ["a"], "part": {"amount": 3}}


def broken(value: object, parse: Any = PARSE) -> list[tuple[str, str]]:
    with pytest.raises(GatefoldError) as caught:
        parse(value)
    assert caught.value.kind is Kind.INVALID
    assert caught.value.reason == "request_invalid"
    assert all(violation.detail.endswith((".", "}", "+")) for violation in caught.value.violations)
    return [(violation.field, violation.rule) for violation in caught.value.violations]


def parsed(**changes: Any) -> Message:
    return PARSE({**GOOD, **changes})


def test_what_keeps_every_rule_is_taken() -> None:
    message: Any = parsed(
        code="abc", limit=10, exact=1, colour="red", mail="ada@news.example", site="https://news.example/",
        id="sub_01h455vb4pex5vsknk084sn02q", metadata={"a": "b"}, secret="QUJD", ratio=0.5, left="x",
        paint="deep_blue", flag=True, parts=[{"amount": "7"}], numbers=[-3, 5],
    )  # fmt: skip
    assert (message.name, message.limit, message.paint, message.secret) == ("abc", 10, 2, b"ABC")
    assert [part.amount for part in message.parts] == [7]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": None}, [("name", "required")]),
        ({"name": "a"}, [("name", "min_len")]),
        ({"name": "abcde"}, [("name", "max_len")]),
        ({"name": "a\0b"}, [("name", "characters")]),
        ({"name": 7}, [("name", "type")]),
        ({"name": ["abc"]}, [("name", "type")]),
        ({"code": "aB"}, [("code", "pattern")]),
        ({"code": "ab\n"}, [("code", "pattern")]),
        ({"limit": 11}, [("limit", "lte")]),
        ({"limit": -1}, [("limit", "gte")]),
        ({"limit": 1.5}, [("limit", "type")]),
        ({"limit": True}, [("limit", "type")]),
        ({"limit": "ten"}, [("limit", "type")]),
        ({"limit": 1 << 40}, [("limit", "range")]),
        ({"exact": 0}, [("exact", "gte")]),
        ({"tags": []}, [("tags", "min_items")]),
        ({"tags": list("abcd")}, [("tags", "max_items")]),
        ({"tags": ["a", "a"]}, [("tags", "unique")]),
        ({"tags": "a"}, [("tags", "type")]),
        ({"tags": ["a", None, 3]}, [("tags[1]", "type"), ("tags[2]", "type")]),
        ({"tags": ["a", "abcdef"]}, [("tags[1]", "max_len")]),
        ({"colour": "green"}, [("colour", "in")]),
        ({"mail": "ada"}, [("mail", "email")]),
        ({"site": "javascript:alert(1)"}, [("site", "uri")]),
        ({"id": "inv_01h455vb4pex5vsknk084sn02q"}, [("id", "id_prefix")]),
        ({"metadata": {"a": "b", "c": "d", "e": "f"}}, [("metadata", "max_items")]),
        ({"metadata": {"a": "abcd"}}, [("metadata.a", "max_len")]),
        ({"metadata": {"k" * 101: "b"}}, [(f"metadata.{'k' * 100}", "key")]),
        ({"metadata": []}, [("metadata", "type")]),
        ({"secret": "QQ=="}, [("secret", "min_len")]),
        ({"secret": "QUJDREU="}, [("secret", "max_len")]),
        ({"secret": "not base64"}, [("secret", "type")]),
        ({"parts": [{"amount": 1}, {"amount": 0}, {}, 7]}, [
            ("parts[1].amount", "gte"), ("parts[2].amount", "required"), ("parts[3]", "type")
        ]),
        ({"part": {"amount": 1, "more": 2}}, [("part.more", "unknown_field")]),
        ({"part": []}, [("part", "type")]),
        ({"numbers": [5, 6]}, [("numbers[1]", "lte")]),
        ({"ratio": 1.01}, [("ratio", "lte")]),
        ({"ratio": "NaN"}, [("ratio", "gte")]),
        ({"left": "x", "right": "y"}, [("left", "oneof")]),
        ({"paint": "COLOUR_RED"}, [("paint", "in")]),
        ({"paint": "unspecified"}, [("paint", "in")]),
        ({"paint": 1}, [("paint", "in")]),
        ({"flag": 1}, [("flag", "type")]),
        ({"flag": "true"}, [("flag", "type")]),
        ({"naem": "x"}, [("naem", "unknown_field")]),
    ],
)  # fmt: skip
def test_what_breaks_a_rule_is_told_by_its_path(changes: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert broken({**GOOD, **changes}) == expected


@pytest.mark.parametrize("value", [None, 3, "x", [], [GOOD]])
def test_only_an_object_is_a_message(value: object) -> None:
    assert broken(value) == [("", "type")]


def test_everything_that_breaks_is_told_at_once() -> None:
    assert broken({"name": 3, "limit": 99, "x": 1}) == [
        ("x", "unknown_field"),
        ("name", "type"),
        ("limit", "lte"),
        ("part", "required"),
    ]


def test_at_most_twenty_violations_are_told() -> None:
    assert len(broken({**GOOD, **{f"unknown_{n}": n for n in range(500)}})) == MAX_VIOLATIONS
    assert len(broken({**GOOD, "parts": [{} for _ in range(100)]})) == MAX_VIOLATIONS


def test_what_is_not_given_keeps_every_rule() -> None:
    for empty in (
        {"code": ""},
        {"limit": 0},
        {"colour": ""},
        {"mail": ""},
        {"site": None},
        {"id": ""},
        {"paint": None},
    ):
        assert parsed(**empty) == parsed()


def test_texts_without_a_rule_have_a_bound_and_so_have_lists_and_maps() -> None:
    assert broken({"a_text": "x" * 1001}, TORTURE) == [("a_text", "max_len")]
    assert broken({"texts": ["x"] * 101}, TORTURE) == [("texts", "max_items")]
    assert broken({"texts_by_text": {str(n): "x" for n in range(101)}}, TORTURE) == [("texts_by_text", "max_items")]


def test_messages_within_messages_have_a_bound() -> None:
    value: dict[str, Any] = {}
    for _ in range(70):
        value = {"inner": value}
    ((path, rule),) = broken(value, TORTURE)
    assert rule == "depth"
    assert path.startswith("inner.inner.")


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("ada@news.example", True),
        ("ada.l+tag@sub.news-site.example", True),
        ("zoë@ünï.example", True),
        ("用户@例子.公司", True),
        ("a" * 64 + "@b.example", True),
        ("a" * 65 + "@b.example", False),
        ("ada@" + "b" * 63 + ".example", True),
        ("ada@" + "b" * 64 + ".example", False),
        ("ada@localhost", False),
        ("ada@127.0.0.1", False),
        ("ada", False),
        ("@news.example", False),
        ("ada@", False),
        ("ada@@news.example", False),
        (".ada@news.example", False),
        ("ada.@news.example", False),
        ("a..b@news.example", False),
        ("ada@-news.example", False),
        ("ada@news..example", False),
        ("ada @news.example", False),
        ("ada@news.example\n", False),
        ("ada@news.example\r\nBcc: all@news.example", False),
        ("ada\u202e@news.example", False),
        ("ada\u00a0@news.example", False),
        ('"a b"@news.example', False),
        ("Ada <ada@news.example>", False),
    ],
)
def test_the_form_of_an_address(text: str, good: bool) -> None:
    if good:
        assert parsed(mail=text)
    else:
        assert broken({**GOOD, "mail": text}) == [("mail", "email")]


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("https://news.example", True),
        ("http://localhost:3000/a/b?c=d#e", True),
        ("https://[2001:db8::1]:8443/", True),
        ("https://news.example/%C3%A9", True),
        ("https://news.example/é", False),
        ("https://news.example/%zz", False),
        ("https://user:secret@news.example/", False),
        ("//news.example", False),
        ("ftp://news.example", False),
        ("https://", False),
        ("https://news example", False),
        ("https://news.example\n", False),
        ("HTTPS://news.example", False),
    ],
)
def test_the_form_of_a_uri(text: str, good: bool) -> None:
    if good:
        assert parsed(site=text)
    else:
        assert broken({**GOOD, "site": text}) == [("site", "uri")]


@pytest.mark.parametrize(
    "declared",
    [
        "google.protobuf.Any any = 1;",
        "google.protobuf.Struct struct = 1;",
        "repeated google.protobuf.Timestamp at = 1 [(gatefold.edge.v1.rule) = { unique: true }];",
        "repeated google.api.HttpBody body = 1; repeated Odd odd = 2 [(gatefold.edge.v1.rule) = { unique: true }];",
    ],
)
def test_a_field_without_a_json_form_is_found_at_start(declared: str) -> None:
    source = f"""
        syntax = "proto3"; package gatefold.odd.v1;
        import "gatefold/edge/v1/policy.proto"; import "google/api/httpbody.proto";
        import "google/protobuf/any.proto"; import "google/protobuf/struct.proto";
        import "google/protobuf/timestamp.proto";
        message Odd {{ {declared} }}
    """
    with pytest.raises(UnsupportedMessageError):
        RequestCodecs().parser(pool_of(compiled(source)).FindMessageTypeByName("gatefold.odd.v1.Odd"))
