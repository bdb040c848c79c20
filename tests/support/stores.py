"""Owns the real PostgreSQL and Valkey that tests run on: one of each for a test run, and a database for each module."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TextIO
from urllib.parse import urlsplit

from infra.local.postgres import PostgresServer
from infra.local.valkey import ValkeyServer
from libs import migrate
from libs.config import Secret
from libs.kill_points import KillPoints
from libs.migrate.files import ROOT, Component, components_of, shared_components
from libs.postgres import Database, Role

_PREFIX = "gatefold-tests-"
_PASSWORD = Secret("password-of-tests")


class ServiceDatabase(NamedTuple):
    """A service's database with its schema migrated and no rows."""

    app: Database
    jobs: Database
    owner_dsn: Secret


class RunDirectory:
    """A directory of this test run, locked while it lasts; what killed runs left is stopped and removed."""

    def __init__(self) -> None:
        _remove_left_over()
        fresh = Path(tempfile.mkdtemp(prefix="gatefold-new-"))
        # Another user runs the servers when root runs the tests.
        fresh.chmod(0o711)
        self._lock = _lock(fresh)
        # Renamed once it is locked, so that nobody takes it for a left-over.
        self.path = fresh.rename(fresh.with_name(_PREFIX + fresh.name.removeprefix("gatefold-new-")))

    def remove(self) -> None:
        """Removes the directory and lets go of it."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()


class TestPostgres:
    """The run's PostgreSQL server, without durability, and the databases on it."""

    __test__ = False

    def __init__(self, state: Path) -> None:
        self.server = PostgresServer(state, _PASSWORD, fast=True)
        self._made = 0
        self._templates: set[str] = set()

    def dsn(self, database: str, role: str) -> Secret:
        """Returns the DSN of a role, for example `billing_app`; `postgres` is the admin."""
        return self.server.dsn(role, _PASSWORD, database)

    async def service_database(self, service: str, components: Sequence[Component] | None = None) -> str:
        """Makes a database for the service and returns its name.

        `components` are applied instead of the service's own; a service without migrations has what all have.
        """
        template = f"template_{service}"
        if template not in self._templates:
            own = (ROOT / "services" / service / "migrations").is_dir()
            chosen = components or (components_of(service) if own else shared_components())
            await self.empty_database(template, service)
            await migrate.apply_components(self.dsn(template, f"{service}_owner"), chosen)
            self._templates.add(template)
        name = await self._copy(template, service)
        # A copy has everything but the template's own grants.
        await self.empty_database(name, service)
        return name

    async def keys_database(self, services: Sequence[str]) -> str:
        """Makes a keys database and returns its name."""
        template = "template_keys"
        if template not in self._templates:
            await migrate.create_database(self.server.dsn(), template)
            await self._bootstrap_keys(template, services)
            await migrate.apply_keys(self.dsn(template, "keys_owner"))
            self._templates.add(template)
        name = await self._copy(template, "keys")
        await self._bootstrap_keys(name, services)
        return name

    async def empty_database(self, name: str, service: str) -> Secret:
        """Makes a database with the service's roles, grants and an empty schema; returns the owner's DSN."""
        await migrate.create_database(self.server.dsn(), name)
        passwords = dict.fromkeys(migrate.roles_of(service), _PASSWORD.reveal())
        await migrate.bootstrap(self.server.dsn(database=name), service, passwords)
        return self.dsn(name, f"{service}_owner")

    async def open(self, database: str, service: str, *, pool_size: int = 4) -> ServiceDatabase:
        """Opens a service's database as its app and its jobs role."""

        async def as_role(role: Role) -> Database:
            return await Database.open(
                self.dsn(database, f"{service}_{role}"),
                service=service,
                role=role,
                pool_size=pool_size,
                kill_points=KillPoints(service),
            )

        return ServiceDatabase(await as_role("app"), await as_role("jobs"), self.dsn(database, f"{service}_owner"))

    async def _bootstrap_keys(self, database: str, services: Sequence[str]) -> None:
        roles = ("keys_owner", "keys_backup", *(f"{service}_keys" for service in services))
        passwords = dict.fromkeys(roles, _PASSWORD.reveal())
        await migrate.bootstrap_keys(self.server.dsn(database=database), services, passwords)

    async def _copy(self, template: str, service: str) -> str:
        self._made += 1
        name = f"{service}_{self._made}"
        await migrate.create_database(self.server.dsn(), name, template=template)
        return name


def role_dsn(dsn: Secret, role: str) -> Secret:
    """Returns the DSN of another role on the same test database."""
    text = dsn.reveal()
    user = urlsplit(text).username
    return Secret(text.replace(f"//{user}:", f"//{role}:", 1))


def new_valkey(state: Path) -> ValkeyServer:
    """Returns the run's Valkey server, without durability."""
    return ValkeyServer(state, _PASSWORD, append=False)


def _remove_left_over() -> None:
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if path.stat().st_uid != os.geteuid():
            continue
        lock = _lock(path)
        if lock is None:
            continue
        with lock:
            PostgresServer(path / "postgres", _PASSWORD, fast=True).stop()
            new_valkey(path / "valkey").stop()
            shutil.rmtree(path, ignore_errors=True)


def _lock(directory: Path) -> TextIO | None:
    """Returns the held lock; None when another process holds it."""
    try:
        file = (directory / "lock").open("w")
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
