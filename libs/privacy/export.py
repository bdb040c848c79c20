"""Owns an export's records: a subject's rows as JSON lines, sealed values opened, page by page."""

import base64
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from libs.postgres import Database, Record
from libs.privacy.catalogue import ACCOUNT_SEALED, Catalogue, Column, columns, schema_version
from libs.privacy.erasure import of_subject, quoted
from libs.privacy.mark import WITHHELD
from libs.privacy.subject_table import SubjectTable
from libs.vault import PURPOSES, Cipher, Vault

PAGE_ROWS = 1_000
PART_BYTES = 256 * 1024


@dataclass(frozen=True)
class Part:
    """Some lines of one table; `sha256` is over all lines of the export so far."""

    table: str
    schema_version: int
    json_lines: bytes
    sha256: bytes


class Export:
    """One subject's data in one service."""

    def __init__(
        self, service: str, db: Database, vault: Vault, tables: Sequence[SubjectTable], account: UUID, subject: UUID
    ) -> None:
        self._service = service
        self._db = db
        self._vault = vault
        self._tables = tables
        self._account = account
        self._subject = subject

    async def parts(self) -> AsyncIterator[Part]:
        """Yields the export. Each page is a transaction of its own: a slow reader holds none open."""
        async with self._db.tenant(self._account, "read_catalogue", read_only=True) as conn:
            catalogue = await columns(conn)
            version = await schema_version(conn, self._service)
        ciphers = await self._ciphers(catalogue)
        digest = hashlib.sha256()
        for table in self._tables:
            async for lines in self._lines(table, catalogue[table.name], ciphers):
                digest.update(lines)
                yield Part(table.name, version, lines, digest.digest())

    async def _ciphers(self, catalogue: Catalogue) -> Mapping[str, Cipher]:
        """Returns the ciphers that the tables' sealed columns need; those of a destroyed key are missing."""
        needed = {
            column.mark.sealed
            for table in self._tables
            for column in catalogue[table.name]
            if column.mark is not None and column.mark.sealed
        }
        found: dict[str, Cipher] = {}
        for purpose in PURPOSES:
            if purpose in needed:
                ciphers = await self._vault.ciphers(self._account, [self._subject], purpose)
                if self._subject in ciphers:
                    found[purpose] = ciphers[self._subject]
        if ACCOUNT_SEALED in needed:
            found[ACCOUNT_SEALED] = await self._vault.account_cipher(self._account)
        return found

    async def _lines(
        self, table: SubjectTable, held: Sequence[Column], ciphers: Mapping[str, Cipher]
    ) -> AsyncIterator[bytes]:
        exported = [column for column in held if _exported(column)]
        key = sorted((column for column in held if column.key_place is not None), key=lambda one: one.key_place or 0)
        chosen = ", ".join(quoted(column.name) for column in dict.fromkeys((*exported, *key, *_row(table, held))))
        order = ", ".join(quoted(column.name) for column in key)
        first = f"SELECT {chosen} FROM {quoted(table.name)} WHERE {of_subject(table)}"  # noqa: S608
        places = ", ".join(f"${place}" for place in range(3, 3 + len(key)))
        after: list[object] = []
        lines = bytearray()
        while True:
            beyond = f" AND ({order}) > ({places})" if after else ""
            async with self._db.tenant(self._account, "export_subject", read_only=True) as conn:
                rows = await conn.fetch(
                    f"{first}{beyond} ORDER BY {order} LIMIT {PAGE_ROWS}", self._account, self._subject, *after
                )
            for row in rows:
                lines += _line(table, exported, row, ciphers)
                if len(lines) >= PART_BYTES:
                    yield bytes(lines)
                    lines.clear()
            if len(rows) < PAGE_ROWS:
                break
            after = [rows[-1][column.name] for column in key]
        if lines:
            yield bytes(lines)


def _exported(column: Column) -> bool:
    """Answers whether a column tells the person something: look-up values and credentials do not."""
    mark = column.mark
    return column.name != "account_id" and mark is not None and not mark.index and mark.category not in WITHHELD


def _row(table: SubjectTable, held: Sequence[Column]) -> list[Column]:
    return [column for column in held if column.name == table.row_column]


def _line(table: SubjectTable, exported: Sequence[Column], row: Record, ciphers: Mapping[str, Cipher]) -> bytes:
    values: dict[str, Any] = {}
    for column in exported:
        value = row[column.name]
        mark = column.mark
        if value is None or mark is None:
            values[column.name] = value
        elif mark.sealed:
            cipher = ciphers.get(mark.sealed)
            # Emptied, or under a key that is destroyed: there is nothing left to tell.
            opened = cipher.open(table.number, mark.field, row[table.row_column], value) if cipher and value else None
            values[_plain_name(column.name)] = _plain(opened, mark.json)
        elif column.type in ("json", "jsonb"):
            values[column.name] = orjson.Fragment(value)
        else:
            values[column.name] = value
    document = {"table": table.name, "columns": values}
    return orjson.dumps(document, default=_text, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z)


def _plain(opened: bytes | None, json: bool) -> Any:
    if opened is None:
        return None
    return orjson.Fragment(opened) if json else opened.decode("utf-8", "replace")


def _plain_name(name: str) -> str:
    return name.removesuffix("_sealed")


def _text(value: object) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
