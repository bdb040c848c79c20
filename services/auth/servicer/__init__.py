"""auth's RPCs: proto in, use case, proto out."""

from services.auth.servicer.account import AccountServicer
from services.auth.servicer.api_key import ApiKeyServicer
from services.auth.servicer.credential import CredentialServicer
from services.auth.servicer.device import DeviceServicer
from services.auth.servicer.factor import FactorServicer
from services.auth.servicer.federated_session import FederatedSessionServicer
from services.auth.servicer.identity_provider import IdentityProviderServicer
from services.auth.servicer.oauth import OAuthServicer
from services.auth.servicer.oauth_client import OAuthClientServicer
from services.auth.servicer.passkey import PasskeyServicer
from services.auth.servicer.password import PasswordServicer
from services.auth.servicer.recovery import RecoveryServicer
from services.auth.servicer.saml import SamlConnectionServicer, SamlSignInServicer
from services.auth.servicer.scim import ScimServicer
from services.auth.servicer.session import SessionServicer
from services.auth.servicer.subscriber_session import SubscriberSessionServicer
from services.auth.servicer.subscriber_sign_in import SubscriberSignInServicer
from services.auth.servicer.team import TeamServicer

__all__ = [
    "AccountServicer",
    "ApiKeyServicer",
    "CredentialServicer",
    "DeviceServicer",
    "FactorServicer",
    "FederatedSessionServicer",
    "IdentityProviderServicer",
    "OAuthClientServicer",
    "OAuthServicer",
    "PasskeyServicer",
    "PasswordServicer",
    "RecoveryServicer",
    "SamlConnectionServicer",
    "SamlSignInServicer",
    "ScimServicer",
    "SessionServicer",
    "SubscriberSessionServicer",
    "SubscriberSignInServicer",
    "TeamServicer",
]
