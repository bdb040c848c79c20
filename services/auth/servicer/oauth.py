"""Owns gatefold.auth.v1.OAuthService."""

from gatefold.auth.v1 import oauth_pb2, oauth_pb2_grpc, session_pb2

from libs import ids
from services.auth.domain import oauth as rules
from services.auth.domain import session
from services.auth.domain.oauth import Asked
from services.auth.servicer.session import TOKEN_TYPE, tokens
from services.auth.usecases.oauth import Decided, OAuth
from services.auth.usecases.oauth_tokens import ALGORITHM, Issued, OAuthTokens, Proof

_SECRETS = ("client_secret_basic", "client_secret_post")


class OAuthServicer(oauth_pb2_grpc.OAuthServiceServicer):
    """The OpenID Connect provider."""

    def __init__(self, oauth: OAuth, clients: OAuthTokens, issuer: str) -> None:
        self._oauth = oauth
        self._tokens = clients
        self._issuer = issuer

    async def GetOpenIdConfiguration(
        self, request: oauth_pb2.GetOpenIdConfigurationRequest, context: object
    ) -> oauth_pb2.ProviderMetadata:
        """Says where everything is."""
        return _metadata(self._issuer)

    async def GetAuthorizationServerMetadata(
        self, request: oauth_pb2.GetAuthorizationServerMetadataRequest, context: object
    ) -> oauth_pb2.ProviderMetadata:
        """Says where everything is."""
        return _metadata(self._issuer)

    async def BeginAuthorization(
        self, request: oauth_pb2.BeginAuthorizationRequest, context: object
    ) -> oauth_pb2.BeginAuthorizationResponse:
        """Begins."""
        asked = Asked(
            response_type=request.response_type,
            response_mode=request.response_mode,
            scope=request.scope,
            state=request.state,
            nonce=request.nonce,
            code_challenge=request.code_challenge,
            code_challenge_method=request.code_challenge_method,
            prompt=request.prompt,
            max_age=request.max_age,
            acr_values=request.acr_values,
            request=request.request,
            request_uri=request.request_uri,
        )
        begun = await self._oauth.begin(request.client_id, request.redirect_uri, asked)
        if begun.client is None or begun.request is None:
            return oauth_pb2.BeginAuthorizationResponse(location=begun.location)
        return oauth_pb2.BeginAuthorizationResponse(
            handle=begun.handle,
            publication=begun.publication,
            client_name=begun.client.name,
            client_url=begun.client.home_url,
            scopes=begun.request.scopes,
            silent=rules.NONE in begun.request.prompts,
            sign_in=not {rules.LOGIN, rules.SELECT}.isdisjoint(begun.request.prompts),
        )

    async def SignInForAuthorization(
        self, request: oauth_pb2.SignInForAuthorizationRequest, context: object
    ) -> session_pb2.Tokens:
        """Signs a reader in."""
        return tokens(await self._oauth.sign_in(request.handle, request.email, request.password, request.device_token))

    async def Authorize(self, request: oauth_pb2.AuthorizeRequest, context: object) -> oauth_pb2.AuthorizeResponse:
        """Goes on."""
        return _decided(await self._oauth.authorize(request.handle, agreed=request.consent))

    async def RefuseAuthorization(
        self, request: oauth_pb2.RefuseAuthorizationRequest, context: object
    ) -> oauth_pb2.AuthorizeResponse:
        """Sends the browser back."""
        return _decided(await self._oauth.refuse(request.handle))

    async def ExchangeToken(self, request: oauth_pb2.ExchangeTokenRequest, context: object) -> oauth_pb2.OAuthTokens:
        """Exchanges a code or a refresh token."""
        proof = Proof(request.authorization, request.client_id, request.client_secret)
        if request.grant_type == "authorization_code":
            return _issued(
                await self._tokens.exchange_code(proof, request.code, request.redirect_uri, request.code_verifier)
            )
        if request.grant_type == "refresh_token":
            return _issued(await self._tokens.refresh(proof, request.refresh_token, request.scope))
        raise rules.refused("unsupported_grant_type", "The grant types are authorization_code and refresh_token.")

    async def IntrospectToken(
        self, request: oauth_pb2.IntrospectTokenRequest, context: object
    ) -> oauth_pb2.IntrospectTokenResponse:
        """Says whether a token is good."""
        proof = Proof(request.authorization, request.client_id, request.client_secret)
        found = await self._tokens.introspect(proof, request.token)
        if found is None:
            return oauth_pb2.IntrospectTokenResponse(active=False)
        return oauth_pb2.IntrospectTokenResponse(active=True, **found)

    async def RevokeToken(
        self, request: oauth_pb2.RevokeTokenRequest, context: object
    ) -> oauth_pb2.RevokeTokenResponse:
        """Ends a token."""
        proof = Proof(request.authorization, request.client_id, request.client_secret)
        await self._tokens.revoke(proof, request.token)
        return oauth_pb2.RevokeTokenResponse()

    async def GetUserInfo(self, request: oauth_pb2.GetUserInfoRequest, context: object) -> oauth_pb2.UserInfo:
        """Tells of a reader."""
        return await self._user_info()

    async def PostUserInfo(self, request: oauth_pb2.PostUserInfoRequest, context: object) -> oauth_pb2.UserInfo:
        """Tells of a reader."""
        return await self._user_info()

    async def BeginLogout(
        self, request: oauth_pb2.BeginLogoutRequest, context: object
    ) -> oauth_pb2.BeginLogoutResponse:
        """Says who asks for a sign-out."""
        publication, client, location = await self._oauth.begin_logout(
            request.id_token_hint, request.client_id, request.post_logout_redirect_uri, request.state
        )
        return oauth_pb2.BeginLogoutResponse(
            publication=publication, client_name=client.name if client else "", location=location
        )

    async def ListConsents(
        self, request: oauth_pb2.ListConsentsRequest, context: object
    ) -> oauth_pb2.ListConsentsResponse:
        """Lists consents."""
        answer = oauth_pb2.ListConsentsResponse()
        for client, name, scopes, since in await self._oauth.consents():
            one = answer.data.add(client_id=ids.encode("cli", client), client_name=name, scopes=scopes)
            one.created_at.FromDatetime(since)
        return answer

    async def RevokeConsent(
        self, request: oauth_pb2.RevokeConsentRequest, context: object
    ) -> oauth_pb2.RevokeConsentResponse:
        """Takes a consent back."""
        await self._oauth.revoke_consent(ids.decode("cli", request.client_id, field="client_id"))
        return oauth_pb2.RevokeConsentResponse()

    async def _user_info(self) -> oauth_pb2.UserInfo:
        found = await self._tokens.userinfo()
        return oauth_pb2.UserInfo(
            # An address is a credential's once its mailbox was proven, never before.
            sub=found.subject,
            email=found.email,
            email_verified=True if found.email else None,
            name=found.name,
        )


def _decided(decided: Decided) -> oauth_pb2.AuthorizeResponse:
    return oauth_pb2.AuthorizeResponse(location=decided.location, next=decided.missing, email=decided.email)


def _issued(issued: Issued) -> oauth_pb2.OAuthTokens:
    return oauth_pb2.OAuthTokens(
        access_token=issued.access_token,
        token_type=TOKEN_TYPE,
        expires_in=rules.ACCESS_SECONDS,
        refresh_token=issued.refresh_token or None,
        id_token=issued.id_token or None,
        scope=" ".join(issued.scopes),
    )


def _metadata(issuer: str) -> oauth_pb2.ProviderMetadata:
    base = issuer.rstrip("/")
    return oauth_pb2.ProviderMetadata(
        issuer=issuer,
        authorization_endpoint=f"{base}/oauth2/authorize",
        token_endpoint=f"{base}/oauth2/token",
        userinfo_endpoint=f"{base}/oauth2/userinfo",
        jwks_uri=f"{base}/.well-known/jwks.json",
        revocation_endpoint=f"{base}/oauth2/revoke",
        introspection_endpoint=f"{base}/oauth2/introspect",
        end_session_endpoint=f"{base}/oauth2/logout",
        scopes_supported=rules.SCOPES,
        response_types_supported=["code"],
        response_modes_supported=["query"],
        grant_types_supported=["authorization_code", "refresh_token"],
        acr_values_supported=[session.AAL1, session.AAL2],
        subject_types_supported=["public"],
        id_token_signing_alg_values_supported=[ALGORITHM],
        token_endpoint_auth_methods_supported=[*_SECRETS, "none"],
        revocation_endpoint_auth_methods_supported=[*_SECRETS, "none"],
        introspection_endpoint_auth_methods_supported=_SECRETS,
        code_challenge_methods_supported=["S256"],
        claims_supported=[
            "sub",
            "iss",
            "aud",
            "azp",
            "exp",
            "iat",
            "auth_time",
            "nonce",
            "acr",
            "amr",
            "at_hash",
            "sid",
            "email",
            "email_verified",
            "name",
        ],
        prompt_values_supported=rules.PROMPTS,
        authorization_response_iss_parameter_supported=True,
    )
