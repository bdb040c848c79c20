"""Runs migrations, and with --bootstrap makes roles and schemas: `python -m libs.migrate [--bootstrap] <service>…`."""

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from libs import config, migrate
from libs.config import Secret
from libs.errors import GatefoldError
from libs.migrate.files import MigrationError

KEYS = "keys"


@dataclass(frozen=True)
class OwnerConfig:
    """JSON object: the owner's DSN by service; `keys` is the keys database."""

    postgres_owner_dsns: Secret = field(repr=False)


@dataclass(frozen=True)
class AdminConfig:
    """DSNs of an admin on the services' and on the keys database, and a JSON object of passwords by role."""

    postgres_admin_dsn: Secret = field(repr=False)
    postgres_passwords: Secret = field(repr=False)
    keys_admin_dsn: Secret | None = field(default=None, repr=False)


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Returns 0 when every named schema is level with the files; prints what was done, one line each."""
    parser = argparse.ArgumentParser(prog="python -m libs.migrate", description=__doc__)
    parser.add_argument("--bootstrap", action="store_true", help="make roles, schemas and grants as an admin")
    parser.add_argument("services", nargs="+", metavar="service", help=f"name of a service, or {KEYS}")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.bootstrap:
            asyncio.run(_bootstrap(chosen.services, config.load(AdminConfig, environ)))
        else:
            asyncio.run(_apply(chosen.services, config.load(OwnerConfig, environ)))
    except (MigrationError, GatefoldError, config.ConfigError) as error:
        print(f"migrate: {error}", file=sys.stderr)
        return 1
    return 0


async def _apply(services: Sequence[str], settings: OwnerConfig) -> None:
    dsns = _object(settings.postgres_owner_dsns, "postgres_owner_dsns")
    for service in services:
        if service not in dsns:
            raise MigrationError(f"GATEFOLD_POSTGRES_OWNER_DSNS holds no DSN for {service}")
        done = await (migrate.apply_keys(dsns[service]) if service == KEYS else migrate.apply(dsns[service], service))
        for title in done:
            print(f"{service}: applied {title}")
        if not done:
            print(f"{service}: nothing to apply")


async def _bootstrap(services: Sequence[str], settings: AdminConfig) -> None:
    passwords = _object(settings.postgres_passwords, "postgres_passwords")
    own = [service for service in services if service != KEYS]
    for service in own:
        await migrate.bootstrap(settings.postgres_admin_dsn, service, passwords)
        print(f"{service}: schema and roles are there")
    if KEYS in services:
        if settings.keys_admin_dsn is None:
            raise MigrationError("GATEFOLD_KEYS_ADMIN_DSN is missing")
        await migrate.bootstrap_keys(settings.keys_admin_dsn, own, passwords)
        print(f"{KEYS}: schema and roles are there")


def _object(secret: Secret, name: str) -> dict[str, str]:
    try:
        found = orjson.loads(secret.reveal())
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise MigrationError(f"GATEFOLD_{name.upper()} must be a JSON object of texts")
    return found


if __name__ == "__main__":
    sys.exit(main())
