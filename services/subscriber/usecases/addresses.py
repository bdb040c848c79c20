"""Owns checking an e-mail address: its form alone, without asking any name server."""

from email_validator import EmailNotValidError, validate_email

from libs import errors
from services.subscriber.domain.address import MOST_ADDRESS, cleaned


def spelled(text: str) -> str | None:
    """Returns the address in its one spelling (domain in lower case and Unicode, NFC); None for what is no address.

    RFC 5321 and 6531 without quoted local parts, address literals and names that no mail is delivered to (RFC 6761).
    """
    try:
        address = validate_email(text, check_deliverability=False, strict=True).normalized
    except EmailNotValidError:
        return None
    return address if len(address) <= MOST_ADDRESS else None


def checked(text: str) -> str:
    """Returns the address in its one spelling; raises `invalid("email_invalid")`."""
    address = spelled(cleaned(text))
    if address is None:
        raise errors.invalid("email_invalid", "This is not an address that mail can be sent to.", field="email")
    return address
