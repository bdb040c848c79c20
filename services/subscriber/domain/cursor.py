"""Owns the cursor of a list: where the last page ended, as opaque text."""

import base64
import binascii
from datetime import UTC, datetime, timedelta
from uuid import UUID

from libs import errors

LEAST_LIMIT, MOST_LIMIT, USUAL_LIMIT = 1, 100, 20

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def page_limit(limit: int) -> int:
    """Returns the size of a page; 0 counts as 20. Raises `invalid("limit_out_of_range")`."""
    if limit == 0:
        return USUAL_LIMIT
    if not LEAST_LIMIT <= limit <= MOST_LIMIT:
        raise errors.invalid("limit_out_of_range", "The limit is a number from 1 to 100.", field="limit")
    return limit


def after_reader(created_at: datetime, subject_id: UUID) -> str:
    """Returns the cursor that stands behind this reader."""
    microseconds = (created_at - _EPOCH) // _MICROSECOND
    return _text(microseconds.to_bytes(8, "big", signed=True) + subject_id.bytes)


def read_reader(cursor: str) -> tuple[datetime, UUID] | None:
    """Returns where a cursor of `after_reader` stands; None for the beginning. Raises `invalid("cursor_malformed")`."""
    if not cursor:
        return None
    body = _bytes(cursor, 24)
    try:
        at = _EPOCH + timedelta(microseconds=int.from_bytes(body[:8], "big", signed=True))
    except OverflowError:
        raise _malformed() from None
    return at, UUID(bytes=body[8:])


def after_line(line: int) -> str:
    """Returns the cursor that stands behind this line of a file."""
    return _text(line.to_bytes(8, "big"))


def read_line(cursor: str) -> int:
    """Returns the line a cursor of `after_line` stands behind; 0 for the beginning. Raises `invalid`."""
    if not cursor:
        return 0
    line = int.from_bytes(_bytes(cursor, 8), "big")
    if line >= 1 << 63:
        raise _malformed()
    return line


def _text(body: bytes) -> str:
    return base64.urlsafe_b64encode(body).rstrip(b"=").decode()


def _bytes(cursor: str, length: int) -> bytes:
    try:
        body = base64.b64decode(cursor.encode() + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise _malformed() from None
    if len(body) != length:
        raise _malformed()
    return body


def _malformed() -> errors.GatefoldError:
    return errors.invalid("cursor_malformed", "A cursor is the next_cursor of the page before.", field="cursor")
