"""Roles made from an empty server on."""

import asyncio

import asyncpg
import pytest

from libs import migrate
from libs.config import Secret
from libs.migrate import MigrationError
from libs.migrate.roles import scram_verifier
from tests.support.stores import TestPostgres, role_dsn

PASSWORDS = dict.fromkeys(migrate.roles_of("roles"), "first-password")


async def can_sign_in(server: TestPostgres, database: str, role: str, password: str) -> bool:
    try:
        connection = await asyncpg.connect(server.server.dsn(role, Secret(password), database).reveal())
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError):
        return False
    await connection.close()
    return True


async def test_bootstrap_may_run_again_and_replaces_passwords(postgres_server: TestPostgres) -> None:
    server = postgres_server.server
    await migrate.create_database(server.dsn(), "roles_again")
    admin = server.dsn(database="roles_again")
    await migrate.bootstrap(admin, "roles", PASSWORDS)
    assert await can_sign_in(postgres_server, "roles_again", "roles_app", "first-password")
    await migrate.bootstrap(admin, "roles", dict.fromkeys(PASSWORDS, "second password'; --"))
    assert await can_sign_in(postgres_server, "roles_again", "roles_app", "second password'; --")
    assert not await can_sign_in(postgres_server, "roles_again", "roles_app", "first-password")


async def test_services_may_be_bootstrapped_at_the_same_time(postgres_server: TestPostgres) -> None:
    server = postgres_server.server
    await migrate.create_database(server.dsn(), "roles_parallel")
    admin = server.dsn(database="roles_parallel")
    services = [f"parallel{number}" for number in range(5)]
    await asyncio.gather(
        *(migrate.bootstrap(admin, service, dict.fromkeys(migrate.roles_of(service), "x")) for service in services)
    )


async def test_an_admin_that_is_no_superuser_is_enough(postgres_server: TestPostgres) -> None:
    """As on a managed PostgreSQL."""
    server = postgres_server.server
    connection = await asyncpg.connect(server.dsn().reveal())
    await connection.execute("CREATE ROLE steward LOGIN CREATEROLE PASSWORD 'steward'")
    await connection.execute("CREATE DATABASE roles_managed OWNER steward")
    await connection.close()
    admin = server.dsn("steward", Secret("steward"), "roles_managed")
    passwords = dict.fromkeys(migrate.roles_of("managed"), "first-password")
    await migrate.bootstrap(admin, "managed", passwords)
    await migrate.bootstrap(admin, "managed", passwords)
    owner = server.dsn("managed_owner", Secret("first-password"), "roles_managed")
    assert "libs/0001_create_outbox" in await migrate.apply_components(owner, migrate.components_of("billing")[:2])


async def test_nobody_else_may_connect_to_a_services_database(postgres_server: TestPostgres) -> None:
    server = postgres_server.server
    await migrate.create_database(server.dsn(), "roles_closed")
    await migrate.bootstrap(server.dsn(database="roles_closed"), "roles", PASSWORDS)
    connection = await asyncpg.connect(server.dsn().reveal())
    await connection.execute("CREATE ROLE stranger LOGIN PASSWORD 'stranger'")
    await connection.close()
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await asyncpg.connect(server.dsn("stranger", Secret("stranger"), "roles_closed").reveal())


async def test_services_cannot_read_each_others_schema(postgres_server: TestPostgres) -> None:
    server = postgres_server.server
    await migrate.create_database(server.dsn(), "roles_shared")
    admin = server.dsn(database="roles_shared")
    for service in ("roles", "other"):
        await migrate.bootstrap(admin, service, dict.fromkeys(migrate.roles_of(service), "password-of-tests"))
        await migrate.apply_components(
            postgres_server.dsn("roles_shared", f"{service}_owner"), migrate.keys_components()[:1]
        )
    for role in ("other_app", "other_owner", "other_jobs", "other_backup"):
        connection = await asyncpg.connect(postgres_server.dsn("roles_shared", role).reveal())
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("SELECT number FROM roles.schema_migration")
        await connection.close()


async def test_a_password_is_demanded_for_each_role(postgres_server: TestPostgres) -> None:
    with pytest.raises(MigrationError, match="no password for role lone_app"):
        await migrate.bootstrap(postgres_server.server.dsn(), "lone", {"lone_owner": "x"})
    with pytest.raises(MigrationError, match="ASCII"):
        await migrate.bootstrap(postgres_server.server.dsn(), "lone", {"lone_owner": "pässword"})


async def test_a_service_reads_and_adds_keys_and_deletes_none(postgres_server: TestPostgres, keys_dsn: Secret) -> None:
    for role in ("billing_keys", "auth_keys"):
        connection = await asyncpg.connect(role_dsn(keys_dsn, role).reveal())
        assert await connection.fetchval("SELECT count(*) FROM subject_key") == 0
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("DELETE FROM subject_key")
        await connection.close()


def test_the_verifier_is_the_one_of_the_standards_example() -> None:
    """The example exchange of RFC 7677, section 3: its server signature and client proof follow from these keys."""
    import base64
    import hashlib
    import hmac

    verifier = scram_verifier("pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="))
    scheme, salt, keys = verifier.split("$")
    stored_key, server_key = (base64.b64decode(part) for part in keys.split(":"))
    assert (scheme, salt) == ("SCRAM-SHA-256", "4096:W22ZaJ0SNY7soEsUEjb6gQ==")
    message = (
        b"n=user,r=rOprNGfwEbeRWgbNEkqO,"
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    )
    signature = hmac.digest(server_key, message, "sha256")
    assert base64.b64encode(signature) == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    client_signature = hmac.digest(stored_key, message, "sha256")
    client_key = bytes(a ^ b for a, b in zip(proof, client_signature, strict=True))
    assert hashlib.sha256(client_key).digest() == stored_key
