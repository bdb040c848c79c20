"""Entries of lists: how they are written, how many there may be, and who is on a list."""

import io
from collections.abc import Iterator

import pytest

from libs.patterns import Patterns
from services.gateway.domain.bundle import ListKind
from services.gateway.domain.lists import Members, parse_entries, parse_entry


@pytest.mark.parametrize(
    ("kind", "text", "kept"),
    [
        (ListKind.NETWORKS, " 10.0.0.0/8 ", "10.0.0.0/8"),
        (ListKind.NETWORKS, "2001:DB8::1", "2001:db8::1/128"),
        (ListKind.COUNTRIES, "de", "DE"),
        (ListKind.ASNS, "as64500", "64500"),
        (ListKind.ASNS, "00064500", "64500"),
        (ListKind.USER_AGENTS, "SqlMap", "sqlmap"),
        (ListKind.EMAIL_DOMAINS, "@Mail.Example.", "mail.example"),
    ],
)
def test_an_entry_is_kept_in_one_form(kind: ListKind, text: str, kept: str) -> None:
    assert parse_entry(kind, text) == kept
    assert parse_entry(kind, kept) == kept


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (ListKind.NETWORKS, "10.0.0.1/8"),
        (ListKind.NETWORKS, "10.0.0"),
        (ListKind.COUNTRIES, "DEU"),
        (ListKind.ASNS, "4294967296"),
        (ListKind.ASNS, "AS"),
        (ListKind.USER_AGENTS, "ab"),
        (ListKind.USER_AGENTS, "ab\n"),
        (ListKind.USER_AGENTS, "é" * 5),
        (ListKind.EMAIL_DOMAINS, "localhost"),
        (ListKind.EMAIL_DOMAINS, "a..b"),
    ],
)
def test_what_is_no_entry_is_refused_by_line(kind: ListKind, text: str) -> None:
    with pytest.raises(ValueError, match="line 1: "):
        parse_entries(kind, [text], most=10)


def test_remarks_and_doubles_are_left_out() -> None:
    text = "# a list\n\n10.0.0.0/8 # ours\n192.0.2.1\n192.0.2.1/32\n"

    assert parse_entries(ListKind.NETWORKS, io.StringIO(text), most=2) == ["10.0.0.0/8", "192.0.2.1/32"]


@pytest.mark.parametrize("line", ["{0}.{1}.{2}.{3}", "# nothing", "192.0.2.1"])
def test_five_million_lines_are_read_no_further_than_the_limit(line: str) -> None:
    read = 0

    def lines() -> Iterator[str]:
        nonlocal read
        for number in range(5_000_000):
            read += 1
            yield line.format(*number.to_bytes(4, "big"))

    with pytest.raises(ValueError, match="has 1,000 entries at most"):
        parse_entries(ListKind.NETWORKS, lines(), most=1_000)

    assert read <= 10_002


def test_members_end_when_they_are_said_to() -> None:
    agents = Members(ListKind.USER_AGENTS, Patterns(), {"curl": None, "wget": 10.0})
    asns = Members(ListKind.ASNS, Patterns(), {"64500": 5.0, "64501": None})

    assert (agents.test("Wget/1"), agents.test("CURL"), asns.test(64500), agents.next_end) == (True, True, True, 10.0)
    agents.forget(10.0)
    asns.forget(10.0)
    assert (agents.test("Wget/1"), agents.test("curl"), asns.test(64500), asns.test(64501)) == (
        False,
        True,
        False,
        True,
    )


def test_a_domain_stands_for_those_below_it() -> None:
    members = Members(ListKind.EMAIL_DOMAINS, Patterns(), {"mail.example": None})

    asked = ["a@mail.example", "a@MX.mail.example", "mail.example", "a@notmail.example", "example", ""]
    assert [members.test(one) for one in asked] == [True, True, True, False, False, False]


def test_a_list_without_entries_has_nobody_on_it() -> None:
    assert not any(Members(kind, Patterns(), {}).test("") for kind in ListKind if kind is not ListKind.NETWORKS)
