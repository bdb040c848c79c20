"""House rules on source text that no linter knows: time, chance, environment and SQL come from where they belong."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN_CALLS = {
    # call → the files that may make it
    "datetime.now": {"libs/clock.py"},
    "datetime.utcnow": set[str](),
    "datetime.today": set[str](),
    "time.time": {"libs/clock.py"},
    "time.time_ns": set[str](),
    "uuid.uuid1": set[str](),
    "uuid.uuid4": set[str](),
    "uuid4": set[str](),
    "os.getenv": set[str](),
}
SQL_START = re.compile(r"^\s*(select|insert|update|delete|with|merge)\b", re.IGNORECASE)
SQL_FORBIDDEN = {
    "SELECT *": re.compile(r"select\s+\*", re.IGNORECASE),
    "now()": re.compile(
        r"\b(now\(\)|current_timestamp|clock_timestamp\(\)|statement_timestamp\(\)|localtimestamp)", re.IGNORECASE
    ),
}


def python_files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def calls_out_of_place(path: str, source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            allowed = FORBIDDEN_CALLS.get(name)
            if allowed is not None and path not in allowed:
                found.append(f"{path}:{node.lineno} calls {name}")
        if isinstance(node, ast.Attribute) and dotted(node) == "os.environ" and path != "libs/config.py":
            found.append(f"{path}:{node.lineno} reads os.environ")
    return found


def is_constant(part: ast.expr) -> bool:
    """Whether a part of an f-string is text, or a module's own constant such as a list of columns."""
    return isinstance(part, ast.Constant) or (
        isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.Name) and part.value.id.isupper()
    )


def sql_texts(source: str) -> Iterator[tuple[int, str, bool]]:
    """Yields (line, text, built): texts that look like SQL, and whether they are put together at run time."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL_START.match(node.value):
            yield node.lineno, node.value, False
        if isinstance(node, ast.JoinedStr) and node.values:
            first = node.values[0]
            if isinstance(first, ast.Constant) and SQL_START.match(str(first.value)):
                text = "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
                yield node.lineno, text, not all(is_constant(part) for part in node.values)


def statements_out_of_place(path: str, source: str) -> list[str]:
    found = []
    for line, text, built in sql_texts(source):
        found += [f"{path}:{line} has {name}" for name, pattern in SQL_FORBIDDEN.items() if pattern.search(text)]
        # Identifiers cannot be parameters: libs that work on any table quote them; a service knows its tables.
        if built and path.startswith("services/"):
            found.append(f"{path}:{line} builds SQL from strings")
    return found


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_time_chance_and_environment_come_from_their_libs() -> None:
    found = [
        item
        for path in python_files("libs", "services")
        for item in calls_out_of_place(relative(path), path.read_text())
    ]
    assert found == []


def test_sql_names_its_columns_reads_no_clock_and_is_never_built() -> None:
    found = [
        item
        for path in python_files("libs", "services")
        for item in statements_out_of_place(relative(path), path.read_text())
    ]
    assert found == []


def test_migrations_read_no_clock() -> None:
    pattern = SQL_FORBIDDEN["now()"]
    files = [path for folder in ("libs", "services") for path in (ROOT / folder).rglob("migrations/*.sql")]
    assert files
    assert [relative(path) for path in files if pattern.search(path.read_text())] == []


@pytest.mark.parametrize(
    "planted",
    [
        "from datetime import datetime\nat = datetime.now()",
        "import time\nat = time.time()",
        "from uuid import uuid4\nat = uuid4()",
        "import os\nhome = os.environ['HOME']",
        "import os\nhome = os.getenv('HOME')",
    ],
)
def test_a_planted_call_is_found(planted: str) -> None:
    assert calls_out_of_place("services/billing/usecases.py", planted)


@pytest.mark.parametrize(
    "planted",
    [
        "conn.fetch('SELECT * FROM price')",
        "conn.fetch('SELECT id FROM price WHERE created_at < now()')",
        "conn.fetch(f'SELECT id FROM {table}')",
    ],
)
def test_a_planted_statement_is_found(planted: str) -> None:
    assert statements_out_of_place("services/billing/repository.py", planted)


def test_every_module_says_what_it_owns() -> None:
    silent = [
        relative(path)
        for path in python_files("libs", "services", "infra")
        if path.read_text().strip() and ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert silent == []


def test_names_say_what_a_module_is() -> None:
    empty_words = {"utils", "util", "common", "helpers", "helper", "core", "base", "manager", "misc"}
    named = [relative(path) for path in python_files("libs", "services", "infra", "tests") if path.stem in empty_words]
    assert named == []


def test_no_float_is_near_money() -> None:
    found = []
    for path in [ROOT / "libs/money.py", *python_files("services/billing/domain")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, float):
                found.append(f"{relative(path)}:{node.lineno}")
            if isinstance(node, ast.Name) and node.id == "float":
                found.append(f"{relative(path)}:{node.lineno}")
    assert found == []
