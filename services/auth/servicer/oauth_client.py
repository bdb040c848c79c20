"""Owns gatefold.auth.v1.OAuthClientService."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from gatefold.auth.v1 import oauth_client_pb2, oauth_client_pb2_grpc

from libs import ids
from libs.postgres import PLATFORM
from services.auth.domain.oauth import Client
from services.auth.servicer import page
from services.auth.usecases.oauth_clients import OAuthClients

_NEVER = datetime.min.replace(tzinfo=UTC)


class OAuthClientServicer(oauth_client_pb2_grpc.OAuthClientServiceServicer):
    """Clients of the OpenID Connect provider."""

    def __init__(self, clients: OAuthClients) -> None:
        self._clients = clients

    async def CreateOAuthClient(
        self, request: oauth_client_pb2.CreateOAuthClientRequest, context: object
    ) -> oauth_client_pb2.CreateOAuthClientResponse:
        """Registers a client."""
        client, secret = await self._clients.create(
            _wanted(request, PLATFORM, confidential=request.confidential, enabled=True)
        )
        return oauth_client_pb2.CreateOAuthClientResponse(client=_client(client), client_secret=secret)

    async def ListOAuthClients(
        self, request: oauth_client_pb2.ListOAuthClientsRequest, context: object
    ) -> oauth_client_pb2.ListOAuthClientsResponse:
        """Lists clients."""
        limit = page.size(request.limit)
        found, last = page.cut(await self._clients.list_clients(page.before("cli", request.cursor), limit + 1), limit)
        return oauth_client_pb2.ListOAuthClientsResponse(
            data=[_client(client) for client in found], next_cursor=ids.encode("cli", last.id) if last else ""
        )

    async def GetOAuthClient(
        self, request: oauth_client_pb2.GetOAuthClientRequest, context: object
    ) -> oauth_client_pb2.OAuthClient:
        """Reads a client."""
        return _client(await self._clients.get(ids.decode("cli", request.id)))

    async def UpdateOAuthClient(
        self, request: oauth_client_pb2.UpdateOAuthClientRequest, context: object
    ) -> oauth_client_pb2.OAuthClient:
        """Replaces what is known of a client."""
        wanted = _wanted(request, ids.decode("cli", request.id), confidential=False, enabled=request.enabled)
        return _client(await self._clients.update(wanted))

    async def RotateOAuthClientSecret(
        self, request: oauth_client_pb2.RotateOAuthClientSecretRequest, context: object
    ) -> oauth_client_pb2.CreateOAuthClientResponse:
        """Gives a client another secret."""
        # Bounded before it becomes a timedelta, which has a greatest value.
        overlap = timedelta(seconds=max(-1, min(request.overlap_seconds, 10**9)))
        client, secret = await self._clients.rotate_secret(ids.decode("cli", request.id), overlap)
        return oauth_client_pb2.CreateOAuthClientResponse(client=_client(client), client_secret=secret)


def _wanted(
    request: oauth_client_pb2.CreateOAuthClientRequest | oauth_client_pb2.UpdateOAuthClientRequest,
    key: UUID,
    *,
    confidential: bool,
    enabled: bool,
) -> Client:
    return Client(
        id=key,
        account=PLATFORM,
        name=request.name,
        home_url=request.home_url,
        logo_url=request.logo_url,
        redirect_uris=tuple(request.redirect_uris),
        post_logout_redirect_uris=tuple(request.post_logout_redirect_uris),
        confidential=confidential,
        scopes=tuple(request.scopes),
        first_party=request.first_party,
        enabled=enabled,
        created_at=_NEVER,
        updated_at=_NEVER,
    )


def _client(client: Client) -> oauth_client_pb2.OAuthClient:
    shown = oauth_client_pb2.OAuthClient(
        id=ids.encode("cli", client.id),
        name=client.name,
        home_url=client.home_url,
        logo_url=client.logo_url,
        redirect_uris=client.redirect_uris,
        post_logout_redirect_uris=client.post_logout_redirect_uris,
        confidential=client.confidential,
        scopes=client.scopes,
        first_party=client.first_party,
        enabled=client.enabled,
    )
    shown.created_at.FromDatetime(client.created_at)
    shown.updated_at.FromDatetime(client.updated_at)
    if client.former_secret_until is not None:
        shown.former_secret_until.FromDatetime(client.former_secret_until)
    return shown
