"""Owns the talk with OpenID providers: their documents and keys, exchanging a code, and the signature of ID tokens.

Every address asked stands in a provider's settings or in the discovery document of its configured issuer; none comes
from a token.
"""

import asyncio
import base64
import binascii
import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import joserfc.errors
import joserfc.jws
import joserfc.jwt
from joserfc.jwk import ECKey, JWKRegistry

from libs.clock import WallClock
from services.auth.clients.provider_http import AwayError, ProviderHttp
from services.auth.domain import openid
from services.auth.domain.openid import Discovered, Provider, RefusedError

KEPT_FOR = timedelta(hours=1)
ASKED_AGAIN_AFTER = timedelta(minutes=1)
"""Between two looks at the keys because of one that is not known: whoever makes tokens up decides on no traffic."""
MOST_KEPT = 1_000
_LEAST_RSA_BYTES = 256
_KEY_TYPES = {"RS256": "RSA", "PS256": "RSA", "ES256": "EC", "EdDSA": "OKP", "Ed25519": "OKP"}
_CLIENT_SECRET_SECONDS = 300
_USERINFO = ("email", "email_verified", "name")


class CodeRefusedError(Exception):
    """The provider does not take the code."""


@dataclass(frozen=True, repr=False)
class Credentials:
    """What the account has from the provider: a secret, or Apple's private key (PEM). Never shown."""

    client_secret: str = ""
    private_key: str = ""


@dataclass(frozen=True, repr=False)
class Answered:
    """A checked ID token's claims, with those of the userinfo endpoint where the token had no address."""

    issuer: str
    claims: Mapping[str, Any]


@dataclass
class _Kept:
    """What is remembered of a provider."""

    document: Discovered
    until: datetime
    keys: list[Mapping[str, Any]] = field(default_factory=list)
    keys_until: datetime | None = None
    keys_asked_at: datetime | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class OpenIdProviders:
    """Providers of others, and what is remembered of them."""

    def __init__(self, http: ProviderHttp, clock: WallClock) -> None:
        self._http = http
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str, str], _Kept] = OrderedDict()

    @property
    def private(self) -> bool:
        """Whether providers may be on this machine or in this network."""
        return self._http.private

    async def discover(self, provider: Provider, *, anew: bool = False) -> Discovered:
        """Returns what the provider says of itself; raises AwayError, ForbiddenAddressError or RefusedError."""
        return (await self._remembered(provider, anew=anew)).document

    async def exchange(
        self,
        provider: Provider,
        credentials: Credentials,
        *,
        code: str,
        verifier: str,
        nonce: str,
        redirect_uri: str,
    ) -> Answered:
        """Exchanges a code and returns what the provider says of who signed in.

        Raises CodeRefusedError, RefusedError with the claim that is wrong, AwayError or ForbiddenAddressError.
        """
        kept = await self._remembered(provider)
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        headers = self._identified(provider, credentials, kept.document, form)
        status, answer = await self._http.ask("POST", kept.document.token_endpoint, headers=headers, form=form)
        if status in (400, 401, 403):
            raise CodeRefusedError
        if status != 200:
            raise AwayError(f"the token endpoint answered {status}")
        token, access_token = answer.get("id_token"), answer.get("access_token")
        if not isinstance(token, str) or not isinstance(access_token, str):
            raise RefusedError("id_token")
        algorithm, claims = await self._verified(provider, kept, token)
        issuer = openid.checked_claims(
            provider,
            claims,
            nonce=nonce,
            now=self._clock.wall(),
            algorithm=algorithm,
            access_token=access_token,
        )
        if "email" not in claims and kept.document.userinfo_endpoint and "email" in provider.scopes:
            told = await self._userinfo(kept.document, access_token, claims["sub"])
            claims = {**claims, **{name: told.get(name) for name in _USERINFO}}
        return Answered(issuer, claims)

    async def _remembered(self, provider: Provider, *, anew: bool = False) -> _Kept:
        place = (provider.kind, provider.issuer, provider.client_id)
        kept, now = self._kept.get(place), self._clock.wall()
        if kept is None or anew or now >= kept.until:
            status, document = await self._http.ask("GET", provider.discovery_url)
            if status != 200:
                raise AwayError(f"the discovery document answered {status}")
            kept = _Kept(openid.discovered(provider, document, private=self._http.private), now + KEPT_FOR)
            self._kept[place] = kept
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return kept

    def _identified(
        self, provider: Provider, credentials: Credentials, at: Discovered, form: dict[str, str]
    ) -> dict[str, str]:
        """Returns the headers by which the client proves itself, or adds to the form (RFC 6749, 2.3.1)."""
        secret = credentials.client_secret
        if credentials.private_key:
            secret = self._signed_secret(provider, credentials.private_key)
        if secret and at.token_method == "client_secret_basic":  # noqa: S105 — a method's name
            pair = f"{quote(provider.client_id, safe='')}:{quote(secret, safe='')}"
            return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
        form["client_id"] = provider.client_id
        if secret:
            form["client_secret"] = secret
        return {}

    def _signed_secret(self, provider: Provider, private_key: str) -> str:
        """Returns Apple's client secret: a JWT of the account's own making, for five minutes."""
        now = int(self._clock.wall().timestamp())
        claims = {
            "iss": provider.team_id,
            "iat": now,
            "exp": now + _CLIENT_SECRET_SECONDS,
            "aud": provider.issuer,
            "sub": provider.client_id,
        }
        return joserfc.jwt.encode({"alg": "ES256", "kid": provider.key_id}, claims, signing_key(private_key), ["ES256"])

    async def _userinfo(self, at: Discovered, access_token: str, subject: object) -> Mapping[str, Any]:
        status, answer = await self._http.ask(
            "GET", at.userinfo_endpoint, headers={"Authorization": f"Bearer {access_token}"}
        )
        if status != 200:
            raise AwayError(f"the userinfo endpoint answered {status}")
        # Of somebody else's token, exchanged for this one (OpenID Connect Core 1.0, 5.3.4).
        if answer.get("sub") != subject:
            raise RefusedError("userinfo sub")
        return answer

    async def _verified(self, provider: Provider, kept: _Kept, token: str) -> tuple[str, Mapping[str, Any]]:
        """Returns algorithm and claims of a token whose signature holds under a key of the provider's key set."""
        header = _header(token)
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in kept.document.algorithms:
            raise RefusedError("alg")
        if kid is not None and not isinstance(kid, str):
            raise RefusedError("kid")
        document = await self._key(kept, algorithm, kid)
        try:
            key = JWKRegistry.import_key(dict(document), _KEY_TYPES[algorithm])
            claims = joserfc.jwt.decode(token, key, registry=_Registry(algorithm)).claims
        except (joserfc.errors.JoseError, ValueError, TypeError, KeyError, RecursionError):
            # The library looks curves up without asking, and claims may be nested without end.
            raise RefusedError("signature") from None
        # Keys of Microsoft's shared set say whose they are.
        owner = document.get("issuer")
        if isinstance(owner, str) and provider.kind == openid.MICROSOFT:
            expected = openid.expected_issuer(provider, claims)
            if owner.replace("{tenantid}", str(claims.get("tid"))) != expected:
                raise RefusedError("kid")
        return algorithm, claims

    async def _key(self, kept: _Kept, algorithm: str, kid: str | None) -> Mapping[str, Any]:
        now = self._clock.wall()
        if kept.keys_until is None or now >= kept.keys_until:
            await self._fetch_keys(kept, now)
        found = _fitting(kept.keys, algorithm, kid)
        if not found:
            # Keys are replaced at any time; of many sign-ins that meet an unknown one, one looks.
            async with kept.lock:
                if kept.keys_asked_at is None or now >= kept.keys_asked_at + ASKED_AGAIN_AFTER:
                    await self._fetch_keys(kept, now)
            found = _fitting(kept.keys, algorithm, kid)
        if len(found) != 1:
            raise RefusedError("kid")
        return found[0]

    async def _fetch_keys(self, kept: _Kept, now: datetime) -> None:
        kept.keys_asked_at = now
        status, answer = await self._http.ask("GET", kept.document.jwks_uri)
        keys = answer.get("keys")
        if status != 200 or not isinstance(keys, list):
            raise AwayError(f"the key set answered {status}")
        kept.keys = [one for one in keys if isinstance(one, dict)]
        kept.keys_until = now + KEPT_FOR


def signing_key(private_key: str) -> ECKey:
    """Reads a P-256 private key (PEM); raises ValueError for anything else."""
    try:
        key = ECKey.import_key(private_key)
    except (joserfc.errors.JoseError, ValueError, TypeError):
        raise ValueError("not a private key in PEM") from None
    if not key.is_private or key.curve_name != "P-256":
        raise ValueError("not a private key of P-256")
    return key


class _Registry(joserfc.jws.JWSRegistry):
    """Takes one algorithm, and headers that are not known: they are not used. `crit` stays refused."""

    def __init__(self, algorithm: str) -> None:
        super().__init__(algorithms=[algorithm], strict_check_header=False)
        # A chain of certificates (x5c) in the header is passed over, and may be long.
        self.max_header_length = 16_384

    def get_alg(self, name: str) -> Any:
        """Returns the algorithm that was asked for, without the library's advice about its name."""
        if not self.allowed or name not in self.allowed:
            raise joserfc.errors.UnsupportedAlgorithmError(f"Algorithm of '{name}' is not allowed")
        return self.algorithms[name]


def _header(token: str) -> Mapping[str, Any]:
    head = token.partition(".")[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        raise RefusedError("header") from None
    if not isinstance(header, dict):
        raise RefusedError("header")
    return header


def _fitting(keys: list[Mapping[str, Any]], algorithm: str, kid: str | None) -> list[Mapping[str, Any]]:
    """Returns the keys that a token may be signed with: those of the algorithm's type, by their id if it has one."""
    names = ("EdDSA", "Ed25519") if algorithm in ("EdDSA", "Ed25519") else (algorithm,)
    return [
        one
        for one in keys
        if one.get("kty") == _KEY_TYPES[algorithm]
        and one.get("use", "sig") == "sig"
        and one.get("alg", algorithm) in names
        and (kid is None or one.get("kid") == kid)
        and (one.get("kty") != "RSA" or _length(one.get("n")) >= _LEAST_RSA_BYTES)
    ]


def _length(text: object) -> int:
    return len(text) * 3 // 4 if isinstance(text, str) else 0
