"""Owns the key hierarchy at run time: makes, unwraps, caches, rotates and destroys keys."""

import hmac
import os
import struct
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Literal
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from libs import errors
from libs.clock import WallClock
from libs.config import Secret
from libs.kill_points import KillPoints
from libs.postgres import Database
from libs.telemetry import Telemetry
from libs.vault import keys
from libs.vault.cache import KeyCache
from libs.vault.cipher import NONCE_BYTES, Cipher, DamagedError, KeyDestroyed, Randomness
from libs.vault.provider import KEY_BYTES, KeyProvider, provider

Purpose = Literal["profile", "retained"]
PURPOSES: tuple[Purpose, ...] = ("profile", "retained")
INDEX_BYTES = 16
CACHE_LIFETIME = timedelta(minutes=5)
_BATCH = 500
# What a subject key's wrapping is bound to: account, subject, purpose number, key version, account key version.
_WRAPPING = struct.Struct(">16s16sBII")
_PURPOSE_NUMBERS: Mapping[str, int] = MappingProxyType({"profile": 1, "retained": 2})


@dataclass(frozen=True)
class VaultConfig:
    """Where wrapped keys are, and what wraps account keys."""

    keys_dsn: Secret
    key_file: Path | None = None
    key_provider: str = "file"
    keys_pool_size: int = 2


@dataclass(frozen=True, repr=False)
class _AccountKeys:
    """An account's unwrapped keys."""

    current: int
    versions: Mapping[int, bytes]
    wrapping: Mapping[int, AESGCM]
    index_key: bytes


class BlindIndexer:
    """Makes look-up values of one account: equal for equal texts, and meaningless without the account's index key."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def index(self, kind: str, value: str) -> bytes:
        """Returns 16 bytes: HMAC-SHA-256 over the kind and the value in NFKC, case-folded, without outer spaces."""
        # Folding can undo the composition (U+0345 and its like), so the form is made again after it.
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", value).casefold()).strip()
        # The length keeps kind and value apart whatever they contain.
        return hmac.digest(self._key, f"{len(kind)}:{kind}{folded}".encode(), "sha256")[:INDEX_BYTES]


class Vault:
    """Hands out ciphers for subjects and accounts. Unwrapped keys stay in memory for at most five minutes.

    A key destroyed by one replica is therefore unreadable everywhere five minutes later at the latest.
    """

    def __init__(
        self,
        database: Database,
        provider: KeyProvider,
        clock: WallClock,
        *,
        randomness: Randomness = os.urandom,
        cache_size: int = 10_000,
    ) -> None:
        self._db = database
        self._provider = provider
        self._clock = clock
        self._randomness = randomness
        self._subjects: KeyCache[tuple[UUID, UUID, str], Cipher] = KeyCache(
            clock, size=cache_size, lifetime=CACHE_LIFETIME
        )
        self._accounts: KeyCache[UUID, _AccountKeys] = KeyCache(clock, size=1_000, lifetime=CACHE_LIFETIME)

    @classmethod
    async def open(
        cls,
        config: VaultConfig,
        clock: WallClock,
        *,
        kill_points: KillPoints | None = None,
        telemetry: Telemetry | None = None,
        randomness: Randomness = os.urandom,
    ) -> "Vault":
        """Connects to the keys database; raises ProviderError when the key provider is set up wrongly."""
        wraps = provider(config.key_provider, config.key_file, randomness)
        database = await Database.open(
            config.keys_dsn,
            service="keys",
            role="app",
            pool_size=config.keys_pool_size,
            kill_points=kill_points,
            telemetry=telemetry,
        )
        return cls(database, wraps, clock, randomness=randomness)

    async def close(self) -> None:
        """Forgets all keys and disconnects."""
        self._subjects.drop(lambda _: True)
        self._accounts.drop(lambda _: True)
        await self._db.close()

    async def ping(self) -> None:
        """Returns when the keys database answers; raises unavailable("database_unavailable")."""
        await self._db.ping()

    async def create_subjects(self, account: UUID, subjects: Sequence[UUID]) -> None:
        """Makes the keys of all purposes for subjects that have none; 500 subjects take one statement.

        Repeating it is harmless. A destroyed key is not made again. The account's first subject makes its account key.
        """
        held = await self._account(account, create=True)
        for start in range(0, len(subjects), _BATCH):
            rows = [
                self._new_subject_key(account, subject, purpose, held)
                for subject in subjects[start : start + _BATCH]
                for purpose in PURPOSES
            ]
            async with self._db.tenant(account, "create_subject_keys") as conn:
                await keys.insert_subject_keys(conn, account, rows, self._clock.wall())

    async def ciphers(
        self, account: UUID, subjects: Iterable[UUID], purpose: Purpose = "profile"
    ) -> dict[UUID, Cipher]:
        """Returns the subjects' ciphers, read in one statement; subjects with a destroyed or no key are left out."""
        found: dict[UUID, Cipher] = {}
        wanted: list[UUID] = []
        for subject in subjects:
            cipher = self._subjects.get((account, subject, purpose))
            if cipher is None:
                wanted.append(subject)
            else:
                found[subject] = cipher
        if wanted:
            found.update(await self._read(account, wanted, purpose))
        return found

    async def cipher(self, account: UUID, subject: UUID, purpose: Purpose = "profile") -> Cipher:
        """Returns the subject's cipher; raises KeyDestroyed, or not_found("subject_key_missing") when never made."""
        cipher = self._subjects.get((account, subject, purpose))
        if cipher is not None:
            return cipher
        ciphers = await self._read(account, [subject], purpose)
        if subject in ciphers:
            return ciphers[subject]
        if await self.is_destroyed(account, subject, purpose):
            raise KeyDestroyed
        raise errors.not_found("subject_key_missing", "There is no such person.")

    async def is_destroyed(self, account: UUID, subject: UUID, purpose: Purpose = "profile") -> bool:
        """Answers from the database whether the key has been destroyed."""
        async with self._db.tenant(account, "read_subject_keys", read_only=True) as conn:
            rows = await keys.subject_keys(conn, account, [subject], [purpose])
        return bool(rows) and all(row.wrapped is None for row in rows)

    async def destroy(self, account: UUID, subject: UUID, purpose: Purpose = "profile") -> None:
        """Overwrites the subject's key for good. Repeating it is harmless; the subject never gets another one."""
        async with self._db.tenant(account, "destroy_subject_key") as conn:
            await keys.destroy(conn, account, subject, purpose, self._clock.wall())
        self._subjects.discard((account, subject, purpose))

    async def account_cipher(self, account: UUID) -> Cipher:
        """Returns a cipher for what belongs to the account and to no subject, such as files and vendor secrets."""
        held = await self._account(account, create=True)
        derived = {version: AESGCM(_derive(key, "account-values")) for version, key in held.versions.items()}
        return Cipher(account, derived, self._randomness)

    async def indexer(self, account: UUID) -> BlindIndexer:
        """Returns what makes the account's look-up values, for work on many rows."""
        return BlindIndexer((await self._account(account, create=True)).index_key)

    async def blind_index(self, account: UUID, kind: str, value: str) -> bytes:
        """Returns the 16-byte look-up value of `value`; different for each account and kind (such as `email`)."""
        return (await self.indexer(account)).index(kind, value)

    async def signer(self, account: UUID, purpose: str) -> Callable[[bytes], bytes]:
        """Returns what makes HMAC-SHA-256 signatures under a key of the account and purpose; it outlives rotations."""
        key = _derive((await self._account(account, create=True)).index_key, f"sign/{purpose}")
        return lambda message: hmac.digest(key, message, "sha256")

    async def rotate_account_key(self, account: UUID) -> int:
        """Makes a new version of the account key; answers it. `rewrap` then moves the subject keys over."""
        held = await self._account(account, create=True)
        await self._store_account_key(account, held.current + 1, self._randomness(KEY_BYTES), held.index_key)
        self._accounts.discard(account)
        return (await self._account(account, create=True)).current

    async def rewrap(self, account: UUID, limit: int = _BATCH) -> int:
        """Re-wraps up to `limit` subject keys under the newest account key; answers how many are left.

        Data is not touched. Killed and repeated, it goes on where it was; at zero the older versions are retired.
        """
        held = await self._account(account, create=True)
        async with self._db.tenant(account, "rewrap_subject_keys") as conn:
            rows = await keys.keys_under_older_versions(conn, account, held.current, limit)
            fresh = [
                self._wrapped(account, row.subject, row.purpose, row.version, self._unwrapped(account, row, held), held)
                for row in rows
            ]
            await keys.rewrap(conn, account, fresh)
            left = await keys.count_under_older_versions(conn, account, held.current)
            if left == 0:
                await keys.retire_account_keys(conn, account, held.current, self._clock.wall())
        return left

    async def _read(self, account: UUID, subjects: Sequence[UUID], purpose: Purpose) -> dict[UUID, Cipher]:
        async with self._db.tenant(account, "read_subject_keys", read_only=True) as conn:
            rows = await keys.subject_keys(conn, account, subjects, [purpose])
        live = [row for row in rows if row.wrapped is not None]
        if not live:
            return {}
        held = await self._account_with(account, {row.account_key_version for row in live})
        versions: dict[UUID, dict[int, AESGCM]] = {}
        for row in live:
            versions.setdefault(row.subject, {})[row.version] = AESGCM(self._unwrapped(account, row, held))
        ciphers = {subject: Cipher(account, found, self._randomness) for subject, found in versions.items()}
        for subject, cipher in ciphers.items():
            self._subjects.put((account, subject, purpose), cipher)
        return ciphers

    async def _account_with(self, account: UUID, versions: set[int]) -> _AccountKeys:
        held = await self._account(account, create=False)
        if not versions <= held.versions.keys():
            # Another replica has rotated the account key since it was cached here.
            self._accounts.discard(account)
            held = await self._account(account, create=False)
        return held

    async def _account(self, account: UUID, *, create: bool) -> _AccountKeys:
        held = self._accounts.get(account)
        if held is not None:
            return held
        rows = await self._account_rows(account)
        if not rows and create:
            await self._store_account_key(account, 1, self._randomness(KEY_BYTES), self._randomness(KEY_BYTES))
            # Read again: another replica may have been first.
            rows = await self._account_rows(account)
        if not rows:
            raise errors.not_found("account_key_missing", "The account holds no personal data.")
        versions: dict[int, bytes] = {}
        for row in rows:
            context = _account_context(account, row.version, "wrap")
            versions[row.version] = await self._provider.unwrap(row.wrapped, context, row.provider_key_id)
        newest = rows[-1]
        index_context = _account_context(account, newest.version, "index")
        index_key = await self._provider.unwrap(newest.index_key_wrapped, index_context, newest.provider_key_id)
        wrapping = {version: AESGCM(key) for version, key in versions.items()}
        held = _AccountKeys(newest.version, versions, wrapping, index_key)
        self._accounts.put(account, held)
        return held

    async def _account_rows(self, account: UUID) -> list[keys.AccountKeyRow]:
        async with self._db.tenant(account, "read_account_keys", read_only=True) as conn:
            return await keys.account_keys(conn, account)

    async def _store_account_key(self, account: UUID, version: int, key: bytes, index_key: bytes) -> None:
        row = keys.AccountKeyRow(
            version,
            self._provider.name,
            self._provider.key_id,
            await self._provider.wrap(key, _account_context(account, version, "wrap")),
            await self._provider.wrap(index_key, _account_context(account, version, "index")),
        )
        async with self._db.tenant(account, "create_account_key") as conn:
            await keys.insert_account_key(conn, account, row, self._clock.wall())

    def _new_subject_key(self, account: UUID, subject: UUID, purpose: str, held: _AccountKeys) -> keys.SubjectKeyRow:
        return self._wrapped(account, subject, purpose, 1, self._randomness(KEY_BYTES), held)

    def _wrapped(
        self, account: UUID, subject: UUID, purpose: str, version: int, key: bytes, held: _AccountKeys
    ) -> keys.SubjectKeyRow:
        nonce = self._randomness(NONCE_BYTES)
        context = _subject_context(account, subject, purpose, version, held.current)
        wrapped = nonce + held.wrapping[held.current].encrypt(nonce, key, context)
        return keys.SubjectKeyRow(subject, purpose, version, wrapped, held.current)

    def _unwrapped(self, account: UUID, row: keys.SubjectKeyRow, held: _AccountKeys) -> bytes:
        assert row.wrapped is not None
        context = _subject_context(account, row.subject, row.purpose, row.version, row.account_key_version)
        wrapping = held.wrapping.get(row.account_key_version)
        if wrapping is None:
            raise DamagedError
        try:
            return wrapping.decrypt(row.wrapped[:NONCE_BYTES], row.wrapped[NONCE_BYTES:], context)
        except InvalidTag:
            raise DamagedError from None


def _subject_context(account: UUID, subject: UUID, purpose: str, version: int, account_version: int) -> bytes:
    return _WRAPPING.pack(account.bytes, subject.bytes, _PURPOSE_NUMBERS[purpose], version, account_version)


def _account_context(account: UUID, version: int, use: str) -> bytes:
    return account.bytes + struct.pack(">I", version) + use.encode()


def _derive(key: bytes, use: str) -> bytes:
    """Returns a key for one use (HKDF, RFC 5869), so that no key serves two."""
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=f"gatefold/{use}".encode()).derive(key)
