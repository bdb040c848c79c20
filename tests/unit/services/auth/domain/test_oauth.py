"""Rules of the OpenID Connect provider: redirect URIs, what is missing before a code, tokens and their form."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from libs.errors import GatefoldError
from services.auth.domain import oauth, session
from services.auth.domain.oauth import Asked, Authorization, Client, RedirectableError, Request

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
ACCOUNT, KEY = UUID(int=1), UUID(int=2)
BACK = "https://shop.example/back"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
CLIENT = Client(
    id=KEY,
    account=ACCOUNT,
    name="Shop",
    home_url="",
    logo_url="",
    redirect_uris=(BACK,),
    post_logout_redirect_uris=(),
    confidential=True,
    scopes=oauth.SCOPES,
    first_party=False,
    enabled=True,
    created_at=NOW,
    updated_at=NOW,
    secret_hash=b"a" * 32,
    former_secret_hash=b"b" * 32,
    former_secret_until=NOW + timedelta(hours=1),
)
ASKED = Asked(response_type="code", scope="openid email", code_challenge=CHALLENGE, code_challenge_method="S256")


def judged(**changes: str) -> Request:
    return oauth.judged(replace(ASKED, **changes), CLIENT, BACK, key=KEY, now=NOW)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "uri",
    [
        "https://shop.example/back",
        "https://shop.example:8443/back?from=gatefold",
        "http://127.0.0.1:7007/back",
        "http://localhost/back",
        "http://[::1]:80/back",
        "com.example.app:/back",
    ],
)
def test_sites_loopbacks_and_apps_may_be_come_back_to(uri: str) -> None:
    assert oauth.checked_redirect_uris([uri]) == (uri,)


def test_openid_is_always_among_the_scopes_in_one_order() -> None:
    assert oauth.checked_scopes(["offline_access", "email"]) == ("openid", "email", "offline_access")
    with pytest.raises(GatefoldError):
        oauth.checked_scopes(["openid", "admin"])


def test_a_former_secret_works_until_the_overlap_is_over() -> None:
    assert CLIENT.has_secret(b"a" * 32, NOW)
    assert CLIENT.has_secret(b"b" * 32, NOW)
    assert not CLIENT.has_secret(b"b" * 32, NOW + timedelta(hours=1))
    assert not CLIENT.has_secret(b"c" * 32, NOW)
    assert not replace(CLIENT, secret_hash=None, former_secret_hash=None).has_secret(b"", NOW)


def test_what_is_asked_for_is_taken_in_one_order_and_what_nobody_knows_is_passed_over() -> None:
    request = judged(scope="email openid something", prompt="login login", max_age="60", acr_values="aal2")
    assert request.scopes == ("openid", "email")
    assert (request.prompts, request.max_age, request.acr) == (("login",), 60, "aal2")
    assert judged(acr_values="aal2 aal1").acr is None
    assert request.expires_at - request.created_at <= timedelta(minutes=10)


@pytest.mark.case("auth-63")
@pytest.mark.parametrize("method", ["", "plain", "S512"])
def test_every_client_needs_pkce_with_s256(method: str) -> None:
    with pytest.raises(RedirectableError) as caught:
        judged(code_challenge_method=method)
    assert caught.value.error == "invalid_request"


@pytest.mark.parametrize(
    ("prompt", "age", "acr", "consented", "agreed", "expected"),
    [
        ("", 60, "aal1", (), False, "consent"),
        ("", 60, "aal1", (), True, None),
        ("", 60, "aal1", ("openid", "email"), False, None),
        ("", 60, "aal1", ("openid",), False, "consent"),
        ("consent", 60, "aal1", ("openid", "email"), False, "consent"),
        ("login", 60, "aal1", ("openid", "email"), False, "sign_in"),
        ("login", 60, "aal1", ("openid", "email"), True, "sign_in"),
        ("login", 0, "aal1", ("openid", "email"), False, None),
        ("select_account", 60, "aal2", ("openid", "email"), False, "sign_in"),
    ],
)
def test_what_is_missing(
    prompt: str, age: int, acr: str, consented: tuple[str, ...], agreed: bool, expected: str | None
) -> None:
    found = oauth.missing(
        judged(prompt=prompt),
        CLIENT,
        consented,
        acr=acr,
        authenticated_at=NOW - timedelta(seconds=age),
        agreed=agreed,
        now=NOW,
    )
    assert found == expected


@pytest.mark.parametrize(
    ("changes", "age", "acr", "expected"),
    [
        ({"max_age": "60"}, 60, "aal1", None),
        ({"max_age": "60"}, 61, "aal1", "sign_in"),
        ({"max_age": "0"}, 1, "aal1", "sign_in"),
        ({"acr_values": "aal2"}, 60, "aal2", None),
        ({"acr_values": "aal2"}, 60, "aal1", "sign_in"),
        # Whoever has no second factor has done all they can; the ID token tells.
        ({"acr_values": "aal2"}, 0, "aal1", None),
    ],
)
def test_age_and_assurance_ask_for_a_sign_in_and_a_fresh_one_is_enough(
    changes: dict[str, str], age: int, acr: str, expected: str | None
) -> None:
    when, own = NOW - timedelta(seconds=age), replace(CLIENT, first_party=True)
    found = oauth.missing(judged(**changes), own, (), acr=acr, authenticated_at=when, agreed=False, now=NOW)
    assert found == expected


def test_parameters_are_added_to_what_an_address_has() -> None:
    assert oauth.location(BACK, {"code": "a b", "state": ""}) == f"{BACK}?code=a+b"
    assert oauth.location(f"{BACK}?x=1", {"state": "&"}) == f"{BACK}?x=1&state=%26"
    assert oauth.location(BACK, {"state": ""}) == BACK


def test_an_access_token_has_fewer_scopes_and_never_more() -> None:
    assert oauth.narrowed("", ("openid", "email")) == ("openid", "email")
    assert oauth.narrowed("email", ("openid", "email")) == ("email",)
    with pytest.raises(GatefoldError) as caught:
        oauth.narrowed("email profile", ("openid", "email"))
    assert caught.value.metadata["error"] == "invalid_scope"


def test_a_verifier_is_looked_at_only_in_its_form() -> None:
    assert oauth.verifier_fits("made", "v" * 43, lambda _: "made")
    assert not oauth.verifier_fits("made", "v" * 43, lambda _: "other")
    for odd in ("", "v" * 42, "v" * 129, "v" * 42 + "é", "v" * 42 + "\n"):
        assert not oauth.verifier_fits("made", odd, lambda _: "made")


def test_handles_codes_and_refresh_tokens_are_read_back_and_never_taken_for_each_other() -> None:
    secret, request = b"s" * 32, judged()
    held = Authorization(
        id=KEY,
        account=ACCOUNT,
        client=KEY,
        subject=KEY,
        session=KEY,
        scopes=("openid",),
        redirect_uri=BACK,
        nonce="",
        code_challenge=CHALLENGE,
        code_expires_at=NOW,
        acr="aal1",
        authenticated_at=NOW,
        salt=b"t" * 32,
        generation=1,
        rotated_at=NOW,
        created_at=NOW,
        expires_at=NOW + timedelta(days=1),
    )
    place = (ACCOUNT, KEY, oauth.hash_of(secret))
    handle, code = oauth.handle(request, secret), oauth.code(ACCOUNT, KEY, secret)
    refresh = oauth.refresh_token(held, 3, secret)
    assert oauth.read_handle(handle) == oauth.read_code(code) == place
    claimed = oauth.read_refresh_token(refresh)
    assert claimed is not None
    assert claimed[:3] == (ACCOUNT, KEY, 3)
    assert oauth.signed(held, 3, claimed[3], secret)
    assert not oauth.signed(held, 2, claimed[3], secret)
    assert not oauth.signed(held, 3, claimed[3], b"x" * 32)
    assert session.read(refresh) is None
    for read, own in ((oauth.read_handle, handle), (oauth.read_code, code), (oauth.read_refresh_token, refresh)):
        for other in {handle, code, refresh, "", "x", own[:-1], own + "AAAA", own.upper()} - {own}:
            assert read(other) is None, other


def test_an_authorization_is_over_with_its_session_its_end_and_its_time() -> None:
    held = Authorization(
        *(KEY, ACCOUNT, KEY, KEY, KEY, ("openid",), BACK, "", CHALLENGE, NOW, "aal1", NOW, b"", 1, NOW, NOW),
        expires_at=NOW + timedelta(days=1),
    )
    assert not held.over(NOW)
    assert held.over(NOW + timedelta(days=1))
    assert replace(held, revoked_at=NOW).over(NOW)
    assert replace(held, session_alive=False).over(NOW)
