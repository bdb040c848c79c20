"""The alerts: each can be read, names metrics that services export, and says what is to be done."""

import ast
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "gatefold"
FILES = sorted((CHART / "alerts").glob("*.yaml"))
KINDS = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
METRIC = re.compile(r"\bgatefold_[a-z0-9_]+")
# What PromQL has besides metrics, as far as the rules use it.
WORDS = {"max", "sum", "by", "or", "vector", "increase", "rate", "time", "scalar"}
TOKEN = re.compile(r"\s*([a-z_][a-z0-9_]*|\[[0-9]+[smh]\]|[0-9.]+|[()<>*/+,-])")


def rules() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for path in FILES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            found += group["rules"]
    return found


def exported() -> Iterator[str]:
    """Names under which the code's metrics are scraped."""
    for folder in ("services", "libs"):
        for path in (ROOT / folder).rglob("*.py"):
            yield from made_in(path.read_text())


def made_in(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in KINDS
            and node.args
        ):
            name = node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield from (f"gatefold_{name.value}{ending}" for ending in KINDS[node.func.attr])


def tokens(expression: str) -> list[str]:
    """Returns what an expression is made of; raises ValueError for anything that the rules have no use for."""
    found, at = [], 0
    while at < len(expression.rstrip()):
        match = TOKEN.match(expression, at)
        if match is None:
            raise ValueError(expression[at:])
        found.append(match[1])
        at = match.end()
    return found


def depth(expression: str) -> list[int]:
    level, levels = 0, []
    for token in tokens(expression):
        level += {"(": 1, ")": -1}.get(token, 0)
        levels.append(level)
    return levels


ALERTS = {rule["alert"]: rule for rule in rules()}


def test_no_alert_is_there_twice() -> None:
    assert len(rules()) == len(ALERTS) >= 9


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_names_metrics_that_are_exported(name: str) -> None:
    named = METRIC.findall(ALERTS[name]["expr"])
    assert named
    assert set(named) <= set(exported())


@pytest.mark.parametrize("name", ALERTS)
def test_an_expression_can_be_read(name: str) -> None:
    expression = ALERTS[name]["expr"]
    levels = depth(expression)
    assert min(levels) >= 0
    assert levels[-1] == 0
    words = {token for token in tokens(expression) if token[0].isalpha() and not METRIC.fullmatch(token)}
    labels = {label for held in re.findall(r"by \(([a-z, ]+)\)", expression) for label in held.split(", ")}
    assert words <= WORDS | labels
    # Counters are read by how they rise, over a time; what else is read is a gauge.
    for metric in METRIC.findall(expression):
        assert (f"{metric}[" in expression) == metric.endswith("_total")


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_is_wrong_how_much_it_matters_and_what_to_do(name: str) -> None:
    alert = ALERTS[name]
    assert set(alert) <= {"alert", "expr", "for", "labels", "annotations"}
    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert alert["annotations"]["summary"].endswith(".")
    runbook = ROOT / alert["annotations"]["runbook"]
    assert runbook.is_file()
    # Whoever is woken finds there what woke them.
    assert set(METRIC.findall(alert["expr"])) & {found.removesuffix("{detector}") for found in named_in(runbook)}


def named_in(runbook: Path) -> set[str]:
    return set(METRIC.findall(runbook.read_text()))


def test_every_runbook_is_some_alerts() -> None:
    used = {alert["annotations"]["runbook"] for alert in ALERTS.values()}
    assert used == {str(path.relative_to(ROOT)) for path in (ROOT / "docs" / "runbooks").glob("*.md")}


@pytest.mark.parametrize("planted", ["rate(gatefold_x_total)[2m", "max{gatefold_x} > 1", 'gatefold_x{a="b"} > 1'])
def test_a_planted_fault_is_seen(planted: str) -> None:
    with pytest.raises((ValueError, AssertionError)):
        assert depth(planted)[-1] == 0


def test_the_chart_ships_them_as_they_are() -> None:
    command = [
        os.environ.get("HELM", "helm"),
        *("template", "gatefold", str(CHART), "--kube-version", "1.37", "-f", str(CHART / "example-values.yaml")),
        *("--set", "metrics.rules=true", "--show-only", "templates/prometheusrule.yaml"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shipped = yaml.safe_load(done.stdout)
    assert shipped["kind"] == "PrometheusRule"
    assert [rule for group in shipped["spec"]["groups"] for rule in group["rules"]] == rules()
