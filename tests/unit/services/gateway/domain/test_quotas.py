"""Names of quotas, and that the document tells the defaults."""

import re
from pathlib import Path

import pytest

from services.gateway.domain import quotas as names

ROOT = Path(__file__).resolve().parents[5]


@pytest.mark.parametrize(
    "name",
    [
        "read.server",
        "in_flight.account",
        "route:/gatefold.auth.v1.SessionService/CreateSession.address",
        "rule:scrapers-2.person",
    ],
)
def test_these_can_be_quotas(name: str) -> None:
    names.check(name, 5, 60)


@pytest.mark.parametrize(
    ("name", "amount", "seconds"),
    [
        ("read", 5, 60),
        ("read.nobody", 5, 60),
        ("reed.server", 5, 60),
        ("route:CreateSession.address", 5, 60),
        ("route:/gatefold.auth.v1.SessionService/CreateSession", 5, 60),
        ("rule:Scrapers.person", 5, 60),
        ("rule:scrapers.person\n", 5, 60),
        ("read.server", 0, 60),
        ("read.server", 5, 0),
        ("read.server", 10**10, 60),
    ],
)
def test_these_cannot(name: str, amount: int, seconds: int) -> None:
    with pytest.raises(ValueError, match="quota"):
        names.check(name, amount, seconds)


def test_the_documented_defaults_are_the_defaults() -> None:
    text = (ROOT / "docs" / "rate-limits.md").read_text(encoding="utf-8")
    head = re.search(r"^\| class \| (.*) \|$", text, re.M)
    assert head is not None
    columns = head[1].split(" | ")
    rows = re.findall(r"^\| `(\w+)`[^|]*\| ([\d |]+) \|$", text, re.M)
    documented = {
        f"{name}.{whom}": int(units)
        for name, cells in rows
        for whom, units in zip(columns, cells.split(" | "), strict=True)
    }
    assert documented == {name: amount for name, (amount, _) in names.DEFAULTS.items()}
    assert {name: seconds for name, (_, seconds) in names.DEFAULTS.items() if "in_flight" not in name} == {
        name: 60 for name in documented if "in_flight" not in name
    }
