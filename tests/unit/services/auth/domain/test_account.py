"""Accounts: what their settings may be."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from libs.errors import GatefoldError
from services.auth.domain import account

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_an_account_and_its_sibling_name_each_other_and_share_the_team() -> None:
    live, test = account.open_account(
        UUID(int=1), UUID(int=2), name=" Daily ", time_zone="", reader_url="https://daily.example", created_at=NOW
    )
    assert (live.id, live.sibling, live.live, live.name, live.time_zone) == (
        UUID(int=1),
        UUID(int=2),
        True,
        "Daily",
        "UTC",
    )
    assert (test.id, test.sibling, test.live) == (UUID(int=2), UUID(int=1), False)
    assert live.team == test.team == live.id


@pytest.mark.parametrize("name", ["", "  ", "x" * 121, "a\nb", "a\0b"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(GatefoldError, match="name_invalid"):
        account.checked_name(name)


@pytest.mark.parametrize("name", ["Mars/Olympus", "../UTC", "/etc/localtime", "Europe", "\0"])
def test_what_is_no_time_zone_is_refused(name: str) -> None:
    with pytest.raises(GatefoldError, match="time_zone_unknown"):
        account.checked_time_zone(name)


@pytest.mark.parametrize(
    "url",
    ["", "daily.example", "ftp://daily.example", "javascript:alert(1)", "https://", "https://u@daily.example",
     "https://daily.example:99999", "https://[", "https://daily.example/#top", "https://daily.example/a b",
     "https://daily.example/" + "a" * 500],
)  # fmt: skip
def test_what_is_no_address_for_readers_is_refused(url: str) -> None:
    with pytest.raises(GatefoldError, match="reader_url_invalid"):
        account.checked_reader_url(url)
