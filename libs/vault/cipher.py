"""Owns the ciphertext format: how one value is sealed under a data key and bound to the place it is stored in."""

import struct
from collections.abc import Callable, Mapping
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from libs.errors import GatefoldError, Kind

Randomness = Callable[[int], bytes]

FORMAT = 1
NONCE_BYTES = 12
TAG_BYTES = 16
# Ciphertext: format (1 byte), key version (4), nonce (12), AES-256-GCM ciphertext and tag.
_HEADER = struct.Struct(">BI")
OVERHEAD_BYTES = _HEADER.size + NONCE_BYTES + TAG_BYTES
_BODY_AT = _HEADER.size + NONCE_BYTES
# Where a value belongs: account, table number, field number, row, key version.
_PLACE = struct.Struct(">16sHH16sI")


class KeyDestroyed(GatefoldError):  # noqa: N818 — says what happened
    """The subject's key, and with it the value, is gone for good: `not_found("subject_erased")`."""

    def __init__(self) -> None:
        super().__init__(Kind.NOT_FOUND, "subject_erased", "The person's data has been erased.")


class DamagedError(GatefoldError):
    """A sealed value was changed, or belongs to another place: `internal("sealed_value_damaged")`."""

    def __init__(self) -> None:
        super().__init__(Kind.INTERNAL, "sealed_value_damaged", "A stored value cannot be read.")


class Cipher:
    """Seals and opens the values of one subject (or account) under its data key.

    Bound to the place of the value by AES-256-GCM's associated data, so that a ciphertext copied to another account,
    table, column or row does not open. `table` and `field` are the stable numbers of SubjectTable and of the column's
    `field:` mark: never reuse one. A cipher holds unwrapped keys: ask the vault for it each time and do not keep it.
    """

    __slots__ = ("_account", "_current", "_header", "_keys", "_randomness", "_version")

    def __init__(self, account: UUID, keys: Mapping[int, AESGCM], randomness: Randomness) -> None:
        self._account = account.bytes
        self._keys = keys
        self._version = max(keys)
        self._current = keys[self._version].encrypt
        self._header = _HEADER.pack(FORMAT, self._version)
        self._randomness = randomness

    def seal(self, table: int, field: int, row: UUID, plaintext: bytes) -> bytes:
        """Returns the ciphertext, `OVERHEAD_BYTES` longer than the plaintext."""
        nonce = self._randomness(NONCE_BYTES)
        place = _PLACE.pack(self._account, table, field, row.bytes, self._version)
        return self._header + nonce + self._current(nonce, plaintext, place)

    def open(self, table: int, field: int, row: UUID, sealed: bytes) -> bytes:
        """Returns the plaintext; raises DamagedError, or KeyDestroyed where an erasure has emptied the value."""
        if not sealed:
            raise KeyDestroyed
        if len(sealed) < OVERHEAD_BYTES:
            raise DamagedError
        form, version = _HEADER.unpack_from(sealed)
        key = self._keys.get(version)
        if form != FORMAT or key is None:
            raise DamagedError
        place = _PLACE.pack(self._account, table, field, row.bytes, version)
        try:
            return key.decrypt(sealed[_HEADER.size : _BODY_AT], sealed[_BODY_AT:], place)
        except InvalidTag:
            raise DamagedError from None
