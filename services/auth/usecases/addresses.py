"""Owns checking an e-mail address: its form alone; whether a mailbox is behind it only a mail can show."""

from email_validator import EmailNotValidError, validate_email

from libs import errors

LONGEST = 254


def checked(text: str, *, field: str = "email") -> str:
    """Returns the address in its one spelling (RFC 5321, 6531); raises `invalid("email_invalid")`.

    The subscriber service checks by the same rules, so that whoever may register can also be added there.
    """
    try:
        address = validate_email(text.strip(), check_deliverability=False).normalized
    except EmailNotValidError:
        address = ""
    if not address or len(address) > LONGEST:
        raise errors.invalid("email_invalid", "This is not an address that mail can be sent to.", field=field)
    return address
