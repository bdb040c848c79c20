"""Signing in with another provider: who becomes whom, what is added to whom, and what ends with it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import joserfc.jwt
import pytest
from gatefold.auth.v1 import (
    account_pb2,
    factor_pb2,
    federated_session_pb2,
    identity_provider_pb2,
    recovery_pb2,
    session_pb2,
    sign_in_pb2,
    team_pb2,
)
from gatefold.privacy.v1 import subject_data_pb2
from joserfc.jwk import ECKey

from infra.local.valkey import ValkeyServer
from libs import caller, ids
from libs.caller import Caller
from libs.config import Secret
from libs.errors import GatefoldError, Kind
from libs.postgres import PLATFORM, as_tenant
from libs.privacy import SubjectDataServicer
from libs.vault import Vault
from services.auth.__main__ import PERSONAL_TABLES
from services.auth.clients.openid import KEPT_FOR
from services.auth.domain import roles
from services.auth.repository import directory_entries
from services.auth.repository.directory_entries import DirectoryEntry
from tests.conftest import ServiceDb
from tests.support import openid_provider
from tests.support.auth import PASSWORD
from tests.support.federation import PAGE, STAFF, Abroad, Sent, abroad
from tests.support.openid_provider import CLIENT_ID


@pytest.fixture(scope="module")
async def world(
    service_db: ServiceDb,
    keys_dsn: Secret,
    valkey_server: ValkeyServer,
    key_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Abroad]:
    folder = tmp_path_factory.mktemp("auth")
    database = await service_db("auth")
    async with abroad(database, keys_dsn.reveal(), valkey_server.url().reveal(), key_file, folder) as found:
        yield found


@pytest.fixture(autouse=True)
def honest(world: Abroad) -> None:
    world.provider.honest()


@pytest.mark.case("auth-64")
async def test_a_reader_who_is_not_known_becomes_one_and_is_known_by_the_providers_identifier(world: Abroad) -> None:
    publisher = await world.house.publisher()
    provider = await world.set_up(publisher.live)
    email = world.house.fresh()
    world.provider.person = {"sub": "reader-1", "email": email, "email_verified": True, "name": "Rita"}
    first = await world.finish(await world.send(publisher.live, provider))
    claims = await world.house.claims(first.access_token)
    assert (claims["kind"], claims["acr"], claims["federated"]) == ("SUBSCRIBER", "aal1", True)
    assert (await world.house.events(publisher.live)).count("subscriber.registered") == 1
    # Another address, or none: still the same person. Another identifier with the same address: somebody else.
    for told in ({"sub": "reader-1", "email": world.house.fresh(), "email_verified": True}, {"sub": "reader-1"}):
        world.provider.person = told
        again = await world.finish(await world.send(publisher.live, provider))
        assert again.principal_id == first.principal_id
    world.provider.person = {"sub": "READER-1", "email": email, "email_verified": True}
    with pytest.raises(GatefoldError) as raised:
        await world.finish(await world.send(publisher.live, provider))
    assert (raised.value.kind, raised.value.reason) == (Kind.PRECONDITION, "identity_link_needed")
    assert ids.decode("subj", first.principal_id)


@pytest.mark.case("auth-39")
async def test_a_reader_adds_a_provider_signs_in_with_it_and_takes_it_away_again(world: Abroad) -> None:
    publisher = await world.house.publisher()
    provider = await world.set_up(publisher.live)
    email = world.house.fresh()
    subject = await world.house.reader(publisher.live, email)
    signed_in = await world.house.sign_in(publisher.live, email)
    reader = await world.house.holder(signed_in)
    # The address at the provider is another one, and of no consequence.
    world.provider.person = {"sub": "rita", "email": "rita@elsewhere.example", "email_verified": False}
    added = await world.finish_link(reader, await world.send_to_link(reader, provider))
    assert (added.provider_name, added.issuer) == ("The provider", world.provider.url)
    letter = await world.house.describe(await world.house.newest_challenge(publisher.live))
    assert (letter.purpose, letter.email, letter.details["factor"]) == ("identity_added", email, "The provider")
    tokens = await world.finish(await world.send(publisher.live, provider))
    assert tokens.principal_id == ids.encode("subj", subject)
    assert [one.id for one in await world.identities(reader)] == [added.id]
    # Adding it once more changes nothing.
    assert (await world.finish_link(reader, await world.send_to_link(reader, provider))).id == added.id
    await remove(world, reader, added.id)
    letter = await world.house.describe(await world.house.newest_challenge(publisher.live))
    assert (letter.purpose, letter.details["factor"]) == ("identity_removed", "The provider")
    # What it began is over; what the password began goes on.
    with pytest.raises(GatefoldError, match="invalid_grant"):
        await world.house.refresh(tokens.refresh_token)
    assert (await world.house.refresh(signed_in.refresh_token)).access_token
    with pytest.raises(GatefoldError, match="identity_email_unverified"):
        await world.finish(await world.send(publisher.live, provider))
    with pytest.raises(GatefoldError, match="identity_not_found"):
        await remove(world, reader, added.id)


async def remove(world: Abroad, who: Caller, key: str) -> None:
    request = federated_session_pb2.RemoveIdentityRequest(id=key)
    await world.house.call(who, world.house.federated.RemoveIdentity, request)


async def test_the_last_way_in_stays(world: Abroad) -> None:
    publisher = await world.house.publisher()
    async with openid_provider.serving(world.house.clock) as other:
        first, second = await world.set_up(publisher.live), await world.set_up(publisher.live, at=other, name="Second")
        email = world.house.fresh()
        world.provider.person = other.person = {"sub": "r", "email": email, "email_verified": True}
        reader = await world.house.holder(await world.finish(await world.send(publisher.live, first)))
        (only,) = await world.identities(reader)
        with pytest.raises(GatefoldError) as raised:
            await remove(world, reader, only.id)
        assert (raised.value.kind, raised.value.reason) == (Kind.PRECONDITION, "last_way_in")
        # With another provider there is another way; of two that go at once one stays.
        departure = await world.house.call(
            reader,
            world.house.federated.BeginIdentityLink,
            federated_session_pb2.BeginIdentityLinkRequest(provider_id=second.id, redirect_uri=PAGE),
        )
        assert isinstance(departure, federated_session_pb2.FederatedDeparture)
        back = await other.browse(departure.authorization_url)
        await world.finish_link(reader, world.note(Sent(departure, back)))
        both = [one.id for one in await world.identities(reader)]
        assert len(both) == 2
        answers = await asyncio.gather(*(remove(world, reader, one) for one in both), return_exceptions=True)
        assert sorted(str(getattr(one, "reason", None)) for one in answers) == ["None", "last_way_in"]
        # A password is one, too.
        await world.house.call(
            world.house.page(publisher.live),
            world.house.recovery.RequestPasswordReset,
            recovery_pb2.RequestPasswordResetRequest(email=email),
        )
        await world.house.complete_reset(await world.house.token(publisher.live, "reset_password"), PASSWORD + "!")
        reader = await world.house.holder(await world.house.sign_in(publisher.live, email, PASSWORD + "!"))
        (left,) = await world.identities(reader)
        await remove(world, reader, left.id)
        assert await world.identities(reader) == []


@pytest.mark.case("auth-39")
async def test_a_provider_that_the_account_trusts_with_addresses_is_added_to_who_has_one(world: Abroad) -> None:
    publisher = await world.house.publisher()
    provider = await world.set_up(publisher.live, trust_verified_email=True, email_domains=["example.com"])
    email = world.house.fresh()
    subject = await world.house.reader(publisher.live, email)
    world.provider.person = {"sub": "trusted", "email": email.upper(), "email_verified": True}
    tokens = await world.finish(await world.send(publisher.live, provider))
    assert tokens.principal_id == ids.encode("subj", subject)
    letter = await world.house.describe(await world.house.newest_challenge(publisher.live))
    assert (letter.purpose, letter.email) == ("identity_added", email)
    # The password goes on, and so does whoever is signed in with it.
    assert (await world.house.sign_in(publisher.live, email)).principal_id == tokens.principal_id
    world.provider.person = {"sub": "stranger", "email": "r@example.org", "email_verified": True}
    with pytest.raises(GatefoldError, match="email_domain_not_allowed"):
        await world.finish(await world.send(publisher.live, provider))


async def test_a_second_factor_is_asked_for_whoever_proves_the_first(world: Abroad) -> None:
    publisher = await world.house.publisher()
    provider = await world.set_up(publisher.live)
    email = world.house.fresh()
    world.provider.person = {"sub": "careful", "email": email, "email_verified": True}
    reader = await world.house.holder(await world.finish(await world.send(publisher.live, provider)))
    await world.house.call(reader, world.house.factors.EnableEmailCodes, factor_pb2.EnableEmailCodesRequest())
    answer = await world.finish(await world.send(publisher.live, provider))
    assert (answer.access_token, answer.pending.next, list(answer.pending.methods)) == (
        "",
        "second_factor",
        ["email_code"],
    )
    # A sign-in that waits ends with the identity that it began with.
    held = await world.update(publisher.live, provider, enabled=False)
    assert not held.settings.enabled
    with pytest.raises(GatefoldError, match="sign_in_expired"):
        await world.house.call(
            world.house.anonymous(),
            world.house.factors.SendSignInCode,
            factor_pb2.SendSignInCodeRequest(pending_token=answer.pending.token),
        )


@pytest.mark.parametrize("way", ["off", "gone"])
async def test_a_provider_that_is_switched_off_takes_along_what_it_began(world: Abroad, way: str) -> None:
    publisher = await world.house.publisher()
    provider = await world.set_up(publisher.live)
    email = world.house.fresh()
    world.provider.person = {"sub": f"switch-{way}", "email": email, "email_verified": True}
    tokens = await world.finish(await world.send(publisher.live, provider))
    await_answer = await world.send(publisher.live, provider)
    other = world.house.fresh()
    await world.house.reader(publisher.live, other)
    untouched = await world.house.sign_in(publisher.live, other)
    if way == "off":
        await world.update(publisher.live, provider, enabled=False)
    else:
        request = identity_provider_pb2.DeleteIdentityProviderRequest(id=provider.id)
        who = world.house.staff(publisher.live)
        await world.house.call(who, world.house.identity_providers.DeleteIdentityProvider, request)
    with pytest.raises(GatefoldError, match="invalid_grant"):
        await world.house.refresh(tokens.refresh_token)
    with pytest.raises(GatefoldError, match="provider_not_found"):
        await world.finish(await_answer)
    with pytest.raises(GatefoldError, match="provider_not_found"):
        await world.begin(publisher.live, provider)
    assert (await world.house.refresh(untouched.refresh_token)).access_token
    assert await offered(world, publisher.live) == []
    # The reader is no worse off than without it: a mail leads back in.
    if way == "off":
        await world.update(publisher.live, provider, enabled=True)
        again = await world.finish(await world.send(publisher.live, provider))
        assert again.principal_id == tokens.principal_id


async def offered(world: Abroad, account: UUID) -> list[str]:
    request = identity_provider_pb2.ListSignInProvidersRequest()
    answer = await world.house.call(
        world.house.page(account), world.house.identity_providers.ListSignInProviders, request
    )
    assert isinstance(answer, identity_provider_pb2.ListSignInProvidersResponse)
    return [one.name for one in answer.data]


async def test_of_first_sign_ins_at_once_one_makes_the_reader(world: Abroad) -> None:
    publisher = await world.house.publisher()
    provider = await world.set_up(publisher.live)
    world.provider.person = {"sub": "twice", "email": world.house.fresh(), "email_verified": True}
    sent = [await world.send(publisher.live, provider) for _ in range(4)]
    answers = await asyncio.gather(*(world.finish(one) for one in sent), return_exceptions=True)
    made = {one.principal_id for one in answers if isinstance(one, session_pb2.Tokens)}
    assert len(made) == 1
    refused = {one.reason for one in answers if isinstance(one, GatefoldError)}
    assert refused <= {"concurrent_change", "identity_link_needed"}
    assert (await world.house.events(publisher.live)).count("subscriber.registered") == 1


async def test_a_member_signs_in_live_and_test_and_is_asked_for_no_password(world: Abroad) -> None:
    publisher = await world.house.publisher()
    email = world.house.fresh("member")
    person = await world.member(publisher, email, roles.SUPPORT)
    provider = await world.set_up(publisher.live, STAFF, trust_verified_email=True)
    world.provider.person = {"sub": "member", "email": email, "email_verified": True}
    live = await world.house.claims((await world.finish(await world.send_staff(publisher.live))).access_token)
    letter = await world.house.describe(await world.house.newest_challenge(PLATFORM))
    assert (letter.purpose, letter.email) == ("identity_added", email)
    sent = await world.send_staff(publisher.test, provider.id)
    tokens = await world.finish(sent)
    test = await world.house.claims(tokens.access_token)
    assert live["sub"] == test["sub"] == ids.encode("per", person)
    assert (live["role"], live["acr"], live["live"]) == (roles.SUPPORT, "aal1", True)
    assert (test["account"], test["live"]) == (ids.encode("acct", publisher.test), False)
    # Switched off in the live account, it is off in the test one.
    await world.update(publisher.live, provider, enabled=False)
    with pytest.raises(GatefoldError, match="invalid_grant"):
        await world.house.refresh(tokens.refresh_token)


async def test_new_members_get_the_role_that_the_account_gives_and_invited_ones_theirs(world: Abroad) -> None:
    publisher = await world.house.publisher()
    provider = await world.set_up(publisher.live, STAFF)
    newcomer, invited = world.house.fresh("newcomer"), world.house.fresh("invited")
    world.provider.person = {"sub": "newcomer", "email": newcomer, "email_verified": True, "name": "Nina New"}
    with pytest.raises(GatefoldError) as raised:
        await world.finish(await world.send_staff(publisher.live))
    assert (raised.value.kind, raised.value.reason) == (Kind.FORBIDDEN, "membership_required")
    await world.update(
        publisher.live,
        provider,
        trust_verified_email=True,
        email_domains=["example.com"],
        default_role=roles.READ_ONLY,
    )
    who = await world.house.holder(await world.finish(await world.send_staff(publisher.live)))
    assert who.role == roles.READ_ONLY
    request = team_pb2.InviteMemberRequest(email=invited, role=team_pb2.ROLE_DEVELOPER)
    owner = world.house.staff(publisher.live, key=world.house.request_id())
    await world.house.call(owner, world.house.team.InviteMember, request)
    token = await world.house.token(publisher.live, "invite_member")
    world.provider.person = {"sub": "invited", "email": invited, "email_verified": True}
    who = await world.house.holder(await world.finish(await world.send_staff(publisher.live)))
    assert who.role == roles.DEVELOPER
    # The invitation is used up.
    with pytest.raises(GatefoldError, match="token_"):
        await world.house.accept(token)
    listed = await world.house.call(
        world.house.staff(publisher.live), world.house.team.ListMembers, team_pb2.ListMembersRequest()
    )
    assert isinstance(listed, team_pb2.ListMembersResponse)
    assert {(one.email, one.name) for one in listed.data} >= {(newcomer, "Nina New"), (invited, invited.split("@")[0])}


async def test_whom_the_staff_directory_does_not_want_yet_comes_in_no_other_way(world: Abroad) -> None:
    publisher = await world.house.publisher()
    email = world.house.fresh("unwanted")
    await world.set_up(publisher.live, STAFF, trust_verified_email=True)
    request = team_pb2.InviteMemberRequest(email=email, role=team_pb2.ROLE_SALES)
    owner = world.house.staff(publisher.live, key=world.house.request_id())
    invited = await world.house.call(owner, world.house.team.InviteMember, request)
    assert isinstance(invited, team_pb2.Member)
    member = ids.decode("mem", invited.id)
    world.provider.person = {"sub": "unwanted", "email": email, "email_verified": True}

    async def say(*, wanted: bool) -> None:
        async with world.house.app.tenant(publisher.live, "say") as conn:
            entry = DirectoryEntry(member, b"sealed", wanted, world.house.clock.wall())
            await directory_entries.put(conn, publisher.live, entry)

    await say(wanted=False)
    with pytest.raises(GatefoldError, match="membership_required"):
        await world.finish(await world.send_staff(publisher.live))
    await say(wanted=True)
    assert (await world.finish(await world.send_staff(publisher.live))).access_token


async def test_whoever_was_removed_from_the_team_comes_in_no_more(world: Abroad) -> None:
    publisher = await world.house.publisher()
    email = world.house.fresh("leaver")
    await world.member(publisher, email, roles.SALES)
    await world.set_up(publisher.live, STAFF, trust_verified_email=True)
    world.provider.person = {"sub": "leaver", "email": email, "email_verified": True}
    tokens = await world.finish(await world.send_staff(publisher.live))
    listed = await world.house.call(
        world.house.staff(publisher.live), world.house.team.ListMembers, team_pb2.ListMembersRequest()
    )
    assert isinstance(listed, team_pb2.ListMembersResponse)
    (member,) = (one.id for one in listed.data if one.email == email)
    await world.house.call(
        world.house.staff(publisher.live), world.house.team.RemoveMember, team_pb2.RemoveMemberRequest(id=member)
    )
    with pytest.raises(GatefoldError, match="invalid_grant"):
        await world.house.refresh(tokens.refresh_token)
    with pytest.raises(GatefoldError, match="membership_required"):
        await world.finish(await world.send_staff(publisher.live))
    async with world.house.app.transaction("count_identities") as conn, as_tenant(conn, publisher.live):
        assert await conn.fetchval("SELECT count(*) FROM identity WHERE account_id = $1", publisher.live) == 0


@pytest.mark.case("auth-45")
async def test_where_a_factor_is_required_the_provider_has_to_ask_for_it(world: Abroad) -> None:
    publisher = await world.house.publisher()
    email = world.house.fresh("strong")
    await world.member(publisher, email, roles.FINANCE)
    provider = await world.set_up(publisher.live, STAFF, trust_verified_email=True)
    await policy(world, publisher.live, require_staff_factor=True)
    world.provider.person = {"sub": "strong", "email": email, "email_verified": True}
    # Its session could only add a factor, and a factor is the person's own: so there is none.
    with pytest.raises(GatefoldError) as raised:
        await world.finish(await world.send_staff(publisher.live))
    assert (raised.value.kind, raised.value.reason) == (Kind.FORBIDDEN, "provider_too_weak")
    await world.update(publisher.live, provider, asks_second_factor=True)
    claims = await world.house.claims((await world.finish(await world.send_staff(publisher.live))).access_token)
    assert claims["acr"] == "aal2"


async def policy(world: Abroad, account: UUID, **changes: Any) -> None:
    request = account_pb2.UpdateSecurityPolicyRequest(**changes)
    await world.house.call(world.house.staff(account), world.house.accounts.UpdateSecurityPolicy, request)


@pytest.mark.case("auth-19")
async def test_staff_of_a_provider_alone_get_in_by_no_password_and_are_told_of_resets_as_anybody(
    world: Abroad,
) -> None:
    publisher = await world.house.publisher()
    email = world.house.fresh("sso")
    await world.member(publisher, email, roles.FINANCE)
    await world.set_up(publisher.live, STAFF, trust_verified_email=True)
    before = await world.house.sign_in_staff(email)
    owner = await world.house.sign_in_staff(publisher.owner_email)
    await policy(world, publisher.live, staff_sign_in="provider_only")
    # What began by password is over, but for owners, who always get in: nobody is locked out.
    with pytest.raises(GatefoldError, match="invalid_grant"):
        await world.house.refresh(before.refresh_token)
    assert (await world.house.refresh(owner.refresh_token)).access_token
    assert (await world.house.sign_in_staff(publisher.owner_email)).access_token
    with pytest.raises(GatefoldError) as raised:
        await world.house.sign_in_staff(email)
    assert (raised.value.kind, raised.value.reason) == (Kind.FORBIDDEN, "provider_required")
    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await world.house.sign_in_staff(email, "not the right password")
    world.provider.person = {"sub": "sso", "email": email, "email_verified": True}
    assert (await world.finish(await world.send_staff(publisher.live))).access_token
    answers = []
    for address in (email, world.house.fresh("nobody")):
        request = recovery_pb2.RequestStaffPasswordResetRequest(email=address)
        rpc = world.house.recovery.RequestStaffPasswordReset
        answers.append(await world.house.call(world.house.anonymous(), rpc, request))
    assert answers[0] == answers[1]
    await policy(world, publisher.live, staff_sign_in="any")
    assert (await world.house.sign_in_staff(email)).access_token


async def test_identities_are_exported_and_erased_with_the_reader(world: Abroad, vault: Vault) -> None:
    publisher = await world.house.publisher()
    provider = await world.set_up(publisher.live)
    email = world.house.fresh()
    world.provider.person = {"sub": "who-leaves-42", "email": email, "email_verified": True}
    tokens = await world.finish(await world.send(publisher.live, provider))
    port = SubjectDataServicer("auth", world.house.app, vault, PERSONAL_TABLES, clock=world.house.clock)
    text = tokens.principal_id
    with caller.serving(world.house.service("compliance", publisher.live)):
        parts = [part async for part in port.Export(subject_data_pb2.ExportRequest(subject_id=text), None)]  # type: ignore[arg-type]
        exported = b"".join(part.json_lines for part in parts if part.table == "identity").decode()
        assert "who-leaves-42" in exported
        assert world.provider.url in exported
        assert "foreign_hash" not in exported
        plan = await port.PlanErase(subject_data_pb2.PlanEraseRequest(subject_id=text), None)  # type: ignore[arg-type]
        assert {one.table: one.rows for one in plan.tables}["identity"] == 1
        request = subject_data_pb2.EraseRequest(subject_id=text, plan_hash=plan.plan_hash)
        await port.Erase(request, None)  # type: ignore[arg-type]
        left = await port.Verify(subject_data_pb2.VerifyRequest(subject_id=text), None)  # type: ignore[arg-type]
        assert (left.residual, left.retained) == (0, 0)
    with pytest.raises(GatefoldError, match="invalid_grant"):
        await world.house.refresh(tokens.refresh_token)
    # Whoever comes again is somebody new, unless the subscriber service still knows them; nobody is brought back.
    sent = await world.send(publisher.live, provider)
    with pytest.raises(GatefoldError, match=r"subject_erased|key"):
        await world.finish(sent)
    del world.house.subscriber.subjects[(publisher.live, email)]
    again = await world.finish(await world.send(publisher.live, provider))
    assert again.principal_id != tokens.principal_id


async def test_whoever_is_kept_out_is_kept_out_of_this_way_too(world: Abroad) -> None:
    publisher = await world.house.publisher()
    provider = await world.set_up(publisher.live)
    world.provider.person = {"sub": "kept-out", "email": world.house.fresh(), "email_verified": True}
    tokens = await world.finish(await world.send(publisher.live, provider))
    request = sign_in_pb2.DisableSubscriberSignInRequest(subscriber_id=tokens.principal_id)
    await world.house.call(world.house.staff(publisher.live), world.house.sign_ins.DisableSubscriberSignIn, request)
    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await world.finish(await world.send(publisher.live, provider))
    assert await world.alive(publisher.live) == 0


async def test_a_provider_is_changed_and_its_secret_stays_until_another_is_given(world: Abroad) -> None:
    publisher = await world.house.publisher()
    provider = await world.set_up(publisher.live)
    with pytest.raises(GatefoldError) as raised:
        await world.set_up(publisher.live)
    assert (raised.value.kind, raised.value.reason) == (Kind.PRECONDITION, "provider_exists")
    changed = await world.update(publisher.live, provider, name="Renamed", scopes=["openid", "email", "profile"])
    assert (changed.settings.name, list(changed.settings.scopes)) == ("Renamed", ["openid", "email", "profile"])
    assert await offered(world, publisher.live) == ["Renamed"]
    world.provider.person = {"sub": "secret", "email": world.house.fresh(), "email_verified": True}
    assert (await world.finish(await world.send(publisher.live, provider))).access_token
    request = identity_provider_pb2.UpdateIdentityProviderRequest(
        id=provider.id,
        settings=changed.settings,
        credentials=identity_provider_pb2.IdentityProviderCredentials(client_secret="another-one-Qw72"),
    )
    who = world.house.staff(publisher.live)
    await world.house.call(who, world.house.identity_providers.UpdateIdentityProvider, request)
    with pytest.raises(GatefoldError, match="code_refused"):
        await world.finish(await world.send(publisher.live, provider))


async def test_apple_gets_a_secret_that_is_signed_and_its_form_goes_on_to_the_page(world: Abroad) -> None:
    publisher = await world.house.publisher()
    key = ECKey.generate_key("P-256")
    provider = await world.set_up(
        publisher.live,
        kind=identity_provider_pb2.IDENTITY_PROVIDER_KIND_APPLE,
        credentials=identity_provider_pb2.IdentityProviderCredentials(private_key=key.as_pem(private=True).decode()),
        team_id="TEAM",
        key_id="KEY",
        scopes=["openid", "email"],
    )
    world.provider.names_itself = False
    world.house.clock.advance(KEPT_FOR)
    world.provider.person = {"sub": "001.apple", "email": world.house.fresh(), "email_verified": "true"}
    departure = await world.begin(publisher.live, provider)
    asked = parse_qs(urlsplit(departure.authorization_url).query)
    form_post = "https://auth.gatefold.example/v1/federated_sessions/form_post"
    assert (asked["response_mode"], asked["redirect_uri"]) == (["form_post"], [form_post])
    back = await world.provider.browse(departure.authorization_url)
    request = federated_session_pb2.ReceiveFormPostRequest(state=back.state, code=back.code)
    redirect = await world.house.call(world.house.anonymous(), world.house.federated.ReceiveFormPost, request)
    page, _, fragment = redirect.location.partition("#")  # type: ignore[attr-defined]
    given = parse_qs(fragment)
    assert (page, given["state"], given["code"]) == (PAGE, [back.state], [back.code])
    tokens = await world.finish(world.note(Sent(departure, back)))
    assert tokens.access_token
    form = world.provider.forms[-1]
    claims = joserfc.jwt.decode(form["client_secret"], key, ["ES256"])
    assert (claims.header["kid"], claims.claims["iss"], claims.claims["sub"]) == ("KEY", "TEAM", CLIENT_ID)
    assert claims.claims["aud"] == world.provider.url
    assert 0 < claims.claims["exp"] - claims.claims["iat"] <= 300


async def test_microsoft_signs_in_people_of_the_directories_that_are_named(world: Abroad) -> None:
    publisher = await world.house.publisher()
    named, other, stranger = (str(UUID(int=number)) for number in (1, 2, 3))
    async with openid_provider.serving(world.house.clock, prefix="/organizations/v2.0") as at:
        at.issuer = at.url.replace("organizations", "{tenantid}")
        provider = await world.set_up(
            publisher.live,
            at=at,
            kind=identity_provider_pb2.IDENTITY_PROVIDER_KIND_MICROSOFT,
            tenants=[named, other],
        )
        email = world.house.fresh()
        at.person = {"sub": "ms", "email": email, "tid": named, "iss": at.issuer.replace("{tenantid}", named)}
        # Microsoft says by another claim whether an address is verified.
        for told in ({}, {"email_verified": True}, {"xms_edov": "1"}):
            at.lies = told
            with pytest.raises(GatefoldError, match="identity_email_unverified"):
                await world.finish(await world.send(publisher.live, provider, at))
        at.lies = {"xms_edov": True}
        assert (await world.finish(await world.send(publisher.live, provider, at))).access_token
        for lie in (
            {"tid": stranger, "iss": at.issuer.replace("{tenantid}", stranger)},
            {"tid": other},
            {"tid": "{tenantid}", "iss": at.issuer},
            {"tid": None},
        ):
            at.lies = {"xms_edov": True, **lie}
            with pytest.raises(GatefoldError, match="id_token_invalid"):
                await world.finish(await world.send(publisher.live, provider, at))
