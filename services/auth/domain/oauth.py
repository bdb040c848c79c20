"""Owns the rules of the OpenID Connect provider: clients, what they may ask for, codes and refresh tokens."""

import base64
import binascii
import hashlib
import hmac
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import parse_qsl, urlencode, urlsplit
from uuid import UUID

from libs import errors
from services.auth.domain import session

OPENID = "openid"
PROFILE = "profile"
EMAIL = "email"
OFFLINE = "offline_access"
SCOPES = (OPENID, PROFILE, EMAIL, OFFLINE)

REQUEST_LIFETIME = timedelta(minutes=10)
CODE_LIFETIME = timedelta(seconds=60)
"""Ten minutes at most (RFC 6749, 4.1.2)."""
REPEAT = timedelta(seconds=10)
"""How long the very request that spent a code may be repeated, since its answer may have been lost on the way."""
LONGEST_OVERLAP = timedelta(days=30)
ACCESS_SECONDS = session.ACCESS_SECONDS
SALT_BYTES = 32

CODE_REUSED = "code_reused"
REFRESH_REUSED = "refresh_token_reused"
CONSENT_REVOKED = "consent_revoked"
CLIENT_DISABLED = "client_disabled"
CLIENT_REVOKED = "client_revoked"
"""By the client itself (RFC 7009)."""

LOGIN, CONSENT, NONE, SELECT = "login", "consent", "none", "select_account"
PROMPTS = (NONE, LOGIN, CONSENT, SELECT)
SIGN_IN = "sign_in"
"""What is missing, where it is not `consent`."""

_HANDLE_MARK, _CODE_MARK, _REFRESH_MARK, _SECRET_MARK = "gfar_", "gfac_", "gfor_", "gfos_"
_SECRET_BYTES = 32
_PLACE_BYTES = 32
_GENERATION = struct.Struct(">I")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
# Printable ASCII without spaces, quotes and what browsers rewrite or take for something else.
_URI = re.compile(r"[A-Za-z0-9._~:/?\[\]@!$&'()*+,;=%-]{1,1000}")
_APP_SCHEME = re.compile(r"[a-z][a-z0-9+-]*(\.[a-z0-9+-]+)+")
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_AGE = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class Client:
    """A site or app that readers sign in to."""

    id: UUID
    account: UUID
    name: str
    home_url: str
    logo_url: str
    redirect_uris: tuple[str, ...]
    post_logout_redirect_uris: tuple[str, ...]
    confidential: bool
    scopes: tuple[str, ...]
    first_party: bool
    enabled: bool
    created_at: datetime
    updated_at: datetime
    secret_hash: bytes | None = None
    former_secret_hash: bytes | None = None
    former_secret_until: datetime | None = None

    def has_secret(self, hashed: bytes, now: datetime) -> bool:
        """Tells whether a secret is the client's, or its former one in the overlap; in constant time."""
        former = self.former_secret_hash if self.former_secret_until and now < self.former_secret_until else None
        found = [hmac.compare_digest(known, hashed) for known in (self.secret_hash, former) if known is not None]
        return any(found)


@dataclass(frozen=True)
class Asked:
    """The parameters with which a client sent a browser (OpenID Connect Core 1.0, 3.1.2.1), as they came."""

    response_type: str = ""
    response_mode: str = ""
    scope: str = ""
    state: str = ""
    nonce: str = ""
    code_challenge: str = ""
    code_challenge_method: str = ""
    prompt: str = ""
    max_age: str = ""
    acr_values: str = ""
    request: str = ""
    request_uri: str = ""


@dataclass(frozen=True)
class Request:
    """What a browser was sent for, until its reader has decided."""

    id: UUID
    account: UUID
    client: UUID
    redirect_uri: str
    scopes: tuple[str, ...]
    state: str
    nonce: str
    code_challenge: str
    prompts: tuple[str, ...]
    max_age: int | None
    acr: str | None
    created_at: datetime
    expires_at: datetime
    session: UUID | None = None
    """Which was shown what is asked for."""


@dataclass(frozen=True)
class Authorization:
    """What a reader has given a client: a code, and the tokens that follow."""

    id: UUID
    account: UUID
    client: UUID
    subject: UUID
    session: UUID
    scopes: tuple[str, ...]
    redirect_uri: str
    nonce: str
    code_challenge: str
    code_expires_at: datetime
    acr: str
    authenticated_at: datetime
    salt: bytes
    generation: int
    rotated_at: datetime
    created_at: datetime
    expires_at: datetime
    """When its session ends."""
    code_spent_at: datetime | None = None
    code_spent_by: str | None = None
    revoked_at: datetime | None = None
    session_alive: bool = True

    def over(self, now: datetime) -> bool:
        """Tells whether nothing of it works any more."""
        return self.revoked_at is not None or now >= self.expires_at or not self.session_alive


class RedirectableError(Exception):
    """An error that the client is told of, by the browser (RFC 6749, 4.1.2.1)."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(f"{error}: {description}")
        self.error = error
        self.description = description


def checked_redirect_uris(uris: Sequence[str], *, field: str = "redirect_uris") -> tuple[str, ...]:
    """Returns where a client's readers come back to; raises `invalid("redirect_uri_invalid")`.

    https; http on this machine alone; or an app's own scheme, which is a reversed domain name (RFC 8252, 7.1). No
    fragment, no user, no dots to walk up with: what is compared later is the text as it stands.
    """
    for uri in uris:
        if not _redirects(uri):
            raise errors.invalid(
                "redirect_uri_invalid", "Name an https address without a fragment, or an app's own scheme.", field=field
            )
    return tuple(uris)


def checked_page(url: str, *, field: str) -> str:
    """Returns the address of a page, or nothing; raises `invalid("url_invalid")`."""
    if url and not (_URI.fullmatch(url) and _web(url)):
        raise errors.invalid("url_invalid", "Name an https address.", field=field)
    return url


def checked_scopes(scopes: Sequence[str]) -> tuple[str, ...]:
    """Returns a client's scopes, `openid` among them; raises `invalid("scope_unknown")`."""
    for scope in scopes:
        if scope not in SCOPES:
            raise errors.invalid("scope_unknown", f"The scopes are {', '.join(SCOPES)}.", field="scopes")
    return tuple(scope for scope in SCOPES if scope == OPENID or scope in scopes)


def judged(asked: Asked, client: Client, redirect_uri: str, *, key: UUID, now: datetime) -> Request:
    """Returns what a client sent a browser for; raises RedirectableError."""
    if asked.request:
        raise RedirectableError("request_not_supported", "Request objects are not supported.")
    if asked.request_uri:
        raise RedirectableError("request_uri_not_supported", "Request objects are not supported.")
    if asked.response_type != "code":
        raise RedirectableError("unsupported_response_type", "The one response_type is code.")
    if asked.response_mode not in ("", "query"):
        raise RedirectableError("invalid_request", "The one response_mode is query.")
    if asked.code_challenge_method != "S256" or not _CHALLENGE.fullmatch(asked.code_challenge):
        raise RedirectableError("invalid_request", "PKCE is required: code_challenge, with code_challenge_method S256.")
    wanted = asked.scope.split()
    if OPENID not in wanted:
        raise RedirectableError("invalid_scope", "The scope must have openid.")
    # What nobody knows is passed over (OpenID Connect Core 1.0, 3.1.2.1).
    scopes = tuple(scope for scope in SCOPES if scope in wanted)
    if not set(scopes) <= set(client.scopes):
        raise RedirectableError("invalid_scope", "The client may not ask for all of this.")
    prompts = tuple(dict.fromkeys(asked.prompt.split()))
    if not set(prompts) <= set(PROMPTS) or (NONE in prompts and len(prompts) > 1):
        raise RedirectableError("invalid_request", "The prompt is none, or any of login, consent and select_account.")
    if asked.max_age and not _AGE.fullmatch(asked.max_age):
        raise RedirectableError("invalid_request", "The max_age is a number of seconds.")
    levels = asked.acr_values.split()
    return Request(
        id=key,
        account=client.account,
        client=client.id,
        redirect_uri=redirect_uri,
        scopes=scopes,
        state=asked.state,
        nonce=asked.nonce,
        code_challenge=asked.code_challenge,
        prompts=prompts,
        max_age=int(asked.max_age) if asked.max_age else None,
        acr=session.AAL2 if session.AAL2 in levels and session.AAL1 not in levels else None,
        created_at=now,
        expires_at=now + REQUEST_LIFETIME,
    )


def missing(
    request: Request,
    client: Client,
    consented: Sequence[str],
    *,
    acr: str,
    authenticated_at: datetime,
    agreed: bool,
    now: datetime,
) -> str | None:
    """Returns what is missing before a code is given, `sign_in` or `consent`; None for nothing.

    Whoever has signed in since the request began has done what `login`, `max_age` and `acr` ask for as far as they can:
    a client finds in the ID token what was reached (OpenID Connect Core 1.0, 5.5.1.1).
    """
    fresh = authenticated_at >= request.created_at
    stale = request.max_age is not None and now - authenticated_at > timedelta(seconds=request.max_age)
    asks = not {LOGIN, SELECT}.isdisjoint(request.prompts)
    weak = request.acr == session.AAL2 and acr != session.AAL2
    if not fresh and (asks or stale or weak):
        return SIGN_IN
    if agreed:
        return None
    if CONSENT in request.prompts or not (client.first_party or set(request.scopes) <= set(consented)):
        return CONSENT
    return None


def location(redirect_uri: str, parameters: dict[str, str]) -> str:
    """Returns a redirect URI with parameters, which follow those that it has; empty ones are left out."""
    given = {name: value for name, value in parameters.items() if value}
    if not given:
        return redirect_uri
    return redirect_uri + ("&" if "?" in redirect_uri else "?") + urlencode(given)


def still(held: Authorization, client: Client) -> tuple[str, ...]:
    """Returns the scopes of an authorization that its client may still ask for."""
    return tuple(one for one in held.scopes if one in client.scopes)


def narrowed(scope: str, given: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the scopes of an access token; raises `invalid_scope` for more than was given (RFC 6749, 6)."""
    wanted = scope.split()
    if not wanted:
        return given
    if not set(wanted) <= set(given):
        raise refused("invalid_scope", "More was asked for than was given.")
    return tuple(one for one in given if one in wanted)


def verifier_fits(challenge: str, verifier: str, make: Callable[[str], str]) -> bool:
    """Tells whether a code challenge was made from the verifier (RFC 7636, 4.6), in constant time."""
    return bool(_VERIFIER.fullmatch(verifier)) and hmac.compare_digest(make(verifier), challenge)


def handle(request: Request, secret: bytes) -> str:
    """Returns what the browser keeps of a request."""
    return _token(_HANDLE_MARK, request.account, request.id, secret)


def read_handle(text: str) -> tuple[UUID, UUID, bytes] | None:
    """Returns account, request and the hash of its secret; None for anything else."""
    return _read(text, _HANDLE_MARK)


def code(account: UUID, authorization: UUID, secret: bytes) -> str:
    """Returns the code of an authorization."""
    return _token(_CODE_MARK, account, authorization, secret)


def read_code(text: str) -> tuple[UUID, UUID, bytes] | None:
    """Returns account, authorization and the hash of its code's secret; None for anything else."""
    return _read(text, _CODE_MARK)


def hash_of(secret: bytes) -> bytes:
    """Returns what is stored of 256 random bits."""
    return hashlib.sha256(secret).digest()


def client_secret(secret: bytes) -> str:
    """Returns a client's secret."""
    return _SECRET_MARK + _text(secret)


def refresh_token(held: Authorization, generation: int, secret: bytes) -> str:
    """Returns the refresh token of a generation; it follows from what is known, as those of sessions do."""
    head = held.account.bytes + held.id.bytes + _GENERATION.pack(generation)
    return _REFRESH_MARK + _text(head + _mac(head, held.salt, secret))


def read_refresh_token(text: str) -> tuple[UUID, UUID, int, bytes] | None:
    """Returns account, authorization, generation and signature that a token claims; None for anything else."""
    raw = _decoded(text, _REFRESH_MARK, _PLACE_BYTES + _GENERATION.size + _SECRET_BYTES)
    if raw is None:
        return None
    (generation,) = _GENERATION.unpack_from(raw, _PLACE_BYTES)
    return UUID(bytes=raw[:16]), UUID(bytes=raw[16:32]), generation, raw[_PLACE_BYTES + _GENERATION.size :]


def signed(held: Authorization, generation: int, signature: bytes, secret: bytes) -> bool:
    """Tells whether a refresh token's signature holds, in constant time."""
    head = held.account.bytes + held.id.bytes + _GENERATION.pack(generation)
    return hmac.compare_digest(_mac(head, held.salt, secret), signature)


def refused(error: str, description: str) -> errors.GatefoldError:
    """Returns an error of the token endpoint (RFC 6749, 5.2)."""
    if error == "invalid_client":
        return errors.unauthenticated("oauth_client_invalid", description, metadata={"error": error})
    return errors.malformed("oauth_refused", description, metadata={"error": error})


def _redirects(uri: str) -> bool:
    if not _URI.fullmatch(uri):
        return False
    try:
        parts = urlsplit(uri)
    except ValueError:
        return False
    if any(part in (".", "..") for part in parts.path.lower().replace("%2e", ".").split("/")):
        return False
    # Their values are ours to give.
    if {"code", "state", "iss", "error"} & {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}:
        return False
    return _web(uri) or bool(_APP_SCHEME.fullmatch(parts.scheme) and not parts.netloc and parts.path.startswith("/"))


def _web(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    host = parts.netloc.rpartition(":")[0] if port is not None else parts.netloc
    if not parts.hostname or "@" in parts.netloc or host != host.lower() or host.endswith("."):
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)


def _token(mark: str, account: UUID, key: UUID, secret: bytes) -> str:
    return mark + _text(account.bytes + key.bytes + secret)


def _read(text: str, mark: str) -> tuple[UUID, UUID, bytes] | None:
    raw = _decoded(text, mark, _PLACE_BYTES + _SECRET_BYTES)
    return None if raw is None else (UUID(bytes=raw[:16]), UUID(bytes=raw[16:32]), hash_of(raw[_PLACE_BYTES:]))


def _decoded(text: str, mark: str, size: int) -> bytes | None:
    rest = text.removeprefix(mark)
    if rest == text:
        return None
    try:
        raw = base64.b64decode(rest + "=" * (-len(rest) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) == size else None


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _mac(head: bytes, salt: bytes, secret: bytes) -> bytes:
    return hmac.digest(secret, b"refresh" + salt + head, "sha256")
