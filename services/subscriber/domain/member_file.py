"""Owns reading a member file as a whole: encoding, header, records and the lines they begin on."""

import codecs
import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

COLUMNS = (
    "email",
    "name",
    "note",
    "subscribed_to_emails",
    "complimentary_plan",
    "stripe_customer_id",
    "created_at",
    "labels",
    "tiers",
)
"""The columns of Ghost's member export that are taken; others are ignored and reported."""

MOST_BYTES = 14 * 1024 * 1024
MOST_RECORDS = 500_000
MOST_COLUMNS = 200
MOST_IGNORED_NAME = 60

_DELIMITERS = (",", ";", "\t")
_WIDE = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


class UnreadableFileError(Exception):
    """The file as a whole cannot be read; `reason` is stable, the text repeats nothing of the file."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Record:
    """One record and the line it begins on; the header is line 1 when nothing stands before it."""

    line: int
    cells: list[str]


@dataclass(frozen=True)
class MemberFile:
    """A decoded file whose header was understood."""

    text: str
    delimiter: str
    columns: Mapping[str, int]
    """Known columns and where they stand."""
    width: int
    """Number of columns in the header."""
    ignored: tuple[str, ...]
    """Columns of the header that are not taken."""
    total: int
    """Records in the file, the header and empty lines aside."""

    def records(self) -> Iterator[Record]:
        """Yields the records in order, without the header; a line of nothing but blanks and delimiters is no record."""
        records = _records(self.text, self.delimiter)
        next(records)
        return records


def opened(data: bytes) -> MemberFile:
    """Reads the file once to its end, so that nothing is taken from a file that breaks off.

    Raises UnreadableFileError: `file_empty`, `encoding_unsupported`, `column_missing`, `column_twice`,
    `columns_too_many`, `csv_malformed` or `records_too_many`.
    """
    text = _decoded(data)
    if not text.strip():
        raise UnreadableFileError("file_empty", "The file is empty.")
    delimiter, names = _header(text)
    columns: dict[str, int] = {}
    for position, name in enumerate(names):
        if name not in COLUMNS:
            continue
        if name in columns:
            raise UnreadableFileError("column_twice", f"The header names the column {name} twice.")
        columns[name] = position
    if "email" not in columns:
        raise UnreadableFileError(
            "column_missing", "The first line must name the columns, and one of them must be email."
        )
    if len(names) > MOST_COLUMNS:
        raise UnreadableFileError("columns_too_many", f"The file has more than {MOST_COLUMNS} columns.")
    total = -1
    for _ in _records(text, delimiter):
        total += 1
        if total > MOST_RECORDS:
            raise UnreadableFileError(
                "records_too_many", f"The file has more than {MOST_RECORDS:,} records; split it into several files."
            )
    ignored = tuple(name[:MOST_IGNORED_NAME] for name in names if name not in COLUMNS and name)
    return MemberFile(text, delimiter, columns, len(names), ignored, total)


def _decoded(data: bytes) -> str:
    for mark, name in _WIDE:
        if data.startswith(mark):
            raise UnreadableFileError("encoding_unsupported", f"The file is {name}; save it as CSV in UTF-8.")
    try:
        text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UnreadableFileError(
            "encoding_unsupported", f"The file is not UTF-8: line {line} has other bytes. Save it as CSV in UTF-8."
        ) from None
    head = text[:200]
    if head.count("\0") > len(head) // 4:
        raise UnreadableFileError("encoding_unsupported", "The file is UTF-16; save it as CSV in UTF-8.")
    return text


def _header(text: str) -> tuple[str, list[str]]:
    """Returns the delimiter and the names; of comma, semicolon and tab that which makes `email` a column."""
    for delimiter in _DELIMITERS:
        first = next(_records(text, delimiter), None)
        names = ["_".join(name.casefold().split()) for name in first.cells] if first is not None else []
        if "email" in names:
            return delimiter, names
    return _DELIMITERS[0], []


def _records(text: str, delimiter: str) -> Iterator[Record]:
    # newline="" leaves line breaks within quotes as they are; strict makes csv refuse what it would otherwise guess.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    begun = 1
    try:
        for cells in reader:
            if any(cell and not cell.isspace() for cell in cells):
                yield Record(begun, cells)
            begun = reader.line_num + 1
    except csv.Error:
        raise UnreadableFileError(
            "csv_malformed",
            f"The record that begins on line {begun} cannot be read: a quotation mark is missing or stands where none "
            "may stand.",
        ) from None
