"""docs/firewall.md lists the fields, the limits and the rules as they are."""

import re
from pathlib import Path

from services.gateway.domain import firewall
from services.gateway.domain.default_rules import default_rules
from services.gateway.domain.expression import FIELDS, checker, parser

PAGE = (Path(__file__).resolve().parents[6] / "docs" / "firewall.md").read_text(encoding="utf-8")


def test_every_field_is_listed_with_its_type() -> None:
    for field in FIELDS:
        assert f"| `{field.name}` | {field.kind.value} | {field.description} |" in PAGE
    kinds = "|".join({field.kind.value for field in FIELDS})
    assert len(re.findall(rf"^\| `[a-z_.]+` \| (?:{kinds}) \| ", PAGE, re.MULTILINE)) == len(FIELDS)


def test_every_rule_to_begin_with_is_listed() -> None:
    for rule in default_rules():
        assert f"| {rule.name} | {rule.action.value}" in PAGE
        assert rule.description in PAGE


def test_limits_are_the_stated_ones() -> None:
    for limit in (
        f"{firewall.MOST_RULES:,}; {firewall.MOST_COST:,}",
        f"{parser.LONGEST:,} characters, {parser.DEEPEST} levels, cost {checker.MOST_COST:,}",
        f"{checker.LONGEST_PATTERN} characters",
        f"{firewall.MOST_LISTS}; {firewall.MOST_ENTRIES:,}",
        f"agents of one list | {firewall.MOST_AGENTS:,} |",
    ):
        assert limit in PAGE
