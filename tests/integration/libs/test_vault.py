"""The vault on a real keys database: making, reading, rotating and destroying keys."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from libs.clock import FixedClock
from libs.config import Secret
from libs.errors import GatefoldError
from libs.ids import IdMaker
from libs.kill_points import KillPoints
from libs.postgres import Database
from libs.vault import KeyDestroyed, Vault, VaultConfig
from libs.vault.provider import FileKeyProvider

ROW = UUID(int=7)


class CountingProvider(FileKeyProvider):
    """The file provider, counting how often it is asked."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.asked = 0

    async def unwrap(self, wrapped: bytes, context: bytes, key_id: str) -> bytes:
        self.asked += 1
        return await super().unwrap(wrapped, context, key_id)


@pytest.fixture
async def keys_db(keys_dsn: Secret, tmp_path: Path) -> AsyncIterator[Database]:
    log = tmp_path / "transactions"
    points = KillPoints("keys", kill_log=log)
    database = await Database.open(keys_dsn, service="keys", role="app", pool_size=2, kill_points=points)
    yield database
    await database.close()


@pytest.fixture
async def other_replica(keys_dsn: Secret, key_file: Path, clock: FixedClock) -> AsyncIterator[Vault]:
    async with AsyncExitStack() as stack:
        opened = await Vault.open(VaultConfig(keys_dsn=keys_dsn, key_file=key_file), clock)
        stack.push_async_callback(opened.close)
        yield opened


async def test_a_subject_is_sealed_by_one_replica_and_opened_by_another(
    vault: Vault, other_replica: Vault, ids: IdMaker
) -> None:
    account, subject = ids.new(), ids.new()
    await vault.create_subjects(account, [subject])
    sealed = (await vault.cipher(account, subject)).seal(201, 1, ROW, b"reader@example.com")
    opened = (await other_replica.cipher(account, subject)).open(201, 1, ROW, sealed)
    assert opened == b"reader@example.com"


async def test_creating_subjects_again_keeps_their_keys(vault: Vault, other_replica: Vault, ids: IdMaker) -> None:
    account, subject = ids.new(), ids.new()
    await vault.create_subjects(account, [subject])
    sealed = (await vault.cipher(account, subject)).seal(201, 1, ROW, b"kept")
    await other_replica.create_subjects(account, [subject, ids.new()])
    assert (await other_replica.cipher(account, subject)).open(201, 1, ROW, sealed) == b"kept"


async def test_replicas_that_make_an_accounts_first_key_at_once_agree_on_one(
    vault: Vault, other_replica: Vault, ids: IdMaker
) -> None:
    account, first, second = ids.new(), ids.new(), ids.new()
    await asyncio.gather(vault.create_subjects(account, [first]), other_replica.create_subjects(account, [second]))
    assert set(await vault.ciphers(account, [first, second])) == {first, second}
    indexes = [await replica.blind_index(account, "email", "a@b.c") for replica in (vault, other_replica)]
    assert indexes[0] == indexes[1]


async def test_purposes_have_keys_of_their_own(vault: Vault, ids: IdMaker) -> None:
    account, subject = ids.new(), ids.new()
    await vault.create_subjects(account, [subject])
    sealed = (await vault.cipher(account, subject, "retained")).seal(301, 1, ROW, b"invoice address")
    await vault.destroy(account, subject, "profile")
    assert (await vault.cipher(account, subject, "retained")).open(301, 1, ROW, sealed) == b"invoice address"
    with pytest.raises(KeyDestroyed):
        await vault.cipher(account, subject, "profile")


async def test_five_hundred_subjects_are_made_and_read_in_one_transaction_each(
    keys_db: Database, key_file: Path, clock: FixedClock, ids: IdMaker, tmp_path: Path
) -> None:
    provider = CountingProvider(key_file)
    vault = Vault(keys_db, provider, clock)
    account = ids.new()
    await vault.blind_index(account, "email", "warm")
    log = tmp_path / "transactions"
    before, asked = log.read_text(), provider.asked
    subjects = [ids.new() for _ in range(500)]
    await vault.create_subjects(account, subjects)
    assert log.read_text().removeprefix(before).count(":before-commit:") == 1
    assert len(await vault.ciphers(account, subjects)) == 500
    assert provider.asked == asked, "the key provider is not asked per row"


async def test_a_destroyed_key_is_gone_from_the_database_and_stays_gone(
    vault: Vault, keys_db: Database, ids: IdMaker
) -> None:
    account, subject = ids.new(), ids.new()
    await vault.create_subjects(account, [subject])
    await vault.cipher(account, subject)
    await vault.destroy(account, subject)
    await vault.destroy(account, subject)
    with pytest.raises(KeyDestroyed) as erased:
        await vault.cipher(account, subject)
    assert erased.value.reason == "subject_erased"
    await vault.create_subjects(account, [subject])
    assert await vault.ciphers(account, [subject]) == {}
    async with keys_db.tenant(account, "look", read_only=True) as conn:
        left = await conn.fetch(
            "SELECT wrapped, destroyed_at FROM subject_key WHERE subject_id = $1 AND purpose = 'profile'", subject
        )
    assert [row["wrapped"] for row in left] == [None]
    assert all(row["destroyed_at"] is not None for row in left)


async def test_a_key_destroyed_elsewhere_is_unreadable_here_after_five_minutes(
    vault: Vault, other_replica: Vault, clock: FixedClock, ids: IdMaker
) -> None:
    account, subject = ids.new(), ids.new()
    await vault.create_subjects(account, [subject])
    await other_replica.cipher(account, subject)
    await vault.destroy(account, subject)
    clock.advance(timedelta(minutes=5))
    with pytest.raises(KeyDestroyed):
        await other_replica.cipher(account, subject)


async def test_a_subject_destroyed_before_it_had_a_key_never_gets_one(vault: Vault, ids: IdMaker) -> None:
    account, subject = ids.new(), ids.new()
    await vault.destroy(account, subject)
    await vault.create_subjects(account, [subject])
    with pytest.raises(KeyDestroyed):
        await vault.cipher(account, subject)


async def test_a_subject_that_was_never_made_is_not_found(vault: Vault, ids: IdMaker) -> None:
    with pytest.raises(GatefoldError) as missing:
        await vault.cipher(ids.new(), ids.new())
    assert missing.value.reason == "subject_key_missing"


async def test_rotation_rewraps_in_steps_and_changes_no_data(
    vault: Vault, other_replica: Vault, keys_db: Database, ids: IdMaker
) -> None:
    account = ids.new()
    subjects = [ids.new() for _ in range(5)]
    await vault.create_subjects(account, subjects)
    await other_replica.create_subjects(account, [ids.new()])
    sealed = (await vault.cipher(account, subjects[0])).seal(201, 1, ROW, b"kept")
    files = (await vault.account_cipher(account)).seal(205, 1, ROW, b"import")
    index = await vault.blind_index(account, "email", "reader@example.com")

    assert await vault.rotate_account_key(account) == 2
    left = [await vault.rewrap(account, limit=5) for _ in range(3)]
    assert left == [7, 2, 0]
    async with keys_db.tenant(account, "look", read_only=True) as conn:
        versions = await conn.fetch("SELECT DISTINCT account_key_version FROM subject_key")
        retired = await conn.fetch("SELECT version FROM account_key WHERE retired_at IS NOT NULL")
    assert [row["account_key_version"] for row in versions] == [2]
    assert [row["version"] for row in retired] == [1]
    # The other replica still holds the first version and finds the second by itself.
    assert (await other_replica.cipher(account, subjects[0])).open(201, 1, ROW, sealed) == b"kept"
    assert (await other_replica.account_cipher(account)).open(205, 1, ROW, files) == b"import"
    assert await vault.blind_index(account, "email", "reader@example.com") == index


async def test_signatures_differ_by_purpose_and_outlive_a_rotation(vault: Vault, ids: IdMaker) -> None:
    account = ids.new()
    signature = (await vault.signer(account, "a"))(b"message")
    assert (await vault.signer(account, "b"))(b"message") != signature
    await vault.rotate_account_key(account)
    assert (await vault.signer(account, "a"))(b"message") == signature


async def test_the_cache_is_bounded(keys_db: Database, key_file: Path, clock: FixedClock, ids: IdMaker) -> None:
    vault = Vault(keys_db, FileKeyProvider(key_file), clock, randomness=os.urandom, cache_size=10)
    account = ids.new()
    subjects = [ids.new() for _ in range(25)]
    await vault.create_subjects(account, subjects)
    assert len(await vault.ciphers(account, subjects)) == 25
    assert len(vault._subjects) == 10
