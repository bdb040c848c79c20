"""Owns what a provider's statements are believed for: who somebody is, and what an address of theirs opens."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from libs import errors

READERS = "readers"
STAFF = "staff"

NO_TEXT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
"""Control characters, and halves of pairs of UTF-16, which JSON can write and UTF-8 cannot."""
_LONGEST_NAME = 120
_DOMAIN = re.compile(r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]")


@dataclass(frozen=True)
class Source:
    """A provider of an account, and how far the account trusts it."""

    id: UUID
    account: UUID
    """The account that keeps it: of a provider for staff the live one, for its test sibling too."""
    audience: str
    """`readers` or `staff`."""
    issuer: str
    """`iss` of OpenID Connect; of SAML `saml:` and the entity's id, so that neither passes for the other."""
    name: str
    """As people see it."""
    trust_verified_email: bool = False
    """Whoever it says has verified an address is the owner of the sign-in with that address."""
    email_domains: tuple[str, ...] = ()
    """Domains of the people it signs in; all where there is none."""
    default_role: str | None = None
    """What becomes of a person who is no member yet; None lets in members alone."""
    strong: bool = False
    """It asks for a second factor itself: its sign-ins are `aal2`."""


@dataclass(frozen=True, repr=False)
class Statement:
    """What a provider says of somebody, after everything about it was checked. Personal data."""

    subject: str
    """The provider's own identifier: the only thing that an identity is known by."""
    email: str = ""
    email_verified: bool = False
    own_mailbox: bool = True
    """The provider is whom to believe about the address; otherwise somebody else gives it out, and may take it back."""
    name: str = ""


@dataclass(frozen=True)
class Identity:
    """Who somebody is at a provider."""

    id: UUID
    audience: str
    provider: UUID
    provider_name: str
    issuer: str
    principal: UUID
    """The reader, or the person who is a member."""
    created_at: datetime
    last_used_at: datetime


@dataclass(frozen=True)
class Away:
    """A browser that was sent to a provider and is to come back."""

    id: UUID
    provider: UUID
    place: UUID
    """Account in which the session is to begin."""
    live: bool
    redirect_uri: str
    browser_hash: bytes
    expires_at: datetime
    principal: UUID | None = None
    """Who asked for another identity; None for a sign-in."""
    session: UUID | None = None


def shown_name(said: str) -> str:
    """Returns a name as it may stand in lists and mails, whoever chose it: one line of 120 characters at most."""
    return NO_TEXT.sub(" ", said).strip()[:_LONGEST_NAME]


def trusted_mailbox(source: Source, statement: Statement) -> bool:
    """Tells whether the account believes the provider that whoever it speaks of owns the address."""
    return source.trust_verified_email and statement.email_verified and statement.own_mailbox


def in_domains(source: Source, email: str) -> bool:
    """Tells whether an address is of a domain that the provider signs in."""
    return not source.email_domains or email.rpartition("@")[2].lower() in source.email_domains


def checked_domains(domains: Sequence[str]) -> tuple[str, ...]:
    """Returns domains of addresses, each once; raises `invalid("email_domains_invalid")`."""
    chosen = tuple(dict.fromkeys(one.strip().lower() for one in domains))
    if not all(_DOMAIN.fullmatch(one) for one in chosen):
        raise errors.invalid("email_domains_invalid", "These are names of domains.", field="email_domains")
    return chosen
