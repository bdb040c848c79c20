"""Signing staff in by SAML: connections, the way there and back, who is let in, through the gateway too."""

import asyncio
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from gatefold.auth.v1 import account_pb2, saml_pb2, session_pb2, team_pb2
from google.api import httpbody_pb2
from lxml import etree

from libs import ids
from libs.errors import GatefoldError, Kind
from services.auth.domain import roles
from services.auth.usecases.expiry import Expiry
from tests.support.auth import AuthHouse, Publisher
from tests.support.edge import running_edge
from tests.support.factors import begin, complete, confirm, later
from tests.support.saml_provider import EMAIL, SamlProvider, connect, key, posted, read

MD = "{urn:oasis:names:tc:SAML:2.0:metadata}"


async def update(
    house: AuthHouse, publisher: Publisher, request: saml_pb2.UpdateSamlConnectionRequest
) -> saml_pb2.SamlConnection:
    answer = await house.call(house.staff(publisher.live), house.saml_connections.UpdateSamlConnection, request)
    assert isinstance(answer, saml_pb2.SamlConnection)
    return answer


async def listed(house: AuthHouse, publisher: Publisher) -> list[saml_pb2.SamlConnection]:
    who = house.staff(publisher.test, roles.DEVELOPER, live=False)
    request = saml_pb2.ListSamlConnectionsRequest()
    answer = await house.call(who, house.saml_connections.ListSamlConnections, request)
    assert isinstance(answer, saml_pb2.ListSamlConnectionsResponse)
    return list(answer.data)


async def test_a_connection_is_made_before_its_provider_knows_us_and_completed_after(house: AuthHouse) -> None:
    publisher, provider = await house.publisher(), SamlProvider(published=(key(), key(12)))
    request = saml_pb2.CreateSamlConnectionRequest(name=" Example SSO ")
    made = await house.call(house.staff(publisher.live), house.saml_connections.CreateSamlConnection, request)
    assert isinstance(made, saml_pb2.SamlConnection)
    assert (made.name, made.enabled, made.idp_entity_id) == ("Example SSO", False, "")
    account = ids.encode("acct", publisher.live)
    assert made.acs_url == f"https://auth.gatefold.example/v1/saml/{account}/{made.id}/acs"
    with pytest.raises(GatefoldError) as raised:
        await update(house, publisher, saml_pb2.UpdateSamlConnectionRequest(id=made.id, enabled=True))
    assert (raised.value.kind, raised.value.reason) == (Kind.PRECONDITION, "saml_incomplete")
    complete = saml_pb2.UpdateSamlConnectionRequest(
        id=made.id,
        idp_metadata=provider.metadata(),
        email_domains=saml_pb2.SamlEmailDomains(domains=["Example.COM"]),
        default_role=team_pb2.ROLE_SUPPORT,
        enabled=True,
    )
    done = await update(house, publisher, complete)
    assert (done.idp_entity_id, done.idp_sso_url) == (provider.entity_id, provider.sso_url)
    assert [one.not_after.ToDatetime().year for one in done.certificates] == [2040, 2040]
    assert (list(done.email_domains), done.default_role, done.enabled) == (["example.com"], team_pb2.ROLE_SUPPORT, True)
    # What is not given stays; what is given takes its place, also when it is nothing.
    renamed = await update(
        house,
        publisher,
        saml_pb2.UpdateSamlConnectionRequest(id=made.id, name="SSO", default_role=team_pb2.ROLE_UNSPECIFIED),
    )
    assert (renamed.name, renamed.default_role, renamed.idp_entity_id) == (
        "SSO",
        team_pb2.ROLE_UNSPECIFIED,
        done.idp_entity_id,
    )
    assert await listed(house, publisher) == [renamed]


async def test_an_account_has_one_connection_with_a_provider(house: AuthHouse) -> None:
    publisher = await house.publisher()
    site = await connect(house, publisher)
    with pytest.raises(GatefoldError, match="saml_connection_exists"):
        await connect(house, publisher)
    other = await connect(house, publisher, SamlProvider("https://other.example"))
    again = saml_pb2.UpdateSamlConnectionRequest(id=other.connection.id, idp_metadata=site.provider.metadata())
    with pytest.raises(GatefoldError, match="saml_connection_exists"):
        await update(house, publisher, again)
    assert await connect(house, await house.publisher()), "another account may have the same"


@pytest.mark.parametrize(
    ("chosen", "reason"),
    [
        ({"default_role": team_pb2.ROLE_OWNER}, "role_invalid"),
        ({"email_domains": ["example"]}, "email_domains_invalid"),
        ({"email_domains": ["*.example.com"]}, "email_domains_invalid"),
        ({"email_domains": []}, "saml_incomplete"),
        ({"idp_metadata": ""}, "saml_incomplete"),
        ({"idp_metadata": "<a/>"}, "saml_metadata_invalid"),
        ({"name": "\n"}, "name_invalid"),
    ],
)
async def test_a_connection_that_cannot_be_kept_is_refused(
    house: AuthHouse, chosen: dict[str, object], reason: str
) -> None:
    publisher = await house.publisher()
    with pytest.raises(GatefoldError, match=reason):
        await connect(house, publisher, **chosen)
    assert await listed(house, publisher) == []


async def test_our_metadata_says_what_a_provider_has_to_know(house: AuthHouse) -> None:
    site = await connect(house, await house.publisher())
    request = saml_pb2.GetSamlMetadataRequest(
        account_id=ids.encode("acct", site.publisher.live), connection_id=site.connection.id
    )
    answer = await house.call(house.anonymous(), house.saml.GetSamlMetadata, request)
    assert isinstance(answer, httpbody_pb2.HttpBody)
    root = etree.fromstring(answer.data)
    assert root.get("entityID") == site.connection.entity_id
    service = root.find(f"{MD}SPSSODescriptor/{MD}AssertionConsumerService")
    assert (service.get("Location"), service.get("Binding")) == (
        site.connection.acs_url,
        "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST",
    )


async def test_the_redirect_asks_the_provider_for_this_connection(house: AuthHouse) -> None:
    site = await connect(house, await house.publisher())
    request = saml_pb2.BeginSamlSignInRequest(
        account_id=ids.encode("acct", site.publisher.live), connection_id=site.connection.id
    )
    answers = [await house.call(house.anonymous(), house.saml.BeginSamlSignIn, request) for _ in range(2)]
    urls = [one.redirect_url for one in answers if isinstance(one, saml_pb2.BeginSamlSignInResponse)]
    assert all(url.startswith("https://idp.example/sso?tenant=7&SAMLRequest=") for url in urls)
    one, other = (read(url) for url in urls)
    assert (one.issuer, one.acs_url) == (site.connection.entity_id, site.connection.acs_url)
    assert one.destination == site.provider.sso_url
    assert one.id != other.id
    assert one.relay_state != other.relay_state
    assert len(one.relay_state) == 43, "256 bits, within the 80 bytes that SAML allows"


def person(email: str, name: str = "Sam") -> dict[str, tuple[str, ...]]:
    return {"mail": (email,), "displayName": (name,)}


async def invited(
    house: AuthHouse, publisher: Publisher, role: "team_pb2.Role.ValueType" = team_pb2.ROLE_FINANCE
) -> str:
    """Returns the address of a member who has accepted."""
    email = house.fresh("member")
    invite = team_pb2.InviteMemberRequest(email=email, role=role)
    await house.call(house.staff(publisher.live), house.team.InviteMember, invite)
    await house.accept(await house.token(publisher.live, "invite_member"))
    return email


async def claims(house: AuthHouse, tokens: session_pb2.Tokens) -> dict[str, object]:
    return await house.claims(tokens.access_token)


@pytest.mark.case("auth-65")
async def test_a_member_signs_in_by_the_address_and_then_by_the_name_that_the_provider_knows(house: AuthHouse) -> None:
    publisher = await house.publisher()
    site, email = await connect(house, publisher), await invited(house, publisher)
    first = await claims(house, await site.sign_in(name_id="m-1", attributes=person(email)))
    assert (first["kind"], first["role"], first["acr"]) == ("STAFF", "finance", "aal1")
    again = await site.sign_in(name_id="m-1", attributes=person("renamed@example.com"))
    assert (await claims(house, again))["sub"] == first["sub"]
    tested = await site.sign_in(publisher.test, name_id="m-1", attributes=person(email))
    assert tested.account_id == ids.encode("acct", publisher.test)
    assert (await claims(house, tested))["live"] is False


@pytest.mark.case("auth-65")
async def test_of_pages_that_finish_at_once_one_signs_in(house: AuthHouse) -> None:
    publisher = await house.publisher()
    site, email = await connect(house, publisher), await invited(house, publisher)
    for number in range(2):
        # The first time an identity is added with it, the second time it is known.
        visit = await site.begin()
        root = site.provider.response(site.said(visit, attributes=person(email)))
        token = await site.post(root, visit.request.relay_state)
        answers = await asyncio.gather(*(site.finish(token, visit.secret) for _ in range(5)), return_exceptions=True)
        assert sum(isinstance(answer, session_pb2.Tokens) for answer in answers) == 1
        assert {one.reason for one in answers if isinstance(one, GatefoldError)} <= {
            "token_invalid",
            "concurrent_change",
        }
        assert (await house.events(publisher.live)).count("session.started") == number + 1


async def test_an_address_can_be_the_name(house: AuthHouse) -> None:
    publisher = await house.publisher()
    site, email = await connect(house, publisher, email_attribute=""), await invited(house, publisher)
    tokens = await site.sign_in(name_id=email, name_id_format=EMAIL, attributes={})
    assert (await claims(house, tokens))["role"] == "finance"


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        (person("nobody@example.com"), "membership_required"),
        (person("nobody@elsewhere.example"), "email_domain_not_allowed"),
        (person("nobody@example.com.evil.example"), "email_domain_not_allowed"),
        ({"displayName": ("Sam",)}, "email_domain_not_allowed"),
    ],
)
async def test_who_is_no_member_stays_out(
    house: AuthHouse, attributes: dict[str, tuple[str, ...]], reason: str
) -> None:
    site = await connect(house, await house.publisher())
    with pytest.raises(GatefoldError, match=reason):
        await site.sign_in(attributes=attributes)


async def test_a_connection_that_provisions_makes_members_of_its_domains_in_its_role(house: AuthHouse) -> None:
    publisher = await house.publisher()
    site = await connect(house, publisher, default_role=team_pb2.ROLE_READ_ONLY)
    email = house.fresh("new")
    tokens = await site.sign_in(name_id="n-1", attributes=person(email))
    assert (await claims(house, tokens))["role"] == "read_only"
    with pytest.raises(GatefoldError, match="email_domain_not_allowed"):
        await site.sign_in(name_id="n-2", attributes=person("new@elsewhere.example"))
    # Nobody who works for another publisher is taken into this team by its provider's word.
    other = await house.publisher()
    elsewhere = await invited(house, other)
    with pytest.raises(GatefoldError, match="identity_link_needed"):
        await site.sign_in(name_id="n-3", attributes=person(elsewhere))


async def test_a_second_factor_is_asked_for_unless_the_provider_asks_for_one(house: AuthHouse) -> None:
    publisher = await house.publisher()
    site, email = await connect(house, publisher), await invited(house, publisher)
    own = await house.person("per", await house.sign_in_staff(email), account=publisher.live)
    phone = await begin(house, own)
    await confirm(house, own, phone)
    waiting = await site.sign_in(attributes=person(email))
    assert (waiting.access_token, waiting.pending.next, list(waiting.pending.methods)) == (
        "",
        "second_factor",
        ["totp"],
    )
    done = await complete(house, waiting, phone.next_code())
    assert (await claims(house, done))["acr"] == "aal2"
    await update(house, publisher, saml_pb2.UpdateSamlConnectionRequest(id=site.connection.id, asks_second_factor=True))
    assert (await claims(house, await site.sign_in(attributes=person(email))))["acr"] == "aal2"


async def test_an_account_that_requires_factors_needs_a_provider_that_asks_for_one(house: AuthHouse) -> None:
    publisher = await house.publisher()
    site, email = await connect(house, publisher), await invited(house, publisher)
    policy = account_pb2.UpdateSecurityPolicyRequest(require_staff_factor=True)
    await house.call(house.staff(publisher.live), house.accounts.UpdateSecurityPolicy, policy)
    with pytest.raises(GatefoldError, match="provider_too_weak"):
        await site.sign_in(attributes=person(email))
    await update(house, publisher, saml_pb2.UpdateSamlConnectionRequest(id=site.connection.id, asks_second_factor=True))
    assert (await claims(house, await site.sign_in(attributes=person(email))))["acr"] == "aal2"


async def test_an_owner_adds_the_provider_from_a_session_of_their_own(house: AuthHouse) -> None:
    publisher = await house.publisher()
    site, attributes = await connect(house, publisher), person(publisher.owner_email)
    with pytest.raises(GatefoldError, match="identity_link_needed"):
        await site.sign_in(attributes=attributes)
    own = await house.person("per", await house.sign_in_staff(publisher.owner_email), account=publisher.live)
    visit = await site.begin()
    token = await site.post(site.provider.response(site.said(visit, attributes=attributes)), visit.request.relay_state)
    request = saml_pb2.LinkSamlIdentityRequest(token=token, browser_secret=visit.secret)
    await house.call(own, house.saml.LinkSamlIdentity, request)
    with pytest.raises(GatefoldError, match="token_invalid"):
        await house.call(own, house.saml.LinkSamlIdentity, request)
    tokens = await site.sign_in(attributes=attributes)
    assert (await claims(house, tokens))["role"] == "owner"


async def test_people_may_start_at_the_provider_where_the_owner_lets_them(house: AuthHouse) -> None:
    publisher = await house.publisher()
    site, email = await connect(house, publisher, unsolicited=True), await invited(house, publisher)
    unasked = site.unasked(attributes=person(email))
    token = await site.post(site.provider.response(unasked, sign="both"), "https://anywhere.example")
    tokens = await site.finish(token, "")
    assert tokens.account_id == ids.encode("acct", publisher.live)
    with pytest.raises(GatefoldError, match="token_invalid"):
        await site.finish(token, "")


@pytest.mark.parametrize("way", ["off", "another", "gone"])
async def test_sessions_end_with_the_trust_in_their_provider(house: AuthHouse, way: str) -> None:
    publisher = await house.publisher()
    site, email = await connect(house, publisher), await invited(house, publisher)
    kept = await house.sign_in_staff(email)
    begun = [await site.sign_in(place, attributes=person(email)) for place in (publisher.live, publisher.test)]
    # New certificates of the same provider change nothing.
    renewed = replace(site.provider, published=(key(12), site.provider.signs_with))
    await update(
        house,
        publisher,
        saml_pb2.UpdateSamlConnectionRequest(id=site.connection.id, idp_metadata=renewed.metadata(), name="SSO"),
    )
    begun = [await house.refresh(tokens.refresh_token) for tokens in begun]
    if way == "gone":
        request = saml_pb2.DeleteSamlConnectionRequest(id=site.connection.id)
        await house.call(house.staff(publisher.live), house.saml_connections.DeleteSamlConnection, request)
        assert await listed(house, publisher) == []
    else:
        change = saml_pb2.UpdateSamlConnectionRequest(id=site.connection.id)
        if way == "off":
            change.enabled = False
        else:
            change.idp_metadata = SamlProvider("https://other.example/metadata").metadata()
        await update(house, publisher, change)
    for tokens in begun:
        with pytest.raises(GatefoldError, match="invalid_grant"):
            await house.refresh(tokens.refresh_token)
    assert await house.refresh(kept.refresh_token)


async def test_what_is_over_is_cleared_away(house: AuthHouse) -> None:
    publisher = await house.publisher()
    site, email = await connect(house, publisher), await invited(house, publisher)
    await site.sign_in(attributes=person(email))
    visit = await site.begin()
    await site.post(site.provider.response(site.said(visit)), visit.request.relay_state)
    await site.begin()

    async def rows() -> list[int]:
        async with house.app.tenant(publisher.live, "count") as conn:
            return [
                await conn.fetchval("SELECT count(*) FROM saml_sign_in"),
                await conn.fetchval("SELECT count(*) FROM saml_assertion"),
            ]

    assert await rows() == [2, 2]
    await Expiry(house.database.jobs, house.clock).clear()
    assert await rows() == [2, 2]
    later(house, timedelta(minutes=11))
    await Expiry(house.database.jobs, house.clock).clear()
    assert await rows() == [0, 0]


@pytest.mark.parametrize("missing", ["saml2", "signxml", "lxml"])
async def test_without_its_libraries_auth_works_and_says_what_is_missing(
    house: AuthHouse, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = await house.publisher()
    site = await connect(house, publisher)
    for name in [one for one in sys.modules if one.split(".")[0] == missing or one.endswith(".saml_messages")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("services.auth.clients.saml_messages", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    for attempt in (connect(house, publisher, SamlProvider("https://other.example")), site.begin()):
        with pytest.raises(GatefoldError) as raised:
            await attempt
        assert (raised.value.kind, raised.value.reason) == (Kind.PRECONDITION, "saml_not_installed")
    assert await listed(house, publisher) == [site.connection]
    assert (await house.sign_in_staff(publisher.owner_email)).access_token


def test_auth_starts_without_the_libraries() -> None:
    script = """if True:
        import sys
        for name in ("saml2", "signxml", "lxml"):
            sys.modules[name] = None
        import services.auth.__main__, services.auth.servicer
    """
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).resolve().parents[4])


async def test_through_the_gateway_from_the_redirect_to_the_session(house: AuthHouse) -> None:
    publisher = await house.publisher()
    site = await connect(house, publisher, SamlProvider(), default_role=team_pb2.ROLE_SUPPORT)
    account = ids.encode("acct", publisher.live)
    async with running_edge(house) as edge:
        begun = await edge.ask(
            "POST", "/v1/staff/saml/begin", json={"account_id": account, "connection_id": site.connection.id}
        )
        assert begun.status == 200
        request = read(begun.json["redirect_url"])
        said = site.provider.answer(
            request, house.clock.wall(), attributes={"mail": (house.fresh("sam"),), "displayName": ("Sam",)}
        )
        form = {"SAMLResponse": posted(site.provider.response(said)), "RelayState": request.relay_state}
        foreign = {"Origin": "https://idp.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        path = urlsplit(request.acs_url).path
        answer = await edge.ask("POST", path, data=form, headers=foreign, allow_redirects=False)
        assert (answer.status, answer.body) == (303, b"")
        location = urlsplit(answer.headers["Location"])
        assert (location.netloc, location.path, location.query) == ("staff.gatefold.example", "/sign-in/callback", "")
        assert "no-store" in answer.headers["Cache-Control"]
        again = await edge.ask("POST", path, data=form, headers=foreign, allow_redirects=False)
        assert (again.status, again.json["error"]) == (400, "access_denied")
        token = parse_qs(location.fragment)["token"][0]
        finish = {"token": token, "browser_secret": begun.json["browser_secret"]}
        finished = await edge.ask("POST", "/v1/staff/saml/finish", json=finish)
        assert finished.status == 200
        assert finished.json["account_id"] == account
        members = await edge.ask("GET", "/v1/members", credential=finished.json["access_token"])
        assert [one["role"] for one in members.json["data"]] == ["support", "owner"]
        own = await edge.devices(finished.json["access_token"])
        assert (own.status, own.reason) == (403, "federated_session"), "nothing of the person's own"
        metadata = await edge.ask("GET", urlsplit(request.issuer).path)
        assert metadata.headers["Content-Type"] == "application/samlmetadata+xml"
