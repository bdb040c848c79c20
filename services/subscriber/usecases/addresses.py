"""Owns checking an e-mail address: its form alone, without asking any name server."""

import re
from functools import lru_cache

from email_validator import EmailNotValidError, validate_email

from libs import errors
from services.subscriber.domain.address import MOST_ADDRESS, cleaned

# What nearly all addresses are made of. RFC 2142's names ("postmaster") are spelled in lower case whatever the input
# was, so capitals go the long way, and so does all that is long enough for a limit.
_PLAIN = re.compile(r"([a-z0-9_+'-]+(?:\.[a-z0-9_+'-]+)*)@([A-Za-z0-9.-]+)", re.ASCII)
_MOST_PLAIN_LOCAL = 64
_MOST_PLAIN = 200
_DOMAINS = 4_096


def spelled(text: str) -> str | None:
    """Returns the address in its one spelling (domain in lower case and Unicode, NFC); None for what is no address.

    RFC 5321 and 6531 without quoted local parts, address literals and names that no mail is delivered to (RFC 6761).
    """
    plain = _PLAIN.fullmatch(text) if len(text) <= _MOST_PLAIN else None
    if plain is not None and len(plain[1]) <= _MOST_PLAIN_LOCAL:
        domain = _domain(plain[2])
        return None if domain is None else f"{plain[1]}@{domain}"
    return _validated(text)


def checked(text: str) -> str:
    """Returns the address in its one spelling; raises `invalid("email_invalid")`."""
    address = spelled(cleaned(text))
    if address is None:
        raise errors.invalid("email_invalid", "This is not an address that mail can be sent to.", field="email")
    return address


def _validated(text: str) -> str | None:
    try:
        address = validate_email(text, check_deliverability=False, strict=True).normalized
    except EmailNotValidError:
        return None
    return address if len(address) <= MOST_ADDRESS else None


@lru_cache(maxsize=_DOMAINS)
def _domain(text: str) -> str | None:
    """Returns a domain's one spelling, None for what is none. Readers share few domains, and checking one is slow."""
    address = _validated(f"a@{text}")
    return None if address is None else address.removeprefix("a@")
