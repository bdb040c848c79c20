"""Owns what an entry of a list may be: how each kind is written, read from a line, and put in order."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from libs import errors
from libs.errors import Violation
from services.gateway.domain.bundle import ListKind
from services.gateway.domain.networks import HostBitsError, normal, parse_network

Entry = tuple[str, datetime | None]
"""Text and, where it has one, its end."""

MOST_ENTRIES = 200_000
"""Of one list; the database has the same number."""
MOST_TOLD = 20
LONGEST_LINE = 400
WIDEST = {4: 8, 6: 16}
"""Shortest prefix of a network by version: a slip of the pen must not let in, or shut out, everybody."""

_COUNTRY = re.compile(r"[A-Za-z]{2}")
_ASN = re.compile(r"(?:[Aa][Ss])?([1-9][0-9]{0,9})")
_DOMAIN = re.compile(r"(?=.{4,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]")
_GREATEST_ASN = 4_294_967_295
_LEAST_AGENT, _LONGEST_AGENT = 3, 200


class EntryError(ValueError):
    """Says why a text is no entry: a stable rule's name and a sentence."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.rule = rule
        self.detail = detail


@dataclass(frozen=True)
class Lines:
    """What an import's text says."""

    entries: dict[str, datetime | None]
    lines: int
    """Lines with an entry."""


def normalised(kind: ListKind, text: str) -> str:
    """Returns an entry as it is kept: two ways to write one thing become the same text; raises EntryError."""
    return _READERS[kind](text.strip())


def checked(kind: ListKind, entries: list[Entry], now: datetime) -> dict[str, datetime | None]:
    """Returns entries as they are kept; raises `invalid("entry_invalid")` naming each that is none."""
    found: dict[str, datetime | None] = {}
    wrong: list[Violation] = []
    for place, (text, end) in enumerate(entries):
        try:
            found[normalised(kind, text)] = _ahead(end, now)
        except EntryError as error:
            wrong.append(Violation(f"entries[{place}]", error.rule, error.detail))
    _refuse(wrong)
    return found


def read_lines(kind: ListKind, data: bytes, now: datetime, usual_end: datetime | None) -> Lines:
    """Returns the entries of a text, one a line, with its end after a blank where it has one.

    Raises `invalid("entry_invalid")` naming the first lines that are none, `invalid("list_too_long")` as soon as more
    lines with an entry are read than a list may have, and `malformed("file_not_text")` for what is not UTF-8.
    """
    found: dict[str, datetime | None] = {}
    wrong: list[Violation] = []
    lines = 0
    for number, line in _written(data):
        lines += 1
        if lines > MOST_ENTRIES:
            raise too_long()
        try:
            text, end = _line(kind, line)
            found[text] = _ahead(end, now) or usual_end
        except EntryError as error:
            wrong.append(Violation(f"line {number}", error.rule, error.detail))
            if len(wrong) == MOST_TOLD:
                break
    _refuse(wrong)
    return Lines(found, lines)


def too_long() -> errors.GatefoldError:
    """Returns the refusal of a list with too many entries."""
    return errors.invalid(
        "list_too_long", f"A list has at most {MOST_ENTRIES:,} entries: join networks, or use several lists."
    )


def _written(data: bytes) -> Iterator[tuple[int, str]]:
    """Yields what stands in each line, with its number, without decoding the whole at once."""
    start, number = 0, 0
    while start < len(data):
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        number += 1
        try:
            # Whatever is longer than any entry need not be read to be refused.
            line = data[start : min(end, start + LONGEST_LINE)].decode(
                "utf-8", "strict" if end - start <= LONGEST_LINE else "ignore"
            )
        except UnicodeDecodeError:
            raise errors.malformed("file_not_text", f"Line {number} is not UTF-8.") from None
        start = end + 1
        if written := line.removeprefix("\ufeff").partition("#")[0].strip():
            yield number, written


def _line(kind: ListKind, line: str) -> Entry:
    text, end = line, None
    if len(line) >= LONGEST_LINE:
        raise EntryError("too_long", "This line is longer than any entry.")
    before, _, last = line.rpartition(" ")
    if before and last[:4].isdecimal() and "T" in last:
        try:
            end = datetime.fromisoformat(last)
        except ValueError:
            raise EntryError("end_malformed", "An end is written as 2027-01-31T00:00:00Z.") from None
        if end.tzinfo is None:
            raise EntryError("end_malformed", "An end says its time zone: 2027-01-31T00:00:00Z.")
        text = before
    return normalised(kind, text), end


def _ahead(end: datetime | None, now: datetime) -> datetime | None:
    if end is None:
        return None
    if end <= now:
        raise EntryError("end_past", "This end is over already.")
    try:
        # Kept in whole seconds; an entry never ends before it was to.
        return end.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=bool(end.microsecond))
    except OverflowError:
        raise EntryError("end_malformed", "There is no such time.") from None


def _refuse(wrong: list[Violation]) -> None:
    if wrong:
        raise errors.invalid(
            "entry_invalid", "Some entries are none; nothing was changed.", violations=wrong[:MOST_TOLD]
        )


def _network(text: str) -> str:
    try:
        version, first, bits = parse_network(text)
    except HostBitsError:
        raise EntryError("host_bits_set", "There are bits beyond the prefix: which is meant?") from None
    except ValueError:
        raise EntryError("network_malformed", "This is no address and no network.") from None
    if version == 4 and ":" in text:
        raise EntryError("network_malformed", "Write an IPv4 network as one.")
    if bits < WIDEST[version]:
        raise EntryError("network_too_wide", f"No network may be wider than /{WIDEST[version]}.")
    return f"{normal(version, first)}/{bits}"


def _country(text: str) -> str:
    if not _COUNTRY.fullmatch(text):
        raise EntryError("country_malformed", "A country has two letters.")
    return text.upper()


def _asn(text: str) -> str:
    match = _ASN.fullmatch(text)
    if match is None or int(match[1]) > _GREATEST_ASN:
        raise EntryError("asn_malformed", "This is no number of an autonomous system.")
    return match[1]


def _user_agent(text: str) -> str:
    if not (_LEAST_AGENT <= len(text) <= _LONGEST_AGENT and text.isascii() and text.isprintable()):
        raise EntryError("user_agent_malformed", "A part of a User-Agent has 3 to 200 printable ASCII characters.")
    return text.lower()


def _email_domain(text: str) -> str:
    name = text.removeprefix("@").rstrip(".").lower()
    try:
        name = name if name.isascii() else name.encode("idna").decode()
    except UnicodeError:
        name = ""
    if not _DOMAIN.fullmatch(name):
        raise EntryError("domain_malformed", "This is no domain of e-mail addresses.")
    return name


_READERS = {
    ListKind.NETWORKS: _network,
    ListKind.COUNTRIES: _country,
    ListKind.ASNS: _asn,
    ListKind.USER_AGENTS: _user_agent,
    ListKind.EMAIL_DOMAINS: _email_domain,
}
