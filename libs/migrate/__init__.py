"""Owns the schemas: numbered SQL files, what of them a database has, and the roles that may touch it."""

from libs.migrate.apply import apply, apply_components, apply_keys, check
from libs.migrate.files import Component, Migration, MigrationError, components_of, keys_components, read
from libs.migrate.roles import KEYS_SCHEMA, bootstrap, bootstrap_keys, create_database, roles_of

__all__ = [
    "KEYS_SCHEMA",
    "Component",
    "Migration",
    "MigrationError",
    "apply",
    "apply_components",
    "apply_keys",
    "bootstrap",
    "bootstrap_keys",
    "check",
    "components_of",
    "create_database",
    "keys_components",
    "read",
    "roles_of",
]
