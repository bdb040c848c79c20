"""Owns the files of imports in the object store: sealed under the account's key, gone when the import is over."""

import asyncio
from uuid import UUID

from libs.object_store import ObjectStore
from libs.vault import Vault

TABLE, FIELD = 205, 1
"""Stable numbers that a sealed file is bound to, as if it were a column of import_job."""


class ImportFiles:
    """Files by account and import."""

    def __init__(self, store: ObjectStore, vault: Vault) -> None:
        self._store = store
        self._vault = vault

    async def put(self, account: UUID, import_id: UUID, data: bytes) -> None:
        """Seals and stores a file, replacing an earlier attempt."""
        cipher = await self._vault.account_cipher(account)
        # Millions of bytes take long enough to keep other requests waiting.
        sealed = await asyncio.to_thread(cipher.seal, TABLE, FIELD, import_id, data)
        await self._store.put(_key(account, import_id), sealed)

    async def get(self, account: UUID, import_id: UUID) -> bytes:
        """Returns a file; raises what the object store and the vault raise."""
        sealed = await self._store.get(_key(account, import_id))
        cipher = await self._vault.account_cipher(account)
        return await asyncio.to_thread(cipher.open, TABLE, FIELD, import_id, sealed)

    async def delete(self, account: UUID, import_id: UUID) -> None:
        """Deletes a file; repeating it is harmless."""
        await self._store.delete(_key(account, import_id))


def _key(account: UUID, import_id: UUID) -> str:
    return f"imports/{account}/{import_id}"
