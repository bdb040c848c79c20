"""Owns the single values: what generated code calls for times, numbers, bytes and texts of a given form."""

import base64
import binascii
import math
import re
import struct
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

JSON_SAFE = (1 << 53) - 1
"""Greatest integer that every JSON reader holds exactly (RFC 8259 section 6)."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,19})")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_TIMESTAMP = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])([01]\d|2[0-3]):([0-5]\d))", re.ASCII
)
_DURATION = re.compile(r"(-?)(\d{1,12})(?:\.(\d{1,9}))?s", re.ASCII)
_MAX_DURATION_SECONDS = 315_576_000_000
_MIN_TIMESTAMP = -62_135_596_800
_MAX_TIMESTAMP = 253_402_300_799
_LARGEST_FLOAT = 3.4028234663852886e38

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]+"
_LABEL = r"[A-Za-z0-9\x80-\U0010ffff](?:[A-Za-z0-9\x80-\U0010ffff-]{0,61}[A-Za-z0-9\x80-\U0010ffff])?"
_EMAIL = re.compile(rf"({_ATOM}(?:\.{_ATOM})*)@((?:{_LABEL}\.)+{_LABEL})")
_URI = re.compile(
    r"https?://(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
    r"(?:[/?#](?:[A-Za-z0-9._~!$&'()*+,;=:@/?#-]|%[0-9A-Fa-f]{2})*)?"
)


def to_integer(value: object) -> int | None:
    """Reads a whole number that was not written as a plain JSON integer: a text, or 1.0; None when it is none."""
    if type(value) is str:
        return int(value) if _INTEGER.fullmatch(value) else None
    if type(value) is float and value.is_integer() and abs(value) <= JSON_SAFE:
        return int(value)
    return None


def to_double(value: object) -> float | None:
    """Reads a number, or one of the texts proto3 JSON has for numbers; None when it is none."""
    if type(value) is float or type(value) is int:
        return float(value)
    if type(value) is str:
        if value in _NOT_FINITE:
            return _NOT_FINITE[value]
        if len(value) <= 400 and _NUMBER.fullmatch(value) and math.isfinite(number := float(value)):
            return number
    return None


def to_float(value: object) -> float | None:
    """Reads a number of single precision; None when it is none or too large."""
    number = to_double(value)
    if number is None or (math.isfinite(number) and abs(number) > _LARGEST_FLOAT):
        return None
    return number


def from_double(value: float) -> float | str:
    """Writes a number; what JSON has no number for becomes a text."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def from_float(value: float) -> float | str:
    """Writes a number of single precision with as few digits as keep it."""
    if not math.isfinite(value):
        return from_double(value)
    for digits in (6, 7, 8):
        short = float(f"{value:.{digits}g}")
        if abs(short) <= _LARGEST_FLOAT and struct.unpack("<f", struct.pack("<f", short))[0] == value:
            return short
    return value


def from_integer(value: int) -> int | str:
    """Writes a 64-bit integer: a number while every JSON reader holds it, else a text."""
    return value if -JSON_SAFE <= value <= JSON_SAFE else str(value)


def to_bytes(value: object) -> bytes | None:
    """Reads base64 or base64url, with or without padding (RFC 4648); None when it is neither."""
    if type(value) is not str:
        return None
    text = value.rstrip("=")
    if len(value) - len(text) > 2 or (len(text) != len(value) and len(value) % 4):
        return None
    try:
        encoded = text.encode("ascii").replace(b"-", b"+").replace(b"_", b"/")
        return base64.b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        return None


def from_bytes(value: bytes) -> str:
    """Writes base64."""
    return base64.b64encode(value).decode("ascii")


def to_timestamp(value: object) -> tuple[int, int] | None:
    """Reads an RFC 3339 time as seconds and nanoseconds; None when it is none, or not within the years 1 to 9999."""
    if type(value) is not str or (match := _TIMESTAMP.fullmatch(value)) is None:
        return None
    year, month, day, hour, minute, second, fraction, sign, ahead_hours, ahead_minutes = match.groups()
    try:
        at = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second), tzinfo=UTC)
    except ValueError:
        return None
    elapsed = at - _EPOCH
    seconds = elapsed.days * 86_400 + elapsed.seconds
    if sign:
        ahead = int(ahead_hours) * 3600 + int(ahead_minutes) * 60
        seconds += -ahead if sign == "+" else ahead
        if not _MIN_TIMESTAMP <= seconds <= _MAX_TIMESTAMP:
            return None
    return seconds, int(fraction.ljust(9, "0")) if fraction else 0


def from_timestamp(value: Any) -> str:
    """Writes a Timestamp as RFC 3339 in UTC, with 0, 3, 6 or 9 digits of a second."""
    at = (_EPOCH + timedelta(seconds=value.seconds)).replace(tzinfo=None).isoformat()
    return f"{at}{_fraction(value.nanos)}Z"


def to_duration(value: object) -> tuple[int, int] | None:
    """Reads a duration, `3.5s`, as seconds and nanoseconds of the same sign; None when it is none."""
    if type(value) is not str or (match := _DURATION.fullmatch(value)) is None:
        return None
    sign = -1 if match[1] else 1
    seconds, nanos = int(match[2]), int(match[3].ljust(9, "0")) if match[3] else 0
    if seconds > _MAX_DURATION_SECONDS or (seconds == _MAX_DURATION_SECONDS and nanos):
        return None
    return sign * seconds, sign * nanos


def from_duration(value: Any) -> str:
    """Writes a Duration, with 0, 3, 6 or 9 digits of a second."""
    sign = "-" if value.seconds < 0 or value.nanos < 0 else ""
    return f"{sign}{abs(value.seconds)}{_fraction(abs(value.nanos))}s"


def is_email(value: str) -> bool:
    """Whether the text has the form of a mailbox (RFC 5321, internationalised by RFC 6531); no quoted local parts."""
    match = _EMAIL.fullmatch(value)
    return (
        match is not None
        and len(value) <= 254
        and len(match[1].encode("utf-8", "replace")) <= 64
        and not match[2].rpartition(".")[2].isdigit()
        # No control, format or space character, of any script.
        and value.isprintable()
    )


def is_uri(value: str) -> bool:
    """Whether the text is an absolute http or https URI (RFC 3986) without credentials in it."""
    return _URI.fullmatch(value) is not None


def id_pattern(prefix: str) -> str:
    """Returns the pattern of identifiers with this prefix."""
    return rf"{re.escape(prefix)}_[0-7][0-9a-hjkmnp-tv-z]{{25}}"


def first(pair: tuple[object, object]) -> object:
    """Returns the key of a map's entry, to sort by."""
    return pair[0]


def map_key(value: object) -> str:
    """Writes a map's key that is not a text."""
    if value is True:
        return "true"
    return "false" if value is False else str(value)


def to_bool_key(value: str) -> bool | None:
    """Reads a map's key that is a bool."""
    return {"true": True, "false": False}.get(value)


def within(violations: list[list[str]], start: int, field: str) -> None:
    """Puts `field` before the paths of all violations from `start` on."""
    for violation in violations[start:]:
        path = violation[0]
        violation[0] = f"{field}.{path}" if path else field


def unknown_fields(value: Mapping[str, object], known: frozenset[str], violations: list[list[str]]) -> None:
    """Adds a violation for each field that a message does not have; at most 20 of them."""
    unknown = [name for name in value if name not in known][:20]
    violations.extend([name[:100], "unknown_field", "There is no such field."] for name in unknown)


def _fraction(nanos: int) -> str:
    if nanos == 0:
        return ""
    if nanos % 1_000_000 == 0:
        return f".{nanos // 1_000_000:03d}"
    return f".{nanos // 1000:06d}" if nanos % 1000 == 0 else f".{nanos:09d}"
