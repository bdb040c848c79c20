"""Owns the migration files: where they lie, how they are read, and the rules they keep among themselves."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[2]

_FILE_NAME = re.compile(r"(?P<number>\d{4})_(?P<name>[a-z][a-z0-9_]*)\.sql")
_HEADER = re.compile(r"-- (?P<key>kind|min_compatible_code): (?P<value>\S+)")
_TRANSACTION_CONTROL = re.compile(
    r"^\s*(BEGIN|START\s+TRANSACTION|COMMIT|ROLLBACK|END)\s*;", re.IGNORECASE | re.MULTILINE
)


class MigrationError(Exception):
    """The files or the database are not in a state that can be migrated or served; says which and why."""


@dataclass(frozen=True)
class Component:
    """A folder of migrations that is applied as one line of numbers."""

    name: str
    folder: Path


@dataclass(frozen=True)
class Migration:
    """One file. `contract` ones take something away that code below `min_compatible_code` still uses."""

    component: str
    number: int
    name: str
    kind: Literal["expand", "contract"]
    min_compatible_code: int
    sql: str
    sha256: bytes

    @property
    def title(self) -> str:
        """Returns how messages call it, for example `billing/0002_add_gifts`."""
        return f"{self.component}/{self.number:04}_{self.name}"


def components_of(service: str) -> tuple[Component, ...]:
    """Returns what a service's schema is made of, in the order it is applied; raises for an unknown service."""
    own = ROOT / "services" / service / "migrations"
    if not own.is_dir():
        raise MigrationError(f"service {service!r} has no folder services/{service}/migrations")
    return (*shared_components(), Component(service, own))


def shared_components() -> tuple[Component, ...]:
    """Returns what every service's schema begins with."""
    libs = ROOT / "libs" / "migrations"
    return Component("functions", libs / "functions"), Component("libs", libs)


def keys_components() -> tuple[Component, ...]:
    """Returns what the keys database's schema is made of."""
    return shared_components()[0], Component("vault", ROOT / "libs" / "vault" / "migrations")


def read(component: Component) -> tuple[Migration, ...]:
    """Returns the component's migrations by number; raises MigrationError naming a file that breaks a rule."""
    migrations = [_read_file(component, path) for path in sorted(component.folder.glob("*.sql"))]
    _check_line(migrations)
    return tuple(migrations)


def _read_file(component: Component, path: Path) -> Migration:
    place = f"{component.name}/{path.name}"
    named = _FILE_NAME.fullmatch(path.name)
    if named is None:
        raise MigrationError(f"{place}: a migration is named NNNN_verb_noun.sql")
    content = path.read_bytes()
    sql = content.decode()
    found = (_HEADER.fullmatch(line) for line in sql.splitlines())
    headers = {match["key"]: match["value"] for match in found if match}
    kind = headers.get("kind")
    if kind != "expand" and kind != "contract":
        raise MigrationError(f"{place}: a line '-- kind: expand' or '-- kind: contract' is needed")
    code = headers.get("min_compatible_code", "")
    if not code.isdecimal() or int(code) < 1:
        raise MigrationError(f"{place}: a line '-- min_compatible_code: N' is needed")
    if _TRANSACTION_CONTROL.search(sql):
        raise MigrationError(f"{place}: a migration runs in one transaction and does not begin or end any")
    return Migration(
        component=component.name,
        number=int(named["number"]),
        name=named["name"],
        kind="contract" if kind == "contract" else "expand",
        min_compatible_code=int(code),
        sql=sql,
        # Line ends may be changed by a checkout without changing what the file does.
        sha256=hashlib.sha256(content.replace(b"\r\n", b"\n")).digest(),
    )


def _check_line(migrations: Sequence[Migration]) -> None:
    code = 1
    for expected, migration in enumerate(migrations, start=1):
        if migration.number != expected:
            raise MigrationError(f"{migration.title}: number {expected:04} is missing or given twice")
        if migration.min_compatible_code < code:
            raise MigrationError(f"{migration.title}: min_compatible_code falls from {code}")
        if migration.min_compatible_code > code and migration.kind == "expand":
            raise MigrationError(f"{migration.title}: only a contract migration raises min_compatible_code")
        code = migration.min_compatible_code
