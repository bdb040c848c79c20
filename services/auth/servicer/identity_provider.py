"""Owns gatefold.auth.v1.IdentityProviderService."""

from datetime import UTC, datetime
from uuid import UUID

from gatefold.auth.v1 import identity_provider_pb2, identity_provider_pb2_grpc

from libs import ids
from services.auth.clients.openid import Credentials
from services.auth.domain import openid
from services.auth.domain.federation import READERS, STAFF
from services.auth.domain.openid import Provider
from services.auth.servicer import page
from services.auth.usecases.identity_providers import IdentityProviders

_KINDS = {
    identity_provider_pb2.IDENTITY_PROVIDER_KIND_GOOGLE: openid.GOOGLE,
    identity_provider_pb2.IDENTITY_PROVIDER_KIND_APPLE: openid.APPLE,
    identity_provider_pb2.IDENTITY_PROVIDER_KIND_MICROSOFT: openid.MICROSOFT,
    identity_provider_pb2.IDENTITY_PROVIDER_KIND_OIDC: openid.GENERIC,
}
_KIND_NUMBERS = {kind: number for number, kind in _KINDS.items()}
_AUDIENCES = {
    identity_provider_pb2.IDENTITY_PROVIDER_AUDIENCE_READERS: READERS,
    identity_provider_pb2.IDENTITY_PROVIDER_AUDIENCE_STAFF: STAFF,
}
_AUDIENCE_NUMBERS = {audience: number for number, audience in _AUDIENCES.items()}
_NOBODY = UUID(int=0)
_NEVER = datetime.fromtimestamp(0, UTC)


class IdentityProviderServicer(identity_provider_pb2_grpc.IdentityProviderServiceServicer):
    """Providers of accounts."""

    def __init__(self, providers: IdentityProviders) -> None:
        self._providers = providers

    async def CreateIdentityProvider(
        self, request: identity_provider_pb2.CreateIdentityProviderRequest, context: object
    ) -> identity_provider_pb2.IdentityProvider:
        """Sets a provider up."""
        asked = _asked(
            request.settings,
            kind=_KINDS.get(request.kind, ""),
            audience=_AUDIENCES.get(request.audience, ""),
            issuer=request.issuer,
        )
        return _shown(await self._providers.create(asked, _credentials(request.credentials)))

    async def ListIdentityProviders(
        self, request: identity_provider_pb2.ListIdentityProvidersRequest, context: object
    ) -> identity_provider_pb2.ListIdentityProvidersResponse:
        """Lists providers."""
        limit = page.size(request.limit)
        found = await self._providers.list_providers(page.before("idp", request.cursor), limit + 1)
        shown, last = page.cut(found, limit)
        return identity_provider_pb2.ListIdentityProvidersResponse(
            data=[_shown(one) for one in shown], next_cursor=ids.encode("idp", last.id) if last else ""
        )

    async def UpdateIdentityProvider(
        self, request: identity_provider_pb2.UpdateIdentityProviderRequest, context: object
    ) -> identity_provider_pb2.IdentityProvider:
        """Replaces a provider's settings."""
        changed = await self._providers.update(
            ids.decode("idp", request.id), _asked(request.settings), _credentials(request.credentials)
        )
        return _shown(changed)

    async def DeleteIdentityProvider(
        self, request: identity_provider_pb2.DeleteIdentityProviderRequest, context: object
    ) -> identity_provider_pb2.DeleteIdentityProviderResponse:
        """Deletes a provider."""
        await self._providers.remove(ids.decode("idp", request.id))
        return identity_provider_pb2.DeleteIdentityProviderResponse()

    async def ListSignInProviders(
        self, request: identity_provider_pb2.ListSignInProvidersRequest, context: object
    ) -> identity_provider_pb2.ListSignInProvidersResponse:
        """Lists what readers may sign in with."""
        return identity_provider_pb2.ListSignInProvidersResponse(
            data=[
                identity_provider_pb2.SignInProvider(
                    id=ids.encode("idp", one.id), kind=_KIND_NUMBERS[one.kind], name=one.name
                )
                for one in await self._providers.offered()
            ]
        )


def _asked(
    settings: identity_provider_pb2.IdentityProviderSettings, kind: str = "", audience: str = "", issuer: str = ""
) -> Provider:
    return Provider(
        id=_NOBODY,
        kind=kind,
        audience=audience,
        name=settings.name,
        issuer=issuer,
        client_id=settings.client_id,
        scopes=tuple(settings.scopes),
        redirect_uris=tuple(settings.redirect_uris),
        created_at=_NEVER,
        team_id=settings.team_id,
        key_id=settings.key_id,
        tenants=tuple(settings.tenants),
        email_domains=tuple(settings.email_domains),
        trust_verified_email=settings.trust_verified_email,
        default_role=settings.default_role or None,
        asks_second_factor=settings.asks_second_factor,
        enabled=settings.enabled,
    )


def _credentials(given: identity_provider_pb2.IdentityProviderCredentials) -> Credentials:
    return Credentials(given.client_secret, given.private_key)


def _shown(provider: Provider) -> identity_provider_pb2.IdentityProvider:
    response = identity_provider_pb2.IdentityProvider(
        id=ids.encode("idp", provider.id),
        kind=_KIND_NUMBERS[provider.kind],
        audience=_AUDIENCE_NUMBERS[provider.audience],
        issuer=provider.issuer,
        settings=identity_provider_pb2.IdentityProviderSettings(
            name=provider.name,
            client_id=provider.client_id,
            scopes=provider.scopes,
            redirect_uris=provider.redirect_uris,
            team_id=provider.team_id,
            key_id=provider.key_id,
            tenants=provider.tenants,
            email_domains=provider.email_domains,
            trust_verified_email=provider.trust_verified_email,
            default_role=provider.default_role or "",
            asks_second_factor=provider.asks_second_factor,
            enabled=provider.enabled,
        ),
    )
    response.created_at.FromDatetime(provider.created_at)
    return response
