"""The bounds of the edge: what docs/hardening.md says of them, and what is no bound."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from services.gateway.domain.bounds import BodyBounds, ConnectionBounds, LoadBounds

PAGE = Path(__file__).resolve().parents[5] / "docs" / "hardening.md"
ALL = (ConnectionBounds, LoadBounds, BodyBounds)


def test_the_page_lists_every_bound_with_its_default_and_no_other() -> None:
    rows = re.findall(r"^\| `GATEFOLD_([A-Z_]+)` \| ([0-9.]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    listed = {name.lower(): float(value) for name, value in rows}
    assert len(rows) == len(listed)
    assert listed == {field.name: float(field.default) for kind in ALL for field in fields(kind)}  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "name"), [(kind, field.name) for kind in ALL for field in fields(kind)])
def test_a_bound_is_more_than_nothing(kind: type, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        kind(**{name: -1})


def test_what_is_critical_is_shed_last() -> None:
    with pytest.raises(ValueError, match="must not fall"):
        LoadBounds(lag_low_seconds=2, lag_normal_seconds=1)
