"""Owns the rules of relying on OpenID Connect: a provider's settings, its discovery document, its ID token."""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode, urlsplit
from uuid import UUID

from libs import errors
from services.auth.domain.federation import NO_TEXT, READERS, STAFF, Source, Statement, checked_domains, shown_name
from services.auth.domain.roles import OWNER, ROLES

GOOGLE = "google"
APPLE = "apple"
MICROSOFT = "microsoft"
GENERIC = "oidc"
KINDS = (GOOGLE, APPLE, MICROSOFT, GENERIC)

_ISSUERS = {GOOGLE: "https://accounts.google.com", APPLE: "https://appleid.apple.com"}
_MICROSOFT = "https://login.microsoftonline.com"
_TENANT = "{tenantid}"
DISCOVERY = "/.well-known/openid-configuration"

ALGORITHMS = frozenset({"RS256", "ES256", "PS256", "EdDSA", "Ed25519"})
"""What an ID token may be signed with: never nothing, never a secret that the client shares."""
_HASHES = {"EdDSA": "sha512", "Ed25519": "sha512"}

LIFETIME = timedelta(minutes=10)
"""Between asking a provider and its answer."""
_LEEWAY = timedelta(seconds=60)
_OLDEST = timedelta(hours=1)
"""Since an ID token was issued: it comes fresh from the token endpoint."""
_LONGEST_SUBJECT = 255
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,64}")
_METHODS = ("client_secret_basic", "client_secret_post")


class RefusedError(Exception):
    """A document or a token of a provider breaks a rule; the text names the rule and holds nothing of the document."""


@dataclass(frozen=True)
class Provider:
    """An OpenID provider as an account has set it up, without its secret."""

    id: UUID
    kind: str
    audience: str
    name: str
    issuer: str
    client_id: str
    scopes: tuple[str, ...]
    redirect_uris: tuple[str, ...]
    created_at: datetime
    team_id: str = ""
    """Apple: whose key it is."""
    key_id: str = ""
    """Apple: which key."""
    tenants: tuple[str, ...] = ()
    """Microsoft: the directories whose people may sign in."""
    email_domains: tuple[str, ...] = ()
    trust_verified_email: bool = False
    default_role: str | None = None
    asks_second_factor: bool = False
    enabled: bool = True

    @property
    def discovery_url(self) -> str:
        """Where its discovery document is (OpenID Connect Discovery 1.0, 4)."""
        issuer = self.issuer.replace(_TENANT, "organizations") if self.kind == MICROSOFT else self.issuer
        return issuer.rstrip("/") + DISCOVERY

    @property
    def posts_form(self) -> bool:
        """Whether it answers by a form that the browser posts, which Apple does when it is asked for an address."""
        return self.kind == APPLE and bool({"email", "name"}.intersection(self.scopes))

    def source(self, account: UUID, issuer: str) -> Source:
        """Returns what its statements are believed for; `issuer` is that of the token."""
        return Source(
            id=self.id,
            account=account,
            audience=self.audience,
            issuer=issuer,
            name=self.name,
            trust_verified_email=self.trust_verified_email,
            email_domains=self.email_domains,
            default_role=self.default_role,
            strong=self.asks_second_factor,
        )


@dataclass(frozen=True)
class Discovered:
    """What a provider says of itself."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str
    algorithms: frozenset[str]
    token_method: str
    names_itself: bool
    """It adds `iss` to its answers (RFC 9207)."""


def checked(provider: Provider, *, private: bool) -> Provider:
    """Returns the settings in their one spelling; raises `invalid` with the field.

    `private` allows what only a stack on one machine needs: http to loopback, and simulators of the well-known ones.
    """
    if provider.kind not in KINDS:
        raise errors.invalid("kind_invalid", f"A provider is one of {', '.join(KINDS)}.", field="kind")
    if provider.audience not in (READERS, STAFF):
        raise errors.invalid("audience_invalid", "A provider is for readers or for staff.", field="audience")
    tenants = tuple(dict.fromkeys(_tenant(one) for one in provider.tenants)) if provider.kind == MICROSOFT else ()
    return Provider(
        id=provider.id,
        kind=provider.kind,
        audience=provider.audience,
        name=_name(provider.name),
        issuer=_issuer(provider.kind, provider.issuer, tenants, private=private),
        client_id=_client(provider.client_id),
        scopes=_scopes(provider.scopes),
        redirect_uris=_redirects(provider.redirect_uris, private=private),
        created_at=provider.created_at,
        team_id=provider.team_id if provider.kind == APPLE else "",
        key_id=provider.key_id if provider.kind == APPLE else "",
        tenants=tenants,
        email_domains=checked_domains(provider.email_domains),
        trust_verified_email=provider.trust_verified_email,
        default_role=_role(provider),
        asks_second_factor=_second_factor(provider),
        enabled=provider.enabled,
    )


def allowed_url(url: str, *, private: bool) -> bool:
    """Tells whether an address of a provider may be asked: https, or http on this machine where that is allowed."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    local = private and parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
    return (
        (parts.scheme == "https" or local)
        and bool(parts.hostname)
        and port != 0
        and "@" not in parts.netloc
        and not parts.fragment
        and len(url) <= 2000
        and url.isascii()
        and not NO_TEXT.search(url)
        and " " not in url
    )


def discovered(provider: Provider, document: Mapping[str, Any], *, private: bool) -> Discovered:
    """Reads a discovery document; raises RefusedError.

    Its `issuer` is the configured one to the letter (OpenID Connect Discovery 1.0, 4.3): a document that speaks for
    somebody else would have their people's tokens accepted from here.
    """
    if document.get("issuer") != provider.issuer:
        raise RefusedError("issuer")
    found = {}
    for name in ("authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint"):
        url = document.get(name, "" if name == "userinfo_endpoint" else None)
        if not isinstance(url, str) or (url and not allowed_url(url, private=private)):
            raise RefusedError(name)
        found[name] = url
    algorithms = ALGORITHMS.intersection(_texts(document.get("id_token_signing_alg_values_supported", ["RS256"])))
    if not algorithms:
        raise RefusedError("id_token_signing_alg_values_supported")
    challenges = document.get("code_challenge_methods_supported")
    # Not stated means unknown (RFC 8414 says "no PKCE", but Apple and others take it and say nothing): it is sent.
    if challenges is not None and "S256" not in _texts(challenges):
        raise RefusedError("code_challenge_methods_supported")
    offered = _texts(document.get("token_endpoint_auth_methods_supported", ["client_secret_basic"]))
    method = next((one for one in _METHODS if one in offered), None)
    if provider.kind == APPLE:
        method = "client_secret_post"
    if method is None:
        raise RefusedError("token_endpoint_auth_methods_supported")
    return Discovered(
        **found,
        algorithms=algorithms,
        token_method=method,
        names_itself=document.get("authorization_response_iss_parameter_supported") is True,
    )


def authorization_url(
    provider: Provider, at: Discovered, *, state: str, nonce: str, challenge: str, redirect_uri: str
) -> str:
    """Returns where the browser goes to sign in (OpenID Connect Core 1.0, 3.1.2.1; RFC 7636)."""
    asked = {
        "response_type": "code",
        "client_id": provider.client_id,
        "redirect_uri": redirect_uri,
        "scope": " ".join(provider.scopes),
        "state": state,
        "nonce": nonce,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    if provider.posts_form:
        asked["response_mode"] = "form_post"
    joint = "&" if urlsplit(at.authorization_endpoint).query else "?"
    return at.authorization_endpoint + joint + urlencode(asked)


def code_challenge(verifier: str) -> str:
    """Returns the S256 challenge of a verifier (RFC 7636, 4.2)."""
    return _base64(hashlib.sha256(verifier.encode()).digest())


def answered_by(provider: Provider, at: Discovered, stated: str) -> bool:
    """Tells whether the answer's `iss` is the provider that was asked (RFC 9207: no mixing up of providers)."""
    if not stated:
        return not at.names_itself
    if provider.kind == MICROSOFT and _TENANT in provider.issuer:
        return any(stated == provider.issuer.replace(_TENANT, tenant) for tenant in provider.tenants)
    return stated == provider.issuer


def checked_claims(
    provider: Provider, claims: Mapping[str, Any], *, nonce: str, now: datetime, algorithm: str, access_token: str
) -> str:
    """Returns the issuer of a token whose signature holds; raises RefusedError (OpenID Connect Core 1.0, 3.1.3.7)."""
    issuer = expected_issuer(provider, claims)
    if claims.get("iss") != issuer:
        raise RefusedError("iss")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= _LONGEST_SUBJECT or NO_TEXT.search(subject):
        raise RefusedError("sub")
    audience = claims.get("aud")
    named = [audience] if isinstance(audience, str) else _texts(audience)
    if provider.client_id not in named:
        raise RefusedError("aud")
    azp = claims.get("azp")
    if (azp is not None or len(named) > 1) and azp != provider.client_id:
        raise RefusedError("azp")
    if now >= _time(claims, "exp") + _LEEWAY:
        raise RefusedError("exp")
    issued = _time(claims, "iat")
    if not now - _OLDEST <= issued <= now + _LEEWAY:
        raise RefusedError("iat")
    if "nbf" in claims and _time(claims, "nbf") > now + _LEEWAY:
        raise RefusedError("nbf")
    held = claims.get("nonce")
    if not isinstance(held, str) or not held.isascii() or not hmac.compare_digest(held, nonce):
        raise RefusedError("nonce")
    if "at_hash" in claims:
        # What cannot be encoded is replaced, and fits as little as any other token.
        digest = hashlib.new(_HASHES.get(algorithm, "sha256"), access_token.encode(errors="replace")).digest()
        if claims["at_hash"] != _base64(digest[: len(digest) // 2]):
            raise RefusedError("at_hash")
    return issuer


def expected_issuer(provider: Provider, claims: Mapping[str, Any]) -> str:
    """Returns what `iss` has to be: the configured one; of several Microsoft directories that of an allowed one.

    Raises RefusedError for a directory that is not on the list: the template fits every directory there is.
    """
    if provider.kind != MICROSOFT:
        return provider.issuer
    if claims.get("tid") not in provider.tenants:
        raise RefusedError("tid")
    return provider.issuer.replace(_TENANT, str(claims["tid"]))


def statement(provider: Provider, claims: Mapping[str, Any]) -> Statement:
    """Returns what checked claims say of somebody.

    An address counts as verified when the provider says so by the JSON value true, and nothing else (Apple also writes
    "true"); Microsoft says it by `xms_edov`. Google has verified any, and speaks for its own mailboxes alone: those of
    gmail.com, and those of an organisation that it names in `hd`.
    """
    email = claims.get("email")
    email = email if isinstance(email, str) else ""
    domain = email.rpartition("@")[2].lower()
    verified, own = claims.get("email_verified") is True, True
    if provider.kind == APPLE:
        verified = verified or claims.get("email_verified") == "true"
    elif provider.kind == MICROSOFT:
        verified = claims.get("xms_edov") is True
    elif provider.kind == GOOGLE:
        own = domain in ("gmail.com", "googlemail.com") or claims.get("hd") == domain
    name = claims.get("name")
    name = shown_name(name) if isinstance(name, str) else ""
    return Statement(str(claims["sub"]), email, email_verified=bool(email) and verified, own_mailbox=own, name=name)


def _name(name: str) -> str:
    trimmed = name.strip()
    if not 1 <= len(trimmed) <= 80 or NO_TEXT.search(trimmed):
        raise errors.invalid("name_invalid", "A name has 1 to 80 characters and no line breaks.", field="name")
    return trimmed


def _issuer(kind: str, issuer: str, tenants: Sequence[str], *, private: bool) -> str:
    if kind == MICROSOFT:
        if not tenants:
            raise errors.invalid("tenants_missing", "Name the directories whose people may sign in.", field="tenants")
        known = f"{_MICROSOFT}/{tenants[0] if len(tenants) == 1 else _TENANT}/v2.0"
    else:
        known = _ISSUERS.get(kind, "")
    chosen = issuer or known
    # Clouds of their own and simulators have another one; under the well-known name only the well-known one is meant.
    usable = allowed_url(chosen.replace(_TENANT, "tenant"), private=private) and not urlsplit(chosen).query
    if not usable or (known and chosen != known and not private):
        raise errors.invalid(
            "issuer_invalid", "An issuer is an https address without query; well-known ones need none.", field="issuer"
        )
    return chosen


def _client(client_id: str) -> str:
    if not 1 <= len(client_id) <= 255 or not client_id.isascii() or NO_TEXT.search(client_id):
        raise errors.invalid("client_id_invalid", "A client id has 1 to 255 ASCII characters.", field="client_id")
    return client_id


def _scopes(scopes: Sequence[str]) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(("openid", *(scopes or ("email",)))))
    if not all(_SCOPE.fullmatch(one) for one in chosen):
        raise errors.invalid("scopes_invalid", "A scope has no spaces, quotes or backslashes.", field="scopes")
    return chosen


def _redirects(uris: Sequence[str], *, private: bool) -> tuple[str, ...]:
    if not uris or not all(allowed_url(one, private=private) for one in uris):
        raise errors.invalid(
            "redirect_uris_invalid",
            "Name the https pages that the provider may send people back to.",
            field="redirect_uris",
        )
    return tuple(dict.fromkeys(uris))


def _tenant(tenant: str) -> str:
    try:
        return str(UUID(tenant))
    except ValueError:
        raise errors.invalid("tenants_invalid", "A directory is named by its UUID.", field="tenants") from None


def _role(provider: Provider) -> str | None:
    role = provider.default_role or None
    if role is None:
        return None
    if provider.audience != STAFF or role not in ROLES or role == OWNER:
        raise errors.invalid("role_invalid", "New members of staff get any role but owner.", field="default_role")
    if not provider.email_domains or not provider.trust_verified_email:
        raise errors.invalid(
            "email_domains_missing",
            "New members need the domains of their addresses, and a provider whose word on addresses is trusted.",
            field="email_domains",
        )
    return role


def _second_factor(provider: Provider) -> bool:
    if provider.asks_second_factor and provider.audience != STAFF:
        raise errors.invalid(
            "audience_invalid", "Only for staff a provider's second factor counts.", field="asks_second_factor"
        )
    return provider.asks_second_factor


def _time(claims: Mapping[str, Any], name: str) -> datetime:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RefusedError(name)
    try:
        return datetime.fromtimestamp(value, UTC)
    except (OverflowError, OSError, ValueError):
        raise RefusedError(name) from None


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
