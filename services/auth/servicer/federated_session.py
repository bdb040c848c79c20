"""Owns gatefold.auth.v1.FederatedSessionService."""

from gatefold.auth.v1 import federated_session_pb2, federated_session_pb2_grpc, session_pb2
from gatefold.edge.v1 import redirect_pb2

from libs import ids
from services.auth.domain.federation import Identity
from services.auth.servicer.session import tokens
from services.auth.usecases.federated_sign_ins import Answer, Departure, FederatedSignIns
from services.auth.usecases.identities import Identities


class FederatedSessionServicer(federated_session_pb2_grpc.FederatedSessionServiceServicer):
    """Signing in with other providers."""

    def __init__(self, sign_ins: FederatedSignIns, identities: Identities) -> None:
        self._sign_ins = sign_ins
        self._identities = identities

    async def BeginFederatedSession(
        self, request: federated_session_pb2.BeginFederatedSessionRequest, context: object
    ) -> federated_session_pb2.FederatedDeparture:
        """Sends a reader to a provider."""
        provider = ids.decode("idp", request.provider_id, field="provider_id")
        return _departure(await self._sign_ins.begin(provider, request.redirect_uri))

    async def BeginStaffFederatedSession(
        self, request: federated_session_pb2.BeginStaffFederatedSessionRequest, context: object
    ) -> federated_session_pb2.FederatedDeparture:
        """Sends staff to a provider."""
        account = ids.decode("acct", request.account_id, field="account_id")
        provider = ids.decode("idp", request.provider_id, field="provider_id") if request.provider_id else None
        return _departure(await self._sign_ins.begin_staff(account, provider, request.redirect_uri))

    async def FinishFederatedSession(
        self, request: federated_session_pb2.FinishFederatedSessionRequest, context: object
    ) -> session_pb2.Tokens:
        """Signs in whoever comes back."""
        return tokens(await self._sign_ins.finish(_answer(request), request.browser_secret))

    async def ReceiveFormPost(
        self, request: federated_session_pb2.ReceiveFormPostRequest, context: object
    ) -> redirect_pb2.Redirect:
        """Sends a posted answer on to its page."""
        answer = {name: getattr(request, name) for name in ("code", "error") if getattr(request, name)}
        return redirect_pb2.Redirect(location=await self._sign_ins.page_of(request.state, answer))

    async def BeginIdentityLink(
        self, request: federated_session_pb2.BeginIdentityLinkRequest, context: object
    ) -> federated_session_pb2.FederatedDeparture:
        """Sends whoever is signed in to a provider."""
        provider = ids.decode("idp", request.provider_id, field="provider_id")
        return _departure(await self._sign_ins.begin_link(provider, request.redirect_uri))

    async def FinishIdentityLink(
        self, request: federated_session_pb2.FinishIdentityLinkRequest, context: object
    ) -> federated_session_pb2.Identity:
        """Adds an identity."""
        return _identity(await self._sign_ins.finish_link(_answer(request), request.browser_secret))

    async def ListIdentities(
        self, request: federated_session_pb2.ListIdentitiesRequest, context: object
    ) -> federated_session_pb2.ListIdentitiesResponse:
        """Lists identities."""
        found = await self._identities.list_own()
        return federated_session_pb2.ListIdentitiesResponse(data=[_identity(one) for one in found])

    async def RemoveIdentity(
        self, request: federated_session_pb2.RemoveIdentityRequest, context: object
    ) -> federated_session_pb2.RemoveIdentityResponse:
        """Removes an identity."""
        await self._identities.remove(ids.decode("idt", request.id))
        return federated_session_pb2.RemoveIdentityResponse()


def _answer(
    request: federated_session_pb2.FinishFederatedSessionRequest | federated_session_pb2.FinishIdentityLinkRequest,
) -> Answer:
    return Answer(request.state, request.code, request.iss, request.redirect_uri)


def _departure(departure: Departure) -> federated_session_pb2.FederatedDeparture:
    response = federated_session_pb2.FederatedDeparture(
        authorization_url=departure.url, browser_secret=departure.browser_secret
    )
    response.expires_at.FromDatetime(departure.expires_at)
    return response


def _identity(identity: Identity) -> federated_session_pb2.Identity:
    response = federated_session_pb2.Identity(
        id=ids.encode("idt", identity.id),
        provider_id=ids.encode("idp", identity.provider),
        provider_name=identity.provider_name,
        issuer=identity.issuer,
    )
    response.created_at.FromDatetime(identity.created_at)
    response.last_used_at.FromDatetime(identity.last_used_at)
    return response
