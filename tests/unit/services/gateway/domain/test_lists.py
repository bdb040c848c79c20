"""Who is on a list, and until when."""

from libs.patterns import Patterns
from services.gateway.domain.bundle import ListKind
from services.gateway.domain.lists import Members


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
