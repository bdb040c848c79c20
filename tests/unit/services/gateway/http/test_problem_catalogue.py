"""docs/problems.md lists every reason that a client can see, with the status it comes with, and none besides."""

import ast
from collections.abc import Iterator
from pathlib import Path

from libs.errors import Kind
from services.gateway.http.pages import problem_rows

ROOT = Path(__file__).resolve().parents[5]
PAGE = ROOT / "docs" / "problems.md"
KINDS = {kind.name.lower(): kind for kind in Kind}

# Said between services alone: the calling side turns them into `internal_error` (libs/grpc_client).
INSIDE = {"caller_required", "caller_invalid", "caller_expired", "caller_not_peer", "peer_not_allowed"}
# Statuses that HTTP has and RPCs have no kind for (services/gateway/http/problems.py).
OWN_STATUSES = {"body_timeout": 408, "header_timeout": 408, "version_mismatch": 412}


def literals(node: ast.expr, tree: ast.Module) -> Iterator[str]:
    """Yields what a reason can be: a text, either branch of a choice, or a module's constant."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from literals(node.body, tree)
        yield from literals(node.orelse, tree)
    elif isinstance(node, ast.Name):
        for statement in tree.body:
            if isinstance(statement, ast.Assign) and any(
                isinstance(target, ast.Name) and target.id == node.id for target in statement.targets
            ):
                yield from literals(statement.value, tree)


def used(source: str) -> Iterator[tuple[str, int, str]]:
    """Yields reason, status and detail of each error that a module raises."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        owner = getattr(function.value, "id", "") if isinstance(function, ast.Attribute) else ""
        if name not in KINDS or owner not in ("errors", ""):
            continue
        detail = node.args[1] if len(node.args) > 1 else None
        text = detail.value if isinstance(detail, ast.Constant) else "?"
        for reason in literals(node.args[0], tree):
            if name != "internal" or reason == "internal_error":
                yield reason, OWN_STATUSES.get(reason, KINDS[name].http_status), str(text)


def reasons() -> dict[str, dict[int, str]]:
    """Returns statuses and details by reason."""
    found: dict[str, dict[int, str]] = {}
    for folder in ("libs", "services"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for reason, status, detail in used(path.read_text(encoding="utf-8")):
                if reason not in INSIDE:
                    found.setdefault(reason, {}).setdefault(status, detail)
    return found


def test_every_reason_is_listed_with_its_status() -> None:
    listed = {(reason, status) for reason, status, _ in problem_rows(PAGE.read_text(encoding="utf-8"))}
    missing = [
        f"| `{reason}` | {status} | {detail} |"
        for reason, statuses in sorted(reasons().items())
        for status, detail in statuses.items()
        if (reason, status) not in listed
    ]
    assert missing == []


def test_nothing_is_listed_that_is_never_said() -> None:
    said = {(reason, status) for reason, statuses in reasons().items() for status in statuses}
    listed = {(reason, status) for reason, status, _ in problem_rows(PAGE.read_text(encoding="utf-8"))}
    assert sorted(listed - said) == []


def test_rows_are_sorted_and_explain_themselves() -> None:
    rows = problem_rows(PAGE.read_text(encoding="utf-8"))
    assert [reason for reason, _, _ in rows] == sorted(reason for reason, _, _ in rows)
    assert all(len(meaning) > 15 and meaning.endswith(".") for _, _, meaning in rows)


def test_a_planted_reason_is_found() -> None:
    source = """
REASON = "planted_constant"
def f(a):
    raise errors.invalid("planted_direct", "A detail.")
def g(a):
    raise errors.conflict("planted_one" if a else "planted_two", "A detail.")
def h():
    return errors.timeout(REASON, "A detail.")
"""
    assert {(reason, status) for reason, status, _ in used(source)} == {
        ("planted_direct", 422),
        ("planted_one", 409),
        ("planted_two", 409),
        ("planted_constant", 504),
    }
