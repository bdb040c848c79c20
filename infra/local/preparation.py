"""Owns what has to be there before services start: databases, roles, schemas, and the first operator's token."""

import asyncio
import time

from infra.local.environment import DATABASE, KEYS_DATABASE, Environments
from infra.local.placement import last_lines
from infra.local.postgres import PostgresServer
from infra.local.private_file import write_private
from infra.local.secrets import WITH_KEYS, WITH_SCHEMA, Secrets
from infra.local.settings import Place
from infra.local.valkey import ValkeyServer
from libs import migrate
from libs.config import Secret
from services.auth.__main__ import bootstrap_operator

_STORE_SECONDS = 30.0
_POLL_SECONDS = 0.05


class PreparationError(Exception):
    """Says what could not be prepared."""


def wait_for_stores(postgres: PostgresServer, valkey: ValkeyServer) -> None:
    """Returns when both answer; raises PreparationError with the last lines of the one that does not."""
    until = time.monotonic() + _STORE_SECONDS
    for name, store in (("PostgreSQL", postgres), ("Valkey", valkey)):
        while not store.ping():
            if time.monotonic() > until:
                raise PreparationError(f"{name} does not answer; its last lines:\n{last_lines(store.log)}")
            time.sleep(_POLL_SECONDS)


async def prepare(postgres: PostgresServer, secrets: Secrets, environments: Environments) -> list[str]:
    """Brings databases, roles and schemas to what this code needs; returns the migrations that were applied."""
    passwords = secrets.database_passwords()
    for database in (DATABASE, KEYS_DATABASE):
        await migrate.create_database(postgres.dsn(), database)
    admin, keys_admin = postgres.dsn(database=DATABASE), postgres.dsn(database=KEYS_DATABASE)
    applied = []
    for service in WITH_SCHEMA:
        await migrate.bootstrap(admin, service, passwords)
    await migrate.bootstrap_keys(keys_admin, WITH_KEYS, passwords)
    for service in WITH_SCHEMA:
        done = await migrate.apply(Secret(environments.dsn(f"{service}_owner")), service)
        applied += [f"{service} {title}" for title in done]
    applied += [f"keys {title}" for title in await migrate.apply_keys(environments.dsn("keys_owner", KEYS_DATABASE))]
    return applied


def issue_bootstrap_token(place: Place, environments: Environments) -> None:
    """Writes down a one-time token for the first operator."""
    token = asyncio.run(bootstrap_operator(environments.of("auth", {})))
    write_private(place.bootstrap_token, token)
