"""Owns the simulator's state: one SQLite file, so that whatever was answered outlives kill -9."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.local.stripe.problems import Json

_SCHEMA = """
CREATE TABLE IF NOT EXISTS object (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    account TEXT NOT NULL,
    live INTEGER NOT NULL,
    kind TEXT NOT NULL,
    id TEXT NOT NULL UNIQUE,
    created INTEGER NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS object_kind ON object (account, live, kind, seq);
CREATE TABLE IF NOT EXISTS answer (
    account TEXT NOT NULL,
    live INTEGER NOT NULL,
    key TEXT NOT NULL,
    path TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    request_id TEXT NOT NULL,
    created INTEGER NOT NULL,
    status INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (account, live, key)
);
CREATE TABLE IF NOT EXISTS delivery (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    account TEXT NOT NULL,
    live INTEGER NOT NULL,
    endpoint TEXT NOT NULL,
    event TEXT NOT NULL,
    type TEXT NOT NULL,
    made_at REAL NOT NULL,
    due_at REAL,
    attempts INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'pending',
    last_status INTEGER,
    last_error TEXT
);
CREATE INDEX IF NOT EXISTS delivery_due ON delivery (due_at) WHERE state = 'pending';
CREATE TABLE IF NOT EXISTS fault (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    left_over INTEGER NOT NULL,
    body TEXT NOT NULL
);
"""


@dataclass(frozen=True)
class Scope:
    """Whose objects: a Stripe account, in live or in test mode."""

    account: str
    live: bool


class Store:
    """All rows; used from one thread, each call of the API in one transaction."""

    def __init__(self, path: Path | None) -> None:
        self._db = sqlite3.connect(path or ":memory:", isolation_level=None)
        self._db.row_factory = sqlite3.Row
        # WAL with NORMAL loses nothing when the process dies; only a power cut may take the last moments.
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commits at the end of the block; an exception undoes it."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Within a transaction: an exception undoes the block alone, and goes on."""
        self._db.execute("SAVEPOINT block")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK TO block")
            raise
        finally:
            self._db.execute("RELEASE block")

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """Runs a statement and returns its rows."""
        return self._db.execute(statement, values).fetchall()

    # --- Stripe objects -----------------------------------------------------------------------------------------------

    def put(self, scope: Scope, body: Json) -> None:
        """Writes an object, new or changed."""
        self._db.execute(
            "INSERT INTO object (account, live, kind, id, created, body) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET body = excluded.body",
            (scope.account, scope.live, body["object"], body["id"], body.get("created", 0), json.dumps(body)),
        )

    def get(self, scope: Scope, kind: str, object_id: str) -> Json | None:
        """Returns an object of the account; None when it has none of that kind and id."""
        rows = self.run(
            "SELECT body FROM object WHERE id = ? AND account = ? AND live = ? AND kind = ?",
            (object_id, scope.account, scope.live, kind),
        )
        return json.loads(rows[0]["body"]) if rows else None

    def find(self, kind: str, object_id: str) -> tuple[Scope, Json] | None:
        """Returns an object of whichever account."""
        rows = self.run("SELECT account, live, body FROM object WHERE id = ? AND kind = ?", (object_id, kind))
        return (Scope(rows[0]["account"], bool(rows[0]["live"])), json.loads(rows[0]["body"])) if rows else None

    def all(self, scope: Scope, kind: str) -> list[Json]:
        """Returns all objects of a kind, newest first."""
        rows = self.run(
            "SELECT body FROM object WHERE account = ? AND live = ? AND kind = ? ORDER BY seq DESC",
            (scope.account, scope.live, kind),
        )
        return [json.loads(row["body"]) for row in rows]

    def everything(self, kind: str) -> list[Json]:
        """Returns all objects of a kind of every account, oldest first."""
        return [
            json.loads(row["body"]) for row in self.run("SELECT body FROM object WHERE kind = ? ORDER BY seq", (kind,))
        ]

    def delete(self, scope: Scope, object_id: str) -> None:
        """Removes an object."""
        self._db.execute(
            "DELETE FROM object WHERE id = ? AND account = ? AND live = ?", (object_id, scope.account, scope.live)
        )
