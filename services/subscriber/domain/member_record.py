"""Owns what one record of a member file means, and why a record is refused."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from services.subscriber.domain import profile
from services.subscriber.domain.address import cleaned, folded
from services.subscriber.domain.member_file import MemberFile, Record
from services.subscriber.domain.profile import ImportedReader

AddressCheck = Callable[[str], str | None]
"""Returns the address in its one spelling, None when it is none."""

MOST_STRIPE_CUSTOMER = 255

DETAILS: Mapping[str, str] = {
    "email_missing": "The record has no address.",
    "email_invalid": "This is not an address that mail can be sent to.",
    "created_at_invalid": "Write a date as 2024-01-31 or 2024-01-31T12:00:00Z; it may not lie in the future.",
    "boolean_invalid": "Write true or false.",
    "too_long": "The value is longer than the column allows.",
    "labels_too_many": f"A reader has at most {profile.MOST_LABELS} labels.",
    "character_invalid": "The value contains control characters.",
    "columns_surplus": "The record has more values than the header has columns; a quotation mark may be missing.",
    "duplicate": "The address came earlier in the file.",
}
"""What to do about each reason."""

DUPLICATE = "duplicate"
"""The one reason for which a record is not taken without being refused."""

_TRUE = frozenset({"true", "1", "yes", "y", "on"})
_FALSE = frozenset({"false", "0", "no", "n", "off"})
_CONTROL = frozenset(map(chr, [*range(9), 11, 12, *range(14, 32), *range(127, 160)]))
_FORMULA = ("'=", "'+", "'-", "'@")
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Problem:
    """Why a record was not taken."""

    line: int
    reason: str
    column: str


def read(file: MemberFile, check: AddressCheck, as_of: datetime) -> Iterator[ImportedReader | Problem]:
    """Yields what every record means, in order; the same file gives the same answers each time it is read.

    The first record of an address that can be taken is taken; later ones are duplicates.
    """
    taken: set[str] = set()
    for record in file.records():
        outcome = parsed(record, file.columns, file.width, check, as_of)
        if isinstance(outcome, ImportedReader):
            if outcome.email_key in taken:
                outcome = Problem(record.line, DUPLICATE, "email")
            else:
                taken.add(outcome.email_key)
        yield outcome


Outcome = ImportedReader | Problem
"""What a record means: a reader to take, or why not."""


class _RefusedError(Exception):
    def __init__(self, reason: str, column: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.column = column


def parsed(
    record: Record, columns: Mapping[str, int], width: int, check: AddressCheck, as_of: datetime
) -> ImportedReader | Problem:
    """Returns the reader that a record describes, or the first reason why it describes none."""
    cells = record.cells
    if len(cells) > width:
        # Also when what is too much is empty: the values before it may stand one column off.
        return Problem(record.line, "columns_surplus", "")

    def value(column: str) -> str:
        position = columns.get(column)
        # Spreadsheets leave out trailing empty cells.
        text = "" if position is None or position >= len(cells) else cells[position].strip()
        if not _CONTROL.isdisjoint(text):
            raise _RefusedError("character_invalid", column)
        # Exports that guard against formulas put an apostrophe before what a spreadsheet would calculate.
        return text[1:] if text.startswith(_FORMULA) else text

    try:
        email = _address(value("email"), check)
        return ImportedReader(
            line=record.line,
            email=email,
            email_key=folded(email),
            name=_short(profile.tidy(value("name")), profile.MOST_NAME, "name"),
            note=_short(value("note"), profile.MOST_NOTE, "note"),
            subscribed_to_emails=_boolean(value("subscribed_to_emails"), "subscribed_to_emails"),
            complimentary=_boolean(value("complimentary_plan"), "complimentary_plan"),
            labels=_labels(value("labels")),
            metadata=_metadata(value),
            created_at=_time(value("created_at"), as_of),
        )
    except _RefusedError as refused:
        return Problem(record.line, refused.reason, refused.column)


def _address(text: str, check: AddressCheck) -> str:
    text = cleaned(text)
    if not text:
        raise _RefusedError("email_missing", "email")
    address = check(text)
    if address is None:
        raise _RefusedError("email_invalid", "email")
    return address


def _short(text: str, most: int, column: str) -> str:
    if len(text) > most:
        raise _RefusedError("too_long", column)
    return text


def _boolean(text: str, column: str) -> bool | None:
    if not text:
        return None
    folded_text = text.casefold()
    if folded_text in _TRUE:
        return True
    if folded_text in _FALSE:
        return False
    raise _RefusedError("boolean_invalid", column)


def _labels(text: str) -> tuple[str, ...]:
    labels = tuple(dict.fromkeys(_names(text)))
    if len(labels) > profile.MOST_LABELS:
        raise _RefusedError("labels_too_many", "labels")
    for label in labels:
        _short(label, profile.MOST_LABEL, "labels")
    return labels


def _names(text: str) -> Iterable[str]:
    return (name for part in text.split(",") if (name := profile.tidy(part)))


def _metadata(value: Callable[[str], str]) -> dict[str, str]:
    found = {
        "stripe_customer_id": _short(value("stripe_customer_id"), MOST_STRIPE_CUSTOMER, "stripe_customer_id"),
        "tiers": _short(", ".join(_names(value("tiers"))), profile.MOST_METADATA_VALUE, "tiers"),
    }
    return {name: text for name, text in found.items() if text}


def _time(text: str, as_of: datetime) -> datetime | None:
    """Reads an ISO 8601 date or time; without an offset it is UTC, as Ghost writes it."""
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise _RefusedError("created_at_invalid", "created_at") from None
    if not _EARLIEST <= time <= as_of:
        raise _RefusedError("created_at_invalid", "created_at")
    return time
