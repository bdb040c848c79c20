"""Owns what a provider's statements are believed for: who somebody is, and what an address of theirs opens."""

from dataclasses import dataclass
from uuid import UUID

READERS = "readers"
STAFF = "staff"


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
    name: str = ""
