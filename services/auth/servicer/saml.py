"""Owns gatefold.auth.v1.SamlConnectionService and SamlSignInService."""

import hashlib
from dataclasses import replace
from typing import Any

from cryptography import x509
from gatefold.auth.v1 import saml_pb2, saml_pb2_grpc, session_pb2, team_pb2
from gatefold.edge.v1 import redirect_pb2
from google.api import httpbody_pb2

from libs import ids
from services.auth.domain.saml import Connection
from services.auth.servicer import page
from services.auth.servicer.session import tokens
from services.auth.servicer.team import NUMBERS, ROLES
from services.auth.usecases.saml_connections import SamlConnections
from services.auth.usecases.saml_sign_in import SamlSignIn

METADATA_TYPE = "application/samlmetadata+xml"
_AS_GIVEN = ("email_attribute", "name_attribute", "asks_second_factor", "unsolicited", "enabled")


class SamlConnectionServicer(saml_pb2_grpc.SamlConnectionServiceServicer):
    """The identity providers of an account."""

    def __init__(self, connections: SamlConnections) -> None:
        self._connections = connections

    async def CreateSamlConnection(
        self, request: saml_pb2.CreateSamlConnectionRequest, context: object
    ) -> saml_pb2.SamlConnection:
        """Makes a connection."""
        chosen = {name: getattr(request, name) for name in _AS_GIVEN}
        chosen["email_domains"] = tuple(request.email_domains)
        chosen["default_role"] = ROLES.get(request.default_role)
        made = await self._connections.create(
            request.name, request.idp_metadata, lambda fresh: replace(fresh, **chosen)
        )
        return self._shown(made)

    async def ListSamlConnections(
        self, request: saml_pb2.ListSamlConnectionsRequest, context: object
    ) -> saml_pb2.ListSamlConnectionsResponse:
        """Lists connections."""
        limit = page.size(request.limit)
        found = await self._connections.list_connections(page.before("saml", request.cursor), limit + 1)
        shown, last = page.cut(found, limit)
        return saml_pb2.ListSamlConnectionsResponse(
            data=[self._shown(one) for one in shown], next_cursor=ids.encode("saml", last.id) if last else ""
        )

    async def UpdateSamlConnection(
        self, request: saml_pb2.UpdateSamlConnectionRequest, context: object
    ) -> saml_pb2.SamlConnection:
        """Changes a connection."""
        given = {field.name for field, _ in request.ListFields()}
        chosen: dict[str, Any] = {name: getattr(request, name) for name in given.intersection(("name", *_AS_GIVEN))}
        if request.HasField("email_domains"):
            chosen["email_domains"] = tuple(request.email_domains.domains)
        if request.HasField("default_role"):
            chosen["default_role"] = ROLES.get(request.default_role)
        changed = await self._connections.update(
            ids.decode("saml", request.id, field="id"), request.idp_metadata, lambda held: replace(held, **chosen)
        )
        return self._shown(changed)

    async def DeleteSamlConnection(
        self, request: saml_pb2.DeleteSamlConnectionRequest, context: object
    ) -> saml_pb2.DeleteSamlConnectionResponse:
        """Removes a connection."""
        await self._connections.delete(ids.decode("saml", request.id, field="id"))
        return saml_pb2.DeleteSamlConnectionResponse()

    def _shown(self, connection: Connection) -> saml_pb2.SamlConnection:
        ourselves, provider = self._connections.ourselves(connection), connection.provider
        shown = saml_pb2.SamlConnection(
            id=ids.encode("saml", connection.id),
            name=connection.name,
            idp_entity_id=provider.entity_id if provider else "",
            idp_sso_url=provider.sso_url if provider else "",
            certificates=[_certificate(one) for one in (provider.certificates if provider else ())],
            email_domains=connection.email_domains,
            default_role=NUMBERS[connection.default_role] if connection.default_role else team_pb2.ROLE_UNSPECIFIED,
            entity_id=ourselves.entity_id,
            acs_url=ourselves.acs_url,
            **{name: getattr(connection, name) for name in _AS_GIVEN},
        )
        shown.created_at.FromDatetime(connection.created_at)
        return shown


class SamlSignInServicer(saml_pb2_grpc.SamlSignInServiceServicer):
    """Signing staff in by SAML."""

    def __init__(self, connections: SamlConnections, sign_in: SamlSignIn) -> None:
        self._connections = connections
        self._sign_in = sign_in

    async def GetSamlMetadata(self, request: saml_pb2.GetSamlMetadataRequest, context: object) -> httpbody_pb2.HttpBody:
        """Shows our metadata."""
        account = ids.decode("acct", request.account_id, field="account_id")
        connection = ids.decode("saml", request.connection_id, field="connection_id")
        written = await self._connections.metadata(account, connection)
        return httpbody_pb2.HttpBody(content_type=METADATA_TYPE, data=written)

    async def BeginSamlSignIn(
        self, request: saml_pb2.BeginSamlSignInRequest, context: object
    ) -> saml_pb2.BeginSamlSignInResponse:
        """Begins a sign-in."""
        account = ids.decode("acct", request.account_id, field="account_id")
        connection = ids.decode("saml", request.connection_id, field="connection_id")
        begun, url, secret = await self._sign_in.begin(account, connection)
        response = saml_pb2.BeginSamlSignInResponse(redirect_url=url, browser_secret=secret)
        response.expires_at.FromDatetime(begun.expires_at)
        return response

    async def TakeSamlResponse(
        self, request: saml_pb2.TakeSamlResponseRequest, context: object
    ) -> redirect_pb2.Redirect:
        """Takes a response."""
        account = ids.decode("acct", request.account_id, field="account_id")
        connection = ids.decode("saml", request.connection_id, field="connection_id")
        location = await self._sign_in.take(account, connection, request.SAMLResponse, request.RelayState)
        return redirect_pb2.Redirect(location=location)

    async def FinishSamlSignIn(self, request: saml_pb2.FinishSamlSignInRequest, context: object) -> session_pb2.Tokens:
        """Finishes a sign-in."""
        return tokens(await self._sign_in.finish(request.token, request.browser_secret))

    async def LinkSamlIdentity(
        self, request: saml_pb2.LinkSamlIdentityRequest, context: object
    ) -> saml_pb2.LinkSamlIdentityResponse:
        """Adds an identity to one's own sign-in."""
        await self._sign_in.link(request.token, request.browser_secret)
        return saml_pb2.LinkSamlIdentityResponse()


def _certificate(raw: bytes) -> saml_pb2.SamlCertificate:
    shown = saml_pb2.SamlCertificate(sha256=hashlib.sha256(raw).hexdigest())
    shown.not_after.FromDatetime(x509.load_der_x509_certificate(raw).not_valid_after_utc)
    return shown
