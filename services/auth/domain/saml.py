"""Owns what a response of a SAML identity provider must say to sign somebody in (SAML 2.0 core 2, profiles 4.1)."""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from urllib.parse import urlencode, urlsplit, urlunsplit
from uuid import UUID

from libs import errors
from services.auth.domain import roles
from services.auth.domain.account import checked_name
from services.auth.domain.federation import STAFF, Source, Statement, checked_domains, shown_name

SIGN_IN_LIFETIME = timedelta(minutes=10)
"""From the redirect to the identity provider to its response."""
HANDOVER_LIFETIME = timedelta(minutes=2)
"""From the response to the page that finishes."""
SKEW = timedelta(seconds=60)
"""How far the identity provider's clock may be off."""
LONGEST = timedelta(hours=24)
"""For which a confirmation may hold: its assertion is remembered for as long."""

SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"
BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
PERSISTENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"
EMAIL = "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"
NAME_IDS: Mapping[str, str] = {PERSISTENT: "persistent", EMAIL: "email"}
"""Formats that name somebody for good, and what stands before the name, so that one never passes for the other."""

_LONGEST_NAME_ID = 256
_HANDOVER_MARK = "gfsa_"
_HANDOVER_BYTES = 16 + 32


@dataclass(frozen=True)
class Provider:
    """What an identity provider's metadata says of it."""

    entity_id: str
    sso_url: str
    certificates: tuple[bytes, ...]
    """DER; responses must be signed with one of them."""


@dataclass(frozen=True)
class Connection:
    """An account's identity provider, and how far it is trusted."""

    id: UUID
    account: UUID
    name: str
    created_at: datetime
    provider: Provider | None = None
    email_attribute: str = ""
    name_attribute: str = ""
    email_domains: tuple[str, ...] = ()
    default_role: str | None = None
    asks_second_factor: bool = False
    unsolicited: bool = False
    enabled: bool = False

    @property
    def source(self) -> Source:
        """Returns it as every provider of others is known."""
        entity = self.provider.entity_id if self.provider else ""
        return Source(
            id=self.id,
            account=self.account,
            audience=STAFF,
            issuer=f"saml:{entity}",
            name=self.name,
            trust_verified_email=True,
            email_domains=self.email_domains,
            default_role=self.default_role,
            strong=self.asks_second_factor,
        )


@dataclass(frozen=True)
class Ourselves:
    """What a connection's identity provider knows us by.

    Each connection has names of its own, so that none takes a response that was made for another.
    """

    entity_id: str
    acs_url: str


@dataclass(frozen=True)
class SignIn:
    """A sign-in between the redirect and its end."""

    id: UUID
    connection: UUID
    account: UUID
    """The one to be opened: the connection's, or its test sibling."""
    live: bool
    expires_at: datetime
    browser_hash: bytes | None = None
    """SHA-256 of what the browser keeps that began; None where nobody did."""

    @property
    def request_id(self) -> str:
        """The ID of the AuthnRequest."""
        return f"_{self.id.hex}"


@dataclass(frozen=True)
class Confirmation:
    """One way in which the subject is confirmed."""

    method: str
    recipient: str | None = None
    in_response_to: str | None = None
    not_before: datetime | None = None
    not_on_or_after: datetime | None = None


@dataclass(frozen=True, repr=False)
class Assertion:
    """What a verified assertion says. Personal data."""

    id: str
    issuer: str
    name_id: str
    name_id_format: str
    name_qualifier: str | None = None
    sp_name_qualifier: str | None = None
    not_before: datetime | None = None
    not_on_or_after: datetime | None = None
    restrictions: tuple[frozenset[str], ...] = ()
    """Audience restrictions: each must name us."""
    confirmations: tuple[Confirmation, ...] = ()
    authenticated: bool = False
    """It says that and how somebody signed in, not only who they are."""
    session_ends_at: datetime | None = None
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Response:
    """An assertion with what was written around it, which is verified only when `signed`."""

    assertion: Assertion
    signed: bool
    issuer: str | None = None
    destination: str | None = None
    in_response_to: str | None = None


def refused(rule: str, detail: str) -> errors.GatefoldError:
    """Returns the answer to a response that is not believed; `rule` names which check failed."""
    return errors.malformed("saml_response_refused", detail, metadata={"error": "access_denied", "rule": rule})


def judge(response: Response, provider: Provider, ourselves: Ourselves, request: str | None, now: datetime) -> datetime:
    """Returns until when the assertion must be remembered; raises `malformed("saml_response_refused")`.

    `request` is the ID of our request, None where the identity provider may speak first. The response's signature was
    verified before: this is about what it says, to whom, when and in answer to what.
    """
    said = response.assertion
    _judge_addressing(response, provider, ourselves, request)
    _judge_name(said, provider, ourselves)
    if not within(said.not_before, said.not_on_or_after, now):
        raise refused("conditions", "The assertion is not valid at this time.")
    if not said.restrictions or not all(ourselves.entity_id in audiences for audiences in said.restrictions):
        raise refused("audience", "The assertion is meant for somebody else.")
    ends = [
        one.not_on_or_after
        for one in said.confirmations
        if one.not_on_or_after is not None and _confirms(one, ourselves, request, now)
    ]
    if not ends:
        raise refused("confirmation", "No bearer confirmation is for this address, this request and this time.")
    if not said.authenticated:
        raise refused("statement", "The assertion does not say that anybody signed in.")
    if not within(None, said.session_ends_at, now):
        raise refused("statement", "The session at the identity provider is over.")
    return max(ends) + SKEW


def within(not_before: datetime | None, not_on_or_after: datetime | None, now: datetime) -> bool:
    """Tells whether `now` lies between the bounds that are given, give or take the clocks' skew."""
    begun = not_before is None or now + SKEW >= not_before
    return begun and (not_on_or_after is None or now - SKEW < not_on_or_after)


def statement(said: Assertion, connection: Connection) -> Statement:
    """Returns who signed in; raises `malformed("saml_response_refused")` for an attribute with several values."""
    address = _attribute(said, connection.email_attribute)
    if not connection.email_attribute and said.name_id_format == EMAIL:
        address = said.name_id
    return Statement(
        subject=f"{NAME_IDS[said.name_id_format]}:{said.name_id}",
        email=address,
        # It is the publisher's own directory, and believed about the domains of the connection alone.
        email_verified=bool(address),
        name=shown_name(_attribute(said, connection.name_attribute)),
    )


def checked(connection: Connection) -> Connection:
    """Returns the connection as it may be kept.

    Raises `invalid` with reason `name_invalid`, `role_invalid` or `email_domains_invalid`, and
    `precondition("saml_incomplete")` when it is enabled without all that it needs.
    """
    if connection.default_role is not None and (
        connection.default_role not in roles.ROLES or connection.default_role == roles.OWNER
    ):
        raise errors.invalid("role_invalid", "An identity provider makes nobody an owner.", field="default_role")
    domains = checked_domains(connection.email_domains)
    if connection.enabled and (connection.provider is None or not domains):
        raise errors.precondition(
            "saml_incomplete", "A connection needs metadata and the domains of its addresses before it is enabled."
        )
    return replace(connection, name=checked_name(connection.name, longest=80), email_domains=domains)


def handover(account: UUID, secret: bytes) -> str:
    """Returns the token with which a page finishes: the account that keeps the connection, and 256 random bits."""
    return _HANDOVER_MARK + base64.urlsafe_b64encode(account.bytes + secret).rstrip(b"=").decode()


def handover_account(token: str) -> UUID | None:
    """Returns the account that a token names; None for anything else."""
    text = token.removeprefix(_HANDOVER_MARK)
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return UUID(bytes=raw[:16]) if text != token and len(raw) == _HANDOVER_BYTES else None


def hash_of(secret: str) -> bytes:
    """Returns what is stored of a secret, or of an assertion's ID."""
    return hashlib.sha256(secret.encode()).digest()


def redirect(url: str, parameters: Mapping[str, str]) -> str:
    """Returns an identity provider's address with parameters behind those that it has."""
    parts = urlsplit(url)
    query = "&".join(filter(None, (parts.query, urlencode(parameters))))
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


def _judge_addressing(response: Response, provider: Provider, ourselves: Ourselves, request: str | None) -> None:
    issuers = (response.assertion.issuer, provider.entity_id if response.issuer is None else response.issuer)
    if any(issuer != provider.entity_id for issuer in issuers):
        raise refused("issuer", "Another identity provider made this.")
    if (response.signed and response.destination is None) or response.destination not in (None, ourselves.acs_url):
        raise refused("destination", "The response was sent to another address.")
    if request is None and response.in_response_to is not None:
        raise refused("in_response_to", "The response answers a request that is not known here.")
    if request is not None and response.in_response_to not in (None, request):
        raise refused("in_response_to", "The response answers another request.")


def _judge_name(said: Assertion, provider: Provider, ourselves: Ourselves) -> None:
    if said.name_id_format not in NAME_IDS:
        raise refused("name_id", "The NameID must be persistent or an e-mail address.")
    if not 0 < len(said.name_id) <= _LONGEST_NAME_ID or said.name_id != said.name_id.strip():
        raise refused("name_id", "The NameID names nobody.")
    if said.name_qualifier not in (None, "", provider.entity_id) or said.sp_name_qualifier not in (
        None,
        "",
        ourselves.entity_id,
    ):
        raise refused("name_id", "The NameID is somebody else's name for them.")


def _confirms(one: Confirmation, ourselves: Ourselves, request: str | None, now: datetime) -> bool:
    return (
        one.method == BEARER
        and one.recipient == ourselves.acs_url
        and one.in_response_to == request
        and one.not_on_or_after is not None
        and one.not_on_or_after <= now + LONGEST
        and within(one.not_before, one.not_on_or_after, now)
    )


def _attribute(said: Assertion, name: str) -> str:
    values = said.attributes.get(name, ()) if name else ()
    if len(values) > 1:
        raise refused("attribute", f"The attribute {name} has several values.")
    return values[0].strip() if values else ""
