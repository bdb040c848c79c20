"""Owns accounts: a live one and its test sibling, and what their settings may be."""

import re
import zoneinfo
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit
from uuid import UUID

from libs import errors

ANY = "any"
PROVIDER_ONLY = "provider_only"

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Account:
    """One publisher's account in one mode."""

    id: UUID
    sibling: UUID
    live: bool
    name: str
    time_zone: str
    reader_url: str
    created_at: datetime

    @property
    def team(self) -> UUID:
        """Returns the account that keeps the team: the live one, for both."""
        return self.id if self.live else self.sibling


@dataclass(frozen=True)
class SecurityPolicy:
    """What an account asks of its team and keys."""

    require_staff_factor: bool = False
    revoke_leaked_keys: bool = True
    staff_sign_in: str = ANY
    """`any` way, or `provider_only`."""


def open_account(
    account: UUID, sibling: UUID, *, name: str, time_zone: str, reader_url: str, created_at: datetime
) -> tuple[Account, Account]:
    """Returns the live account and its test sibling; raises `invalid` for settings that cannot be used."""
    name = checked_name(name)
    zone = checked_time_zone(time_zone)
    url = checked_reader_url(reader_url)
    return (
        Account(account, sibling, True, name, zone, url, created_at),
        Account(sibling, account, False, name, zone, url, created_at),
    )


def checked_name(name: str, *, field: str = "name", longest: int = 120, least: int = 1) -> str:
    """Returns a name without outer spaces; raises `invalid("name_invalid")` for none, a long one, or line breaks."""
    trimmed = name.strip()
    if not least <= len(trimmed) <= longest or _CONTROL.search(trimmed):
        raise errors.invalid(
            "name_invalid", f"A name has {least} to {longest} characters and no line breaks.", field=field
        )
    return trimmed


def checked_time_zone(name: str) -> str:
    """Returns the IANA name, `UTC` for none; raises `invalid("time_zone_unknown")`."""
    if name in {"", "UTC"}:
        return "UTC"
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise errors.invalid("time_zone_unknown", "There is no such IANA time zone.", field="time_zone") from None
    return name


def checked_reader_url(url: str) -> str:
    """Returns the address; raises `invalid("reader_url_invalid")` unless it is an absolute http(s) one without user."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and "@" not in parts.netloc
        _ = parts.port
    except ValueError:
        usable = False
    if not usable or parts.fragment or len(url) > 500 or _CONTROL.search(url) or " " in url:
        raise errors.invalid(
            "reader_url_invalid", "This must be an absolute http or https address.", field="reader_url"
        )
    return url
