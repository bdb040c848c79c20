"""Owns a house whose publishers sign people in with a provider of others, and the browsers that go there and back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from gatefold.auth.v1 import federated_session_pb2, identity_provider_pb2, session_pb2, team_pb2

from libs import ids
from libs.caller import Caller
from libs.clock import FixedClock
from libs.postgres import as_tenant
from services.auth.domain import roles
from tests.support import openid_provider
from tests.support.auth import PASSWORD, AuthHouse, Publisher, running
from tests.support.openid_provider import CLIENT_ID, CLIENT_SECRET, Back, OpenIdProvider
from tests.support.stores import ServiceDatabase

PAGE = "https://daily.example/sign-in/callback"
READERS = identity_provider_pb2.IDENTITY_PROVIDER_AUDIENCE_READERS
STAFF = identity_provider_pb2.IDENTITY_PROVIDER_AUDIENCE_STAFF
OIDC = identity_provider_pb2.IDENTITY_PROVIDER_KIND_OIDC
pb = federated_session_pb2


@dataclass(frozen=True)
class Sent:
    """A browser that was sent away."""

    departure: federated_session_pb2.FederatedDeparture
    back: Back

    def finish(self, **changes: str) -> federated_session_pb2.FinishFederatedSessionRequest:
        given = {
            "state": self.back.state,
            "code": self.back.code,
            "iss": self.back.iss,
            "browser_secret": self.departure.browser_secret,
        }
        return pb.FinishFederatedSessionRequest(**{**given, **changes})


class Abroad:
    """An AuthHouse and an OpenID provider that it asks."""

    def __init__(self, house: AuthHouse, provider: OpenIdProvider) -> None:
        self.house = house
        self.provider = provider

    async def set_up(
        self,
        account: UUID,
        audience: Any = READERS,
        *,
        at: OpenIdProvider | None = None,
        who: Caller | None = None,
        kind: Any = OIDC,
        credentials: Any = None,
        **settings: Any,
    ) -> identity_provider_pb2.IdentityProvider:
        """Sets a provider up in an account."""
        chosen = {
            "name": "The provider",
            "client_id": CLIENT_ID,
            "redirect_uris": [PAGE],
            "enabled": True,
            **settings,
        }
        request = identity_provider_pb2.CreateIdentityProviderRequest(
            kind=kind,
            audience=audience,
            issuer=(at or self.provider).issuer,
            settings=identity_provider_pb2.IdentityProviderSettings(**chosen),
            credentials=credentials or identity_provider_pb2.IdentityProviderCredentials(client_secret=CLIENT_SECRET),
        )
        caller = who or self.house.staff(account, roles.OWNER)
        answer = await self.house.call(caller, self.house.identity_providers.CreateIdentityProvider, request)
        assert isinstance(answer, identity_provider_pb2.IdentityProvider)
        return answer

    async def update(
        self, account: UUID, held: identity_provider_pb2.IdentityProvider, **changes: Any
    ) -> identity_provider_pb2.IdentityProvider:
        """Changes some of a provider's settings."""
        settings = identity_provider_pb2.IdentityProviderSettings()
        settings.CopyFrom(held.settings)
        for name, value in changes.items():
            if isinstance(value, list):
                del getattr(settings, name)[:]
                getattr(settings, name).extend(value)
            else:
                setattr(settings, name, value)
        request = identity_provider_pb2.UpdateIdentityProviderRequest(id=held.id, settings=settings)
        who = self.house.staff(account, roles.OWNER)
        answer = await self.house.call(who, self.house.identity_providers.UpdateIdentityProvider, request)
        assert isinstance(answer, identity_provider_pb2.IdentityProvider)
        return answer

    async def begin(
        self, account: UUID, provider: identity_provider_pb2.IdentityProvider, page: str = PAGE
    ) -> federated_session_pb2.FederatedDeparture:
        request = pb.BeginFederatedSessionRequest(provider_id=provider.id, redirect_uri=page)
        answer = await self.house.call(self.house.page(account), self.house.federated.BeginFederatedSession, request)
        assert isinstance(answer, pb.FederatedDeparture)
        return answer

    async def send(
        self, account: UUID, provider: identity_provider_pb2.IdentityProvider, at: OpenIdProvider | None = None
    ) -> Sent:
        """Sends a reader's browser to the provider, where it signs in."""
        departure = await self.begin(account, provider)
        return self.note(Sent(departure, await (at or self.provider).browse(departure.authorization_url)))

    async def send_staff(self, account: UUID, provider: str = "", at: OpenIdProvider | None = None) -> Sent:
        """Sends the browser of somebody who works for an account to its provider."""
        request = pb.BeginStaffFederatedSessionRequest(
            account_id=ids.encode("acct", account), provider_id=provider, redirect_uri=PAGE
        )
        who = self.house.anonymous()
        departure = await self.house.call(who, self.house.federated.BeginStaffFederatedSession, request)
        assert isinstance(departure, pb.FederatedDeparture)
        return self.note(Sent(departure, await (at or self.provider).browse(departure.authorization_url)))

    async def send_to_link(self, who: Caller, provider: identity_provider_pb2.IdentityProvider) -> Sent:
        """Sends the browser of somebody who is signed in to a provider, to add the identity there."""
        request = pb.BeginIdentityLinkRequest(provider_id=provider.id, redirect_uri=PAGE)
        departure = await self.house.call(who, self.house.federated.BeginIdentityLink, request)
        assert isinstance(departure, pb.FederatedDeparture)
        return self.note(Sent(departure, await self.provider.browse(departure.authorization_url)))

    async def finish(self, sent: Sent, **changes: str) -> session_pb2.Tokens:
        who = self.house.anonymous()
        answer = await self.house.call(who, self.house.federated.FinishFederatedSession, sent.finish(**changes))
        assert isinstance(answer, session_pb2.Tokens)
        return answer

    async def finish_link(self, who: Caller, sent: Sent) -> federated_session_pb2.Identity:
        given = sent.finish()
        request = pb.FinishIdentityLinkRequest(
            state=given.state, code=given.code, iss=given.iss, browser_secret=given.browser_secret
        )
        answer = await self.house.call(who, self.house.federated.FinishIdentityLink, request)
        assert isinstance(answer, pb.Identity)
        return answer

    async def identities(self, who: Caller) -> list[federated_session_pb2.Identity]:
        answer = await self.house.call(who, self.house.federated.ListIdentities, pb.ListIdentitiesRequest())
        assert isinstance(answer, pb.ListIdentitiesResponse)
        return list(answer.data)

    async def member(
        self, publisher: Publisher, email: str, role: str = roles.ADMIN, *, password: str = PASSWORD
    ) -> UUID:
        """Makes somebody with a password a member of a team; returns the person."""
        number = team_pb2.Role.Value(f"ROLE_{role.upper()}")
        request = team_pb2.InviteMemberRequest(email=email, role=number)
        owner = replace(self.house.staff(publisher.live, roles.OWNER), idempotency_key=self.house.request_id())
        await self.house.call(owner, self.house.team.InviteMember, request)
        member = await self.house.accept(await self.house.token(publisher.live, "invite_member"), password)
        return ids.decode("per", member.person_id)

    def note(self, sent: Sent) -> Sent:
        """Has what the browser brings back searched for in what the house writes."""
        self.house.secrecy.note(sent.finish())
        return sent

    async def alive(self, account: UUID) -> int:
        """Counts an account's sessions that have not ended."""
        async with self.house.app.transaction("count_sessions") as conn, as_tenant(conn, account):
            return int(
                await conn.fetchval(
                    "SELECT count(*) FROM session WHERE account_id = $1 AND revoked_at IS NULL", account
                )
            )


@asynccontextmanager
async def abroad(
    database: ServiceDatabase, keys_dsn: str, redis_url: str, key_file: Path, folder: Path
) -> AsyncIterator[Abroad]:
    """Runs auth beside a provider on loopback."""
    clock = FixedClock()
    settings = {"GATEFOLD_FEDERATION_PRIVATE": "true", "GATEFOLD_FEDERATION_SECONDS": "5"}
    async with (
        running(database, keys_dsn, redis_url, key_file, folder, clock, settings) as house,
        openid_provider.serving(clock) as provider,
    ):
        yield Abroad(house, provider)
