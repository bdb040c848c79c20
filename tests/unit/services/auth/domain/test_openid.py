"""Tests of services/auth/domain/openid."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest

from libs.errors import GatefoldError
from services.auth.domain import openid
from services.auth.domain.openid import Discovered, Provider, RefusedError

NOW = datetime(2026, 3, 1, tzinfo=UTC)
TENANT = "9188040d-6c67-4c5b-b112-36a304b66dad"
PROVIDER = Provider(
    id=UUID(int=1),
    kind=openid.GENERIC,
    audience="readers",
    name="The provider",
    issuer="https://accounts.example",
    client_id="client",
    scopes=("openid", "email"),
    redirect_uris=("https://daily.example/back",),
    created_at=NOW,
)


def changed(**changes: Any) -> Provider:
    return replace(PROVIDER, **changes)


@pytest.mark.parametrize(
    ("kind", "changes", "issuer", "discovery"),
    [
        (openid.GOOGLE, {}, "https://accounts.google.com", "https://accounts.google.com"),
        (openid.APPLE, {}, "https://appleid.apple.com", "https://appleid.apple.com"),
        (
            openid.MICROSOFT,
            {"tenants": (TENANT.upper(),)},
            f"https://login.microsoftonline.com/{TENANT}/v2.0",
            f"https://login.microsoftonline.com/{TENANT}/v2.0",
        ),
        (
            openid.MICROSOFT,
            {"tenants": (TENANT, str(UUID(int=2)))},
            "https://login.microsoftonline.com/{tenantid}/v2.0",
            "https://login.microsoftonline.com/organizations/v2.0",
        ),
    ],
)
def test_well_known_providers_need_no_issuer(kind: str, changes: Any, issuer: str, discovery: str) -> None:
    found = openid.checked(changed(kind=kind, issuer="", **changes), private=False)
    assert (found.issuer, found.discovery_url) == (issuer, discovery + "/.well-known/openid-configuration")


def test_a_slash_at_the_end_of_an_issuer_is_part_of_it_and_not_of_its_document() -> None:
    found = openid.checked(changed(issuer="https://accounts.example/"), private=False)
    assert found.issuer == "https://accounts.example/"
    assert found.discovery_url == "https://accounts.example/.well-known/openid-configuration"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": "facebook"}, "kind_invalid"),
        ({"audience": "operators"}, "audience_invalid"),
        ({"name": " "}, "name_invalid"),
        ({"name": "a\nb"}, "name_invalid"),
        ({"kind": openid.GOOGLE, "issuer": "https://mallory.example"}, "issuer_invalid"),
        ({"kind": openid.APPLE, "issuer": "https://mallory.example"}, "issuer_invalid"),
        ({"kind": openid.MICROSOFT, "issuer": "https://mallory.example", "tenants": (TENANT,)}, "issuer_invalid"),
        ({"kind": openid.MICROSOFT, "issuer": ""}, "tenants_missing"),
        ({"kind": openid.MICROSOFT, "issuer": "", "tenants": ("common",)}, "tenants_invalid"),
        ({"issuer": "http://127.0.0.1"}, "issuer_invalid"),
        ({"issuer": ""}, "issuer_invalid"),
        ({"client_id": ""}, "client_id_invalid"),
        ({"client_id": "a\r\nb"}, "client_id_invalid"),
        ({"scopes": ("a b",)}, "scopes_invalid"),
        ({"scopes": ('"',)}, "scopes_invalid"),
        ({"redirect_uris": ()}, "redirect_uris_invalid"),
        ({"redirect_uris": ("http://daily.example/back",)}, "redirect_uris_invalid"),
        ({"redirect_uris": ("https://daily.example/back#x",)}, "redirect_uris_invalid"),
        ({"redirect_uris": ("javascript:alert(1)",)}, "redirect_uris_invalid"),
        ({"email_domains": ("@example.com",)}, "email_domains_invalid"),
        ({"email_domains": ("com",)}, "email_domains_invalid"),
        ({"default_role": "support"}, "role_invalid"),
        ({"audience": "staff", "default_role": "owner"}, "role_invalid"),
        ({"audience": "staff", "default_role": "support"}, "email_domains_missing"),
        ({"audience": "staff", "default_role": "support", "email_domains": ("a.example",)}, "email_domains_missing"),
        ({"asks_second_factor": True}, "audience_invalid"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(changes: Any, reason: str) -> None:
    with pytest.raises(GatefoldError) as raised:
        openid.checked(changed(**changes), private=False)
    assert raised.value.reason == reason


def test_settings_are_kept_in_one_spelling() -> None:
    found = openid.checked(
        changed(
            audience="staff",
            scopes=("email", "openid", "email"),
            email_domains=(" Example.COM", "example.com"),
            trust_verified_email=True,
            default_role="support",
            team_id="T",
            tenants=(TENANT,),
        ),
        private=False,
    )
    assert (found.scopes, found.email_domains, found.default_role) == (("openid", "email"), ("example.com",), "support")
    assert (found.team_id, found.tenants) == ("", ())


def test_the_browser_is_sent_with_all_that_binds_the_answer_to_it() -> None:
    at = Discovered(
        "https://a.example/auth?tenant=1", "https://a.example/t", "https://a.example/k", "", frozenset(), "", False
    )
    url = openid.authorization_url(
        PROVIDER, at, state="s", nonce="n", challenge="c", redirect_uri="https://daily.example/back"
    )
    assert {name: value[0] for name, value in parse_qs(urlsplit(url).query).items()} == {
        "tenant": "1",
        "response_type": "code",
        "client_id": "client",
        "redirect_uri": "https://daily.example/back",
        "scope": "openid email",
        "state": "s",
        "nonce": "n",
        "code_challenge": "c",
        "code_challenge_method": "S256",
    }


def test_the_challenge_is_that_of_the_standard() -> None:
    # RFC 7636, appendix B.
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    assert openid.code_challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


@pytest.mark.case("auth-39")
@pytest.mark.parametrize(
    ("kind", "claims", "verified", "own"),
    [
        (openid.GENERIC, {"email_verified": True}, True, True),
        (openid.GENERIC, {"email_verified": "true"}, False, True),
        (openid.GENERIC, {"email_verified": 1}, False, True),
        (openid.GENERIC, {}, False, True),
        (openid.APPLE, {"email_verified": "true"}, True, True),
        (openid.APPLE, {"email_verified": "false"}, False, True),
        (openid.MICROSOFT, {"email_verified": True}, False, True),
        (openid.MICROSOFT, {"xms_edov": True}, True, True),
        (openid.MICROSOFT, {"xms_edov": "1"}, False, True),
        (openid.GOOGLE, {"email_verified": True}, True, False),
        (openid.GOOGLE, {"email_verified": True, "hd": "example.com"}, True, True),
        (openid.GOOGLE, {"email_verified": True, "hd": "other.example"}, True, False),
        (openid.GOOGLE, {"email_verified": True, "email": "r@GMAIL.com"}, True, True),
        (openid.GOOGLE, {"email_verified": False, "email": "r@gmail.com"}, False, True),
    ],
)
def test_an_address_is_verified_by_each_providers_own_word(
    kind: str, claims: Any, *, verified: bool, own: bool
) -> None:
    said = openid.statement(changed(kind=kind), {"sub": "1", "email": "r@example.com", **claims})
    assert (said.email_verified, said.own_mailbox) == (verified, own)


def test_what_is_no_text_is_nothing() -> None:
    said = openid.statement(
        PROVIDER, {"sub": "1", "email": ["r@example.com"], "email_verified": True, "name": {"a": 1}}
    )
    assert (said.email, said.email_verified, said.name) == ("", False, "")


def test_a_name_is_cut_and_has_no_line_breaks() -> None:
    said = openid.statement(PROVIDER, {"sub": "1", "name": " a\r\nb" + "c" * 500})
    assert said.name.startswith("a  bc")
    assert len(said.name) == 120


@pytest.mark.parametrize(
    ("stated", "names_itself", "taken"),
    [
        ("https://accounts.example", True, True),
        ("https://accounts.example", False, True),
        ("", False, True),
        ("", True, False),
        ("https://accounts.example/", True, False),
        ("https://mallory.example", False, False),
    ],
)
def test_an_answer_names_who_was_asked(stated: str, *, names_itself: bool, taken: bool) -> None:
    at = Discovered("", "", "", "", frozenset(), "", names_itself)
    assert openid.answered_by(PROVIDER, at, stated) is taken


@pytest.mark.parametrize("late", [timedelta(seconds=-61), timedelta(seconds=-59)])
def test_clocks_may_differ_by_a_minute(late: timedelta) -> None:
    claims = {
        "iss": PROVIDER.issuer,
        "sub": "1",
        "aud": ["client"],
        "iat": NOW.timestamp() - 300,
        "exp": (NOW + late).timestamp(),
        "nonce": "n",
    }

    def check() -> str:
        return openid.checked_claims(PROVIDER, claims, nonce="n", now=NOW, algorithm="RS256", access_token="a")

    if late > timedelta(seconds=-60):
        assert check() == PROVIDER.issuer
    else:
        with pytest.raises(RefusedError, match="exp"):
            check()


def test_an_access_token_that_is_no_text_fits_no_hash() -> None:
    claims = {
        "iss": PROVIDER.issuer,
        "sub": "s",
        "aud": "client",
        "nonce": "n",
        "iat": NOW.timestamp(),
        "exp": NOW.timestamp() + 60,
        "at_hash": "AAAAAAAAAAAAAAAAAAAAAA",
    }
    with pytest.raises(RefusedError, match="at_hash"):
        openid.checked_claims(PROVIDER, claims, nonce="n", now=NOW, algorithm="RS256", access_token="\ud800")
