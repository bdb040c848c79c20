"""Owns the statements on imports and their problems."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from libs.postgres import Connection
from services.subscriber.domain.import_job import Counts, ImportJob
from services.subscriber.domain.member_record import Problem


@dataclass(frozen=True)
class StoredImport:
    """An import's row: the job, whether its account is live, and its events so far."""

    job: ImportJob
    live: bool
    sequence: int


async def insert(conn: Connection, account: UUID, job: ImportJob, *, live: bool) -> None:
    """Adds an import in its first state."""
    await conn.execute(
        """
        INSERT INTO import_job (
            account_id, id, sequence, state, live, complimentary_feature, total, created, updated, unchanged,
            duplicates, refused, refused_by_reason, ignored_columns, failure, created_at, finished_at)
        VALUES ($1, $2, 0, $3, $4, $5, 0, 0, 0, 0, 0, 0, '{}', '{}', '', $6, NULL)
        """,
        account,
        job.id,
        job.state,
        live,
        job.complimentary_feature,
        job.created_at,
    )


async def find(conn: Connection, account: UUID, import_id: UUID) -> StoredImport | None:
    """Returns an import."""
    row = await conn.fetchrow(
        """
        SELECT id, sequence, state, live, complimentary_feature, total, created, updated, unchanged, duplicates,
               refused, refused_by_reason, ignored_columns, failure, created_at, finished_at
        FROM import_job WHERE account_id = $1 AND id = $2
        """,
        account,
        import_id,
    )
    return None if row is None else _stored(row)


async def lock(conn: Connection, account: UUID, import_id: UUID) -> StoredImport | None:
    """Returns an import, which no one else changes until the transaction ends."""
    row = await conn.fetchrow(
        """
        SELECT id, sequence, state, live, complimentary_feature, total, created, updated, unchanged, duplicates,
               refused, refused_by_reason, ignored_columns, failure, created_at, finished_at
        FROM import_job WHERE account_id = $1 AND id = $2 FOR UPDATE
        """,
        account,
        import_id,
    )
    return None if row is None else _stored(row)


async def queue(conn: Connection, account: UUID, import_id: UUID) -> None:
    """Notes that an import's file has arrived."""
    await conn.execute(
        "UPDATE import_job SET state = 'queued' WHERE account_id = $1 AND id = $2 AND state = 'receiving'",
        account,
        import_id,
    )


async def update(conn: Connection, account: UUID, job: ImportJob, sequence: int) -> None:
    """Writes an import's new state; the database refuses counts that do not add up."""
    await conn.execute(
        """
        UPDATE import_job SET
            sequence = $3, state = $4, total = $5, created = $6, updated = $7, unchanged = $8, duplicates = $9,
            refused = $10, refused_by_reason = $11::jsonb, ignored_columns = $12, failure = $13, finished_at = $14
        WHERE account_id = $1 AND id = $2
        """,
        account,
        job.id,
        sequence,
        job.state,
        job.total,
        job.counts.created,
        job.counts.updated,
        job.counts.unchanged,
        job.counts.duplicates,
        job.counts.refused,
        orjson.dumps(dict(job.counts.refused_by_reason)).decode(),
        list(job.ignored_columns),
        job.failure,
        job.finished_at,
    )


async def insert_problems(conn: Connection, account: UUID, import_id: UUID, problems: Sequence[Problem]) -> None:
    """Adds problems in one statement."""
    await conn.execute(
        """
        INSERT INTO import_problem (account_id, import_id, line, reason, column_name)
        SELECT $1, $2, line, reason, column_name
        FROM unnest($3::bigint[], $4::text[], $5::text[]) AS new (line, reason, column_name)
        """,
        account,
        import_id,
        [problem.line for problem in problems],
        [problem.reason for problem in problems],
        [problem.column for problem in problems],
    )


async def problems_page(conn: Connection, account: UUID, import_id: UUID, after_line: int, limit: int) -> list[Problem]:
    """Returns problems by rising line."""
    rows = await conn.fetch(
        """
        SELECT line, reason, column_name FROM import_problem
        WHERE account_id = $1 AND import_id = $2 AND line > $3 ORDER BY line LIMIT $4
        """,
        account,
        import_id,
        after_line,
        limit,
    )
    return [Problem(row["line"], row["reason"], row["column_name"]) for row in rows]


def _stored(row: Any) -> StoredImport:
    counts = Counts(
        created=row["created"],
        updated=row["updated"],
        unchanged=row["unchanged"],
        duplicates=row["duplicates"],
        refused=row["refused"],
        refused_by_reason=orjson.loads(row["refused_by_reason"]),
    )
    job = ImportJob(
        id=row["id"],
        state=row["state"],
        total=row["total"],
        counts=counts,
        ignored_columns=tuple(row["ignored_columns"]),
        complimentary_feature=row["complimentary_feature"],
        failure=row["failure"],
        created_at=row["created_at"],
        finished_at=row["finished_at"],
    )
    return StoredImport(job, row["live"], row["sequence"])
