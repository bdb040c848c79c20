"""What a response must say: for us, now, in answer to us; what a connection may be; tokens that hand over."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from libs.errors import GatefoldError
from services.auth.domain import saml
from services.auth.domain.saml import Assertion, Confirmation, Connection, Ourselves, Provider, Response

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
PROVIDER = Provider("https://idp.example/metadata", "https://idp.example/sso", (b"certificate",))
OURSELVES = Ourselves("https://us.example/metadata", "https://us.example/acs")
CONFIRMED = Confirmation(saml.BEARER, OURSELVES.acs_url, "_1", None, NOW + timedelta(minutes=5))
ASSERTION = Assertion(
    id="_a",
    issuer=PROVIDER.entity_id,
    name_id="ada-1",
    name_id_format=saml.PERSISTENT,
    not_before=NOW,
    not_on_or_after=NOW + timedelta(minutes=5),
    restrictions=(frozenset({OURSELVES.entity_id}),),
    confirmations=(CONFIRMED,),
    authenticated=True,
    attributes={"mail": ("ada@example.com",), "name": (" Ada ",), "many": ("1", "2"), "none": ()},
)
RESPONSE = Response(ASSERTION, True, PROVIDER.entity_id, OURSELVES.acs_url, "_1")
CONNECTION = Connection(UUID(int=1), UUID(int=2), "SSO", NOW, PROVIDER, "mail", "name", ("example.com",), enabled=True)


def judged(response: Response = RESPONSE, request: str | None = "_1", **said: Any) -> datetime:
    return saml.judge(replace(response, assertion=replace(ASSERTION, **said)), PROVIDER, OURSELVES, request, NOW)


def rule(response: Response = RESPONSE, request: str | None = "_1", **said: Any) -> str:
    with pytest.raises(GatefoldError, match="saml_response_refused") as raised:
        judged(response, request, **said)
    return raised.value.metadata["rule"]


def test_a_response_is_remembered_until_no_clock_would_take_it_again() -> None:
    assert judged() == NOW + timedelta(minutes=6)
    longer = replace(CONFIRMED, not_on_or_after=NOW + timedelta(hours=1))
    assert judged(confirmations=(CONFIRMED, longer)) == NOW + timedelta(hours=1, minutes=1)


def test_every_audience_restriction_names_us() -> None:
    other = frozenset({"https://other.example"})
    assert judged(restrictions=(frozenset({OURSELVES.entity_id, *other}),))
    for restrictions in ((), (other,), (frozenset({OURSELVES.entity_id}), other), (frozenset(),)):
        assert rule(restrictions=restrictions) == "audience"


def test_one_good_confirmation_is_enough_and_must_be_good_in_all() -> None:
    wrong = [
        replace(CONFIRMED, method="urn:oasis:names:tc:SAML:2.0:cm:sender-vouches"),
        replace(CONFIRMED, recipient=None),
        replace(CONFIRMED, recipient=OURSELVES.acs_url + "/"),
        replace(CONFIRMED, in_response_to=None),
        replace(CONFIRMED, in_response_to="_2"),
        replace(CONFIRMED, not_on_or_after=None),
        replace(CONFIRMED, not_on_or_after=NOW - timedelta(minutes=1)),
        replace(CONFIRMED, not_on_or_after=NOW + timedelta(hours=24, seconds=1)),
        replace(CONFIRMED, not_on_or_after=datetime.max.replace(tzinfo=UTC)),
        replace(CONFIRMED, not_before=NOW + timedelta(minutes=1, seconds=1)),
    ]
    for one in wrong:
        assert rule(confirmations=(one,)) == "confirmation"
    assert rule(confirmations=tuple(wrong)) == "confirmation"
    assert rule(confirmations=()) == "confirmation"
    assert judged(confirmations=(*wrong, CONFIRMED))


def test_who_speaks_unasked_answers_nothing() -> None:
    unasked = replace(RESPONSE, in_response_to=None)
    confirmed = replace(CONFIRMED, in_response_to=None)
    assert judged(unasked, None, confirmations=(confirmed,))
    assert rule(RESPONSE, None, confirmations=(confirmed,)) == "in_response_to"
    assert rule(unasked, None) == "confirmation"


@pytest.mark.parametrize("signed", [True, False])
def test_what_stands_around_the_assertion_must_fit_it(signed: bool) -> None:
    response = replace(RESPONSE, signed=signed)
    assert judged(replace(response, issuer=None, in_response_to=None))
    assert rule(replace(response, issuer="https://evil.example")) == "issuer"
    assert rule(replace(response, issuer="")) == "issuer"
    assert rule(replace(response, destination="https://evil.example")) == "destination"
    assert rule(replace(response, in_response_to="_2")) == "in_response_to"
    assert rule(response, issuer="") == "issuer"


def test_only_an_unsigned_response_may_leave_out_where_it_goes() -> None:
    assert judged(replace(RESPONSE, signed=False, destination=None))
    assert rule(replace(RESPONSE, destination=None)) == "destination"


@pytest.mark.parametrize(
    ("before", "after", "taken"),
    [
        (None, None, True),
        (60 * SECOND, None, True),
        (61 * SECOND, None, False),
        (None, -59 * SECOND, True),
        (None, -60 * SECOND, False),
    ],
)
def test_clocks_may_differ_by_a_minute(before: timedelta | None, after: timedelta | None, taken: bool) -> None:
    bounds = [None if one is None else NOW + one for one in (before, after)]
    assert saml.within(*bounds, NOW) == taken


@pytest.mark.parametrize(
    "said",
    [
        {"name_id": ""},
        {"name_id": "ada "},
        {"name_id": "a" * 257},
        {"name_id_format": ""},
        {"name_id_format": "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"},
        {"name_qualifier": "https://other.example"},
        {"sp_name_qualifier": "https://other.example"},
    ],
)
def test_a_name_is_for_good_and_for_us(said: dict[str, str]) -> None:
    assert rule(**said) == "name_id"


def test_a_name_may_say_whose_it_is() -> None:
    assert judged(name_qualifier=PROVIDER.entity_id, sp_name_qualifier=OURSELVES.entity_id)
    assert judged(name_qualifier="", sp_name_qualifier="")


def test_the_two_kinds_of_names_never_pass_for_each_other() -> None:
    named = replace(ASSERTION, name_id="ada@example.com")
    subjects = {
        saml.statement(replace(named, name_id_format=one), CONNECTION).subject for one in (saml.PERSISTENT, saml.EMAIL)
    }
    assert subjects == {"persistent:ada@example.com", "email:ada@example.com"}


def test_address_and_name_come_from_the_attributes_that_were_chosen() -> None:
    said = saml.statement(ASSERTION, CONNECTION)
    assert (said.email, said.email_verified, said.name) == ("ada@example.com", True, "Ada")
    for missing in ("other", "none"):
        said = saml.statement(ASSERTION, replace(CONNECTION, email_attribute=missing, name_attribute=missing))
        assert (said.email, said.email_verified, said.name) == ("", False, "")
    with pytest.raises(GatefoldError) as raised:
        saml.statement(ASSERTION, replace(CONNECTION, email_attribute="many"))
    assert raised.value.metadata["rule"] == "attribute"


def test_a_name_is_one_line_of_bounded_length() -> None:
    said = replace(ASSERTION, attributes={**ASSERTION.attributes, "lines": ("Ada\nBcc: eve@example.com" + "a" * 999,)})
    name = saml.statement(said, replace(CONNECTION, name_attribute="lines")).name
    assert name.startswith("Ada Bcc: eve@example.coma")
    assert len(name) == 120


def test_a_name_is_an_address_only_where_it_says_so_and_no_attribute_was_chosen() -> None:
    named = replace(ASSERTION, name_id="eve@example.com")
    chosen = replace(CONNECTION, email_attribute="")
    assert saml.statement(named, chosen).email == ""
    named = replace(named, name_id_format=saml.EMAIL)
    assert saml.statement(named, chosen).email == "eve@example.com"
    assert saml.statement(named, CONNECTION).email == "ada@example.com"


def test_a_connection_is_known_by_its_provider_and_not_as_one_of_openid_connect() -> None:
    source = replace(CONNECTION, default_role="support", asks_second_factor=True).source
    assert source.issuer == "saml:https://idp.example/metadata"
    assert (source.audience, source.default_role, source.strong) == ("staff", "support", True)


def test_domains_are_kept_once_in_small_letters() -> None:
    kept = saml.checked(replace(CONNECTION, email_domains=(" Example.com", "example.COM", "xn--bcher-kva.example")))
    assert kept.email_domains == ("example.com", "xn--bcher-kva.example")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"email_domains": ("com",)}, "email_domains_invalid"),
        ({"email_domains": ("a@example.com",)}, "email_domains_invalid"),
        ({"email_domains": ("-a.example",)}, "email_domains_invalid"),
        ({"email_domains": ("example.com\n",)}, None),
        ({"email_domains": ("a" * 250 + ".example",)}, "email_domains_invalid"),
        ({"default_role": "owner"}, "role_invalid"),
        ({"default_role": "operator"}, "role_invalid"),
        ({"email_domains": ()}, "saml_incomplete"),
        ({"provider": None}, "saml_incomplete"),
        ({"provider": None, "email_domains": (), "enabled": False}, None),
        ({"name": " "}, "name_invalid"),
    ],
)
def test_a_connection_is_whole_before_it_is_on(change: dict[str, Any], reason: str | None) -> None:
    if reason is None:
        assert saml.checked(replace(CONNECTION, **change))
        return
    with pytest.raises(GatefoldError, match=reason):
        saml.checked(replace(CONNECTION, **change))


def test_a_token_leads_to_its_account() -> None:
    token = saml.handover(UUID(int=7), b"s" * 32)
    assert saml.handover_account(token) == UUID(int=7)
    for wrong in ("", "gfsa_", token[:-2], token + "AAAA", token.removeprefix("gfsa_"), "gfsa_ü", "gfsi_" + token[5:]):
        assert saml.handover_account(wrong) is None


def test_a_providers_address_keeps_its_parameters() -> None:
    assert saml.redirect("https://idp.example/sso", {"a": "1 2"}) == "https://idp.example/sso?a=1+2"
    assert saml.redirect("https://idp.example/sso?t=7", {"a": "&"}) == "https://idp.example/sso?t=7&a=%26"
