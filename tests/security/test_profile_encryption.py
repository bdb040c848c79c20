"""Attacks on encrypted profiles: what a thief of rows, of columns, of a database or of a file gets."""

import contextlib
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from libs.clock import FixedClock
from libs.config import Secret
from libs.errors import GatefoldError
from libs.ids import IdMaker
from libs.migrate import Component
from libs.migrate.files import shared_components
from libs.postgres import Database
from libs.vault import DamagedError, KeyDestroyed, ProviderError, Vault, VaultConfig
from tests.conftest import ServiceDb
from tests.support.stores import ServiceDatabase, TestPostgres

TABLE, EMAIL, NAME = 201, 1, 2
SECRET_EMAIL = "wilhelmina.secret@reader.example"
SECRET_NAME = "Wilhelmina Öhrström"

PROFILE = """-- kind: expand
-- min_compatible_code: 1
CREATE TABLE profile (
    account_id uuid NOT NULL, id uuid NOT NULL, subject_id uuid NOT NULL,
    email_sealed bytea, email_index bytea, name_sealed bytea,
    PRIMARY KEY (account_id, id), UNIQUE (account_id, email_index));
SELECT gatefold_tenant_table('profile');
SELECT gatefold_marks('profile', '{"account_id": "none", "id": "none",
    "subject_id": "pseudonym; basis: contract; retention: until_erasure",
    "email_sealed": "contact; basis: contract; retention: until_erasure; sealed: profile; field: 1",
    "email_index": "contact; basis: contract; retention: until_erasure; index",
    "name_sealed": "identity; basis: contract; retention: until_erasure; sealed: profile; field: 2"}'::jsonb);
"""


@pytest.fixture(scope="module")
async def profiles(service_db: ServiceDb, tmp_path_factory: pytest.TempPathFactory) -> ServiceDatabase:
    folder = tmp_path_factory.mktemp("migrations")
    (folder / "0001_create_profile.sql").write_text(PROFILE)
    return await service_db("vaulted", components=(*shared_components(), Component("vaulted", folder)))


@pytest.fixture
def provider_key(key_file: Path) -> bytes:
    return key_file.read_bytes()


@pytest.fixture
async def account(ids: IdMaker) -> UUID:
    return ids.new()


async def write_profile(profiles: ServiceDatabase, vault: Vault, account: UUID, subject: UUID, row: UUID) -> None:
    await vault.create_subjects(account, [subject])
    cipher = await vault.cipher(account, subject)
    async with profiles.app.tenant(account, "write_profile") as conn:
        await conn.execute(
            "INSERT INTO profile (account_id, id, subject_id, email_sealed, email_index, name_sealed)"
            " VALUES ($1, $2, $3, $4, $5, $6)",
            account,
            row,
            subject,
            cipher.seal(TABLE, EMAIL, row, SECRET_EMAIL.encode()),
            (await vault.blind_index(account, "email", SECRET_EMAIL)),
            cipher.seal(TABLE, NAME, row, SECRET_NAME.encode()),
        )


async def read(profiles: ServiceDatabase, account: UUID, row: UUID, column: str) -> bytes:
    async with profiles.app.tenant(account, "read_profile", read_only=True) as conn:
        rows = await conn.fetch("SELECT email_sealed, name_sealed FROM profile WHERE id = $1", row)
    sealed: bytes = rows[0][column]
    return sealed


async def test_a_ciphertext_pasted_into_another_row_column_or_account_does_not_open(
    profiles: ServiceDatabase, vault: Vault, ids: IdMaker, account: UUID
) -> None:
    subject, row, other_row = ids.new(), ids.new(), ids.new()
    await write_profile(profiles, vault, account, subject, row)
    sealed = await read(profiles, account, row, "email_sealed")
    cipher = await vault.cipher(account, subject)
    assert cipher.open(TABLE, EMAIL, row, sealed).decode() == SECRET_EMAIL
    for table, field, place in [(TABLE, EMAIL, other_row), (TABLE, NAME, row), (TABLE + 1, EMAIL, row)]:
        with pytest.raises(DamagedError):
            cipher.open(table, field, place, sealed)
    # The same subject id in another account, as an attacker with an account of their own would try.
    other_account = ids.new()
    await vault.create_subjects(other_account, [subject])
    with pytest.raises(DamagedError):
        (await vault.cipher(other_account, subject)).open(TABLE, EMAIL, row, sealed)


async def test_another_persons_key_does_not_open_a_value(
    profiles: ServiceDatabase, vault: Vault, ids: IdMaker, account: UUID
) -> None:
    subject, other, row = ids.new(), ids.new(), ids.new()
    await write_profile(profiles, vault, account, subject, row)
    await vault.create_subjects(account, [other])
    with pytest.raises(DamagedError):
        (await vault.cipher(account, other)).open(TABLE, EMAIL, row, await read(profiles, account, row, "email_sealed"))


async def test_a_wrapped_key_pasted_over_another_subjects_does_not_unwrap(
    vault: Vault, keys_dsn: Secret, key_file: Path, clock: FixedClock, ids: IdMaker, account: UUID
) -> None:
    victim, attacker = ids.new(), ids.new()
    await vault.create_subjects(account, [victim, attacker])
    database = await Database.open(keys_dsn, service="keys", role="app", pool_size=1)
    async with database.tenant(account, "attack") as conn:
        await conn.execute(
            "UPDATE subject_key SET wrapped = victim.wrapped FROM subject_key AS victim"
            " WHERE victim.subject_id = $1 AND subject_key.subject_id = $2 AND victim.purpose = subject_key.purpose",
            victim,
            attacker,
        )
    await database.close()
    with pytest.raises(DamagedError):
        await vault.cipher(account, attacker)


async def test_a_destroyed_key_makes_every_copy_of_the_value_unreadable(
    profiles: ServiceDatabase, vault: Vault, ids: IdMaker, account: UUID
) -> None:
    subject, row = ids.new(), ids.new()
    await write_profile(profiles, vault, account, subject, row)
    await vault.destroy(account, subject)
    with pytest.raises(KeyDestroyed) as erased:
        await vault.cipher(account, subject)
    assert (erased.value.reason, erased.value.kind.http_status) == ("subject_erased", 404)


async def test_one_account_sees_no_keys_of_another(vault: Vault, keys_dsn: Secret, ids: IdMaker, account: UUID) -> None:
    subject = ids.new()
    await vault.create_subjects(account, [subject])
    database = await Database.open(keys_dsn, service="keys", role="app", pool_size=1)
    queries = ("SELECT count(*) FROM subject_key", "SELECT count(*) FROM account_key")
    async with database.tenant(account, "own", read_only=True) as conn:
        own = [await conn.fetchval(query) for query in queries]
    async with database.tenant(ids.new(), "other", read_only=True) as conn:
        others = [await conn.fetchval(query) for query in queries]
    async with database.transaction("none", read_only=True) as conn:
        without = [await conn.fetchval(query) for query in queries]
    await database.close()
    assert (own, others, without) == ([2, 1], [0, 0], [0, 0])
    with pytest.raises(GatefoldError):
        await vault.cipher(ids.new(), subject)


async def test_the_database_holds_nothing_in_clear(
    profiles: ServiceDatabase,
    vault: Vault,
    ids: IdMaker,
    account: UUID,
    postgres_server: TestPostgres,
    provider_key: bytes,
) -> None:
    await write_profile(profiles, vault, account, ids.new(), ids.new())
    # In clear on purpose, so that a sweep which finds nothing is known to have looked.
    async with profiles.app.tenant(account, "write_marker") as conn:
        await conn.execute("INSERT INTO consumer_cursor (producer, cursor) VALUES ('sweep', 'in-clear-on-purpose')")
    admin = await asyncpg.connect(postgres_server.server.dsn().reveal())
    await admin.execute("CHECKPOINT")
    await admin.close()
    texts = (SECRET_EMAIL, SECRET_EMAIL.upper(), SECRET_NAME, SECRET_NAME.split()[0])
    needles = [text.encode(encoding) for text in texts for encoding in ("utf-8", "utf-16-le")]
    needles += [needle.hex().encode() for needle in needles]
    needles.append(provider_key)
    found = found_in_files(postgres_server.server.home / "data", [*needles, b"in-clear-on-purpose"])
    assert found == {b"in-clear-on-purpose"}


def found_in_files(directory: Path, needles: list[bytes]) -> set[bytes]:
    """Returns those of the needles that any file under the directory, write-ahead log included, contains."""
    found: set[bytes] = set()
    for path in directory.rglob("*"):
        # Files come and go while the server runs.
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                content = path.read_bytes()
                found.update(needle for needle in needles if needle in content)
    return found


async def test_a_key_file_that_others_can_read_is_refused(
    keys_dsn: Secret, tmp_path: Path, clock: FixedClock, provider_key: bytes
) -> None:
    exposed = tmp_path / "exposed.key"
    exposed.write_bytes(provider_key)
    exposed.chmod(0o644)
    with pytest.raises(ProviderError, match="chmod 600"):
        await Vault.open(VaultConfig(keys_dsn=keys_dsn, key_file=exposed), clock)


async def test_the_keys_database_is_worthless_without_the_key_file(
    vault: Vault, keys_dsn: Secret, tmp_path: Path, clock: FixedClock, ids: IdMaker, account: UUID
) -> None:
    subject = ids.new()
    await vault.create_subjects(account, [subject])
    guessed = tmp_path / "guessed.key"
    guessed.write_bytes(b"g" * 32)
    guessed.chmod(0o600)
    thief = await Vault.open(VaultConfig(keys_dsn=keys_dsn, key_file=guessed), clock)
    with pytest.raises(ProviderError):
        await thief.cipher(account, subject)
    await thief.close()
