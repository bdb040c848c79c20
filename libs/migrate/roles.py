"""Owns roles and grants: who may do what in a service's schema and in the keys database, from an empty server on."""

import base64
import hashlib
import hmac
import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import asyncpg

from libs.config import Secret
from libs.migrate.apply import connect
from libs.migrate.files import MigrationError

KEYS_SCHEMA = "keys"
KINDS = ("owner", "app", "jobs", "backup")

# Settings of the role itself: a pooler in transaction mode passes on nothing that a session sets.
_SETTINGS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "owner": {"idle_in_transaction_session_timeout": "60s"},
        "app": {
            "statement_timeout": "10s",
            "lock_timeout": "3s",
            "idle_in_transaction_session_timeout": "15s",
            "jit": "off",
        },
        "jobs": {
            "statement_timeout": "60s",
            "lock_timeout": "5s",
            "idle_in_transaction_session_timeout": "60s",
            "jit": "off",
        },
        "backup": {"default_transaction_read_only": "on"},
    }
)
_SCRAM_ITERATIONS = 4096


def roles_of(service: str) -> tuple[str, ...]:
    """Returns the names of a service's roles: <service>_owner, _app, _jobs and _backup."""
    return tuple(f"{service}_{kind}" for kind in KINDS)


async def bootstrap(admin_dsn: Secret | str, service: str, passwords: Mapping[str, str]) -> None:
    """Makes the service's schema and its four roles in the database of `admin_dsn`, or brings them to this state.

    `passwords` holds one for each name of `roles_of`. The admin needs CREATEROLE and CREATE on the database, and no
    more. Runs any number of times; a password that differs replaces the old one.
    """
    connection = await connect(admin_dsn)
    try:
        async with connection.transaction():
            await _lock(connection)
            for kind, role in zip(KINDS, roles_of(service), strict=True):
                await _role(connection, role, passwords, {**_SETTINGS[kind], "search_path": service})
            await _schema(connection, service, roles_of(service))
            owner, app, jobs, backup = roles_of(service)
            await _default_grants(connection, service, owner, app, backup, "SELECT, INSERT, UPDATE, DELETE")
            await _run(connection, "GRANT USAGE ON SCHEMA %I TO %I", service, jobs)
    finally:
        await connection.close(timeout=5)


async def bootstrap_keys(admin_dsn: Secret | str, services: Sequence[str], passwords: Mapping[str, str]) -> None:
    """Makes the keys database's schema and roles in the database of `admin_dsn`, or brings them to this state.

    `passwords` holds one for `keys_owner`, `keys_backup` and for `<service>_keys` of each service; the latter hold what
    the group role keys_app may: read, add and change keys, never delete a row (a destroyed key leaves its tombstone).
    """
    owner, app, backup = (f"{KEYS_SCHEMA}_{kind}" for kind in ("owner", "app", "backup"))
    members = [f"{service}_keys" for service in services]
    connection = await connect(admin_dsn)
    try:
        async with connection.transaction():
            await _lock(connection)
            await _role(connection, app, None, {})
            await _role(connection, owner, passwords, {**_SETTINGS["owner"], "search_path": KEYS_SCHEMA})
            await _role(connection, backup, passwords, {**_SETTINGS["backup"], "search_path": KEYS_SCHEMA})
            for member in members:
                await _role(connection, member, passwords, {**_SETTINGS["app"], "search_path": KEYS_SCHEMA})
                await _run(connection, "GRANT %I TO %I", app, member)
            await _schema(connection, KEYS_SCHEMA, (owner, app, backup, *members))
            await _default_grants(connection, KEYS_SCHEMA, owner, app, backup, "SELECT, INSERT, UPDATE")
    finally:
        await connection.close(timeout=5)


async def create_database(admin_dsn: Secret | str, name: str, *, template: str | None = None) -> None:
    """Creates a database unless it is there; with `template`, as a copy of one that nobody is connected to."""
    connection = await connect(admin_dsn)
    try:
        if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", name):
            await _run(connection, "CREATE DATABASE %I TEMPLATE %I", name, template or "template1")
    except (asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
        return  # somebody else was first
    finally:
        await connection.close(timeout=5)


async def _schema(connection: "asyncpg.Connection[asyncpg.Record]", schema: str, roles: Sequence[str]) -> None:
    database = await connection.fetchval("SELECT current_database()")
    owner = roles[0]
    # Who is no superuser may only make a role an owner, and set what its tables grant, as a member of it.
    if not await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
        await _run(connection, "GRANT %I TO CURRENT_USER", owner)
    if not await connection.fetchval("SELECT true FROM pg_namespace WHERE nspname = $1", schema):
        await _run(connection, "CREATE SCHEMA %I AUTHORIZATION %I", schema, owner)
    await _run(connection, "REVOKE ALL ON DATABASE %I FROM PUBLIC", database)
    await connection.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    for role in roles:
        await _run(connection, "GRANT CONNECT ON DATABASE %I TO %I", database, role)


async def _default_grants(
    connection: "asyncpg.Connection[asyncpg.Record]", schema: str, owner: str, app: str, backup: str, tables: str
) -> None:
    """What tables of the schema grant from the moment they are made; migrations add and take away from that."""
    await _run(connection, "REVOKE ALL ON SCHEMA %I FROM PUBLIC", schema)
    await _run(connection, "GRANT USAGE ON SCHEMA %I TO %I", schema, app)
    await _run(connection, "GRANT USAGE ON SCHEMA %I TO %I", schema, backup)
    defaults = "ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA %I GRANT "
    await _run(connection, f"{defaults}{tables} ON TABLES TO %I", owner, schema, app)
    await _run(connection, f"{defaults}USAGE ON SEQUENCES TO %I", owner, schema, app)
    await _run(connection, f"{defaults}SELECT ON TABLES TO %I", owner, schema, backup)
    await _run(connection, f"{defaults}SELECT ON SEQUENCES TO %I", owner, schema, backup)
    await _run(connection, "ALTER DEFAULT PRIVILEGES FOR ROLE %I REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC", owner)


async def _role(
    connection: "asyncpg.Connection[asyncpg.Record]",
    role: str,
    passwords: Mapping[str, str] | None,
    settings: Mapping[str, str],
) -> None:
    """A role with a password may log in; one without is a group."""
    if not await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", role):
        await _run(connection, "CREATE ROLE %I NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION", role)
    if passwords is not None:
        if role not in passwords:
            raise MigrationError(f"no password for role {role}")
        await _run(connection, "ALTER ROLE %I LOGIN PASSWORD %L", role, scram_verifier(passwords[role], os.urandom(16)))
    for name, value in settings.items():
        await _run(connection, "ALTER ROLE %I SET %I = %L", role, name, value)


async def _run(connection: "asyncpg.Connection[asyncpg.Record]", statement: str, *arguments: str) -> None:
    """Runs a statement that takes no parameters; the server quotes what is put into it."""
    quoted = await connection.fetchval("SELECT format($1, VARIADIC $2::text[])", statement, list(arguments))
    await connection.execute(quoted)


async def _lock(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    # Two transactions that alter one role or database at once do not wait for each other but fail.
    await connection.execute("SELECT pg_advisory_xact_lock(hashtext('gatefold bootstrap'))")


def scram_verifier(password: str, salt: bytes) -> str:
    """Returns what the server stores for a password (RFC 5803, RFC 7677), so that it never sees the password itself."""
    if not password.isascii() or not password:
        raise MigrationError("a database password consists of ASCII characters")
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _SCRAM_ITERATIONS)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(part).decode() for part in (salt, stored_key, server_key)]
    return f"SCRAM-SHA-256${_SCRAM_ITERATIONS}:{encoded[0]}${encoded[1]}:{encoded[2]}"
