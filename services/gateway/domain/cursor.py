"""Owns the cursor of a list: the text behind which the next page begins, as opaque text."""

import base64
import binascii

from libs import errors
from libs.errors import GatefoldError

USUAL_LIMIT = 20


def page_limit(limit: int, most: int) -> int:
    """Returns the size of a page; 0 counts as 20. Raises `invalid("limit_out_of_range")`."""
    if not 0 <= limit <= most:
        raise errors.invalid("limit_out_of_range", f"The limit is a number from 1 to {most:,}.", field="limit")
    return limit or USUAL_LIMIT


def after(text: str) -> str:
    """Returns the cursor that stands behind a text."""
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def read(cursor: str) -> str:
    """Returns the text that a cursor stands behind; raises `invalid("cursor_malformed")`."""
    try:
        padded = cursor.encode() + b"=" * (-len(cursor) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError):
        raise malformed() from None
    if "\0" in text:
        raise malformed()
    return text


def malformed() -> GatefoldError:
    """Returns the refusal of a cursor that is none."""
    return errors.invalid("cursor_malformed", "A cursor is the next_cursor of the page before.", field="cursor")
